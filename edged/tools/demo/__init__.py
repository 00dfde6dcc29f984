"""`edged demo`: the main job on a machine that has no camera, no broker and no model.

It renders parts, trains a model for each product, starts the real daemon in a process of its own,
and is itself what stands around it: an embedded broker, a PLC's MQTT subscriber and an MES's gRPC
subscriber. Nothing in it is used by the daemon.
"""
