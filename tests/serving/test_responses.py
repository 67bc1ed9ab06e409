"""The Responses API over an engine that writes what it is told: items, events in their order, what was said before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from tests.serving.fake import Served, served
from tests.serving.test_assistant import END, SOURCES, Search, call, told
from tests.serving.test_serving import post

from webtochat.tools.python import Python

FUNCTION = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
SEARCH, CODE = {"type": "web_search"}, {"type": "code_interpreter", "container": {"type": "auto"}}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("fake"), [Python(), Search()]) as running:
        yield running


def respond(here: Served, *texts: str, **asked: Any) -> Any:
    here.engine.told(*texts)
    here.box.called.clear()
    return here.client.responses.create(**{"model": "fake", "input": "Who?"} | asked)


def test_an_answer(here: Served) -> None:
    made = respond(
        here, "Hi." + END, instructions="Be short.", temperature=0.2, max_output_tokens=50, metadata={"a": "b"},
    )  # fmt: skip
    assert made.output_text == "Hi." and made.status == "completed" and made.metadata == {"a": "b"}
    assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
    assert "system<|im_sep|>Be short.<|im_end|>" in told(here)
    asked = here.engine.asked[0]
    assert (asked["temperature"], asked["max_tokens"]) == (0.2, 50)
    made = respond(here, "x" * 50, max_output_tokens=5)
    assert (made.status, made.incomplete_details.reason) == ("incomplete", "max_output_tokens")
    assert respond(here, END).output_text == ""


def test_tools_that_run_here_are_items(here: Served) -> None:
    made = respond(
        here, "I look." + call("web_search", query="Ada") + call("python", code="6 * 7") + END, "Bo [2]." + END,
        tools=[SEARCH, CODE],
    )  # fmt: skip
    before, search, program, after = made.output
    assert [each.type for each in made.output] == ["message", "web_search_call", "code_interpreter_call", "message"]
    assert search.action.query == "Ada"
    assert [each.url for each in search.action.sources] == [url for _, url, _ in SOURCES]
    assert program.code == "6 * 7" and program.outputs[0].logs == "42"
    assert {each.status for each in made.output} == {"completed"}
    assert before.content[0].text == "I look." and before.content[0].annotations == []
    [citation] = after.content[0].annotations
    assert after.content[0].text[citation.start_index : citation.end_index] == "[2]"
    assert (citation.type, citation.url, citation.title) == ("url_citation", "https://b.example/bo", "Bo")


def test_events_come_in_order(here: Served) -> None:
    written = [
        "I look." + call("web_search", query="Ada") + END, call("python", code="1") + END,
        "Bo." + call("weather", city="Rome") + END,
    ]  # fmt: skip
    events = list(respond(here, *written, tools=[SEARCH, CODE, FUNCTION], stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    kinds = [event.type.removeprefix("response.") for event in events]
    assert [kind for place, kind in enumerate(kinds) if kind != "output_text.delta" or kinds[place - 1] != kind] == [
        "created", "in_progress",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
        "output_item.done",
        "output_item.added", "web_search_call.in_progress", "web_search_call.searching", "web_search_call.completed",
        "output_item.done",
        "output_item.added", "code_interpreter_call.in_progress", "code_interpreter_call_code.delta",
        "code_interpreter_call_code.done", "code_interpreter_call.interpreting", "code_interpreter_call.completed",
        "output_item.done",
        "output_item.added", "content_part.added", "output_text.delta", "output_text.done", "content_part.done",
        "output_item.done",
        "output_item.added", "function_call_arguments.delta", "function_call_arguments.done", "output_item.done",
        "completed",
    ]  # fmt: skip
    whole = events[-1].response
    done = [event.item for event in events if event.type == "response.output_item.done"]
    assert [each.id for each in done] == [each.id for each in whole.output]
    assert [event.output_index for event in events if event.type == "response.output_item.added"] == [0, 1, 2, 3, 4]
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "I look.Bo."
    assert json.loads(whole.output[-1].arguments) == {"city": "Rome"}
    assert [name for name, _ in here.box.called] == ["web_search", "python"]


def test_functions_are_the_clients_and_what_was_said_goes_on(here: Served) -> None:
    made = respond(here, "I ask." + call("weather", city="Rome") + END, tools=[FUNCTION])
    assert [each.type for each in made.output] == ["message", "function_call"]
    said = [each.model_dump(exclude_none=True) for each in made.output]
    history = [
        {"role": "user", "content": [{"type": "input_text", "text": "Who?"}]}, *said,
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "x"}},
        {"type": "function_call_output", "call_id": made.output[1].call_id, "output": "sun"},
    ]  # fmt: skip
    made = respond(here, "Sun." + END, input=history, tools=[FUNCTION])
    assert made.output_text == "Sun."
    assert told(here).endswith(
        'I ask.<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call><|im_end|>'
        "<|im_start|>tool<|im_sep|><tool_response>sun</tool_response><|im_end|><|im_start|>assistant<|im_sep|>"
    )
    made = respond(
        here, '{"name": "weather", "arguments": {}}' + END, tools=[FUNCTION, SEARCH],
        tool_choice={"type": "function", "name": "weather"},
    )  # fmt: skip
    assert made.output[0].name == "weather" and made.tool_choice.name == "weather"


def test_forms(here: Served) -> None:
    form = {"type": "json_schema", "name": "x", "schema": {"type": "object"}, "strict": True}
    made = respond(here, "{}" + END, text={"format": form})
    assert here.engine.asked[0]["structured_outputs"]["json"]["type"] == "object" and made.text.format.name == "x"


def test_what_breaks_is_an_event(here: Served) -> None:
    *_, last = list(respond(here, "I." + call("python", code="1") + END, "refused", tools=[CODE], stream=True))
    assert last.type == "response.failed" and last.response.error.message == "the grammar is none"
    with pytest.raises(openai.InternalServerError, match="the grammar is none"):
        respond(here, "I." + call("python", code="1") + END, "refused", tools=[CODE])
    with pytest.raises(openai.BadRequestError, match="the grammar is none"):
        respond(here, "refused")


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": "wizard", "content": "Hi"}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input"),
        ({"input": [{"role": "user"}, 7]}, "input"),
        ({"input": [{"type": "item_reference", "id": "x"}]}, "input"),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input"),
        ({"input": "Hi " * 3000}, "input"),
        ({"input": "Hi", "previous_response_id": "resp_1"}, "previous_response_id"),
        ({"input": "Hi", "background": True}, "background"),
        ({"input": "Hi", "tools": [{"type": "file_search"}]}, "tools"),
        ({"input": "Hi", "text": {"format": {"type": "json_schema"}}}, "text"),
        ({"input": "Hi", "temperature": 9}, "temperature"),
        ({"input": "Hi", "model": "other"}, "model"),
    ],
)
def test_what_is_wrong_is_named(here: Served, body: dict[str, Any], param: str) -> None:
    status, answer = post(here.port, "/v1/responses", json.dumps({"model": "fake"} | body).encode())
    assert status == (404 if param == "model" else 400) and answer["error"]["param"] == param, answer
