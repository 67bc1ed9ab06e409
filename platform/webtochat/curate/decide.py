"""Decisions: measurements against a recipe's thresholds, in FineWeb's order. No text is read: deciding is cheap."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from webtochat.recipe_pages import Curate


@dataclass(frozen=True)
class Removal:
    step: str
    reason: str
    value: float | None = None
    threshold: float | None = None


@dataclass(frozen=True)
class Rule:
    """A page goes where its measurement is below `threshold`, or above it for `at_most`. `reason`: the recipe's key."""

    step: str
    reason: str
    measurement: str
    threshold: float
    at_most: bool

    def removes(self, value: float) -> bool:
        """A measurement that is NaN breaks no rule."""
        return value > self.threshold if self.at_most else value < self.threshold


def rules(thresholds: Curate) -> list[Rule]:
    """Every rule of a recipe, in the order in which they are applied; the first that a page breaks is its reason."""
    ordered = [_repetition, _quality, _c4, _fineweb, _classified, _own]
    return [rule for made in ordered for rule in made(thresholds)]


def _repetition(thresholds: Curate) -> Iterator[Rule]:
    gopher = thresholds.gopher
    for unit in ("paragraphs", "paragraph_characters", "lines", "line_characters"):
        reason = f"max_duplicate_{unit}"
        yield Rule("gopher_repetition", reason, f"duplicate_{unit}", getattr(gopher, reason), True)
    for n, limit in sorted(gopher.max_top_ngrams.items()):
        yield Rule("gopher_repetition", f"max_top_{n}gram", f"top_{n}gram", limit, True)
    for n, limit in sorted(gopher.max_duplicate_ngrams.items()):
        yield Rule("gopher_repetition", f"max_duplicate_{n}grams", f"duplicate_{n}grams", limit, True)


def _quality(thresholds: Curate) -> Iterator[Rule]:
    gopher = thresholds.gopher
    yield Rule("gopher_quality", "min_words", "words", gopher.min_words, False)
    yield Rule("gopher_quality", "max_words", "words", gopher.max_words, True)
    yield Rule("gopher_quality", "min_mean_word_length", "mean_word_length", gopher.min_mean_word_length, False)
    yield Rule("gopher_quality", "max_mean_word_length", "mean_word_length", gopher.max_mean_word_length, True)
    yield Rule("gopher_quality", "max_symbol_word_ratio", "hash_per_word", gopher.max_symbol_word_ratio, True)
    yield Rule("gopher_quality", "max_symbol_word_ratio", "ellipsis_per_word", gopher.max_symbol_word_ratio, True)
    yield Rule("gopher_quality", "max_bullet_lines", "bullet_lines", gopher.max_bullet_lines, True)
    yield Rule("gopher_quality", "max_ellipsis_lines", "ellipsis_lines", gopher.max_ellipsis_lines, True)
    yield Rule("gopher_quality", "min_alpha_words", "alpha_words", gopher.min_alpha_words, False)
    yield Rule("gopher_quality", "min_stop_words", "stop_words", gopher.min_stop_words, False)


def _c4(thresholds: Curate) -> Iterator[Rule]:
    if thresholds.c4.lorem_ipsum:
        yield Rule("c4", "lorem_ipsum", "lorem_ipsum", 0, True)
    if thresholds.c4.curly_bracket:
        yield Rule("c4", "curly_bracket", "curly_bracket", 0, True)
    yield Rule("c4", "min_sentences", "sentences", thresholds.c4.min_sentences, False)


def _fineweb(thresholds: Curate) -> Iterator[Rule]:
    fineweb = thresholds.fineweb
    repeated = fineweb.max_duplicate_line_characters
    yield Rule("fineweb", "min_punctuated_lines", "punctuated_lines", fineweb.min_punctuated_lines, False)
    yield Rule("fineweb", "max_short_lines", "short_lines", fineweb.max_short_lines, True)
    yield Rule("fineweb", "max_duplicate_line_characters", "duplicate_rewritten_line_characters", repeated, True)
    yield Rule("fineweb", "max_newlines_per_word", "newlines_per_word", fineweb.max_newlines_per_word, True)


def _classified(thresholds: Curate) -> Iterator[Rule]:
    if thresholds.min_quality is not None:
        yield Rule("quality", "min_quality", "quality", thresholds.min_quality, False)


def _own(thresholds: Curate) -> Iterator[Rule]:
    for name, limits in thresholds.own.items():
        if limits.at_least is not None:
            yield Rule("own", f"min_{name}", name, limits.at_least, False)
        if limits.at_most is not None:
            yield Rule("own", f"max_{name}", name, limits.at_most, True)


def decide(measurements: Mapping[str, float], thresholds: Curate) -> Removal | None:
    """Why a page goes, or None if it stays."""
    return first_broken(measurements, rules(thresholds))


def first_broken(measurements: Mapping[str, float], ordered: list[Rule]) -> Removal | None:
    for rule in ordered:
        value = measurements.get(rule.measurement)
        if value is None:  # a step of the user's need not measure each page
            continue
        if rule.removes(value):
            return Removal(rule.step, rule.reason, value, rule.threshold)
    return None
