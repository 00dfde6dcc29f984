"""`edged demo`: the main job on a machine that has no camera, no broker and no model.

    run.py             from start to end: render, train, run, watch, report
    configuration.py   the box: its products, its stations, its configuration file
    broker.py          the embedded broker
    listeners.py       a PLC's view by MQTT, an MES's view by gRPC

It starts the real daemon in a process of its own, and is itself what stands around it. Nothing in
it is used by the daemon.
"""
