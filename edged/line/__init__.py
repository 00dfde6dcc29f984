"""The line: cameras, stations, and one answer for each part. Read it in this order.

    capture.py      one thread per camera: pictures in
    station.py      a trigger, or a picture: Picture -> Frame -> Job, and exactly one answer in time
    in_progress.py  what a station keeps of the parts in progress
    judge.py        which model judges for a station
    clock.py        all stations: their clock, their states, who may trigger them
    publish.py      Inspection -> every sink, in order
    sequences.py    the numbers of frames, never given twice

Nothing here knows a camera driver, an inference runtime, a broker or a front door.
"""
