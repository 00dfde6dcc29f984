"""The lives of models, data sets and packaging jobs, each as one table: (status, event) -> status.

`advance` is the only way from one status to another, here and for stations (stations.py). What the
Lookout for Vision API and the Edge Agent call these states are projections of them: the API's
words are the enums' values, the Edge Agent's are in `EDGE_STATUS`.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TypeVar

from edged.core.errors import WrongState

State = TypeVar("State", bound=enum.Enum)
Happening = TypeVar("Happening", bound=enum.Enum)


def advance(
    table: Mapping[tuple[State, Happening], State], state: State, event: Happening, subject: str
) -> State:
    """The state after `event`, or WrongState with a sentence that names both."""
    try:
        return table[state, event]
    except KeyError:
        raise WrongState(f"{subject} is {state.name}: cannot {event.value} now.") from None


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


class ModelEvent(enum.Enum):
    """What can happen to a model; the value is how a sentence calls it."""

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


_S, _E = ModelStatus, ModelEvent

MODEL_LIFE: dict[tuple[ModelStatus, ModelEvent], ModelStatus] = {
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


class DatasetStatus(enum.Enum):
    """States of a data set, in the words of API 2020-11-20.

    Here nothing is ever in the middle of a deletion or of taking a change back: both are done in
    one transaction.
    """

    CREATE_IN_PROGRESS = "CREATE_IN_PROGRESS"
    CREATE_COMPLETE = "CREATE_COMPLETE"
    CREATE_FAILED = "CREATE_FAILED"
    UPDATE_IN_PROGRESS = "UPDATE_IN_PROGRESS"
    UPDATE_COMPLETE = "UPDATE_COMPLETE"
    UPDATE_FAILED_ROLLBACK_IN_PROGRESS = "UPDATE_FAILED_ROLLBACK_IN_PROGRESS"
    UPDATE_FAILED_ROLLBACK_COMPLETE = "UPDATE_FAILED_ROLLBACK_COMPLETE"
    DELETE_IN_PROGRESS = "DELETE_IN_PROGRESS"
    DELETE_COMPLETE = "DELETE_COMPLETE"
    DELETE_FAILED = "DELETE_FAILED"


class DatasetEvent(enum.Enum):
    """What can happen to a data set."""

    CREATION_DONE = "finish its creation"
    CREATION_FAILED = "fail its creation"
    UPDATE = "be changed"
    UPDATE_DONE = "finish a change"
    UPDATE_FAILED = "take a change back"


_D, _C = DatasetStatus, DatasetEvent

CHANGEABLE = (_D.CREATE_COMPLETE, _D.UPDATE_COMPLETE, _D.UPDATE_FAILED_ROLLBACK_COMPLETE)
"""A data set takes changes in these states."""

DATASET_LIFE: dict[tuple[DatasetStatus, DatasetEvent], DatasetStatus] = {
    (_D.CREATE_IN_PROGRESS, _C.CREATION_DONE): _D.CREATE_COMPLETE,
    (_D.CREATE_IN_PROGRESS, _C.CREATION_FAILED): _D.CREATE_FAILED,
    **{(status, _C.UPDATE): _D.UPDATE_IN_PROGRESS for status in CHANGEABLE},
    (_D.UPDATE_IN_PROGRESS, _C.UPDATE_DONE): _D.UPDATE_COMPLETE,
    (_D.UPDATE_IN_PROGRESS, _C.UPDATE_FAILED): _D.UPDATE_FAILED_ROLLBACK_COMPLETE,
}


class PackagingStatus(enum.Enum):
    """States of a packaging job, in the words of API 2020-11-20."""

    CREATED = "CREATED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"


class PackagingEvent(enum.Enum):
    """What can happen to a packaging job."""

    RUN = "run"
    DONE = "succeed"
    FAIL = "fail"


_P, _J = PackagingStatus, PackagingEvent

PACKAGING_LIFE: dict[tuple[PackagingStatus, PackagingEvent], PackagingStatus] = {
    (_P.CREATED, _J.RUN): _P.RUNNING,
    (_P.RUNNING, _J.RUN): _P.RUNNING,  # it was cut off, and is done again
    (_P.RUNNING, _J.DONE): _P.SUCCEEDED,
    (_P.RUNNING, _J.FAIL): _P.FAILED,
}
