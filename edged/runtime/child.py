"""Heavy work as a guest on the box: a child process at low priority with a memory cap.

Whatever can hold the interpreter for long leaves the process: the caller hears its progress over a
pipe, may cancel it, and gets its report or its own error. A child never outlives its parent.

Decision: the cap is RLIMIT_DATA, which counts what a process may write to; RLIMIT_AS would also
count the mapped files and reserved address space of the runtimes, which cost no memory.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, TypeAlias

from edged.core import errors
from edged.core.errors import EdgedError
from edged.core.protocols import Progress

NICE = 15
MOST_EXPENDABLE = "1000"
"""When memory runs out the kernel ends this process before any other."""
GRACE_SECONDS = 5.0
IDLE_SECONDS = 1.0
F_SETSIG = 10
"""Of fcntl(2) on Linux; Python's module does not name it."""

Work: TypeAlias = Callable[[dict[str, Any], Progress], dict[str, Any]]
"""What a child does with its request; it may raise EdgedErrors."""


class Cancelled(EdgedError):
    """The job was cancelled; nothing was written."""


class Child:
    """One job in a process of its own. `run` on one thread; `cancel` on any."""

    def __init__(
        self,
        module: str,
        what: str,
        request: dict[str, Any],
        memory_mb: int,
        died: type[EdgedError],
    ) -> None:
        """module: runs `serve` when it is the main one. what: as in `The training`.

        died: the error that a child is which ends without a report.
        """
        self._module = module
        self._what = what
        self._request = {**request, "memory_mb": memory_mb}
        self._memory_mb = memory_mb
        self._died = died
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._cancelled = False

    def run(self, progress: Progress, idle: Callable[[], None] = lambda: None) -> dict[str, Any]:
        """Do the work and return the report, with `peak_memory_mb`; blocks until the child ended.

        progress facts: `per_second` and `remaining_seconds` of the stage, where they are known.
        idle: called at least every IDLE_SECONDS; what it raises ends the child. Raises what the
        work raises, Cancelled, and `died` when the child dies or needs more than its memory.
        """
        command = [sys.executable, "-m", self._module]
        with self._lock:
            if self._cancelled:
                raise Cancelled(f"{self._what} was cancelled before it began.")
            child = self._child = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE
            )
        try:
            return self._converse(child, progress, idle)
        except BaseException:
            _end(child)
            raise

    def cancel(self) -> None:
        """End the child; `run` then raises Cancelled. Safe to call at any time."""
        with self._lock:
            self._cancelled = True
            child = self._child
        if child is not None:
            child.terminate()

    def _converse(
        self, child: subprocess.Popen[bytes], progress: Progress, idle: Callable[[], None]
    ) -> dict[str, Any]:
        if child.stdin is None or child.stdout is None:
            raise self._died(f"{self._what} has no pipes.")
        # Left open: its end tells the child that this process is gone, whatever killed it.
        child.stdin.write(json.dumps(self._request).encode() + b"\n")
        child.stdin.flush()
        report: dict[str, Any] | None = None
        failure: EdgedError | None = None
        for line in _lines(child.stdout.fileno(), idle):
            said = json.loads(line)
            if "progress" in said:
                stage, done, total, facts = said["progress"]
                progress(stage, done, total, **facts)
            elif "error" in said:
                failure = self._error(*said["error"])
            else:
                report = said["report"]
        code = child.wait()
        child.stdin.close()
        child.stdout.close()
        if failure is not None:
            raise failure
        if self._cancelled and report is None:
            raise Cancelled(f"{self._what} was cancelled; nothing was written.")
        if report is None:
            raise self._died(
                f"{self._what}'s process ended with code {code} before it was done (memory cap: "
                f"{self._memory_mb} MB); nothing was written."
            )
        return report

    def _error(self, kind: str, message: str) -> EdgedError:
        known = getattr(errors, kind, self._died)
        if kind == "MissingDependency" or not issubclass(known, EdgedError):
            return self._died(message)
        made: EdgedError = known(message)
        return made


def ask(
    command: Sequence[str], seconds: float, idle: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a short command and hear what it says. Raises subprocess.TimeoutExpired.

    idle: called at least every IDLE_SECONDS; what it raises ends the command. With it the command
    runs at low priority: somebody goes on with other work meanwhile.
    """
    until = time.monotonic() + seconds
    words = ["nice", "-n", str(NICE), *command] if idle else list(command)
    with subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:
        try:
            while True:
                try:
                    out, said = child.communicate(timeout=IDLE_SECONDS)
                    return subprocess.CompletedProcess(words, child.returncode, out, said)
                except subprocess.TimeoutExpired:
                    if time.monotonic() > until:
                        raise
                    if idle:
                        idle()
        except BaseException:
            child.kill()
            raise


def _lines(pipe: int, idle: Callable[[], None]) -> Iterator[bytes]:
    """What comes out of a pipe, by lines, until its end."""
    begun = b""
    while True:
        ready, _, _ = select.select([pipe], [], [], IDLE_SECONDS)
        idle()
        if not ready:
            continue
        more = os.read(pipe, 65536)
        if not more:
            return
        *whole, begun = (begun + more).split(b"\n")
        yield from whole


def _end(child: subprocess.Popen[bytes]) -> None:
    child.terminate()
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            pipe.close()


class _Teller:
    """Writes the child's side of the conversation: one JSON object a line."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._began: dict[str, tuple[float, int]] = {}

    def say(self, **what: Any) -> None:
        """One line; the parent reads it at once."""
        self._out.write(json.dumps(what) + "\n")
        self._out.flush()

    def progress(self, stage: str, done: int, total: int, **facts: Any) -> None:
        """A core.protocols.Progress that also says how fast it goes and what remains."""
        now = time.monotonic()
        began, first = self._began.setdefault(stage, (now, done))
        if done > first and now > began:
            speed = (done - first) / (now - began)
            facts["per_second"] = round(speed, 2)
            facts["remaining_seconds"] = round((total - done) / speed, 1)
        self.say(progress=[stage, done, total, facts])


def serve(work: Work, what: str) -> int:
    """The child: a request on standard input, lines of JSON on standard output; its exit code.

    what: as in `Training needs more memory`.
    """
    request = json.loads(sys.stdin.readline())
    # Nobody else may write between the lines, native libraries included.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    teller = _Teller(out)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _terminated)
    _end_with_parent(sys.stdin.fileno())
    os.nice(NICE)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(MOST_EXPENDABLE, encoding="ascii")
    cap = request.pop("memory_mb") * 1024 * 1024
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    cap = cap if most == resource.RLIM_INFINITY else min(cap, most)
    resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
    try:
        report = work(request, teller.progress)
    except EdgedError as error:
        teller.say(error=[type(error).__name__, str(error)])
        return 1
    except MemoryError:
        words = f"{what} needs more than the {cap >> 20} MB that it may use; nothing was written."
        teller.say(error=["MemoryError", words])
        return 1
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _ignored)  # it is written: too late to cancel
    report["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    teller.say(report=report)
    return 0


def _end_with_parent(pipe: int) -> None:
    """Have SIGTERM sent to this process when the other end of `pipe` closes.

    By the kernel, so that it needs no thread and reaches a main that is deep in numpy's code as
    soon as it surfaces. Not PR_SET_PDEATHSIG: that follows the thread that started the child.
    """
    fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(pipe, F_SETSIG, signal.SIGTERM)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | fcntl.FASYNC)
    if select.select([pipe], [], [], 0)[0]:  # it closed before anybody would have told us
        os.kill(os.getpid(), signal.SIGTERM)


def _ignored(number: int, frame: object) -> None:
    """Not SIG_IGN: Python complains of a signal that came before and is handled after that."""


def _terminated(number: int, frame: object) -> None:
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, _ignored)  # once is enough: a second would cut the cleaning short
    sys.exit(128 + number)  # as an exception, so that nothing half-written stays
