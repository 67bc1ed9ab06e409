"""Rows of several forms, real ones too, come out as messages that the renderer takes."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from webtochat.recipe import DataSource, TokenizerSection
from webtochat.tokens import rows
from webtochat.tokens import tokenizer as bpe
from webtochat.tokens.chat import render
from webtochat.tokens.conversations import conversations, messages_of

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "posttrain"
HELLO = [{"role": "user", "content": "Hello?"}, {"role": "assistant", "content": "Hello."}]


@pytest.mark.parametrize("row", [
    {"messages": HELLO, "source": "somewhere"},
    {"conversations": [{"from": "human", "value": "Hello?"}, {"from": "gpt", "value": "Hello."}]},
    {"conversations": HELLO},
    {"instruction": "Hello?", "input": "", "output": "Hello."},
    {"question": "Hello?", "answer": "Hello."},
    {"prompt": "Hello?", "completion": "Hello."},
])  # fmt: skip
def test_the_same_conversation_in_each_form(row: rows.Row) -> None:
    assert messages_of(row) == HELLO


def test_what_an_instruction_is_about_follows_it() -> None:
    assert messages_of({"instruction": "Add.", "input": "1 and 2", "response": "3"})[0]["content"] == "Add.\n\n1 and 2"


def test_calls_and_what_they_gave() -> None:
    turns = [
        {"from": "human", "value": "Weather?"},
        {"from": "function_call", "value": '{"name": "weather", "arguments": {"town": "Oslo"}}'},
        {"from": "observation", "value": "rain"}, {"from": "gpt", "value": "Rain."},
    ]  # fmt: skip
    messages = messages_of({"system": "Be brief.", "conversations": turns})
    assert [message["role"] for message in messages] == ["system", "user", "assistant", "tool", "assistant"]
    assert messages[2]["tool_calls"] == [{"name": "weather", "arguments": {"town": "Oslo"}}]


def test_rows_of_no_known_form_are_counted_by_reason() -> None:
    skipped: Counter[str] = Counter()
    bad = [
        {}, {"messages": "hi"}, {"instruction": "only"}, {"conversations": ["hi"]},
        {"conversations": [{"from": "wizard", "value": "hi"}]},
        {"conversations": [{"from": "function_call", "value": "{cut"}]},
        {"conversations": [{"from": "function_call", "value": None}]},
    ]  # fmt: skip
    assert list(conversations([*bad, {"messages": HELLO}], skipped)) == [{"messages": HELLO}]
    assert skipped == {
        "no_messages": 3, "a_message_is_not_an_object": 1, "unknown_role": 1, "a_tool_call_is_not_JSON": 2,
    }  # fmt: skip


def test_rows_tell_of_tools() -> None:
    told, skipped = [{"name": "weather"}], Counter[str]()
    rows_in = [{"messages": HELLO, "tools": each} for each in (told, json.dumps(told), "[]", None, "[{", "3")]
    assert [row.get("tools") for row in conversations(rows_in, skipped)] == [told, told, None, None]
    assert skipped == {"the_tools_are_not_JSON": 1, "the_tools_are_not_a_list": 1}
    tokenizer = bpe.train(["a few words"], 300, TokenizerSection().pattern)
    assert "Tools: weather." in tokenizer.decode(render(tokenizer, HELLO, tools=told).ids)
    for wrong, reason in (([3], "no name"), ([{"name": 3}], "no name")):
        with pytest.raises(ValueError, match=reason):
            render(tokenizer, HELLO, tools=wrong)


@pytest.mark.skipif(not REAL.exists() and not os.environ.get("CI"), reason="the shared data is not here")
@pytest.mark.parametrize(("name", "least"), [
    ("glaive-toolcall-en-demo", 300), ("gpteacher-roleplay", 1923), ("dolly-6400", 5813), ("identity", 91),
    ("gsm8k-train", 7473),
])  # fmt: skip
def test_real_rows_are_rendered(name: str, least: int) -> None:
    tokenizer = bpe.train(["a few words"], 300, TokenizerSection().pattern)
    skipped: Counter[str] = Counter()
    source = DataSource(path=str(REAL / f"{name}.jsonl.gz"))
    read = list(conversations(rows.read(source, None, skipped), skipped))
    assert len(read) == least and not skipped
    for row in read[:300]:
        assert any(render(tokenizer, row["messages"]).loss_mask)
