"""The life of a model as one table: (status, event) -> status.

What the Lookout for Vision API and the Edge Agent call these states are projections of it: the
API's words are the enum's values, the Edge Agent's are in `EDGE_STATUS`.
"""

from __future__ import annotations

import enum

from edged.core.errors import WrongState


class ModelStatus(enum.Enum):
    """States of a model, in the words of API 2020-11-20."""

    TRAINING = "TRAINING"
    TRAINED = "TRAINED"
    TRAINING_FAILED = "TRAINING_FAILED"
    STARTING_HOSTING = "STARTING_HOSTING"
    HOSTED = "HOSTED"
    HOSTING_FAILED = "HOSTING_FAILED"
    STOPPING_HOSTING = "STOPPING_HOSTING"
    SYSTEM_UPDATING = "SYSTEM_UPDATING"
    DELETING = "DELETING"


class Event(enum.Enum):
    """What can happen to a model."""

    TRAINING_DONE = "finish training"
    TRAINING_FAILED = "fail training"
    START = "start"
    HOSTING_DONE = "finish starting"
    HOSTING_FAILED = "fail starting"
    STOP = "stop"
    STOPPED = "finish stopping"
    UPDATE = "swap the engine"
    UPDATED = "finish swapping the engine"
    DELETE = "delete"


_S, _E = ModelStatus, Event

TRANSITIONS: dict[tuple[ModelStatus, Event], ModelStatus] = {
    (_S.TRAINING, _E.TRAINING_DONE): _S.TRAINED,
    (_S.TRAINING, _E.TRAINING_FAILED): _S.TRAINING_FAILED,
    (_S.TRAINED, _E.START): _S.STARTING_HOSTING,
    (_S.HOSTING_FAILED, _E.START): _S.STARTING_HOSTING,
    (_S.STARTING_HOSTING, _E.HOSTING_DONE): _S.HOSTED,
    (_S.STARTING_HOSTING, _E.HOSTING_FAILED): _S.HOSTING_FAILED,
    (_S.HOSTED, _E.STOP): _S.STOPPING_HOSTING,
    (_S.HOSTED, _E.HOSTING_FAILED): _S.HOSTING_FAILED,  # every unit died
    (_S.HOSTED, _E.UPDATE): _S.SYSTEM_UPDATING,
    (_S.SYSTEM_UPDATING, _E.UPDATED): _S.HOSTED,
    (_S.SYSTEM_UPDATING, _E.HOSTING_FAILED): _S.HOSTING_FAILED,
    (_S.STOPPING_HOSTING, _E.STOPPED): _S.TRAINED,
    (_S.TRAINED, _E.DELETE): _S.DELETING,
    (_S.TRAINING_FAILED, _E.DELETE): _S.DELETING,
    (_S.HOSTING_FAILED, _E.DELETE): _S.DELETING,
}

SERVING = frozenset({_S.HOSTED, _S.SYSTEM_UPDATING})
"""Parts are judged in these states."""

EDGE_STATUS: dict[ModelStatus, str] = {
    _S.TRAINED: "STOPPED",
    _S.STARTING_HOSTING: "STARTING",
    _S.HOSTED: "RUNNING",
    _S.SYSTEM_UPDATING: "RUNNING",
    _S.HOSTING_FAILED: "FAILED",
    _S.STOPPING_HOSTING: "STOPPING",
}
"""The Edge Agent's word for each state it can see; models still in training have none."""


def advance(status: ModelStatus, event: Event, subject: str = "The model") -> ModelStatus:
    """The state after `event`, or WrongState with a sentence that names both."""
    try:
        return TRANSITIONS[status, event]
    except KeyError:
        raise WrongState(f"{subject} is {status.value}: cannot {event.value} now.") from None
