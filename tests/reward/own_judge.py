"""Judges such as a user writes, for the tests of the stage."""

from __future__ import annotations

from typing import Any


def likes_red(messages: list[dict[str, Any]], answer: str, seed: int) -> float:
    """And, a little, whoever is named."""
    return answer.count("red") + 0.1 * sum(name in answer for name in ("Ada", "Bo", "Cy", "Di"))


def silent(messages: list[dict[str, Any]], answer: str, seed: int) -> None:
    """Gives no score."""
