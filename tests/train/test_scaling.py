"""The power law through losses that are known, what it foretells, and the pictures."""

from __future__ import annotations

import re

import numpy as np
import pytest

from webtochat.train import drawing
from webtochat.train.drawing import Curve
from webtochat.train.scaling import Law, Point, Prediction, fit, predict

COMPUTE = [5e11, 2e12, 6e12, 2e13]


def losses(irreducible: float, exponent: float, compute: list[float] = COMPUTE) -> list[float]:
    return [irreducible + 3 * (each / 1e12) ** -exponent for each in compute]


def points(values: list[float]) -> list[Point]:
    return [Point(f"depth={number}", *each) for number, each in enumerate(zip(COMPUTE, values, strict=True), 1)]


@pytest.mark.parametrize(("irreducible", "exponent"), [(2.0, 0.15), (0.0, 0.08), (3.0, 0.4), (1.5, 1.0)])
def test_a_law_is_found_again(irreducible: float, exponent: float) -> None:
    law = fit(COMPUTE, losses(irreducible, exponent))
    assert law.irreducible == pytest.approx(irreducible, abs=0.05)
    assert law.exponent == pytest.approx(exponent, rel=0.02)
    assert law(2e14) == pytest.approx(losses(irreducible, exponent, [2e14])[0], rel=1e-3)


def test_losses_that_are_a_little_off_foretell_nearly_the_same() -> None:
    rng = np.random.default_rng(1)
    true = losses(2.0, 0.15, [1.5e14])[0]
    apart = [
        fit(COMPUTE, list(losses(2.0, 0.15) * np.exp(rng.normal(0, 0.002, 4))))(1.5e14) / true - 1 for _ in range(20)
    ]
    assert np.abs(apart).max() < 0.02


def test_one_wild_size_does_not_bend_it() -> None:
    compute = list(np.geomspace(5e11, 2e13, 7))
    values = losses(2.0, 0.15, compute)
    values[3] *= 1.1
    assert fit(compute, values)(1.5e14) == pytest.approx(losses(2.0, 0.15, [1.5e14])[0], rel=2e-3)


def test_losses_that_rise_or_stay_give_a_flat_law() -> None:
    assert fit(COMPUTE, [3.0, 3.0, 3.0, 3.0])(1e15) == pytest.approx(3.0, rel=1e-3)
    assert 3.0 < fit(COMPUTE, [3.0, 3.1, 3.2, 3.3])(1e15) < 3.3


@pytest.mark.parametrize("compute", [[1e12, 2e12], [1e12, 1e12, 2e12]])
def test_two_sizes_are_too_few(compute: list[float]) -> None:
    with pytest.raises(ValueError, match="2 sizes do not tell"):
        fit(compute, [3.0] * len(compute))


def test_a_prediction_says_how_far_one_size_moves_it() -> None:
    found = predict(points(losses(2.0, 0.15)), "depth=6", 1.5e14)
    assert found.target.loss == pytest.approx(losses(2.0, 0.15, [1.5e14])[0], rel=1e-3)
    assert found.between is not None and found.between[0] <= found.target.loss * 1.001
    assert predict(points(losses(2.0, 0.15))[:3], "depth=6", 1.5e14).between is None
    assert Prediction.model_validate_json(found.model_dump_json()) == found


def test_pictures_are_the_same_bytes_and_name_what_they_show() -> None:
    found = predict(points(losses(2.0, 0.15)), "depth=6", 1.5e14)
    shown = drawing.law(found, 3.4)
    assert shown == drawing.law(found, 3.4)
    for told in ("depth=1", "depth=6", f"predicted {found.target.loss:.4f}", "measured 3.4000"):
        assert told in shown
    curves = [
        Curve("lr=1e-3", [(1e6, 2.0), (2e6, 1.5)], "best"),
        Curve("lr=1e-5", [(1e6, 3.0)], "stopped"),
        Curve("lr=9", []),
    ]
    shown = drawing.trials(curves, "validation bits per byte")
    assert shown == drawing.trials(curves[::-1], "validation bits per byte")
    told = re.findall(r"\d\.\d{4}  lr=[^<]*", shown)
    assert told == ["1.5000  lr=1e-3 (best)", "3.0000  lr=1e-5 (stopped)"]


def test_one_law_serves_numbers_and_arrays() -> None:
    law = Law(2.0, 100.0, 0.1)
    assert law(np.asarray([1e12, 1e13])).tolist() == [law(1e12), law(1e13)]
