"""Sources of pictures for `core.protocols.Camera`.

Owns how a picture is had (OpenCV device or stream, folder, renderer), when it is stamped, and
whether a failure is a bad picture (BadImage: skip it) or a lost device (CameraError: reopen).
Must not know what becomes of a picture, make threads, or retry: line/capture.py does that.

    opencv.py     V4L2, RTSP and video files; a home of cv2
    folder.py     pictures of a folder
    simulation/   rendered parts with known truth, apart from the real drivers
    schedule.py   the fixed schedule of the two that have no clock of their own

Decision: a real camera's pictures are stamped between grab and decode, a replayed or rendered
one when it is due, after it is ready. Context: everything later is measured from that stamp.
Consequence: rendering and decoding time of a stand-in is not mistaken for latency.
"""
