"""The one rule that ships or scraps a part."""

from __future__ import annotations

import numpy as np
import pytest

from edged.core.errors import EngineError
from edged.core.types import Prediction
from edged.hosting.decide import decide


def prediction(score: float) -> Prediction:
    return Prediction(np.array([score], np.float32))


def test_a_score_at_the_threshold_is_anomalous() -> None:
    assert decide(prediction(0.5), 0, 0.5).is_anomalous


def test_a_score_decides_as_it_is_printed_with_four_places() -> None:
    assert decide(prediction(0.49996), 0, 0.5).is_anomalous
    assert not decide(prediction(0.4999), 0, 0.5).is_anomalous


def test_confidence_is_of_the_decision() -> None:
    assert decide(prediction(0.1), 0, 0.5).confidence == pytest.approx(0.9)
    assert decide(prediction(0.8), 0, 0.5).confidence == pytest.approx(0.8)


@pytest.mark.parametrize("score", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_never_an_ok(score: float) -> None:
    with pytest.raises(EngineError):
        decide(prediction(score), 0, 0.5)
