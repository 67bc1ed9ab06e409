"""Chat completions over an engine that writes what it is told: tools of the server's and of the client's, forms, stops,
log-probabilities, and what is refused."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from serving.dialogue import Until, cited
from serving.stream import merged
from tests.serving.fake import SLOW, Served, served
from tests.serving.test_serving import ask, post

from webtochat.tokens.chat import render
from webtochat.tools.python import Python
from webtochat.tools.tool import Source, ToolResult, definitions

SOURCES = (Source("Ada", "https://a.example/", "Ada is tall"), Source("Bo", "https://b.example/bo", "Bo is short"))
END = "<|im_end|>"


class Search:
    name = "web_search"
    description = "Finds."
    parameters: dict[str, Any] = {  # noqa: RUF012
        "type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"],
    }  # fmt: skip
    said = "1. Ada\n2. Bo"

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        if arguments["query"] == "slow":
            time.sleep(0.3)
        return ToolResult("No results.") if arguments["query"] == "nobody" else ToolResult(self.said, sources=SOURCES)


FUNCTION = {
    "type": "function",
    "function": {
        "name": "weather", "description": "Tells it.",
        "parameters": {"type": "object", "properties": {"city": {"$ref": "#/$defs/City"}},
                       "$defs": {"City": {"type": "string"}}},
    },
}  # fmt: skip


def call(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("fake"), [Python(), Search()]) as running:
        yield running


def chat(here: Served, *texts: str, **asked: Any) -> Any:
    here.engine.told(*texts)
    here.box.called.clear()
    return here.client.chat.completions.create(**{"model": "fake", "messages": ask("Who?")} | asked)


def told(here: Served, number: int = 0) -> str:
    """A prompt of the engine's, as text."""
    return here.engine.tokenizer.decode(here.engine.asked[number]["prompt"])


def annotations(message: Any, kind: str) -> list[dict[str, Any]]:
    found = getattr(message, "annotations", None) or []
    plain = [each if isinstance(each, dict) else each.model_dump() for each in found]
    return [each[kind] for each in plain if each["type"] == kind]


def test_the_models_name_switches_all_tools_on(here: Served) -> None:
    plain, with_tools = here.client.models.list().data
    assert (plain.id, with_tools.id) == ("fake", "fake-tools")
    assert with_tools.model_dump()["tools"] == ["python", "web_search"] and plain.model_dump()["tools"] == []
    made = chat(here, "I look. " + call("python", code="6 * 7") + END, "It is 42." + END, model="fake-tools")
    [choice] = made.choices
    assert (choice.message.content, choice.finish_reason) == ("I look. It is 42.", "stop")
    [turn] = annotations(choice.message, "tool_call")
    assert (turn["name"], turn["arguments"]) == ("python", {"code": "6 * 7"})
    assert (turn["output"], turn["error"]) == ("42\n", None)
    assert told(here).startswith("<|im_start|>system<|im_sep|>Tools: python, web_search.<|im_end|>")
    assert told(here, 1).endswith(
        f"{END}<|im_start|>tool<|im_sep|><tool_response>42</tool_response>{END}<|im_start|>assistant<|im_sep|>"
    )
    # Every token of the conversation is counted once.
    first, last = (len(asked["prompt"]) for asked in here.engine.asked)
    assert made.usage.total_tokens == last + len(here.engine.tokenizer.encode("It is 42.")) + 1
    assert first < made.usage.prompt_tokens < last


def test_without_tools_nothing_is_told_and_nothing_runs(here: Served) -> None:
    made = chat(here, call("python", code="6 * 7") + END)
    assert "Tools" not in told(here) and here.box.called == [] and len(here.engine.asked) == 1
    assert json.loads(made.choices[0].message.content)["name"] == "python" and not made.choices[0].message.tool_calls
    made = chat(here, "Hi." + END, model="fake-tools", tool_choice="none")
    assert "Tools" not in told(here) and made.choices[0].message.content == "Hi."


def test_the_stream_shows_calls_results_and_sources(here: Served) -> None:
    stream = chat(
        here, "So. " + call("web_search", query="Ada") + call("web_search", query="slow") + END,
        "Ada [1], see [9]." + END, tools=[{"type": "web_search"}], stream=True, stream_options={"include_usage": True},
    )  # fmt: skip
    *chunks, last = [chunk.model_dump() for chunk in stream]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks]
    assert deltas[0]["role"] == "assistant" and all(delta["role"] is None for delta in deltas[1:])
    assert "".join(delta["content"] or "" for delta in deltas) == "So. Ada [1], see [9]."
    shown = [each for delta in deltas for each in delta.get("annotations") or []]
    assert [each["type"] for each in shown] == ["tool_call"] * 4 + ["url_citation"]
    assert [each["index"] for each in shown] == [0, 1, 0, 1, 2]
    turns = [each["tool_call"] for each in shown[:4]]
    assert [sorted(turn) for turn in turns] == [["arguments", "id", "name"]] * 2 + [["error", "output", "sources"]] * 2
    assert turns[0]["id"] != turns[1]["id"]
    assert turns[2]["sources"] == [{"title": title, "url": url} for title, url, _ in SOURCES]
    assert shown[4]["url_citation"] == {"start_index": 8, "end_index": 11, "title": "Ada", "url": "https://a.example/"}
    places = [place for place, delta in enumerate(deltas) if delta.get("annotations")]
    assert places[-1] == len(deltas) - 2 and chunks[-1]["choices"][0]["finish_reason"] == "stop"
    assert last["choices"] == [] and last["usage"]["completion_tokens"] > 0
    assert "Tools: web_search." in told(here)


def test_clients_put_a_stream_together(here: Served) -> None:
    written = ["So. " + call("web_search", query="Ada") + call("python", code="1") + END, "Ada [1]." + END]
    whole = chat(here, *written, model="fake-tools").choices[0].message
    here.engine.told(*written)
    with here.client.chat.completions.stream(model="fake-tools", messages=ask("Who?")) as stream:  # type: ignore
        message = stream.get_final_completion().choices[0].message
    assert message.content == whole.content
    for kind in ("tool_call", "url_citation"):
        assert [each | {"id": ""} for each in annotations(message, kind)] == [
            each | {"id": ""} for each in annotations(whole, kind)
        ]


def test_what_an_answer_cites() -> None:
    other = (Source("Cy", "https://c.example/x", "They say that Cy is tall, and others too."),)
    text = "By [2], and https://a.example/. Not [3] or [0] or https://d.example/."
    spans = [(each.source.title, text[each.start : each.end]) for each in cited(text, 0, [SOURCES, other], 0.5)]
    assert spans == [("Bo", "[2]"), ("Ada", "https://a.example/")]
    # Who names none has those that tell its words.
    by_words = cited("So: Cy is tall.", 4, [SOURCES, other, SOURCES], 0.6)
    assert [(each.source.title, each.start, each.end) for each in by_words] == [("Ada", 4, 15), ("Cy", 4, 15)]
    assert [each.source.title for each in cited("Cy is tall.", 0, [SOURCES, other], 0.7)] == ["Cy"]
    assert cited("Quite so.", 0, [SOURCES], 0.5) == cited("[1]", 0, [], 0.5) == cited("ab", 2, [other], 0.5) == []


def test_chunks_that_come_together_are_one_and_none_is_changed() -> None:
    def chunk(*choices: tuple[int, str, str | None], usage: dict[str, int] | None = None) -> dict[str, Any]:
        told = [
            {"index": index, "text": text, "token_ids": [ord(text)], "finish_reason": reason,
             "logprobs": {"token_logprobs": [-float(index)], "tokens": [text]} if index else None}
            for index, text, reason in choices
        ]  # fmt: skip
        return {"id": "a", "choices": told, "usage": usage}

    parts = [chunk((1, "x", None)), chunk((0, "a", None), (1, "y", "stop")), chunk((0, "b", "length")),
             chunk(usage={"total_tokens": 4})]  # fmt: skip
    before = json.dumps(parts)
    whole = merged(parts)
    assert json.dumps(parts) == before and whole["usage"] == {"total_tokens": 4}
    first, second = whole["choices"]
    assert (first["text"], first["token_ids"], first["finish_reason"], first["logprobs"]) == (
        "ab", [97, 98], "length", None,
    )  # fmt: skip
    assert second["text"] == "xy" and second["finish_reason"] == "stop"
    assert second["logprobs"] == {"token_logprobs": [-1.0, -1.0], "tokens": ["x", "y"]}
    assert merged(parts[:1])["choices"] == parts[0]["choices"]


def test_tools_that_fail_are_read_and_shown(here: Served) -> None:
    made = chat(
        here, call("python", code="1 / 0") + END, call("nothing") + END, call("web_search", query="nobody") + END,
        "No." + END, tools=[{"type": "python"}],
    )  # fmt: skip
    failed, unknown, not_switched_on = annotations(made.choices[0].message, "tool_call")
    assert "ZeroDivisionError" in failed["error"]
    assert unknown["error"] == "there is no tool 'nothing'; there are python"
    assert not_switched_on["error"] == "there is no tool 'web_search'; there are python"
    assert [name for name, _ in here.box.called] == ["python"]
    assert made.choices[0].message.content == "No."


def test_calls_end_after_so_many_rounds(here: Served) -> None:
    made = chat(here, *[call("python", code="1") + END] * 5, model="fake-tools")
    assert made.choices[0].finish_reason == "length" and len(here.engine.asked) == 4
    made = chat(here, call("python", code="1") + END, "x" * 50, model="fake-tools", max_tokens=60)
    assert made.choices[0].finish_reason == "length" and made.usage.completion_tokens == 60
    made = chat(here, "<tool_call>" + "x" * 50, model="fake-tools", max_tokens=10)
    assert made.choices[0].finish_reason == "length" and len(here.engine.asked) == 1


def test_a_clients_functions_are_the_clients_to_run(here: Served) -> None:
    written = "I ask." + call("weather", city="Rome") + call("weather", city="Ää") + END
    made = chat(here, written, tools=[FUNCTION, {"type": "python"}])
    [choice] = made.choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "I ask.")
    arguments = [json.loads(each.function.arguments) for each in choice.message.tool_calls]
    assert arguments == [{"city": "Rome"}, {"city": "Ää"}]
    assert here.box.called == [] and "Tools: python, weather." in told(here)
    results = [
        {"role": "tool", "tool_call_id": each.id, "content": city}
        for each, city in zip(choice.message.tool_calls, ("sun", "rain"), strict=True)
    ]
    messages = [*ask("Who?"), choice.message.model_dump(exclude_none=True), *reversed(results)]
    made = chat(here, "Sun." + END, messages=messages, tools=[FUNCTION])
    assert made.choices[0].message.content == "Sun."
    # As the model wrote it, and the results in the order of its calls.
    assert "I ask." + written.removeprefix("I ask.").replace("\\u00c4\\u00e4", "Ää") in told(here)
    assert told(here).index("sun") < told(here).index("rain")
    stream = chat(here, written, tools=[FUNCTION], stream=True)
    calls = [each for chunk in stream for each in chunk.choices[0].delta.tool_calls or []]
    assert [(each.index, each.function.name) for each in calls] == [(0, "weather"), (1, "weather")]


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
def test_a_call_can_be_asked_for(here: Served, choice: Any) -> None:
    """The marker is put into the model's mouth, and a grammar holds it to the call's JSON."""
    made = chat(
        here, '{"name": "weather", "arguments": {"city": "Rome"}}' + END, tools=[FUNCTION, {"type": "python"}],
        tool_choice=choice, stop="R",
    )  # fmt: skip
    assert made.choices[0].finish_reason == "tool_calls"
    assert json.loads(made.choices[0].message.tool_calls[0].function.arguments) == {"city": "Rome"}
    [asked] = here.engine.asked
    assert asked["prompt"][-1] == here.engine.tokenizer.special("<tool_call>") and asked["stop"] == []
    form = asked["structured_outputs"]["json"]
    forms = form.get("anyOf", [form])
    assert len(forms) == (2 if choice == "required" else 1) and form["$defs"] == {"City": {"type": "string"}}
    assert forms[-1]["properties"]["name"] == {"type": "string", "enum": ["weather"]}


def test_our_own_can_be_asked_for_and_then_the_model_is_free(here: Served) -> None:
    written = '{"name": "python", "arguments": {"code": "6 * 7"}}' + END
    made = chat(here, written, "It is 42." + END, tools=[{"type": "python"}], tool_choice={"type": "python"})
    assert made.choices[0].message.content == "It is 42." and here.box.called == [("python", {"code": "6 * 7"})]
    first, second = here.engine.asked
    assert first["structured_outputs"] and second["structured_outputs"] is None
    plain = render(
        here.engine.tokenizer,
        [*ask("Who?"), {"role": "assistant", "content": "", "tool_calls": [json.loads(written.removesuffix(END))]},
         {"role": "tool", "content": "42"}],
        add_generation_prompt=True, tools=definitions([Python()]),
    ).ids  # fmt: skip
    assert second["prompt"] == plain


def test_one_call_at_a_time(here: Served) -> None:
    several = call("weather", city="Rome") + call("weather", city="Oslo") + END
    made = chat(here, several, tools=[FUNCTION], parallel_tool_calls=False)
    assert len(made.choices[0].message.tool_calls) == 1 and made.choices[0].finish_reason == "tool_calls"


def test_the_answer_in_a_form(here: Served) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    made = chat(here, '{"a": 1}' + END, response_format=form)
    assert made.choices[0].message.content == '{"a": 1}'
    schema = here.engine.asked[0]["structured_outputs"]["json"]
    assert schema == {"type": "object", "x-guidance": {"coerce_one_of": True}}
    chat(here, "{}" + END, response_format={"type": "json_object"})
    assert here.engine.asked[0]["structured_outputs"]["json_object"] is True
    chat(here, "Hi." + END, response_format={"type": "text"})
    assert here.engine.asked[0]["structured_outputs"] is None
    # With tools it writes freely, unseen, until it calls none; then it is held to the form.
    made = chat(
        here, "Hm." + call("python", code="1") + END, "It is 1." + END, '{"a": 1}' + END, response_format=form,
        model="fake-tools",
    )  # fmt: skip
    assert made.choices[0].message.content == '{"a": 1}' and len(here.engine.asked) == 3
    assert [bool(asked["structured_outputs"]) for asked in here.engine.asked] == [False, False, True]
    assert here.engine.asked[1]["prompt"] == here.engine.asked[2]["prompt"]
    with pytest.raises(openai.BadRequestError, match="the grammar is none"):
        chat(here, "refused", response_format=form)


def test_stops(here: Served) -> None:
    for stream in (False, True):
        made = chat(here, "Ada likes red. Bo likes it." + END, stop=["red. X", "likes it", "Zoo"], stream=stream)
        if stream:
            text = "".join(chunk.choices[0].delta.content or "" for chunk in made)
        else:
            text = made.choices[0].message.content
            assert made.choices[0].finish_reason == "stop"
        assert text == "Ada likes red. Bo "
    until = Until(["abc", "bd"])
    assert [until.add(text) for text in ("xa", "b", "a", "bd", "rest")] == ["x", "", "ab", "a", ""]
    until = Until(["abc"])
    assert until.add("ab") + until.add("", last=True) == "ab" and not until.found


def test_log_probabilities_are_of_the_content(here: Served) -> None:
    made = chat(
        here, call("python", code="1") + END, "Ää é." + END, model="fake-tools", logprobs=True, top_logprobs=2
    )  # fmt: skip
    content = made.choices[0].logprobs.content
    assert bytes(byte for each in content for byte in each.bytes).decode() == "Ää é."
    assert all(len(each.top_logprobs) == 2 and each.logprob == -0.5 for each in content)
    stream = chat(here, "Ää." + END, logprobs=True, stream=True)
    told = [each for chunk in stream if chunk.choices[0].logprobs for each in chunk.choices[0].logprobs.content]
    assert bytes(byte for each in told for byte in each.bytes).decode() == "Ää." and told[0].top_logprobs == []
    assert here.engine.asked[0]["logprobs"] == 0


def test_several_answers(here: Served) -> None:
    here.engine.texts = lambda asked: f"Answer {asked['seed']}." + END
    asked: dict[str, Any] = {"model": "fake", "messages": ask("Who?"), "n": 3, "seed": 5}
    made = here.client.chat.completions.create(**asked)
    assert [choice.message.content for choice in made.choices] == ["Answer 5.", "Answer 6.", "Answer 7."]
    texts = ["", "", ""]
    for chunk in here.client.chat.completions.create(**asked, stream=True):
        [choice] = chunk.choices
        texts[choice.index] += choice.delta.content or ""
    assert texts == ["Answer 5.", "Answer 6.", "Answer 7."]


def test_what_breaks_is_said(here: Served) -> None:
    stream = chat(here, "broken", stream=True)
    with pytest.raises(openai.APIError, match="the model stopped: RuntimeError"):
        list(stream)
    here.engine.told("broken")
    status, answer = post(here.port, "/v1/chat/completions", json.dumps(CHAT).encode())  # over a connection of its own
    assert (status, answer["error"]["type"]) == (500, "server_error")


@pytest.mark.parametrize("number", [1, 3])
def test_who_hangs_up_is_no_longer_answered(here: Served, number: int) -> None:
    here.engine.texts, here.engine.left = lambda asked: "so " * 500, 0
    asked: dict[str, Any] = {"model": "fake", "messages": ask("Who?"), "n": number, "seed": SLOW - number + 1}
    stream = here.client.chat.completions.create(**asked, stream=True)
    for _ in range(3 * number):
        next(stream)
    stream.close()
    end = time.monotonic() + 5
    while not here.engine.left and time.monotonic() < end:
        time.sleep(0.01)
    assert here.engine.left


CHAT = {"model": "fake", "messages": ask("Hi")}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "x"}


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"tools": [{"type": "function"}]}, "tools", "tools.0.function.function: Field required"),
        ({"tools": [{"type": "teleport"}]}, "tools", "does not match any of the expected tags"),
        ({"tools": [{"type": "function", "function": {"name": "a b"}}]}, "tools", "String should match pattern"),
        ({"tools": "python"}, "tools", "valid list"),
        ({"tools": [FUNCTION, FUNCTION]}, "tools", "the same name"),
        ({"tools": [FUNCTION] * 129}, "tools", "at most 128"),
        ({"tool_choice": "required"}, "tool_choice", "names a tool that tools does not have"),
        ({"tools": [FUNCTION], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "tool_choice", "names"),
        ({"tools": [FUNCTION], "tool_choice": "sometimes"}, "tool_choice", "tool_choice"),
        ({"functions": [{}]}, "functions", "functions is not supported"),
        ({"response_format": {"type": "yaml"}}, "response_format", "json_object"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "json_schema is given with"),
        ({"response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"anyOf": [{"items": {"type": "array", "maxItems": 10**9}}]}}}},
         "response_format", "maxItems may be at most 4096"),
        ({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"minItems": 1e99}}}]},
         "tools", "minItems may be at most 4096"),
        ({"top_logprobs": 3}, "top_logprobs", "needs logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "less than or equal to 20"),
        ({"stop": [""]}, "stop", "at least 1"),
        ({"stop": list("abcde")}, "stop", "at most 4"),
        ({"n": 17}, "n", "less than or equal to 16"),
        ({"n": True}, "n", "valid integer"),
        ({"temperature": "0.5"}, "temperature", "valid number"),
        ({"seed": 2**70}, "seed", "seed"),
        ({"stream": "yes"}, "stream", "valid boolean"),
        ({"messages": [*ask("Hi"), RESULT]}, "messages", "must answer one of the tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "d", "function": {"name": "f"}}]}, RESULT]},
         "messages", "must answer one of the tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"id": "c", "function": {"arguments": "{}"}}]}]},
         "messages", "a tool call has no name"),
        ({"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
         "messages", "arguments are not JSON"),
        ({"messages": [{"role": "user", "tool_calls": [{"function": {"name": "f"}}]}]}, "messages", "the assistant"),
        ({"messages": [{"role": "user", "content": 7}]}, "messages", "messages.0.content"),
        ({"messages": ["Hi"]}, "messages", "messages.0"),
        ({"messages": {}}, "messages", "valid list"),
        ({"messages": ask("Hi \ud800")}, "messages", "messages"),
        ({"messages": ask("Hi " * 3000)}, "messages", "the prompt has"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(here: Served, body: dict[str, Any], param: str, said: str) -> None:
    status, answer = post(here.port, "/v1/chat/completions", json.dumps(CHAT | body).encode())
    assert status == 400 and answer["error"]["param"] == param and said in answer["error"]["message"], answer
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert answer["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"7", b"\xff", b"[" * 100_000, b'{"model": "fake", "x": "\x00"}'])
def test_bodies_that_are_no_request(here: Served, body: bytes) -> None:
    for path in ("/v1/chat/completions", "/v1/completions", "/v1/responses"):
        status, answer = post(here.port, path, body)
        assert status == 400 and answer["error"]["type"] == "invalid_request_error"


def test_a_prompt_of_two_megabytes_and_one_of_ten(here: Served) -> None:
    """The one is told by its length alone, the other is not let in."""
    here.engine.told(*["x." + END] * 10)
    began = time.monotonic()
    for path, body in (
        ("/v1/chat/completions", {"messages": ask("Hi " * 600_000)}),
        ("/v1/completions", {"prompt": "Hi " * 600_000}), ("/v1/responses", {"input": "Hi " * 600_000}),
    ):  # fmt: skip
        status, answer = post(here.port, path, json.dumps({"model": "fake"} | body).encode())
        assert (status, answer["error"]["code"]) == (400, "context_length_exceeded")
        assert "maximum context length is 2000 tokens; the prompt has at least " in answer["error"]["message"]
    status, answer = post(here.port, "/v1/completions", json.dumps({"prompt": "Hi " * 3_500_000}).encode())
    assert (status, answer["error"]["code"]) == (413, "body_too_large")
    assert time.monotonic() - began < 10 and here.engine.asked == []
    status, answer = post(here.port, "/v1/chat/completions", json.dumps(CHAT | {"messages": ask("Hi" * 3000)}).encode())
    tokens = int(answer["error"]["message"].split("the prompt has ")[1].split(",")[0])
    assert f", {tokens - 1999} too many" in answer["error"]["message"]


def test_the_tools_for_other_programs(here: Served) -> None:
    from mcp import ClientSession
    from mcp.client.streamable_http import streamable_http_client

    async def used() -> None:
        async with (
            streamable_http_client(f"http://127.0.0.1:{here.port}/mcp") as streams,
            ClientSession(*streams[:2]) as session,
        ):
            await session.initialize()
            tools = (await session.list_tools()).tools
            assert [each.name for each in tools] == ["python", "web_search"]
            assert tools[0].input_schema["required"] == ["code"]
            done = await session.call_tool("python", {"code": "6 * 7"})
            assert (done.content[0].text, done.is_error) == ("42", False)
            done = await session.call_tool("web_search", {"query": "Ada"})
            assert done.structured_content["sources"][1] == {"title": "Bo", "url": "https://b.example/bo"}
            for name, arguments in (("python", {"code": "1 / 0"}), ("python", {}), ("nothing", {})):
                assert (await session.call_tool(name, arguments)).is_error

    asyncio.run(used())
    with urllib.request.urlopen(f"http://127.0.0.1:{here.port}/livez", timeout=10) as response:
        assert response.status == 200
