"""The front door that speaks the Amazon Lookout for Vision API, version 2020-11-20.

    shapes.py     kinds of values and their constraints, and the check of a value against them
    api.py        the 22 operations: path, code, members; nothing but declarations
    protocol.py   HTTP in and out: routes, decodes a request to plain values, encodes the answer
    sigv4.py      who asks: Signature Version 4
    server.py     the port, and the request's way through all of these
    projects.py, datasets.py, models.py, tags.py, packaging.py, detection.py   what each one does

Rows lie in store/catalog.py. Where the old reference and the final service model differ, both are
taken and the newer form is answered.
"""
