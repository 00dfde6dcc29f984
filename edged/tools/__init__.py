"""What a person asks of edged beside the daemon, and what the daemon has done beside the line.

    judge.py          a model on one engine: detect, evaluate, threshold
    training_job.py   train; also the process that a training runs in
    plan_build.py     builds TensorRT's plans; also the process that a build runs in
    replay.py         judges an archived part again
    label.py          an archived part becomes an entry of a data set
    check.py          what can be known about a configuration before it runs
    doctor.py         what is installed, what runs here, and why not
    demo/             the main job on a machine that has nothing

Each joins the rooms that it needs; none needs a daemon.
"""
