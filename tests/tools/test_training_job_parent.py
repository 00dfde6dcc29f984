"""A training never outlives the process that asked for it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

PARENT = """
import sys
from edged.tools.training_job import TrainingJob

def progress(stage, done, total, **facts):
    if stage == "features" and done == 2:
        print("now", flush=True)

images, output = sys.argv[1:]
TrainingJob({"images": images, "output": output, "name": "p", "seed": 0}).run(progress)
"""


def test_the_child_ends_when_its_parent_is_killed_and_leaves_nothing(
    parts: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out" / "model"
    command = [sys.executable, "-c", PARENT, str(parts), str(output)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "now\n"
        children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
        child = os.pidfd_open(int(children[0]))
        parent.send_signal(signal.SIGKILL)
    try:
        ended, _, _ = select.select([child], [], [], 10.0)
    finally:
        os.close(child)
    assert ended, "the training went on without its parent"
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []
