"""Inference runtimes as `core.protocols.EngineLoader`. Each is imported in its one home only.

    choose.py        which engines may serve a model, best first, and how it is loaded on each
    tune.py          how fast each is here, and how it is used best: measured in other processes
    onnxruntime.py   CPU everywhere, or CUDA; also runs the frozen backbone for training
    openvino.py      CPU of Intel and AMD PCs, in single precision or bfloat16
    tensorrt.py      NVIDIA's GPUs, from a plan that was built before
    cuda.py          what that needs of CUDA
    plan.py          how a plan is built, and how it is kept
    machine.py       what a plan depends on here, asked in a process of its own

On a CPU, measured: as many units as cores, one thread each, batch 1, no spinning, costs nothing in
throughput against larger batches and has the best latency.
"""
