"""Pages that hold texts of evaluation sets: a run of 13 words in common is enough (Brown et al. 2020, appendix C)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from webtochat.crawl import documents
from webtochat.duplicates import minhash
from webtochat.errors import UserError
from webtochat.recipe_pages import Curate


@dataclass(frozen=True)
class EvaluationSets:
    """The runs of words of the sets that a recipe names, as 64-bit hashes (10 bytes each)."""

    names: tuple[str, ...]
    words: int
    runs: np.ndarray
    """(R,) uint64, sorted."""
    sets: np.ndarray
    """(R,) uint16: of each run, the number of the first set that has it."""

    @classmethod
    def of(cls, section: Curate) -> EvaluationSets | None:
        """Reads the files: every text in a row counts, alone. None where the recipe names no set. Raises UserError."""
        if not section.evaluation_sets:
            return None
        found, numbers = [], []
        for number, (name, patterns) in enumerate(section.evaluation_sets.items()):
            runs = _runs(name, patterns, section.contamination_words)
            found.append(runs)
            numbers.append(np.full(len(runs), number, np.uint16))
        runs, first = np.unique(np.concatenate(found), return_index=True)
        return cls(tuple(section.evaluation_sets), section.contamination_words, runs, np.concatenate(numbers)[first])

    def fingerprint(self) -> str:
        return hashlib.sha256(self.runs.tobytes() + self.sets.tobytes()).hexdigest()

    def within(self, text: str) -> tuple[str, int] | None:
        """The set that a text has most runs of, and how many; None if it has none."""
        runs = minhash.runs(text, self.words)
        at = np.minimum(np.searchsorted(self.runs, runs), len(self.runs) - 1)
        counts = np.bincount(self.sets[at[self.runs[at] == runs]])
        return (self.names[counts.argmax()], int(counts.max())) if len(counts) else None


def _runs(name: str, patterns: list[str], words: int) -> np.ndarray:
    files = [entry.path for pattern in patterns for entry in documents.expand(pattern)]
    if not files:
        raise UserError(f"curate.evaluation_sets.{name}: no file matches {', '.join(patterns) or '[]'}")
    rows = (row for path in files for batch in documents.raw(path) for row in batch)
    found = [minhash.runs(text, words) for row in rows for text in _texts(row)]
    runs = np.unique(np.concatenate(found)) if found else np.empty(0, np.uint64)
    if not len(runs):
        raise UserError(f"curate.evaluation_sets.{name}: no text there has {words} words (contamination_words)")
    return runs


def _texts(value: Any) -> Iterator[str]:
    """Every text in a row, however deep."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)
