"""Sums to learn by trying: what they come to can be checked, how to get there nobody shows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from miniweb.arithmetic import held_out
from miniweb.conversations import EVERYDAY, SUBTRACTIONS, sums
from miniweb.settings import Settings

WORDINGS = [
    "What do {a} and {b} make?", "Add {a} to {b}.", "What is the sum of {a} and {b}?", "{a} and {b} together?",
    "Count {a} and then {b} more.",
]  # fmt: skip
"""In which no conversation asks for a sum."""


def exercises(settings: Settings = EVERYDAY) -> Iterator[dict[str, Any]]:
    """One-digit sums in other words than those of the conversations, and differences: {"question", "answer", "key",
    "held_out"}. What no conversation asks for is held out: of sums those that `arithmetic.held_out` names."""
    kept_out = set(held_out(settings))
    for a in range(10):
        for b in range(10):
            for wording in WORDINGS:
                yield _exercise(wording.format(a=a, b=b), a + b, f"{a}+{b}", (a, b) in kept_out)
    asked = {re.sub(r"\D*(\d+) (?:minus|-) (\d+)\D*", r"\1-\2", question) for question, _ in sums(settings)}
    for b in range(10):
        for rest in range(10):
            key = f"{b + rest}-{b}"
            for wording in SUBTRACTIONS:
                yield _exercise(wording.format(a=b + rest, b=b), rest, key, key not in asked)


def _exercise(question: str, answer: int, key: str, away: bool) -> dict[str, Any]:
    return {"question": question, "answer": str(answer), "key": key, "held_out": away}
