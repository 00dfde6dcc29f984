"""Where inspections leave the daemon: the archive, and the MQTT broker with its disk beside it.

    accept (unit threads) -> delivery.Inbox -> worker `outbox-<sink>`:
        result   actuation lane: published at once or dropped and counted; never late
        full     record lane: outbox.Outbox (fsync) -> replay.Replay -> broker, until PUBACK
                 or, of a station that confirms, until its confirmation

    accept (unit threads) -> queue -> worker `archive` -> files, journal -> subscribers

A sink may slow the line down only when its disk does, and then it says so. It must not judge,
change or reorder what it is given, and it knows nothing of pipelines, cameras or engines.
"""
