"""How often a model that compares two answers is right, and whether it knows how sure it may be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from webtochat.evals.questions import rate


def calibration(margins: Sequence[float], bins: int = 10) -> dict[str, Any]:
    """Of pairs whose chosen answer scored so much more than the rejected one: `accuracy` with its interval (a tie is
    wrong), and how near σ(margin), by Bradley and Terry the probability of the choice, comes to what people chose.

    `brier`: the mean of (1 - σ(margin))². `reliability`: by how sure the model was of the answer that it scored more,
    σ(|margin|) in `bins` from ½ to 1, in how many of the pairs it was right. `ece`: the mean distance between the two
    over all pairs (expected calibration error; Guo et al. 2017).
    """
    gaps = np.asarray(margins, float)
    sure = 1 / (1 + np.exp(-np.abs(gaps)))
    right = gaps > 0
    places = np.minimum(((sure - 0.5) * 2 * bins).astype(int), bins - 1)
    table = [
        {
            "from": 0.5 + place / (2 * bins), "to": 0.5 + (place + 1) / (2 * bins), "pairs": int(mine.sum()),
            "sure": float(sure[mine].mean()), "right": float(right[mine].mean()),
        }
        for place in range(bins) if (mine := places == place).any()
    ]  # fmt: skip
    return {
        "accuracy": rate(right.tolist()),
        "brier": float(np.mean((right - sure) ** 2)),
        "ece": sum(row["pairs"] * abs(row["sure"] - row["right"]) for row in table) / len(gaps),
        "reliability": table,
    }
