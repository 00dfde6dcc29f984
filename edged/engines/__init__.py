"""Inference runtimes behind one EngineLoader. Each runtime is imported in its one home only.

onnxruntime.py   CPU everywhere; also runs the frozen backbone for training
openvino.py      CPU of Intel and AMD PCs, in single precision
choose.py        which of them serves a model when the configuration says `auto`

On a CPU, measured: as many units as cores, one thread each, batch 1, no spinning, costs nothing in
throughput against larger batches and has the best latency.
"""
