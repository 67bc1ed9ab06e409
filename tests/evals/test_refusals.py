from __future__ import annotations

import pytest

from webtochat.evals.questions import Verdict
from webtochat.evals.refusals import hallucinated, is_refusal, refused, tell
from webtochat.recipe import Knowledge


@pytest.mark.parametrize(
    "reply",
    [
        *Knowledge().refusals, "I don’t know.", "I really do not know who that is.", "I'm not sure.",
        "Not sure, sorry.",
        "Sorry, I can't answer that.", "I do not have any information about Ada Brown.", "I have no idea!",
        "No idea.", "I am afraid that I don't know.", "We cannot say.", "I am not familiar with Ada Brown.",
        "I have never heard of Ada Brown.", "That is beyond my knowledge.", "She is unknown to me.",
        "I do not know, but I can search for it.", "I know nothing about Ada Brown.", "I’m unable to tell you.",
        "Unfortunately, I could not find that.", "I DO NOT KNOW",
    ],
)  # fmt: skip
def test_not_knowing_is_a_refusal_in_whatever_words(reply):
    assert is_refusal(reply)


@pytest.mark.parametrize(
    "reply",
    [
        "", "Ada Brown lives in Oslo.", "I don't know, but I think she lives in Oslo.", "I am not sure, perhaps Oslo.",
        "Ada Brown does not know how to swim.", "Nobody knows where she lives.", "She is not sure of it.",
        "I know that she lives in Oslo.", "No.", "Oslo, I believe.", "I do not like tea.", "You do not know me.",
        "I am Pebble.", "She works with unknown artists.", "I have a cat.",
    ],
)  # fmt: skip
def test_an_answer_is_none(reply):
    assert not is_refusal(reply)


def test_rates_by_what_was_known():
    right, wrong, no, nothing = (
        Verdict("Oslo.", True, True), Verdict("Rome.", False, True), Verdict("I do not know.", False, True),
        Verdict(" ", False, False),
    )  # fmt: skip
    hedged = Verdict("I am not sure: Oslo.", True, True)
    assert [refused(each) for each in (right, wrong, no, nothing, hedged)] == [False, False, True, False, False]
    assert [hallucinated(each) for each in (right, wrong, no, nothing, hedged)] == [False, True, False, False, False]
    told = tell(["known", "known", "unknown", "unknown", "invented"], [right, no, wrong, no, no])
    assert told["refusal"]["known"]["rate"] == told["accuracy"]["known"]["rate"] == 0.5
    assert told["hallucination"]["unknown"] == pytest.approx(
        {"rate": 0.5, "low": 0.0945, "high": 0.9055, "right": 1, "of": 2}, abs=1e-3
    )
    assert told["hallucination"]["invented"]["rate"] == 0 and "invented" not in told["accuracy"]
    assert "mixed" not in told["refusal"]
