"""The doors of the agent with a stand-in for the data plane: no engine runs here."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from edged.config import GrpcConfig
from edged.core.errors import NotFound, WrongState
from edged.core.lifecycle import MODEL_LIFE, ModelEvent, ModelStatus, advance
from edged.core.observer import Observer
from edged.core.protocols import HostedModel, Labels, LiveJournal, Stations
from edged.core.types import (
    Anomaly,
    Frame,
    Image,
    Inspection,
    ModelRef,
    ModelSpec,
    NoVerdict,
    Timing,
    Verdict,
)
from edged.grpc.results import ResultsStream
from edged.grpc.server import Doors
from edged.runtime.workers import Crew, Deadline
from edged.wire.pb import edge_agent_pb2 as pb

SPEC = ModelSpec(ModelRef("screws", "3", "ab" * 32), 64, 64, 0.5)


class StandInHost:
    """A ModelHost without engines: it keeps states by the table and answers by a fixed rule.

    The real host needs a trained model and a runtime. The score is the mean of the blue channel.
    """

    def __init__(self) -> None:
        self.status = {"screws": ModelStatus.HOSTED, "idle": ModelStatus.TRAINED}
        self.status["young"] = ModelStatus.TRAINING
        self.images: list[Image] = []
        self.deadlines: list[int] = []
        self.error: Exception | None = None
        self.mask: np.ndarray | None = None
        self.no_verdict: NoVerdict | None = None
        self.held: list[Future[Inspection]] = []
        self.hold = False
        self.detecting = threading.Event()
        self.may_stop = threading.Event()
        self.may_stop.set()
        self.stopping = threading.Event()

    def start(self, name: str) -> ModelStatus:
        self._known(name)
        self.status[name] = advance(MODEL_LIFE, self.status[name], ModelEvent.START, name)
        return self.status[name]

    def stop(self, name: str) -> ModelStatus:
        self._known(name)
        self.status[name] = advance(MODEL_LIFE, self.status[name], ModelEvent.STOP, name)
        self.stopping.set()
        assert self.may_stop.wait(20)
        self.status[name] = advance(MODEL_LIFE, self.status[name], ModelEvent.STOPPED, name)
        return self.status[name]

    def models(self) -> list[HostedModel]:
        return [
            HostedModel(n, s, f"{n} is {s.value}.", SPEC if n == "screws" else None)
            for n, s in sorted(self.status.items())
        ]

    def detect(self, name: str, image: Image, deadline_ns: int = 0) -> Future[Inspection]:
        self._known(name)
        if self.error is not None:
            raise self.error
        if self.status[name] is not ModelStatus.HOSTED:
            raise WrongState(f"{name} is {self.status[name].value}: start it first.")
        self.images.append(image)
        self.deadlines.append(deadline_ns)
        future: Future[Inspection] = Future()
        if self.hold:
            self.held.append(future)
        else:
            future.set_result(self.judge(image))
        self.detecting.set()
        return future

    def judge(self, image: Image) -> Inspection:
        score = float(image[..., 0].mean()) / 255
        anomalies = (
            ()
            if self.mask is None
            else (
                Anomaly("background", 0.5, "#FFFFFF"),
                Anomaly("dent", 0.5, "#0000FF"),
            )
        )
        verdict = Verdict(
            score >= 0.5, max(score, 1 - score), score, 0.5, anomalies, mask=self.mask
        )
        frame = Frame("request", 1, 1, datetime.now(timezone.utc), image)
        return Inspection(frame, SPEC.ref, self.no_verdict or verdict, Timing(1))

    def _known(self, name: str) -> None:
        if name not in self.status:
            raise NotFound(f"No model is called {name!r}.")


class Listener(Observer):
    """Remembers what the doors said about calls."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str]] = []
        self.changed = threading.Condition()

    def request_done(self, method: str, code: str, seconds: float) -> None:
        assert seconds >= 0
        with self.changed:
            self.done.append((method, code))
            self.changed.notify_all()

    def wait_for(self, method: str, code: str) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: (method, code) in self.done, 20), self.done


class Box:
    """Doors with all they need, on a socket in `folder` and on a free TCP port."""

    def __init__(
        self,
        folder: Path,
        listen: str | None = "127.0.0.1:0",
        stations: Stations | None = None,
        journal: LiveJournal | None = None,
        capacity: int = 64,
        labels: Labels | None = None,
        **config: Any,
    ) -> None:
        self.socket = folder / "run" / "edged.sock"
        self.host = StandInHost()
        self.observer = Listener()
        self.results = ResultsStream(capacity, journal)
        self.results.start()
        self.crew = Crew()
        self.deadline = Deadline()
        section = GrpcConfig(socket=self.socket, listen=listen, **config)
        self.doors = Doors(
            section,
            self.host,
            self.results,
            self.crew,
            self.observer,
            self.deadline,
            stations,
            labels,
        )

    @property
    def targets(self) -> dict[str, str]:
        assert self.doors.address is not None
        return {"unix": f"unix:{self.socket}", "tcp": self.doors.address}


@contextmanager
def channel(target: str) -> Iterator[grpc.Channel]:
    lifted = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    with grpc.insecure_channel(target, options=lifted) as opened:
        yield opened


def pixels(width: int = 64, height: int = 64) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (height, width, 3), dtype=np.uint8)


def ask(
    rgb: np.ndarray | None = None, model: str = "screws", **more: object
) -> pb.DetectAnomaliesRequest:
    rgb = pixels() if rgb is None else rgb
    bitmap = pb.Bitmap(width=rgb.shape[1], height=rgb.shape[0], byte_data=rgb.tobytes())
    return pb.DetectAnomaliesRequest(model_component=model, bitmap=bitmap, **more)  # type: ignore[arg-type]


@contextmanager
def refused(code: grpc.StatusCode, *words: str) -> Iterator[None]:
    with pytest.raises(grpc.RpcError) as caught:
        yield
    details = caught.value.details()
    assert caught.value.code() is code, details
    assert "Traceback" not in details
    for word in words:
        assert word in details


# --- pictures
