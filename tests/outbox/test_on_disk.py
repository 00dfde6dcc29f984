"""What must be on disk: sequence numbers that never repeat, records that wait for the broker."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

from edged.line.sequences import Sequences
from edged.outbox.bounds import Bounds
from edged.outbox.records import Record
from edged.outbox.store import Outbox
from edged.runtime import durable

COUNTER = """
import sys
from pathlib import Path
from edged.line.sequences import Sequences
numbers = Sequences(Path(sys.argv[1]))
numbers.open()
for _ in range(5):
    print(numbers.next("cam"), flush=True)
sys.stdin.read()
"""


def test_sequence_numbers_start_at_one_and_go_on_after_a_clean_close(tmp_path: Path) -> None:
    numbers = Sequences(tmp_path / "s.sqlite")
    numbers.open()
    assert [numbers.next("a") for _ in range(3)] == [1, 2, 3]
    assert numbers.next("b") == 1
    numbers.close()
    again = Sequences(tmp_path / "s.sqlite")
    again.open()
    assert again.next("a") == 4
    again.close()


def test_sequence_numbers_never_repeat_after_kill_9(tmp_path: Path) -> None:
    seen: list[int] = []
    for _ in range(2):
        with subprocess.Popen(
            [sys.executable, "-c", COUNTER, str(tmp_path / "s.sqlite")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            if process.stdout is not None:
                seen += [int(process.stdout.readline()) for _ in range(5)]
            os.kill(process.pid, signal.SIGKILL)
    assert len(seen) == 10
    assert seen == sorted(set(seen))


def test_numbers_that_are_gone_while_records_are_there_go_on_above_all_of_them(
    tmp_path: Path,
) -> None:
    first = Sequences(tmp_path / "s.sqlite", used=False)
    first.open()
    assert first.next("a") == 1
    first.close()
    (tmp_path / "s.sqlite").unlink()
    again = Sequences(tmp_path / "s.sqlite", used=True)
    again.open()
    assert again.next("a") > 1_700_000_000_000
    again.close()


LOCKER = """
import fcntl, sys
with open(sys.argv[1], "r+b") as file:
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        sys.exit(7)
"""


def test_making_a_file_private_keeps_the_locks_that_this_process_has_on_it(tmp_path: Path) -> None:
    path = tmp_path / "f"
    durable.private(path)
    assert path.stat().st_mode & 0o777 == 0o600
    with path.open("r+b") as held:
        fcntl.lockf(held, fcntl.LOCK_EX)
        path.chmod(0o644)
        durable.private(path)
        done = subprocess.run([sys.executable, "-c", LOCKER, str(path)], check=False, timeout=20)
    assert done.returncode == 7, "another process must find it locked"
    assert path.stat().st_mode & 0o777 == 0o600


def test_records_wait_on_disk_in_order_until_they_are_acknowledged(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.sqlite")
    outbox.open()
    seqs = list(outbox.append([Record("t", b"1"), Record("t", b"2"), Record("t", b"3")]).seqs)
    outbox.acknowledge(seqs[:1])
    outbox.close()
    again = Outbox(tmp_path / "o.sqlite")
    again.open()
    assert [row.payload for row in again.pending(0, 10)] == [b"2", b"3"]
    assert again.count == 2
    again.close()


def test_a_full_outbox_lets_the_oldest_go_and_says_how_many(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path / "o.sqlite", Bounds(rows=3))
    outbox.open()
    outbox.append([Record("t", b"1"), Record("t", b"2"), Record("t", b"3")])
    assert outbox.append([Record("t", b"4"), Record("t", b"5")]).dropped["rows"] == 2
    assert [row.payload for row in outbox.pending(0, 10)] == [b"3", b"4", b"5"]
    outbox.close()


def test_a_damaged_outbox_is_moved_aside_and_a_new_one_serves(tmp_path: Path) -> None:
    path = tmp_path / "o.sqlite"
    path.write_bytes(b"this is no database" * 1000)
    outbox = Outbox(path)
    outbox.open()
    outbox.append([Record("t", b"1")])
    assert outbox.count == 1
    outbox.close()
    assert list(tmp_path.glob("*damaged*"))
    assert path.stat().st_mode & 0o077 == 0
