"""The models that are hosted: from a job to its verdict.

    host.py     the models of this box: start, stop, and the one way in for jobs
    batch.py    where jobs wait, and who is let in when there is no room
    units.py    one thread per inference unit: jobs -> Prediction
    decide.py   Prediction -> Verdict, pure
    parity.py   an engine serves only if it reproduces what the trainer saw
    swap.py     another engine for a model that runs

Nothing here knows a camera, an inference runtime, a broker or a door: engines come as loaders.
"""
