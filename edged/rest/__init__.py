"""The front door that speaks the Amazon Lookout for Vision API, version 2020-11-20.

A request's way:

    server.py        the port
    chain.py         who, what, allowed, not too often, well formed, once, done, written down
    sigv4.py         who asks: Signature Version 4
    protocol.py      HTTP in and out: routes, decodes a request to plain values, encodes the answer
    operations.py    every operation: path, code, members, and the function that answers it
    constraints.py   kinds of values, their constraints, and the check of a value against them

What is done:

    context.py        what every operation works with: rows, buckets, hosting, names
    projects.py       projects
    datasets.py       data sets and their entries
    trainings.py      CreateModel, and the trainings that it asks for
    training_data.py  what a model is to be trained on
    models.py         models that are trained: listed, started, stopped, deleted
    detection.py      DetectAnomalies
    packaging.py      packaging jobs
    tags.py           tags
    labels.py         LabelInspection, edged's own

Rows lie in store/. Where the old reference and the final service model differ, both are taken and
the newer form is answered.
"""
