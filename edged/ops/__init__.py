"""Running the daemon: metrics, logs, and the supervisor's protocol.

Nothing here knows a camera, an engine or a sink. What happens on the line arrives through the
hooks of `core.observer`; what the operator sees leaves through Prometheus, journald and systemd.
"""
