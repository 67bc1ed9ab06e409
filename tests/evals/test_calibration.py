"""How often, and how sure."""

from __future__ import annotations

import math

import numpy as np
import pytest

from webtochat.evals.calibration import calibration


def test_what_is_right_is_counted_and_a_tie_is_wrong() -> None:
    told = calibration([2.0, 0.1, -1.0, 0.0])
    assert told["accuracy"]["right"] == 2 and told["accuracy"]["of"] == 4
    assert told["accuracy"]["low"] < 0.5 < told["accuracy"]["high"]
    assert sum(row["pairs"] for row in told["reliability"]) == 4


def test_the_brier_score_is_that_of_the_choice() -> None:
    margins = [2.0, 0.1, -1.0]
    expected = np.mean([(1 - 1 / (1 + math.exp(-each))) ** 2 for each in margins])
    assert calibration(margins)["brier"] == pytest.approx(expected)


def test_who_is_as_often_right_as_sure_is_calibrated_and_who_is_too_sure_is_not() -> None:
    rng = np.random.default_rng(1)
    gaps = rng.exponential(1.5, 20_000)
    chosen = np.where(rng.random(len(gaps)) < 1 / (1 + np.exp(-gaps)), gaps, -gaps)
    honest, boasting = calibration(chosen.tolist()), calibration((4 * chosen).tolist())
    assert honest["ece"] < 0.02 < 0.1 < boasting["ece"]
    assert honest["brier"] < boasting["brier"] and honest["accuracy"] == boasting["accuracy"]
    for row in honest["reliability"]:
        assert row["from"] <= row["sure"] <= row["to"]
    assert calibration([1000.0, -1000.0])["brier"] == pytest.approx(0.5)
