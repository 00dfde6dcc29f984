"""10,000 triggers while camera, engine and broker fail at random: one ending for each.

The long form of tests/mqtt/test_trigger.py: real broker, stations, publisher, sink and outbox; fake
camera and engine, which stall when the dice say so; the broker is killed and started again.

    python -m benchmarks.trigger_storm [TRIGGERS] [SEED]         from the checkout
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from tests.mqtt.test_trigger import storm


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        told = storm(Path(folder), count, seed)
    print(json.dumps({"triggers": count, "seconds": round(time.monotonic() - began), **told}))


if __name__ == "__main__":
    main()
