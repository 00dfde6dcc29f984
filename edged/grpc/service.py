"""The Edge Agent of Amazon Lookout for Vision, answered by our own models.

Owns what each of the five calls means. Must not know sockets or threads of the data plane: it
reaches models through `ModelHost` alone. Runs on the loop's thread; whatever may take long (big
bitmaps, stopping a model) goes to an executor, so that it holds up no other client.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from edged.core.errors import (
    BadImage,
    DeadlineExceeded,
    EngineError,
    InvalidInput,
    NotFound,
)
from edged.core.lifecycle import EDGE_STATUS, ModelStatus
from edged.core.protocols import HostedModel, ModelHost
from edged.core.types import Image, Inspection, NoVerdict, Verdict
from edged.grpc import framing, shared_memory
from edged.grpc.calls import Calls, outcome
from edged.grpc.turns import Turns
from edged.wire import proto
from edged.wire.pb import edge_agent_pb2 as pb

NAME = "AWS.LookoutVision.EdgeAgent"
INLINE_BYTES = 4 * 1024 * 1024
"""Shared memory up to this size is read on the loop: in 0.4 ms at most (measured), which is about
what the way to a thread and back costs."""

T = TypeVar("T")


class EdgeAgentService:
    """AWS.LookoutVision.EdgeAgent over a ModelHost.

    pixels, control: where big bitmaps are converted, and where the host is started and stopped;
    two, because a stop that waits for work in progress must not keep pictures waiting.
    """

    def __init__(self, host: ModelHost, pixels: Executor, control: Executor) -> None:
        self._host = host
        self._pixels = pixels
        self._control = control
        self._turns = Turns()

    def handlers(self, calls: Calls) -> dict[str, Any]:
        """The gRPC method handlers by the method's name."""
        return {
            "DetectAnomalies": calls.unary(
                "DetectAnomalies",
                pb.DetectAnomaliesRequest,
                self.detect_anomalies,
                framing.read,
            ),
            "StartModel": calls.unary("StartModel", pb.StartModelRequest, self.start_model),
            "StopModel": calls.unary("StopModel", pb.StopModelRequest, self.stop_model),
            "ListModels": calls.unary("ListModels", pb.ListModelsRequest, self.list_models),
            "DescribeModel": calls.unary(
                "DescribeModel", pb.DescribeModelRequest, self.describe_model
            ),
        }

    async def detect_anomalies(
        self, detection: framing.Detection, context: Any
    ) -> pb.DetectAnomaliesResponse:
        """Judge one picture. Raises what `ModelHost.detect` raises, BadImage, InvalidInput."""
        request, pixels = detection
        deadline_ns = _deadline_ns(context.time_remaining())
        name = _component(request.model_component)
        # Before anything of that size is made.
        proto.check_sides(request.bitmap.width, request.bitmap.height)
        target = _mask_target(request, context.peer())
        async with self._turns.place(name) as turn:
            image = await self._image(request.bitmap, pixels)
            await turn.acquire()
            try:
                future = self._host.detect(name, image, deadline_ns)
            except BaseException:
                turn.release()
                raise
            # The turn lasts as long as the host works, also for a caller that has gone.
            verdict = _judged(await outcome(future, turn.release))
        result = proto.detect_anomaly_result(verdict)
        if verdict.mask is not None:
            await self._put_mask(verdict, target, result)
        return pb.DetectAnomaliesResponse(detect_anomaly_result=result)

    async def start_model(self, request: pb.StartModelRequest, _: Any) -> pb.StartModelResponse:
        """Begin to host a model; STARTING comes back at once. Raises NotFound, WrongState."""
        name = _component(request.model_component)
        status = await self._in(self._control, self._host.start, name)
        return pb.StartModelResponse(status=_status(status))

    async def stop_model(self, request: pb.StopModelRequest, _: Any) -> pb.StopModelResponse:
        """Stop hosting; answers when the model has stopped. Raises NotFound, WrongState."""
        name = _component(request.model_component)
        status = await self._in(self._control, self._host.stop, name)
        return pb.StopModelResponse(status=_status(status))

    async def list_models(self, _: pb.ListModelsRequest, __: Any) -> pb.ListModelsResponse:
        """Every model that is trained, running or not."""
        models = [pb.ModelMetadata(**_facts(model)) for model in self._deployed()]
        return pb.ListModelsResponse(models=models)

    async def describe_model(
        self, request: pb.DescribeModelRequest, _: Any
    ) -> pb.DescribeModelResponse:
        """One model. Raises NotFound."""
        name = _component(request.model_component)
        for model in self._deployed():
            if model.name == name:
                description = pb.ModelDescription(**_facts(model))
                return pb.DescribeModelResponse(model_description=description)
        raise NotFound(f"No model component is called {name!r}; ListModels names them all.")

    def _deployed(self) -> list[HostedModel]:
        return [model for model in self._host.models() if model.status in EDGE_STATUS]

    async def _image(self, bitmap: pb.Bitmap, pixels: memoryview | None) -> Image:
        width, height = bitmap.width, bitmap.height
        if pixels is not None:
            return proto.image_from_rgb(width, height, pixels)
        source = bitmap.WhichOneof("data")
        if source is None:
            raise BadImage(proto.NO_PIXELS, "bitmap.data")
        if source == "byte_data":
            return proto.image_from_rgb(width, height, bitmap.byte_data)
        if bitmap.shared_memory_handle.size <= INLINE_BYTES:
            return _from_shared_memory(bitmap)
        return await self._in(self._pixels, _from_shared_memory, bitmap)

    async def _put_mask(
        self,
        verdict: Verdict,
        target: pb.SharedMemoryHandle | None,
        result: pb.DetectAnomalyResult,
    ) -> None:
        """Add the mask: RGB888 in the answer, or in the caller's shared memory."""
        pixels = await self._in(self._pixels, proto.mask_rgb, verdict)
        if pixels is None:
            return
        height, width = pixels.shape[:2]
        result.anomaly_mask.width, result.anomaly_mask.height = width, height
        if target is None:
            result.anomaly_mask.byte_data = pixels.tobytes()
            return
        await self._in(self._pixels, _to_shared_memory, target, pixels)
        result.anomaly_mask.shared_memory_handle.CopyFrom(target)
        result.anomaly_mask.shared_memory_handle.size = pixels.nbytes

    async def _in(self, executor: Executor, work: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(executor, work, *args)


def _component(name: str) -> str:
    if not name:
        raise InvalidInput(
            "model_component is missing: give the name of a model component.", "model_component"
        )
    return name


def _status(status: ModelStatus) -> pb.ModelStatus:
    word: pb.ModelStatus = pb.ModelStatus.Value(EDGE_STATUS[status])
    return word


def _facts(model: HostedModel) -> dict[str, Any]:
    """The four fields that ModelMetadata and ModelDescription share."""
    arn = ""  # a model whose folder cannot be read has no version, hence no ARN
    if model.spec is not None:
        version = model.spec.ref.version
        arn = f"arn:aws:lookoutvision:local:000000000000:model/{model.name}/{version}"
    return {
        "model_component": model.name,
        "lookout_vision_model_arn": arn,
        "status": _status(model.status),
        "status_message": model.message,
    }


def _deadline_ns(remaining: float | None) -> int:
    """The client's deadline on our monotonic clock; 0 = it has none."""
    if remaining is None:
        return 0
    if remaining <= 0:
        raise DeadlineExceeded("The call's deadline had passed when it arrived.")
    return time.monotonic_ns() + int(remaining * 1e9)


def _from_shared_memory(bitmap: pb.Bitmap) -> Image:
    width, height, handle = bitmap.width, bitmap.height, bitmap.shared_memory_handle
    stride = proto.row_bytes(width, height, handle.size)
    pixels = shared_memory.read(handle.name, handle.size, handle.offset)
    return proto.image_from_rgb(width, height, pixels, stride)


def _to_shared_memory(target: pb.SharedMemoryHandle, pixels: npt.NDArray[np.uint8]) -> None:
    shared_memory.write(target.name, target.size, target.offset, pixels.reshape(-1).data)


def _mask_target(request: pb.DetectAnomaliesRequest, peer: str) -> pb.SharedMemoryHandle | None:
    """Where the caller wants its mask, if not in the answer.

    The published versions of the interface put the handle in field 2 or in field 3.
    """
    params = request.anomaly_mask_params
    for field in ("shared_memory_handle", "shared_memory_handle_v1"):
        if params.HasField(field):
            break
    else:
        return None
    # Anybody on this machine may connect by TCP: such a caller must not have us write into what
    # is not its own. Whoever reaches the Unix socket has been let in by its permissions.
    if not peer.startswith("unix:"):
        raise InvalidInput(
            "A mask in shared memory needs the Unix socket: connect there.", "anomaly_mask_params"
        )
    handle: pb.SharedMemoryHandle = getattr(params, field)
    width, height = request.bitmap.width, request.bitmap.height
    needed = 3 * width * height
    if handle.size < needed:
        raise InvalidInput(
            f"anomaly_mask_params: shared memory {handle.name[:80]!r} of {handle.size} bytes is "
            f"too small for a mask of {width}x{height} pixels: {needed} bytes are needed.",
            "anomaly_mask_params.shared_memory_handle.size",
        )
    return handle


def _judged(inspection: Inspection) -> Verdict:
    outcome = inspection.outcome
    if isinstance(outcome, NoVerdict):  # a host answers with a verdict or raises; never pass it
        raise EngineError(f"The picture was not judged: {outcome.reason.word}. {outcome.detail}")
    return outcome
