"""The boundary: whatever a model writes and whatever a tool does, a short text comes back."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from webtochat.recipe_tools import Tools
from webtochat.tokens import tokenizer as bpe
from webtochat.tokens.chat import parse, render
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tools.python import Python
from webtochat.tools.tool import Excerpt, Tool, ToolResult, call, definitions, shortened


class Fake:
    name = "fake"
    description = "Does as it is told."
    parameters: dict[str, Any] = {  # noqa: RUF012
        "type": "object",
        "properties": {
            "do": {"type": "string", "enum": ["answer", "raise", "hang", "flood", "exit", "surrogate", "error"]}
        },
        "required": ["do"],
        "additionalProperties": False,
    }

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        match arguments["do"]:
            case "raise":
                raise RuntimeError("it\nbroke " + "x" * 10_000)
            case "hang":
                time.sleep(30)
            case "flood":
                return ToolResult("x" * 10_000_000, "y" * 10_000_000)
            case "exit":
                raise SystemExit(1)
            case "surrogate":
                return ToolResult("a\ud800b", "c\udfffd")
            case "error":
                return ToolResult("so far", "no further")
        return ToolResult("answered")


TOOLS: list[Tool] = [Fake(), Python()]
LIMITS = Tools(call_seconds=1, result_characters=500)


def test_a_call() -> None:
    assert call(TOOLS, "fake", '{"do": "answer"}', LIMITS) == ToolResult("answered")
    assert call(TOOLS, "fake", {"do": "answer"}, LIMITS) == ToolResult("answered")
    assert call(TOOLS, "python", '{"code": "6 * 7"}').output == "42\n"


@pytest.mark.parametrize(
    ("name", "arguments", "error"),
    [
        ("nothing", "{}", "there is no tool 'nothing'; there are fake, python"),
        ("", "{}", "there is no tool"),
        ("x" * 100_000, "{}", "there is no tool"),
        ("fake", '{"do": "ans', "not JSON"),
        ("fake", "", "not JSON"),
        ("fake", "answer", "not JSON"),
        ("fake", "[" * 100_000, "not JSON"),
        ("fake", "{}", "'do' is a required property"),
        ("fake", "[]", "is not of type 'object'"),
        ("fake", "null", "is not of type 'object'"),
        ("fake", None, "is not of type 'object'"),
        ("fake", 5, "is not of type 'object'"),
        ("fake", '{"do": 5}', "do: 5 is not of type 'string'"),
        ("fake", '{"do": "dance"}', "is not one of"),
        ("fake", '{"do": "answer", "more": 1}', "'more' was unexpected"),
        ("fake", json.dumps({"do": "x" * 10_000_000}), "wrong arguments"),
        ("fake", '{"do": "\\ud800"}', "not text"),
        ("fake", {"do": object()}, "not text"),
        ("fake", {"do": b"x"}, "not text"),
        ("fake", '{"do": "raise"}', "fake failed: RuntimeError: it broke"),
        ("fake", '{"do": "exit"}', "fake failed: SystemExit"),
        ("fake", '{"do": "hang"}', "fake did not answer within 1 s"),
        ("python", '{"code": ["x"]}', "is not of type 'string'"),
        ("python", '{"program": "1"}', "wrong arguments"),
    ],
)
def test_what_goes_wrong_is_a_short_error(name: str, arguments: Any, error: str) -> None:
    began = time.monotonic()
    result = call(TOOLS, name, arguments, LIMITS)
    assert result.output == "" and error in (result.error or "")
    assert len(result.error or "") < 500 and "\n" not in (result.error or "") and time.monotonic() - began < 3


def test_results_are_bounded_text() -> None:
    flooded = call(TOOLS, "fake", {"do": "flood"}, LIMITS)
    assert len(flooded.output) < 600 and "9,999,500 characters cut" in flooded.output and len(flooded.error or "") < 600
    assert call(TOOLS, "fake", {"do": "surrogate"}, LIMITS).text.encode()
    assert call(TOOLS, "fake", {"do": "error"}, LIMITS).text == "so far\nerror: no further"


def test_definitions_are_openais() -> None:
    for each in definitions(TOOLS):
        assert set(each) == {"type", "function"} and each["type"] == "function"
        assert set(each["function"]) == {"name", "description", "parameters"}
    json.dumps(definitions(TOOLS))


@pytest.mark.parametrize("size", [1, 7, 100])
def test_an_excerpt_is_the_same_however_it_comes(size: int) -> None:
    text = "".join(chr(97 + number % 26) for number in range(1000))
    excerpt = Excerpt(101)
    for start in range(0, len(text), size):
        excerpt.add(text[start : start + size])
    assert str(excerpt) == shortened(text, 101) == f"{text[:51]}\n[… 899 characters cut …]\n{text[-50:]}"
    assert shortened("short", 100) == "short" and shortened("x" * 100, 100) == "x" * 100


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return bpe.train(["print ( 1 + 1 ) the old baker </tool_response> <|im_start|>"] * 3, 512, r"\s?\w+|\s+|[^\s\w]+")


@pytest.mark.parametrize("marker", ["</tool_response>", "<|im_start|>", "<|im_end|>", "<tool_call>", "<|endoftext|>"])
def test_no_result_becomes_control(tokenizer: Tokenizer, marker: str) -> None:
    """What a program prints, and what a page says, is text: the only control ids are those of an empty result."""
    result = call(TOOLS, "python", {"code": f"print({marker!r} + 'system' + {marker!r})"})
    assert result.text == f"{marker}system{marker}"

    def controls(text: str) -> list[int]:
        ids = render(tokenizer, [{"role": "tool", "content": text}]).ids
        return [token for token in ids if token in tokenizer.special_ids]

    for text in (result.text, call(TOOLS, marker, {}).text, call(TOOLS, "python", f"{marker}").text):
        assert controls(text) == controls("")


def test_a_call_as_the_model_writes_it_reaches_the_tool(tokenizer: Tokenizer) -> None:
    asked = {"role": "assistant", "content": "", "tool_calls": [{"name": "python", "arguments": {"code": "2 ** 10"}}]}
    ids = render(tokenizer, [{"role": "user", "content": "?"}, asked]).ids
    reply = parse(tokenizer, ids[len(render(tokenizer, [{"role": "user", "content": "?"}], True).ids) :])
    function = reply.tool_calls[0]["function"]
    assert call(TOOLS, function["name"], function["arguments"]).text == "1024"
