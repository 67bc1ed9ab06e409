"""Steps such as a user writes, for test_steps.py and test_curate_stage.py."""

from __future__ import annotations

import os
import signal
from typing import Any


def vowels(document: dict[str, Any], letters: str = "aeiou") -> dict[str, float]:
    return {"vowels": sum(document["text"].count(letter) for letter in letters) / max(1, len(document["text"]))}


def no_rivers(document: dict[str, Any]) -> bool | tuple[bool, str]:
    return (False, "river") if "river" in document["text"] else True


def broken(document: dict[str, Any]) -> Any:
    raise KeyError(document["url"])


def sometimes_broken(document: dict[str, Any]) -> Any:
    return broken(document) if "garden" in document["text"] else True


def senseless(document: dict[str, Any]) -> Any:
    return "yes"


class Classifier:
    """Knows one word, and how many documents it was ever asked about at once."""

    def __init__(self, word: str):
        self.word = word

    def __call__(self, documents: list[dict[str, Any]]) -> list[Any]:
        return [
            (False, "too_towering") if "tower" in document["text"]
            else {self.word: float(document["text"].count(self.word)), "together": float(len(documents))}
            for document in documents
        ]  # fmt: skip


def dies_once(document: dict[str, Any], where: str, marker: str) -> bool:
    """Kills its process at the first document about `where`, unless the marker says that it did."""
    if where in document["text"] and not os.path.exists(marker):
        with open(marker, "w"):
            os.kill(os.getpid(), signal.SIGKILL)
    return True
