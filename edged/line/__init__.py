"""The journey of a frame; read it in this order.

capture.py   one thread per camera: pictures in
station.py   a trigger, or a picture: Picture -> Frame -> Job, and exactly one answer in time
batch.py     where jobs wait, and who is let in when there is no room
infer.py     one thread per inference unit: Jobs -> Prediction
decide.py    Prediction -> Verdict, pure
publish.py   Inspection -> every sink
stations.py  all stations: their clock, their states, who may trigger them
host.py      models: start, stop, the jobs' way in; qualify.py asks an engine for proof first

Nothing here knows a camera driver, an inference runtime, a broker or a front door.
"""
