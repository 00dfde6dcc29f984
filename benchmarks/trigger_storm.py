"""10,000 triggers while camera, engine and broker fail at random: one ending for each.

The long form of tests/mqtt/test_trigger.py: real broker, stations, publisher, sink and outbox; fake
camera and engine, which stall when the dice say so; the broker is killed and started again.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from benchmarks.support.command import add_number, question
from benchmarks.support.figures import show
from tests.mqtt.test_trigger import storm


def parser() -> argparse.ArgumentParser:
    made = question(__doc__, __file__)
    add_number(made, "triggers", 10_000, "how many")
    add_number(made, "seed", 1, "of the dice")
    return made


def main() -> None:
    given = parser().parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        told = storm(Path(folder), given.triggers, given.seed)
    show({"triggers": given.triggers, "seconds": round(time.monotonic() - began), **told})


if __name__ == "__main__":
    main()
