"""A real RTSP server for tests: GStreamer's test picture as H.264 at `rtsp://127.0.0.1:PORT/part`.

Run by Debian's own Python, which has GStreamer's bindings: `/usr/bin/python3 rtsp_server.py PORT`.
PORT 0 takes a free one. Prints the port once it listens; serves until it is killed.
"""

from __future__ import annotations

import sys
from typing import Any

WIDTH, HEIGHT, RATE = 320, 240, 25
PIPELINE = (
    f"( videotestsrc is-live=true ! video/x-raw,width={WIDTH},height={HEIGHT},framerate={RATE}/1 "
    "! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=5 ! rtph264pay name=pay0 pt=96 )"
)


def main(port: str) -> None:
    """Serve until killed."""
    import gi  # type: ignore[import-not-found]

    gi.require_version("Gst", "1.0")
    gi.require_version("GstRtspServer", "1.0")
    from gi.repository import GLib, Gst, GstRtspServer  # type: ignore[import-not-found]

    Gst.init(None)
    missing = [e for e in ("x264enc", "rtph264pay") if Gst.ElementFactory.find(e) is None]
    if missing:
        sys.exit(f"GStreamer has no {', '.join(missing)}")
    server: Any = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service(port)
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_launch(PIPELINE)
    factory.set_shared(True)
    server.get_mount_points().add_factory("/part", factory)
    if server.attach(None) == 0:
        sys.exit(f"port {port} cannot be had")
    print(server.get_bound_port(), flush=True)
    GLib.MainLoop().run()


if __name__ == "__main__":
    main(sys.argv[1])
