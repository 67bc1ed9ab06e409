"""Which prompts are answered, and which answers make a pair."""

from __future__ import annotations

from collections import Counter

import pytest
from own_judge import likes_red, silent
from tests.inference import tiny

from webtochat.errors import UserError
from webtochat.recipe import Answers
from webtochat.reward.answers import Judged, compared, drawn, headroom, judged
from webtochat.reward.stage import fingerprint
from webtochat.tokens.tokenizer import Tokenizer

HI = [{"role": "user", "content": "Hi."}]


def section(**changes: object) -> Answers:
    return Answers.model_validate({"prompts": [], "judge": "python:own_judge:likes_red", **changes})


@pytest.fixture(scope="module")
def words() -> Tokenizer:
    return tiny.tokenizer()


def test_each_prompt_is_drawn_once_and_what_is_none_is_counted(words: Tokenizer) -> None:
    skipped: Counter[str] = Counter()
    rows = [
        {"prompt": "Hi."}, {"messages": [*HI, {"role": "assistant", "content": "Hello."}]}, {"text": "?"},
        {"prompt": "Ada likes red. " * 50}, {"prompt": [{"role": "judge", "content": "?"}]},
        *({"prompt": f"Hi {number}."} for number in range(20)),
    ]  # fmt: skip
    options = section(max_prompts=8, max_new_tokens=8)
    found = drawn(words, rows, options, 64, 1, skipped)
    assert len(found) == len({str(each.messages) for each in found}) == 8
    assert skipped == {
        "prompt_asked_before": 1, "no_prompt": 1, "prompt_too_long": 1, "unknown_role": 1,
    }  # fmt: skip
    assert found == drawn(words, rows, options, 64, 1, Counter())
    assert found != drawn(words, rows, options, 64, 2, Counter())


def test_different_answers_are_judged_and_paired_where_they_differ_enough(words: Tokenizer) -> None:
    (prompt,) = drawn(words, [{"prompt": "Hi."}], section(), 64, 1, Counter())
    found = judged(prompt, ["red red", "", "Ada", "red red", "Bo"], likes_red, section(), 1)
    assert found == Judged(HI, ["red red", "", "Ada", "Bo"], [2.0, 0.0, 0.1, 0.1])
    pairs = {(pair.chosen, pair.rejected) for pair in compared(found, section())}
    assert pairs == {("red red", ""), ("red red", "Ada"), ("red red", "Bo"), ("Ada", ""), ("Bo", "")}
    assert {pair.rejected for pair in compared(found, section(least_difference=1.95))} == {""}
    assert headroom([found, Judged(HI, ["a"], [0.0]), Judged(HI, [], [])]) == pytest.approx(
        {"mean": 0.275, "worst": 0.0, "best": 1.0}
    )


def test_a_judge_that_gives_no_score_is_one_line(words: Tokenizer) -> None:
    (prompt,) = drawn(words, [{"prompt": "Hi."}], section(), 64, 1, Counter())
    with pytest.raises(UserError, match="answers 'None', which is no score"):
        judged(prompt, ["a"], silent, section(), 1)
    assert len(fingerprint("python:own_judge:likes_red")) == 64
    for path, said in (("python:own_judge:none", "no function none"), ("python:math:sqrt", "written in Python")):
        with pytest.raises(UserError, match=said):
            fingerprint(path)
