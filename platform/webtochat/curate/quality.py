"""Measurements of a text: Gopher's on the text as extracted, C4's and FineWeb's on the text that C4's line rules
rewrote. Nothing is decided here. Definitions follow datatrove's filters, so that thresholds mean the same.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import regex

from webtochat.curate.words import count, words_of
from webtochat.memo import Memo
from webtochat.recipe_pages import Lines, Measure

PUNCTUATION = frozenset(string.punctuation + "。，！？；：、“”‘’„…—–«»‹›¿¡（）《》【】「」")
POLICY = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
_IS_MARK = Memo(PUNCTUATION.issuperset)
_HAS_LETTER = Memo(lambda word: any(map(str.isalpha, word)))
_ENDS = Memo(lambda character: regex.match(r"\p{STerm}", character) is not None)
TOP_NGRAMS, DUPLICATE_NGRAMS = (2, 3, 4), (5, 6, 7, 8, 9, 10)


def measure(text: str) -> dict[str, float]:
    """Every measurement of an English text, under C4's and FineWeb's own line rules."""
    return measured(text, Lines(), Measure().stop_words["en"])[0]


def measured(
    text: str, lines: Lines, stop_words: Collection[str] | None, lap: Callable[[str], None] = lambda step: None
) -> tuple[dict[str, float], str]:
    """Every measurement, and the text that C4's line rules rewrote, which is what a kept document holds. Without
    `stop_words`, which each language has its own of, they are not counted: NaN, which breaks no rule. `lap` is told the
    step whose measurements are made."""
    words = Words.of(text)
    values = gopher_repetition(text, words)
    lap("gopher_repetition")
    values |= gopher_quality(text, words, stop_words)
    lap("gopher_quality")
    rewritten, removed = rewrite(text, lines)
    lap("c4")
    values |= removed | of_rewritten(rewritten, lines)
    lap("fineweb")
    return values, rewritten


@dataclass(frozen=True)
class Words:
    """A text's words as numbers: `ids` into `unique`, each word once in the order of first use."""

    ids: np.ndarray
    unique: list[str]

    @classmethod
    def of(cls, text: str) -> Words:
        words = words_of(text)
        unique = list(dict.fromkeys(words))
        numbers = dict(zip(unique, range(len(unique)), strict=True))
        return cls(np.fromiter(map(numbers.__getitem__, words), np.int64, len(words)), unique)

    def each(self, function: Callable[[str], Any], kind: type) -> np.ndarray:
        """`function` of each unique word (U,)."""
        return np.fromiter(map(function, self.unique), kind, len(self.unique))


def gopher_repetition(text: str, words: Words) -> dict[str, float]:
    """Rae et al. 2021, table A1: shares of units, or of the text's characters, that repeat."""
    values: dict[str, float] = {}
    size = max(1, len(text))
    for name, unit_break in (("paragraph", "\n\n"), ("line", "\n")):
        units = [unit for each in text.strip().split(unit_break) if (unit := each.strip("\n"))] or [""]
        repeats, characters = _repeats(units)
        values[f"duplicate_{name}s"] = repeats / len(units)
        values[f"duplicate_{name}_characters"] = characters / size
    before = np.concatenate([[0], np.cumsum(words.each(len, np.int64)[words.ids])])
    for n, grams in enumerate(_repeated_ngrams(words, DUPLICATE_NGRAMS[-1]), 1):
        if n in TOP_NGRAMS:
            values[f"top_{n}gram"] = _top_ngram(grams, before, n) / size
        if n in DUPLICATE_NGRAMS:
            values[f"duplicate_{n}grams"] = _duplicate_ngrams(grams, before, n) / size
    return values


def _repeats(units: Sequence[str]) -> tuple[int, int]:
    """Units that stood before, and their characters."""
    seen: set[str] = set()
    repeats = characters = 0
    for unit in units:
        if unit in seen:
            repeats += 1
            characters += len(unit)
        seen.add(unit)
    return repeats, characters


@dataclass(frozen=True)
class Ngrams:
    """The n-grams that stand in a text more than once: `positions`, in order; at each `ids`, the n-gram's number; and
    `counts` by number."""

    positions: np.ndarray
    ids: np.ndarray
    counts: np.ndarray


def _repeated_ngrams(words: Words, most: int) -> Iterator[Ngrams]:
    """Of 1-grams, 2-grams … `most`-grams. An n-gram can only repeat where both of its (n-1)-grams do, so that each
    takes less time than the one before."""
    positions, ids = np.arange(len(words.ids)), words.ids
    for n in range(1, most + 1):
        if n > 1:
            both = np.flatnonzero(positions[1:] == positions[:-1] + 1)
            positions = positions[both]
            ids = ids[both] * len(words.unique) + words.ids[positions + n - 1]
        _, ids, counts = np.unique(ids, return_inverse=True, return_counts=True)
        again = counts[ids] > 1
        positions, ids = positions[again], ids[again]
        yield Ngrams(positions, ids, counts)


def _top_ngram(grams: Ngrams, before: np.ndarray, n: int) -> int:
    """Characters that the most frequent n-gram covers, a space between its words; of equals the first."""
    if len(before) <= n:
        return 0
    most, position = 1, 0
    if len(grams.ids):
        most = grams.counts.max()
        position = grams.positions[np.argmax(grams.counts[grams.ids] == most)]
    return int(most * (before[position + n] - before[position] + n - 1))


def _duplicate_ngrams(grams: Ngrams, before: np.ndarray, n: int) -> int:
    """Characters of words in n-grams that stood before. A repeat is passed over whole, so that no word counts twice."""
    seen: set[int] = set()
    characters = reached = 0
    for position, gram in zip(grams.positions.tolist(), grams.ids.tolist(), strict=True):
        if position < reached:
            continue
        if gram in seen:
            characters += int(before[position + n] - before[position])
            reached = position + n
        else:
            seen.add(gram)
    return characters


def gopher_quality(text: str, words: Words, stop_words: Collection[str] | None) -> dict[str, float]:
    """Rae et al. 2021, section A.1.1. Shares are of all words, marks included; lengths of those that are no marks."""
    counts = np.bincount(words.ids, minlength=len(words.unique))
    plain, alpha = ~words.each(_IS_MARK.__getitem__, bool), words.each(_HAS_LETTER.__getitem__, bool)
    lengths = words.each(len, np.int64)
    every, number = max(1, len(words.ids)), int(counts[plain].sum())
    lines = text.splitlines() or [""]
    return {
        "words": float(number),
        "mean_word_length": int((counts * lengths)[plain].sum()) / max(1, number),
        "hash_per_word": text.count("#") / every,
        "ellipsis_per_word": (text.count("...") + text.count("…")) / every,
        "bullet_lines": sum(line.lstrip().startswith(("•", "-")) for line in lines) / len(lines),
        "ellipsis_lines": sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines),
        "alpha_words": int(counts[alpha].sum()) / every,
        "stop_words": math.nan if stop_words is None else float(len(set(stop_words).intersection(words.unique))),
    }


def rewrite(text: str, rules: Lines) -> tuple[str, dict[str, float]]:
    """C4's line rules (Raffel et al. 2020, section 2.2): citation marks are stripped; lines with a word of more than
    1,000 characters, fewer than 3 words (both by recipe), "javascript" or a policy phrase are dropped. Returns the
    rest, and how many lines went by each rule (empty ones are not counted)."""
    kept = []
    removed = dict.fromkeys(["lines_long_word", "lines_few_words", "lines_javascript", "lines_policy"], 0.0)
    for line in text.splitlines():
        pieces = line.split()
        line = line.strip()
        if "[" in line:
            line = CITATION.sub("", line)
        lower = line.lower()
        if len(line) > rules.max_word_length and max(map(len, pieces)) > rules.max_word_length:
            removed["lines_long_word"] += 1
        elif len(pieces) < rules.min_words:
            removed["lines_few_words"] += bool(pieces)
        elif "javascript" in lower:
            removed["lines_javascript"] += 1
        elif any(phrase in lower for phrase in POLICY):
            removed["lines_policy"] += 1
        else:
            kept.append(line)
    return "\n".join(kept).strip(), removed


def of_rewritten(text: str, rules: Lines) -> dict[str, float]:
    """What C4's document rules (Raffel et al. 2020, section 2.2) and FineWeb's (Penedo et al. 2024, section 3.6) look
    at, in the rewritten text."""
    lines = [line for line in text.split("\n") if line.strip()]
    number = max(1, len(lines))
    words, sentences = count(text)
    _, repeated = _repeats(lines)
    return {
        "lorem_ipsum": float("lorem ipsum" in text.lower()),
        "curly_bracket": float("{" in text),
        "sentences": float(sentences),
        "punctuated_lines": sum(_ENDS[line[-1]] for line in lines) / number,
        "short_lines": sum(len(line) <= rules.short for line in lines) / number,
        "duplicate_rewritten_line_characters": repeated / max(1, len(text) - text.count("\n")),
        "newlines_per_word": text.count("\n") / max(1, words),
    }


COLUMNS = tuple(measure("a"))
"""Names of all measurements, in order."""
