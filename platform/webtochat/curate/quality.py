"""Measurements of a text: Gopher's on the text as extracted, C4's and FineWeb's on the text that C4's line rules
rewrote. Nothing is decided here. Definitions follow datatrove's filters, so that thresholds mean the same.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import regex

from webtochat.recipe import Lines

WORD = regex.compile(r"\p{N}+(?:[.,]\p{N}+)*|[\p{L}\p{M}\p{N}_]+(?:['’-][\p{L}\p{M}\p{N}]+)*|(\S)\1*+")
PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~。，！？；：、“”‘’…—–«»•·‹›„¿¡（）《》【】「」")
STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with"])
POLICY = (
    "terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies",
)  # fmt: skip
CITATION = re.compile(r"\[\d*\]|\[edit\]|\[citation needed\]")
SENTENCE_END = regex.compile(r"[.!?…。！？]+[\"'”’)\]]*(?=\s|$)")
END_PUNCTUATION = (".", "?", "!", '"', "'", "”", "…", "。", "！", "？")
PARAGRAPH_BREAK = re.compile(r"\n{2,}")
LINE_BREAK = re.compile(r"\n+")
TOP_NGRAMS, DUPLICATE_NGRAMS = (2, 3, 4), (5, 6, 7, 8, 9, 10)


def words_of(text: str) -> list[str]:
    """Words, numbers, and runs of one punctuation mark, much as spaCy splits English at a hundredth of the time."""
    return [found[0] for found in WORD.finditer(text)]


def measure(text: str) -> dict[str, float]:
    """Every measurement of a text, under C4's and FineWeb's own line rules."""
    return measured(text, Lines())[0]


def measured(text: str, lines: Lines) -> tuple[dict[str, float], str]:
    """Every measurement, and the text that C4's line rules rewrote, which is what a kept document holds."""
    values = gopher_repetition(text) | gopher_quality(text)
    rewritten, removed = rewrite(text, lines)
    values |= removed | c4(rewritten) | fineweb(rewritten, lines)
    return values, rewritten


def gopher_repetition(text: str) -> dict[str, float]:
    """Rae et al. 2021, table A1: shares of the characters or units that repeat."""
    values: dict[str, float] = {}
    for name, unit_break in (("paragraph", PARAGRAPH_BREAK), ("line", LINE_BREAK)):
        units = unit_break.split(text.strip())
        repeats, characters = _repeats(units)
        values[f"duplicate_{name}s"] = repeats / len(units)
        values[f"duplicate_{name}_characters"] = characters / max(1, len(text))
    words = words_of(text)
    lengths = [len(word) for word in words]
    for n in TOP_NGRAMS:
        values[f"top_{n}gram"] = _top_ngram(words, n) / max(1, len(text))
    for n in DUPLICATE_NGRAMS:
        values[f"duplicate_{n}grams"] = _duplicate_ngrams(words, lengths, n) / max(1, len(text))
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


def _top_ngram(words: Sequence[str], n: int) -> int:
    """Characters that the most frequent n-gram covers, its spaces counted once each."""
    if len(words) < n:
        return 0
    counts = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    gram, count = counts.most_common(1)[0]
    return (sum(map(len, gram)) + n - 1) * count


def _duplicate_ngrams(words: Sequence[str], lengths: Sequence[int], n: int) -> int:
    """Characters of words in n-grams that stood before; a repeated n-gram is passed over whole, so that no word counts
    twice."""
    seen: set[tuple[str, ...]] = set()
    characters = position = 0
    grams = list(zip(*(words[start:] for start in range(n)), strict=False))
    while position < len(grams):
        gram = grams[position]
        if gram in seen:
            characters += sum(lengths[position : position + n])
            position += n
        else:
            seen.add(gram)
            position += 1
    return characters


def gopher_quality(text: str) -> dict[str, float]:
    """Rae et al. 2021, section A.1.1."""
    tokens = words_of(text)
    words = [token for token in tokens if any(character not in PUNCTUATION for character in token)]
    count = max(1, len(tokens))
    lines = text.splitlines() or [""]
    return {
        "words": len(words),
        "mean_word_length": sum(map(len, words)) / max(1, len(words)),
        "hash_per_word": text.count("#") / count,
        "ellipsis_per_word": (text.count("...") + text.count("…")) / count,
        "bullet_lines": sum(line.lstrip().startswith(("•", "-")) for line in lines) / len(lines),
        "ellipsis_lines": sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines),
        "alpha_words": sum(any(map(str.isalpha, token)) for token in tokens) / count,
        "stop_words": len(STOP_WORDS.intersection(words)),
    }


def rewrite(text: str, rules: Lines) -> tuple[str, dict[str, float]]:
    """C4's line rules (Raffel et al. 2020, section 2.2): citation marks are stripped; lines with a word of more than
    1,000 characters, fewer than 3 words (both by recipe), "javascript" or a policy phrase are
    dropped. Returns the rest, and how many lines went by each rule."""
    kept = []
    removed = dict.fromkeys(["lines_long_word", "lines_few_words", "lines_javascript", "lines_policy"], 0.0)
    for line in text.splitlines():
        line = CITATION.sub("", line.strip())
        words = line.split()
        lower = line.lower()
        if any(len(word) > rules.max_word_length for word in words):
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
    lower = text.lower()
    return {
        "lorem_ipsum": float("lorem ipsum" in lower),
        "curly_bracket": float("{" in text),
        "sentences": sum(max(1, len(SENTENCE_END.findall(line))) for line in text.splitlines()),
    }


def fineweb(text: str, rules: Lines) -> dict[str, float]:
    """Penedo et al. 2024, section 3.6."""
    lines = [line for line in text.split("\n") if line.strip()]
    count = max(1, len(lines))
    _, characters = _repeats(lines)
    return {
        "punctuated_lines": sum(line.endswith(END_PUNCTUATION) for line in lines) / count,
        "short_lines": sum(len(line) <= rules.short for line in lines) / count,
        "duplicate_rewritten_line_characters": characters / max(1, len(text.replace("\n", ""))),
        "newlines_per_word": text.count("\n") / max(1, len(words_of(text))),
    }


COLUMNS = tuple(measure("a"))
"""Names of all measurements, in order."""
