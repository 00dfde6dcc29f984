"""ONNX graphs, written here and nowhere else. The folder has the library's name; so has its job.

nodes.py      a graph node by node; the one home of the onnx library
half.py       a model's graph with its network in FP16
rounding.py   weights rounded so that what they add up to stays what it was
"""
