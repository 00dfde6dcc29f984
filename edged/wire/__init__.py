"""Every form in which edged's values leave or enter the process.

    results.py     an inspection: for the PLC (flat, 64 bytes), for MES and API
    plc.py         what a PLC says: triggers, commands, deliveries; and its acks
    proto.py       values of core as protobuf messages, and back
    sparkplug.py   Sparkplug B: births, data, deaths and their numbers
    manifest.py    lines of Ground Truth manifests
    spec.py        a model folder's spec.json
    imaging.py     pictures as bytes, files and arrays; a home of cv2
    pb/            generated from protos/

Pure functions, but for imaging.py and spec.py, which read and write the files that they are about.
"""
