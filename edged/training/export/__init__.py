"""From what was fitted to a model folder.

graph.py    the whole model as one ONNX graph
record.py   what is written beside it: spec.json
folder.py   the folder, whole or not at all
"""
