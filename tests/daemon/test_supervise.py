"""A model that served and fell is hosted again, with patience; one that never served is not."""

from __future__ import annotations

from edged.core.lifecycle import ModelStatus
from edged.daemon.supervise import LONGEST_PAUSE as LAST
from edged.daemon.supervise import REVIVE_SECONDS as FIRST
from edged.daemon.supervise import ApiModels, Revival
from tests.rest.test_states import World, model_in, world

__all__ = ["world"]
S = ModelStatus


class Line:
    """A project with one model that is to be hosted, and a clock that is set by hand."""

    def __init__(self, world: World, status: ModelStatus) -> None:
        self.now = 0.0
        self.world = world
        model_in(world, status)
        self.models = ApiModels(Revival(FIRST, LAST, lambda: self.now))

    def tries(self, status: ModelStatus, seconds: float = 0.0) -> int:
        """How often it is hosted anew when it is seen in that state, so much later."""
        self.now += seconds
        self.world.stage.status = status
        self.world.stage.calls.clear()
        self.models.revive(self.world.service)
        return self.world.stage.calls.count("host")


def test_a_model_that_served_is_tried_again_with_growing_pauses(world: World) -> None:
    line = Line(world, S.HOSTED)
    assert line.tries(S.HOSTED) == 0
    assert line.tries(S.HOSTING_FAILED) == 0
    assert line.tries(S.HOSTING_FAILED, FIRST) == 1
    assert line.tries(S.STARTING_HOSTING, 1.0) == 0
    assert line.tries(S.HOSTING_FAILED, FIRST) == 0
    assert line.tries(S.HOSTING_FAILED, FIRST) == 1
    for _ in range(10):
        line.tries(S.HOSTING_FAILED, LAST)
    assert line.tries(S.HOSTING_FAILED, LAST - 1) == 0
    assert line.tries(S.HOSTED, 1.0) == 0  # it serves: the next time begins anew
    assert line.tries(S.HOSTING_FAILED) == 0
    assert line.tries(S.HOSTING_FAILED, FIRST) == 1


def test_a_model_that_never_served_waits_for_somebody(world: World) -> None:
    line = Line(world, S.HOSTING_FAILED)
    line.tries(S.STARTING_HOSTING)
    assert [line.tries(S.HOSTING_FAILED, LAST) for _ in range(3)] == [0, 0, 0]


def test_what_was_hosted_in_the_last_life_is_hosted_and_tried_again(world: World) -> None:
    line = Line(world, S.HOSTING_FAILED)
    line.models.host_all(world.service)
    assert world.stage.calls == ["host"]
    line.tries(S.HOSTING_FAILED)
    assert line.tries(S.HOSTING_FAILED, FIRST) == 1


def test_a_model_that_was_stopped_is_left_alone(world: World) -> None:
    line = Line(world, S.HOSTED)
    line.tries(S.HOSTED)
    (row,) = world.service.models.having(S.HOSTED)
    world.service.models.set(row, S.TRAINED, "", row.facts)
    assert line.tries(S.HOSTING_FAILED) == 0
    assert line.tries(S.HOSTING_FAILED, LAST) == 0
