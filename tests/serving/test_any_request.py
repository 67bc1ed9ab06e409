"""Requests of any shape: answered or refused in OpenAI's form, never a failure of the server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from tests.serving.fake import Served, served
from tests.serving.test_assistant import END, Search
from tests.serving.test_serving import ask, post

FIELDS = [
    "messages", "prompt", "input", "instructions", "tools", "tool_choice", "parallel_tool_calls", "response_format",
    "text", "logprobs", "top_logprobs", "n", "stop", "seed", "max_tokens", "max_completion_tokens",
    "max_output_tokens", "stream_options", "temperature", "top_p", "frequency_penalty", "metadata", "model",
]  # fmt: skip
NAMES = ["role", "content", "type", "text", "name", "function", "parameters", "schema", "json_schema", "call_id"]
WORDS = ["user", "assistant", "tool", "function", "function_call", "function_call_output", "python", "fake", "message"]
PLAIN = some.none() | some.booleans() | some.integers(-3, 3) | some.floats() | some.text(max_size=3)
VALUES = some.recursive(
    PLAIN | some.sampled_from(WORDS),
    lambda inner: some.lists(inner, max_size=3) | some.dictionaries(some.sampled_from(NAMES), inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("fake"), [Search()]) as running:
        running.engine.texts = lambda asked: "Ada." + END
        yield running


@pytest.mark.parametrize(
    ("path", "least"),
    [("chat/completions", {"messages": ask("Hi")}), ("completions", {"prompt": "Hi"}), ("responses", {"input": "Hi"})],
)
@given(body=some.dictionaries(some.sampled_from(FIELDS), VALUES, max_size=3))
@settings(deadline=None)
def test_it_is_answered_or_refused(here: Served, path: str, least: dict[str, Any], body: dict[str, Any]) -> None:
    status, answer = post(here.port, f"/v1/{path}", json.dumps({"model": "fake-tools"} | least | body).encode())
    assert status in (200, 400, 404), answer
    assert status == 200 or (answer["error"]["message"] and answer["error"]["type"] == "invalid_request_error")
