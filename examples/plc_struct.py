"""A PLC over MQTT with structs: 44 bytes out, 64 bytes in, for one that rather copies than parses.

    python examples/plc_struct.py                                   # against `make demo`
    python examples/plc_struct.py --host 192.168.1.5 --topic edged/s1 --byte-order big

The tables below are the layout, without gaps; edged_types.st has the same for IEC 61131-3. The byte
order is the station's: little for Beckhoff and CODESYS, big for Siemens. Two messages stay JSON:
`state`, in which `"st":"ready"` is looked for as text, and `delivered`, which is one number in a
fixed text. The transaction is in plc_station.py.
"""

from __future__ import annotations

import struct
import sys

import demo_box
from plc_station import Ack, PlcStation, Result, run

# offset, letter of Python's struct, type of IEC 61131-3, name
TRIGGER = (
    (0, "B", "USINT", "version"),  # 1
    (1, "B", "USINT", "reserved1"),  # 0
    (2, "H", "UINT", "reserved2"),  # 0
    (4, "I", "UDINT", "seq"),
    (8, "I", "UDINT", "dl_ms"),  # 0 = the station's deadline
    (12, "32s", "ARRAY [0..31] OF BYTE", "part"),  # ASCII, filled up with zeros
)
RESULT = (
    (0, "B", "USINT", "version"),  # 1
    (1, "B", "USINT", "ok"),  # 1 = the one value that may let a part through
    (2, "H", "UINT", "code"),  # 0, or why ok cannot be 1
    (4, "I", "UDINT", "seq"),  # of the trigger
    (8, "B", "USINT", "st"),  # 1 completed, 4 failed; of an ack 2 taken, 3 missed
    (9, "B", "USINT", "eval"),  # 1 OK, 2 not OK, 3 not decidable
    (10, "B", "USINT", "sim"),  # 1 = a simulated camera
    (11, "B", "USINT", "reserved"),  # 0
    (12, "I", "UDINT", "t_ms"),  # capture to decision
    (16, "q", "LINT", "ts"),  # capture in ms since 1970
    (24, "f", "REAL", "score"),
    (28, "f", "REAL", "thr"),
    (32, "32s", "ARRAY [0..31] OF BYTE", "part"),
)
TRIGGER_FORMAT = "".join(letter for _, letter, _, _ in TRIGGER)  # BBHII32s, 44 bytes
RESULT_FORMAT = "".join(letter for _, letter, _, _ in RESULT)  # BBHIBBBBIqff32s, 64 bytes
VERSION = 1
TAKEN = 2


class Struct:
    """Trigger, ack and result as bytes; an ack has the layout of a result."""

    def __init__(self, byte_order: str) -> None:
        sign = {"little": "<", "big": ">"}[byte_order]  # with a sign struct adds no gaps
        self._trigger = struct.Struct(sign + TRIGGER_FORMAT)
        self._result = struct.Struct(sign + RESULT_FORMAT)

    def trigger(self, part: str, seq: int, deadline_ms: int) -> bytes:
        """44 bytes; `part` has 32 characters at most."""
        return self._trigger.pack(VERSION, 0, 0, seq, deadline_ms, part.encode("ascii"))

    def ack(self, payload: bytes) -> Ack:
        """The 64 bytes of an ack."""
        _, _, code, seq, st, *_ = self._result.unpack(payload)
        return Ack(seq, st == TAKEN, code)

    def result(self, payload: bytes) -> Result:
        """The 64 bytes of a result."""
        _, ok, code, seq, _, eval_, _, _, t_ms, _, score, thr, part = self._result.unpack(payload)
        name = part.rstrip(b"\0").decode("ascii")
        return Result(seq, name, ok, eval_, code, score, thr, t_ms)


def main() -> int:
    parser = demo_box.parser(__doc__)
    parser.add_argument("--host", help="of the broker; with it --config is not read")
    parser.add_argument("--port", type=int, default=1883)
    parser.add_argument("--topic", default="edged/s1", help="what the station's topics begin with")
    parser.add_argument("--byte-order", choices=("little", "big"), default="little")
    parser.add_argument("--station", help="in --config (default: the first that takes structs)")
    parser.add_argument("--parts", type=int, default=4)
    parser.add_argument("--deadline", type=int, default=5000, metavar="MS")
    asked = parser.parse_args()
    host, port, topic, byte_order = asked.host, asked.port, asked.topic, asked.byte_order
    if host is None:
        config = demo_box.read(asked.config)
        broker = demo_box.section(config, "mqtt")
        host, port = broker.get("host", "127.0.0.1"), broker.get("port", 1883)
        station = demo_box.station(config, asked.station, trigger="mqtt", payload="struct")
        topic = demo_box.topic(config, station)
        byte_order = station.get("byte_order", "little")
    with PlcStation(host, port, topic, Struct(byte_order)) as plc:
        return run(plc, asked.parts, asked.deadline)


if __name__ == "__main__":
    sys.exit(main())
