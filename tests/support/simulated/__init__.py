"""SIMULATED: a CUDA driver and a TensorRT runtime for machines without a GPU. For tests only.

The driver (softcuda.c) is strict and lazy: nothing on a stream runs until somebody waits for it, so
a forgotten wait or a buffer used too early is wrong every time. The compile side of the simulated
TensorRT is NVIDIA's own parser and builder; its run side computes with ONNX Runtime, on the very
addresses that it is given. Nothing here is reachable from the daemon.
"""
