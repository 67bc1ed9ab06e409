"""Sums to learn by trying: what they come to can be checked, how to get there nobody shows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from miniweb.arithmetic import held_out
from miniweb.conversations import EVERYDAY
from miniweb.settings import Settings

WORDINGS = [
    "What do {a} and {b} make?",
    "Add {a} to {b}.",
    "{b} more than {a} is how many?",
    "If I have {a} and get {b} more, how many have I?",
    "I counted {a} and then {b}. How many in all?",
    "One box holds {a} and another {b}. How many do both hold?",
    "Start at {a} and go up by {b}. Where are you?",
]
"""In none of which a conversation asks."""


def exercises(settings: Settings = EVERYDAY) -> Iterator[dict[str, Any]]:
    """One-digit sums as text problems: {"question", "answer", "key", "held_out"}. Those that no conversation asks for
    in any words are held out."""
    kept_out = set(held_out(settings))
    for a in range(10):
        for b in range(10):
            for wording in WORDINGS:
                yield {
                    "question": wording.format(a=a, b=b), "answer": str(a + b), "key": f"{a}+{b}",
                    "held_out": (a, b) in kept_out,
                }  # fmt: skip
