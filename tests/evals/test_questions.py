from __future__ import annotations

from collections import Counter

import pytest
from tests.inference import tiny

from webtochat.evals import curve
from webtochat.evals.questions import Question, at_most, from_rows, is_right, judge, tally, wilson
from webtochat.tokens.tokenizer import END_OF_TEXT, MESSAGE_END, TOOL_CALL


@pytest.mark.parametrize(
    ("reply", "answers", "options", "right"),
    [
        ("He lives in Tolt.", ["Tolt"], ["Tolt", "Brim"], True),
        ("he lives in TOLT!", ["Tolt"], [], True),
        ("He lives in Toltown.", ["Tolt"], [], False),
        ("He lives in Tolt or Brim.", ["Tolt"], ["Tolt", "Brim"], False),
        ("He lives in Brim.", ["Tolt"], ["Tolt", "Brim"], False),
        ("It is dark blue.", ["dark blue"], ["blue", "dark blue"], True),
        ("It is dark blue.", ["blue"], ["blue", "dark blue"], False),
        ("3 + 4 = 7.", ["7"], [], True),
        ("3 + 4 = 17.", ["7"], [], False),
        ("3 - 10 = -7", ["7"], [], False),
        ("7.5", ["7"], [], False),
        ("I don’t know", ["don't know"], [], True),
        ("ﬁve", ["five"], [], True),
        ("Ich heiße Anna", ["heisse"], [], True),
        ("", ["x"], [], False),
    ],
)
def test_a_right_reply_names_the_answer_and_no_other(reply, answers, options, right):
    assert is_right(reply, answers, options) is right


def test_rows_that_ask_nothing_are_counted():
    skipped: Counter[str] = Counter()
    rows = [
        {"kind": "fact", "question": "Q?", "answers": ["A"], "stated": 3, "chance": 0.5, "options": None},
        {"question": "Q?", "answers": "A"},
        {"question": " ", "answers": ["A"]},
        {"question": "Q?", "answers": []},
        {"question": "Q?", "answers": ["?!"]},
        {},
    ]
    found = from_rows(rows, skipped)
    assert found == [Question("fact", "Q?", ["A"], 3, 0.5, []), Question("question", "Q?", ["A"])]
    assert skipped == {"no_question": 2, "no_answers": 2}


def test_format_is_kept_by_an_ended_reply_without_markers():
    words = tiny.tokenizer()
    asked = Question("fact", "What colour?", ["red"], options=["red", "blue"])
    end, text = words.special(MESSAGE_END), words.encode("Ada likes red.")
    told = judge(words, asked, [*text, end])
    assert (told.reply, told.correct, told.format_kept) == ("Ada likes red.", True, True)
    assert not judge(words, asked, text).format_kept  # cut by the limit
    assert judge(words, asked, text).correct
    assert not judge(words, asked, [end]).format_kept
    assert not judge(words, asked, [*text, words.special(END_OF_TEXT), end]).format_kept
    assert not judge(words, asked, [words.special(TOOL_CALL), *text, end]).format_kept
    quoted = judge(words, asked, [*words.encode("red <|im_end|> and <tool_call>"), end])
    assert quoted.format_kept and quoted.reply == "red <|im_end|> and <tool_call>"


def test_wilson_interval():
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-3)
    low, high = wilson(0, 50)
    assert low == 0 and 0.05 < high < 0.09


def test_a_sample_covers_every_number_of_times_stated():
    asked = [Question("fact", f"{stated}/{n}", ["A"], stated) for stated in (1, 10, 100) for n in range(100)]
    asked += [Question("sum", str(n), ["A"]) for n in range(5)]
    kept = at_most(asked, 30, seed=1)
    assert Counter(each.stated for each in kept) == {1: 10, 10: 10, 100: 10, None: 5}
    assert kept == at_most(asked, 30, seed=1) != at_most(asked, 30, seed=2)
    assert kept == [each for each in asked if each in kept]


def test_rates_by_kind_and_times_stated(tmp_path):
    words = tiny.tokenizer()
    end = words.special(MESSAGE_END)
    asked = [Question("fact", "Q?", ["red"], stated, 0.25, ["red", "blue"]) for stated in (1, 1, 10, 10)]
    asked.append(Question("sum", "1 + 1?", ["2"], None, 0.1))
    replies = ["red", "blue", "red", "red", "2"]
    verdicts = [judge(words, each, [*words.encode(said), end]) for each, said in zip(asked, replies, strict=True)]
    told = tally(asked, verdicts)
    assert told["accuracy"]["fact"] | {"low": 0, "high": 0} == {
        "rate": 0.75, "low": 0, "high": 0, "right": 3, "of": 4, "chance": 0.25,
    }  # fmt: skip
    assert told["accuracy"]["sum"]["rate"] == told["format"]["rate"] == 1.0
    assert {stated: each["rate"] for stated, each in told["by_stated"]["fact"].items()} == {"1": 0.5, "10": 1.0}
    assert curve.draw({"base": told, "sft": told}, str(tmp_path / "a.svg"))
    assert curve.draw({"base": told, "sft": told}, str(tmp_path / "b.svg"))
    assert (tmp_path / "a.svg").read_bytes() == (tmp_path / "b.svg").read_bytes()
    assert "chance 25 %" in (tmp_path / "a.svg").read_text()
    assert not curve.draw({"sft": told | {"by_stated": {}}}, str(tmp_path / "c.svg"))
