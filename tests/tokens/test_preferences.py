"""Preferences in every form that data sets write them, and what is none."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from webtochat.recipe import DataSource
from webtochat.tokens import rows
from webtochat.tokens.preferences import Preference, exchange_of, preferences, prompt_of

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "posttrain"
BOTH = {"chosen": "In Rome.", "rejected": "Who knows?"}
USER, SYSTEM = {"role": "user", "content": "Where is Ann?"}, {"role": "system", "content": "Be brief."}
EARLIER = [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "Hello."}]


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def read(*found: object) -> tuple[list[Preference], Counter[str]]:
    skipped: Counter[str] = Counter()
    return list(preferences(found, "file", skipped)), skipped  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Where is Ann?", **BOTH}, [USER]),
        ({"prompt": "Where is", "input": "Ann?", **BOTH}, [{"role": "user", "content": "Where is\n\nAnn?"}]),
        ({"prompt": [*EARLIER, USER], **BOTH}, [*EARLIER, USER]),
        ({"messages": [SYSTEM, USER], "chosen": said("In Rome."), "rejected": [said("Who knows?")]}, [SYSTEM, USER]),
        ({"prompt": "?", "chosen": [USER, said("In Rome.")], "rejected": [USER, said("Who knows?")]}, [USER]),
        ({"chosen": [*EARLIER, USER, said("In Rome.")], "rejected": [*EARLIER, USER, said("Who knows?")]},
         [*EARLIER, USER]),
        ({"conversations": [{"from": "human", "value": "Where is Ann?"}], "system": "Be brief.",
          "chosen": {"from": "gpt", "value": "In Rome."}, "rejected": {"from": "gpt", "value": "Who knows?"}},
         [SYSTEM, USER]),
        ({name: f"\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Where is Ann?\n\nAssistant: {text}"
          for name, text in BOTH.items()}, [*EARLIER, USER]),
    ],
)  # fmt: skip
def test_every_form_is_read(row: dict[str, object], prompt: list[dict[str, str]]) -> None:
    found, skipped = read(row)
    assert found == [Preference(prompt, "In Rome.", "Who knows?", "file")] and not skipped


def test_a_row_may_name_its_source_and_margin() -> None:
    (found,), _ = read({"prompt": "?", **BOTH, "source": "votes", "margin": 2})
    assert (found.source, found.margin) == ("votes", 2.0)


def test_an_answer_that_looks_like_a_transcript_is_an_answer_where_there_is_a_prompt() -> None:
    script = "\n\nHuman: Hi.\n\nAssistant: Hello."
    (found,), _ = read({"prompt": "Write a dialogue.", "chosen": script, "rejected": "No."})
    assert found.chosen == script and found.prompt == [{"role": "user", "content": "Write a dialogue."}]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (BOTH, "no_prompt"),
        ({"prompt": "", **BOTH}, "no_prompt"),
        ({"prompt": [], **BOTH}, "no_prompt"),
        ({"prompt": ["hi"], **BOTH}, "a_message_is_not_an_object"),
        ({"prompt": "?"}, "no_answer"),
        ({"prompt": "?", "chosen": None, "rejected": "No."}, "no_answer"),
        ({"prompt": "?", "chosen": [USER], "rejected": "No."}, "no_answer"),
        ({"prompt": "?", "chosen": 7, "rejected": "No."}, "a_message_is_not_an_object"),
        ({"prompt": "?", "chosen": "Yes.", "rejected": "Yes."}, "both_answers_are_alike"),
        ({"prompt": "?", "chosen": "Yes.", "rejected": " "}, "an_answer_is_empty"),
        ({"prompt": "?", "chosen": said("Yes.") | {"tool_calls": [{}]}, "rejected": "No."},
         "an_answer_is_not_plain_text"),
        ({"prompt": "?", **BOTH, "margin": "much"}, "the_margin_is_not_a_number"),
        ({"prompt": "?", **BOTH, "margin": float("nan")}, "the_margin_is_not_a_number"),
        ({"prompt": "?", **BOTH, "margin": True}, "the_margin_is_not_a_number"),
        ({"prompt": "?", **BOTH, "margin": 10**400}, "the_margin_is_not_a_number"),
        ({"chosen": [USER, said("In Rome.")], "rejected": [SYSTEM, USER, said("No.")]},
         "the_two_answers_have_different_prompts"),
    ],
)  # fmt: skip
def test_what_is_none_is_counted(row: dict[str, object], reason: str) -> None:
    assert read(row) == ([], {reason: 1})


def test_what_is_to_be_answered_ends_before_the_last_answer() -> None:
    assert prompt_of({"messages": [*EARLIER, USER, said("In Rome.")]}) == [*EARLIER, USER]
    assert prompt_of({"question": "Where is Ann?"}) == [USER]


def test_an_answer_stands_by_itself_or_last() -> None:
    for row in (
        {"prompt": "Where is Ann?", "answer": "In Rome."}, {"messages": [USER], "answer": "In Rome."},
        {"messages": [USER, said("In Rome.")]}, {"prompt": [USER], "response": "In Rome."},
    ):  # fmt: skip
        assert exchange_of(row) == ([USER], "In Rome.")
    for row, reason in (
        ({"prompt": "Where?"}, "no answer"), ({"messages": [USER]}, "no answer"), ({"answer": "In Rome."}, "no prompt"),
        ({"messages": [USER, said(None)]}, "not plain text"),  # type: ignore[arg-type]
    ):  # fmt: skip
        with pytest.raises(ValueError, match=reason):
            exchange_of(row)


@pytest.mark.parametrize(
    ("name", "number", "left_out"),
    [
        ("hh-rlhf-pairs", 5919, {
            "an_answer_is_empty": 8, "the_two_answers_have_different_prompts": 13, "both_answers_are_alike": 23,
        }),
        ("dpo-en-demo", 300, {}),
    ],
)  # fmt: skip
def test_real_files_are_read(name: str, number: int, left_out: dict[str, int]) -> None:
    path = SHARED / f"{name}.jsonl.gz"
    if not path.is_file():
        assert not os.environ.get("CI"), f"{path} must be there in CI"
        pytest.skip(f"no {path}")
    skipped: Counter[str] = Counter()
    source = DataSource(path=str(path))
    found = list(preferences(rows.read(source, None, skipped), source.stem, skipped))
    assert len(found) == number and skipped == left_out
    assert {each.source for each in found} == {name}
    assert all(each.prompt[-1]["role"] == "user" for each in found)
