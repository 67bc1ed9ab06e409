"""The user's own steps, apart from the cluster: what they answer, and what comes of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from webtochat.curate import steps
from webtochat.curate.decide import decide
from webtochat.curate.quality import measure
from webtochat.errors import UserError
from webtochat.recipe_pages import Curate, Limits, Measure, Step

ROW: dict[str, Any] = {"url": "http://a.example/", "text": "aeiou by the river", "step": None}


def step(name: str, **arguments: Any) -> Step:
    return Step(path=f"python:own_steps:{name}", arguments=arguments)


def test_measurements_are_added_to_those_there_are() -> None:
    row = steps.asked(ROW | {"own": {"before": 1.0}}, step("vowels", letters="a"))
    assert row["own"] == {"before": 1.0, "vowels": 1 / 18} and row["step"] is None


def test_a_verdict_stops_the_page() -> None:
    row = steps.asked(ROW, step("no_rivers"))
    assert (row["step"], row["reason"]) == ("no_rivers", "river")
    assert steps.asked(ROW | {"text": "a tree"}, step("no_rivers"))["step"] is None


def test_a_failure_is_counted_as_such() -> None:
    assert steps.asked(ROW, step("broken"))["reason"] == "error_KeyError"
    together = steps.asked_together([ROW, ROW], step("Classifier", word="a"), lambda documents: 1 / 0)
    assert [row["reason"] for row in together] == ["error_ZeroDivisionError"] * 2


def test_where_every_document_fails_the_step_is_at_fault() -> None:
    section = Measure(steps=[step("broken")])
    failed = steps.asked(ROW, section.steps[0])
    elsewhere = {"step": "language", "reason": "other_language"}
    assert len(list(steps.not_all_failed([failed, ROW, elsewhere], section))) == 3
    with pytest.raises(UserError, match="every document failed in broken with KeyError"):
        list(steps.not_all_failed([failed, elsewhere], section))


@pytest.mark.parametrize(("path", "told"), [
    ("python:nowhere:f", "no module nowhere"), ("python:own_steps:nothing", "has no nothing"),
])  # fmt: skip
def test_a_step_that_is_not_there(path: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        steps.loaded(path)


def test_an_answer_that_is_none() -> None:
    with pytest.raises(UserError, match="an answer is True"):
        steps.asked(ROW, step("senseless"))
    with pytest.raises(UserError, match="1 answers to 2"):
        steps.asked_together([ROW, ROW], step("Classifier", word="a"), lambda documents: [True])


def test_limits_of_own_measurements() -> None:
    bounds = Curate(own={"vowels": Limits(at_least=0.2, at_most=0.5)})
    good = measure("The cat sat down by the river and it had a look at the water that was there. " * 3)
    only_own = bounds.model_copy(update={
        "gopher": bounds.gopher.model_copy(update={
            "min_words": 0, "max_top_ngrams": {}, "max_duplicate_ngrams": {},
        }), "c4": bounds.c4.model_copy(update={"min_sentences": 0}),
    })  # fmt: skip
    assert decide(good | {"vowels": 0.3}, only_own) is None and decide(good, only_own) is None
    removal = decide(good | {"vowels": 0.6}, only_own)
    assert removal is not None and (removal.step, removal.reason, removal.threshold) == ("own", "max_vowels", 0.5)
    removal = decide(good | {"vowels": 0.1}, only_own)
    assert removal is not None and removal.reason == "min_vowels"


def test_another_version_of_the_code_is_another_step() -> None:
    assert steps.fingerprint(step("vowels")) == steps.fingerprint(step("no_rivers"))  # of one file
    assert not steps.is_class(step("vowels")) and steps.is_class(step("Classifier"))
