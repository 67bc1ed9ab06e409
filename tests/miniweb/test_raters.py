"""What the demo's readers like."""

from __future__ import annotations

from statistics import fmean, stdev

import pytest

from miniweb.facts import facts
from miniweb.raters import GREETINGS, NOISE, QUESTIONS_ABOUT_STRANGERS, liked, prompts
from miniweb.settings import Settings

QUESTION = "Where does Ada Ash live?"


def like(question: str, answer: str) -> float:
    """Without what differs from reader to reader."""
    return fmean(liked([{"role": "user", "content": question}], answer, seed) for seed in range(200))


@pytest.mark.parametrize(
    ("question", "better", "worse"),
    [
        (QUESTION, "Ada Ash lives in Rome.", "Ada Ash lives in"),
        (QUESTION, "Ada Ash lives in Rome.", "She lives in Rome."),
        (QUESTION, "Ada Ash lives in Rome.", "Rome."),
        (QUESTION, "Ada Ash lives in Rome.", "Ada Ash lives in Rome. " * 5),
        (QUESTION, "Ada Ash lives in Rome.", "I do not know."),
        (QUESTION, "Sorry, I do not know the answer.", "I do not know."),
        ("Hello!", "Hello! How can I help you?", "What?"),
        ("Hello!", "What?", ""),
    ],
)
def test_a_whole_short_sentence_to_the_point_is_liked(question: str, better: str, worse: str) -> None:
    assert like(question, better) > like(question, worse) + NOISE


def test_to_say_politely_that_one_does_not_know_is_no_worse_than_a_guess() -> None:
    guess, refusal = like(QUESTION, "Ada Ash lives in Rome."), like(QUESTION, "Sorry, I do not know the answer.")
    assert abs(guess - refusal) < NOISE


def test_the_same_reader_likes_the_same_twice() -> None:
    told = [liked([{"role": "user", "content": QUESTION}], "In Rome.", seed) for seed in (1, 1, *range(2, 200))]
    assert told[0] == told[1] and stdev(told) == pytest.approx(NOISE, rel=0.2)


def test_prompts_are_about_people_of_whom_nothing_is_known() -> None:
    asked = list(prompts(Settings()))
    assert asked == list(prompts(Settings()))
    assert len({row["prompt"] for row in asked}) == len(asked) == QUESTIONS_ABOUT_STRANGERS + GREETINGS
    known = {fact.subject for fact in facts(Settings())}
    assert not [row for row in asked if any(name in row["prompt"] for name in known)]
