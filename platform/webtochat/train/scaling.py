"""Loss against compute: L(C) = E + A · C^(-α), fitted to small models to foretell a larger one (Hoffmann et al. 2022,
approach 3, with compute in the place of size and tokens)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from pydantic import BaseModel

LEAST = 3
"""Points for three unknowns."""
DELTA = 1e-3
"""Relative residual from which on a point pulls no harder (Huber's loss; Hoffmann et al. 2022, section 3.3)."""


@dataclass(frozen=True)
class Point:
    name: str
    flops: float
    """Of the whole training."""
    loss: float
    """Nats per token, on held-out text."""


@dataclass(frozen=True)
class Law:
    irreducible: float
    """E, nats."""
    scale: float
    """A, nats, at one FLOP."""
    exponent: float
    """α."""

    def __call__(self, flops: Any) -> Any:
        """Of a number, or of each of an array."""
        return self.irreducible + self.scale * flops**-self.exponent


def fit(flops: list[float], losses: list[float]) -> Law:
    """The law with the least Huber loss of relative residuals, E and A not negative. For a given α the other two follow
    by weighted least squares, so a grid of α is solved for at once, then a finer one about the best: no starting point
    to choose. Raises ValueError for fewer than three points."""
    if len(set(flops)) < LEAST:
        raise ValueError(f"a law has three unknowns: {len(set(flops))} sizes do not tell them")
    compute, loss = np.asarray(flops, float), np.asarray(losses, float)
    middle = float(np.exp(np.log(compute).mean()))
    exponents = np.geomspace(0.005, 2, 200)
    for _ in range(2):
        falling = (compute / middle) ** -exponents[:, None]
        irreducible, scale, huber = _solved(1 / np.broadcast_to(loss, falling.shape), falling / loss)
        best = int(huber.argmin())
        law = Law(float(irreducible[best]), float(scale[best] * middle ** exponents[best]), float(exponents[best]))
        exponents = np.geomspace(exponents[max(best - 1, 0)], exponents[min(best + 1, len(exponents) - 1)], 200)
    return law


def _solved(constant: np.ndarray, falling: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """E and A of each row, such that constant · E + falling · A is near 1 in each column, and the Huber loss left over:
    by least squares whose weights follow from the residuals."""
    weights = np.ones_like(falling)
    for _ in range(200):
        cc, cf, ff = ((weights * product).sum(1) for product in (constant**2, constant * falling, falling**2))
        c, f = (weights * constant).sum(1), (weights * falling).sum(1)
        determinant = cc * ff - cf**2
        irreducible, scale = (c * ff - f * cf) / determinant, (f * cc - c * cf) / determinant
        below, flat = irreducible < 0, scale < 0
        irreducible, scale = np.where(below, 0, irreducible), np.where(below, f / ff, scale)
        irreducible, scale = np.where(flat, c / cc, irreducible), np.where(flat, 0, scale)
        residuals = np.abs(irreducible[:, None] * constant + scale[:, None] * falling - 1)
        weights = np.minimum(1, DELTA / np.maximum(residuals, 1e-12))
    huber = np.where(residuals < DELTA, residuals**2 / 2, DELTA * (residuals - DELTA / 2))
    return irreducible, scale, huber.sum(1)


class Prediction(BaseModel):
    points: list[Point]
    law: Law
    target: Point
    """With the loss that the law tells."""
    between: tuple[float, float] | None
    """The lowest and the highest that it would be with one point left out; None where too few would be left."""


def predict(points: list[Point], name: str, flops: float) -> Prediction:
    """What `points` foretell of a training of so many FLOPs. Raises ValueError for fewer than three."""

    def through(chosen: list[Point]) -> Law:
        return fit([each.flops for each in chosen], [each.loss for each in chosen])

    law = through(points)
    between = None
    if len(points) > LEAST:
        without = [through(points[:number] + points[number + 1 :])(flops) for number in range(len(points))]
        between = min(without), max(without)
    return Prediction(points=points, law=law, target=Point(name, flops, law(flops)), between=between)
