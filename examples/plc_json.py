"""A PLC over MQTT with flat JSON: trigger a few parts and say what becomes of each.

    python examples/plc_json.py                                     # against `make demo`
    python examples/plc_json.py --host 192.168.1.5 --port 1883 --topic edged/s1

The transaction is in plc_station.py; here is only what trigger, ack and result look like.
"""

from __future__ import annotations

import json
import sys

import demo_box
from plc_station import Ack, PlcStation, Result, run


class Json:
    """Flat objects: keys of at most 8 letters, whole numbers, ASCII text; nothing is nested."""

    def trigger(self, part: str, seq: int, deadline_ms: int) -> bytes:
        """`{"part":"P-1","seq":7,"dl_ms":5000}`."""
        return json.dumps({"part": part, "seq": seq, "dl_ms": deadline_ms}).encode("ascii")

    def ack(self, payload: bytes) -> Ack:
        """`{"v":1,"seq":7,"part":"P-1","ack":1,"code":0}`; what is no trigger has no `seq`."""
        said = json.loads(payload)
        return Ack(said.get("seq"), said["ack"] == 1, said["code"])

    def result(self, payload: bytes) -> Result:
        """`{"v":1,"seq":7,"part":"P-1","ok":0,"st":1,"eval":2,"score":8086,...}`."""
        said = json.loads(payload)
        return Result(
            said["seq"],
            said["part"],
            said["ok"],
            said["eval"],
            said["code"],
            said["score"] / 10_000,
            said["thr"] / 10_000,
            said["t_ms"],
        )


def main() -> int:
    parser = demo_box.parser(__doc__)
    parser.add_argument("--host", help="of the broker; with it --config is not read")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--topic", default="edged/s1", help="what the station's topics begin with")
    parser.add_argument("--station", help="in --config (default: the first that takes JSON)")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--deadline", type=int, default=5000, metavar="MS")
    asked = parser.parse_args()
    host, port, topic = asked.host, asked.port, asked.topic
    if host is None:
        config = demo_box.read(asked.config)
        broker = demo_box.section(config, "mqtt")
        host, port = broker.get("host", "127.0.0.1"), broker.get("port", 1883)
        station = demo_box.station(config, asked.station, trigger="mqtt", payload="json")
        topic = demo_box.topic(config, station)
    with PlcStation(host, port, topic, Json()) as plc:
        return run(plc, asked.parts, asked.deadline)


if __name__ == "__main__":
    sys.exit(main())
