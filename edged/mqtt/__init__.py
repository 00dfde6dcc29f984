"""Results by MQTT, triggers and commands by MQTT; beside it a node of Sparkplug B.

    accept (unit threads) -> outbox/writer.py: Inbox -> worker `outbox-mqtt`:
        record to disk, then the result: published at once or dropped and counted, never late
        full, the record: as outbox/send_order.py says, until PUBACK or the receiver's confirmation

    sink.py          the Sink: what is done in which order
    topics.py        a station's topics: what comes in on them, the form of what goes out
    outgoing.py      which message leaves next, and what the broker's answer means
    connection.py    the connection, and the worker thread that has it; the home of paho
    dialling.py      when to call the broker, in which version
    credentials.py   what is shown to the broker
    sparkplug.py     the Sink that speaks Sparkplug B

A sink may slow the line down only when its disk does, and then it says so. It must not judge,
change or reorder what it is given, and it knows nothing of the line, cameras or engines.
"""
