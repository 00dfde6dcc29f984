"""Where inspections leave the daemon: the archive, and the MQTT broker with its disk beside it.

    accept (unit threads) -> delivery.Inbox -> worker `outbox-<sink>`:
        result   actuation lane: published at once or dropped and counted; never late
        full     record lane: outbox.Outbox (fsync) -> replay.Replay -> broker, until PUBACK
                 or, of a station that confirms, until its confirmation

    accept (unit threads) -> queue -> worker `archive` -> files, journal -> subscribers

    mqtt.py        the sink; inlet.py what comes in, courier.py what leaves next, lanes.py a
                   station's topics; link.py, dialling.py and access.py the connection
    delivery.py    the record lane: outbox.py and rows.py the disk, bounds.py and uptime.py its
                   bounds, reserve.py for a full one; replay.py, pace.py, proof.py the way out
    archive.py     journal.py and reading.py the rows, pictures.py the files, retention.py limits
    sparkplug.py   a node of Sparkplug B, on a connection of its own

A sink may slow the line down only when its disk does, and then it says so. It must not judge,
change or reorder what it is given, and it knows nothing of pipelines, cameras or engines.
"""
