"""Decisions: each rule at its threshold and just past it, and their order."""

from __future__ import annotations

import pytest

from webtochat.curate.decide import Removal, decide, rules
from webtochat.curate.quality import COLUMNS, measure
from webtochat.recipe_pages import Curate

# A page that passes every rule, far from every threshold.
GOOD = dict.fromkeys(COLUMNS, 0.0) | {
    "words": 500, "mean_word_length": 5, "alpha_words": 0.95, "stop_words": 8, "sentences": 30, "punctuated_lines": 0.9,
}  # fmt: skip


@pytest.mark.parametrize("rule", rules(Curate()), ids=lambda rule: f"{rule.reason}-{rule.measurement}")
def test_a_rule_holds_at_its_threshold_and_breaks_past_it(rule) -> None:  # type: ignore[no-untyped-def]
    past = rule.threshold + (1e-6 if rule.at_most else -1e-6)
    assert decide(GOOD | {rule.measurement: rule.threshold}, Curate()) is None
    expected = Removal(rule.step, rule.reason, past, rule.threshold)
    assert decide(GOOD | {rule.measurement: past}, Curate()) == expected


def test_every_threshold_of_the_recipe_is_a_rule() -> None:
    reasons = {rule.reason for rule in rules(Curate())}
    for section in ("gopher", "c4", "fineweb"):
        for key, value in getattr(Curate(), section):
            if isinstance(value, dict):
                assert sum(reason.startswith(key.removesuffix("ngrams")) for reason in reasons) >= len(value)
            else:
                assert key in reasons


def test_the_first_broken_rule_is_the_reason() -> None:
    bad = GOOD | {"duplicate_lines": 1, "words": 3, "sentences": 1, "short_lines": 1}
    steps = []
    while (removal := decide(bad, Curate())) is not None:
        steps.append(removal.step)
        rule = next(rule for rule in rules(Curate()) if rule.reason == removal.reason)
        bad[rule.measurement] = GOOD[rule.measurement]
    assert steps == ["gopher_repetition", "gopher_quality", "c4", "fineweb"]


def test_thresholds_are_the_recipes() -> None:
    lax = Curate.model_validate({
        "gopher": {
            "min_words": 2, "min_stop_words": 0, "min_alpha_words": 0.5,
            "max_top_ngrams": {}, "max_duplicate_ngrams": {},
        },
        "c4": {"min_sentences": 1, "curly_bracket": False},
        "fineweb": {"max_short_lines": 1, "min_punctuated_lines": 0},
    })  # fmt: skip
    values = measure("a function { of three } words")
    assert decide(values, Curate()) == Removal("gopher_repetition", "max_top_2gram", pytest.approx(10 / 29), 0.2)
    assert decide(values, lax) is None
