"""How a station stands, in the words and numbers of OPC 40100-1, as a table.

`lifecycle.advance` is the only way from one state to another. What a PLC reads (`word`) is a
projection: it needs to know whether a trigger would be taken now, and if not, whether to wait or
to call.
"""

from __future__ import annotations

import enum


class StationState(enum.Enum):
    """The value is OPC 40100-1's number. 5 to 8 are within its Operational (4)."""

    PREOPERATIONAL = 1  # the daemon is starting
    HALTED = 2  # told to stop
    ERROR = 3  # camera or model lost, or records cannot be kept
    INITIALIZED = 5  # there is work to be done before a part can come: the model is not hosted
    READY = 6
    SINGLE_EXECUTION = 7  # a triggered part is in progress
    CONTINUOUS_EXECUTION = 8  # free-running, interval or hardware trigger: parts come by themselves


class StationEvent(enum.Enum):
    """What moves a station; the value is how a sentence calls it."""

    INITIALIZE = "initialize"
    PREPARED = "get ready"
    UNPREPARED = "wait for its model"
    START_SINGLE = "begin a part"
    START_CONTINUOUS = "run"
    DONE = "finish a part"
    FAIL = "fail"
    RESOLVE = "recover"
    HALT = "stop"
    RESET = "start"


_S, _E = StationState, StationEvent
_OPERATIONAL = (_S.INITIALIZED, _S.READY, _S.SINGLE_EXECUTION, _S.CONTINUOUS_EXECUTION)

STATION_LIFE: dict[tuple[StationState, StationEvent], StationState] = {
    (_S.PREOPERATIONAL, _E.INITIALIZE): _S.INITIALIZED,
    (_S.INITIALIZED, _E.PREPARED): _S.READY,
    (_S.READY, _E.START_SINGLE): _S.SINGLE_EXECUTION,
    (_S.READY, _E.START_CONTINUOUS): _S.CONTINUOUS_EXECUTION,
    (_S.SINGLE_EXECUTION, _E.DONE): _S.READY,
    (_S.ERROR, _E.RESOLVE): _S.INITIALIZED,
    (_S.HALTED, _E.RESET): _S.INITIALIZED,
    **{(state, _E.UNPREPARED): _S.INITIALIZED for state in _OPERATIONAL},
    **{(state, _E.FAIL): _S.ERROR for state in _OPERATIONAL},
    **{(state, _E.HALT): _S.HALTED for state in (*_OPERATIONAL, _S.ERROR)},
}

WORDS: dict[StationState, str] = {
    _S.PREOPERATIONAL: "busy",
    _S.HALTED: "halted",
    _S.ERROR: "error",
    _S.INITIALIZED: "error",
    _S.READY: "ready",
    _S.SINGLE_EXECUTION: "ready",
    _S.CONTINUOUS_EXECUTION: "ready",
}
"""What `.../state` says; `busy` in the place of `ready` when no further trigger fits."""
