"""Measurements of a text: Gopher's on the text as extracted, C4's and FineWeb's on the text that C4's line rules
rewrote. Nothing is decided here. Definitions follow datatrove's filters, so that thresholds mean the same.
"""

from __future__ import annotations

import math
import re
import string
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import regex

from webtochat.curate.words import sentences_in, words_of
from webtochat.recipe import Lines, Measure

PUNCTUATION = frozenset(string.punctuation + "。，！？；：、“”‘’„…—–«»‹›¿¡（）《》【】「」")
POLICY = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
PUNCTUATED = regex.compile(r"\p{STerm}\Z")
PARAGRAPH_BREAK = re.compile(r"\n{2,}")
LINE_BREAK = re.compile(r"\n+")
TOP_NGRAMS, DUPLICATE_NGRAMS = (2, 3, 4), (5, 6, 7, 8, 9, 10)


def measure(text: str) -> dict[str, float]:
    """Every measurement of an English text, under C4's and FineWeb's own line rules."""
    return measured(text, Lines(), Measure().stop_words["en"])[0]


def measured(text: str, lines: Lines, stop_words: Collection[str] | None) -> tuple[dict[str, float], str]:
    """Every measurement, and the text that C4's line rules rewrote, which is what a kept document holds. Without
    `stop_words`, which each language has its own of, they are not counted: NaN, which breaks no rule."""
    words = Words.of(text)
    rewritten, removed = rewrite(text, lines)
    values = gopher_repetition(text, words) | gopher_quality(text, words, stop_words)
    return values | removed | c4(rewritten) | fineweb(rewritten, lines), rewritten


@dataclass(frozen=True)
class Words:
    """A text's words as numbers: `ids` into `unique`, each word once in the order of first use."""

    ids: np.ndarray
    unique: list[str]

    @classmethod
    def of(cls, text: str) -> Words:
        numbers: dict[str, int] = {}
        ids = [numbers.setdefault(word, len(numbers)) for word in words_of(text)]
        return cls(np.array(ids, np.int64), list(numbers))


def gopher_repetition(text: str, words: Words) -> dict[str, float]:
    """Rae et al. 2021, table A1: shares of units, or of the text's characters, that repeat."""
    values: dict[str, float] = {}
    size = max(1, len(text))
    for name, unit_break in (("paragraph", PARAGRAPH_BREAK), ("line", LINE_BREAK)):
        units = unit_break.split(text.strip())
        repeats, characters = _repeats(units)
        values[f"duplicate_{name}s"] = repeats / len(units)
        values[f"duplicate_{name}_characters"] = characters / size
    lengths = np.array([len(word) for word in words.unique], np.int64)[words.ids]
    before = np.concatenate([[0], np.cumsum(lengths)])
    for n, grams in enumerate(_ngrams(words, DUPLICATE_NGRAMS[-1]), 1):
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
    """The n-grams of a text, each numbered by its words: `ids` at every position, and of each number its first
    position and its count."""

    ids: np.ndarray
    first: np.ndarray
    counts: np.ndarray


def _ngrams(words: Words, most: int) -> Iterator[Ngrams]:
    """The 1-grams, 2-grams … `most`-grams. Each number of an n-gram is made of the (n-1)-gram's and a word's."""
    ids = words.ids
    counts = np.bincount(ids)
    for n in range(1, most + 1):
        if n > 1:
            ids = ids[:-1] * len(words.unique) + words.ids[n - 1 :]
        if n > 1 and counts.max(initial=0) <= 1:  # no shorter one repeats, so none of these does
            ids = first = np.arange(len(ids))
            counts = np.ones(len(ids), np.int64)
        else:
            _, first, ids, counts = np.unique(ids, return_index=True, return_inverse=True, return_counts=True)
        yield Ngrams(ids, first, counts)


def _top_ngram(grams: Ngrams, before: np.ndarray, n: int) -> int:
    """Characters that the most frequent n-gram covers, a space between its words; of equals the first."""
    if not len(grams.ids):
        return 0
    most = grams.counts.max()
    position = grams.first[grams.counts == most].min()
    return int(most * (before[position + n] - before[position] + n - 1))


def _duplicate_ngrams(grams: Ngrams, before: np.ndarray, n: int) -> int:
    """Characters of words in n-grams that stood before. A repeat is passed over whole, so that no word counts twice."""
    seen: set[int] = set()
    characters = reached = 0
    repeated = np.flatnonzero((grams.counts > 1)[grams.ids])
    for position, gram in zip(repeated.tolist(), grams.ids[repeated].tolist(), strict=True):
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
    plain = np.array([not PUNCTUATION.issuperset(word) for word in words.unique], bool)
    alpha = np.array([any(map(str.isalpha, word)) for word in words.unique], bool)
    lengths = np.array([len(word) for word in words.unique], np.int64)
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
        words = line.split()
        line = CITATION.sub("", line.strip())
        lower = line.lower()
        if len(line) > rules.max_word_length and max(map(len, words)) > rules.max_word_length:
            removed["lines_long_word"] += 1
        elif len(words) < rules.min_words:
            removed["lines_few_words"] += bool(words)
        elif "javascript" in lower:
            removed["lines_javascript"] += 1
        elif any(phrase in lower for phrase in POLICY):
            removed["lines_policy"] += 1
        else:
            kept.append(line)
    return "\n".join(kept).strip(), removed


def c4(text: str) -> dict[str, float]:
    """What C4's document rules look at, in the rewritten text."""
    return {
        "lorem_ipsum": float("lorem ipsum" in text.lower()),
        "curly_bracket": float("{" in text),
        "sentences": float(sum(map(sentences_in, text.splitlines()))),
    }


def fineweb(text: str, rules: Lines) -> dict[str, float]:
    """Penedo et al. 2024, section 3.6, in the rewritten text."""
    lines = [line for line in text.split("\n") if line.strip()]
    count = max(1, len(lines))
    _, characters = _repeats(lines)
    return {
        "punctuated_lines": sum(PUNCTUATED.search(line[-1]) is not None for line in lines) / count,
        "short_lines": sum(len(line) <= rules.short for line in lines) / count,
        "duplicate_rewritten_line_characters": characters / max(1, len(text.replace("\n", ""))),
        "newlines_per_word": text.count("\n") / max(1, len(words_of(text))),
    }


COLUMNS = tuple(measure("a"))
"""Names of all measurements, in order."""
