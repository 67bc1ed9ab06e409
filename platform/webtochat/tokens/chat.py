"""The one renderer of conversations: messages to token ids and back.

A message is `<|im_start|>role<|im_sep|>content<|im_end|>`. Markers are placed by id and contents are encoded with the
special tokens off, so nothing a user types can become control. Tool calls are Hermes style.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from webtochat.tokens.tokenizer import (
    MESSAGE_END,
    MESSAGE_START,
    ROLE_END,
    TOOL_CALL,
    TOOL_CALL_END,
    TOOL_RESPONSE,
    TOOL_RESPONSE_END,
    Tokenizer,
)  # fmt: skip

ROLES = ("system", "user", "assistant", "tool")


@dataclass
class Rendered:
    ids: list[int] = field(default_factory=list)
    loss_mask: list[int] = field(default_factory=list)
    """1 where the token is the assistant's own: its contents, its calls and its `<|im_end|>`."""

    def add(self, ids: list[int], learned: bool) -> None:
        self.ids += ids
        self.loss_mask += [int(learned)] * len(ids)


def render(tokenizer: Tokenizer, messages: list[dict[str, Any]], add_generation_prompt: bool = False) -> Rendered:
    """Token ids of a conversation. Raises ValueError with a short reason where a row is not a conversation."""
    rendered = Rendered()
    if not isinstance(messages, list) or not messages:
        raise ValueError("no messages")
    for message in messages:
        if not isinstance(message, dict):
            raise ValueError("a message is not an object")
        _add_message(rendered, tokenizer, message)
    if add_generation_prompt:
        rendered.add(_opening(tokenizer, "assistant"), False)
    return rendered


def _opening(tokenizer: Tokenizer, role: str) -> list[int]:
    return [tokenizer.special(MESSAGE_START), *tokenizer.encode(role), tokenizer.special(ROLE_END)]


def _add_message(rendered: Rendered, tokenizer: Tokenizer, message: dict[str, Any]) -> None:
    role, content, calls = message.get("role"), message.get("content"), message.get("tool_calls") or []
    if role not in ROLES:
        raise ValueError("unknown role")
    if content is None and calls:
        content = ""
    if not isinstance(content, str):
        raise ValueError("content is not text")
    if not isinstance(calls, list):
        raise ValueError("tool calls are not a list")
    if calls and role != "assistant":
        raise ValueError("only the assistant calls tools")
    learned = role == "assistant"
    rendered.add(_opening(tokenizer, role), False)
    if role == "tool":
        rendered.add([tokenizer.special(TOOL_RESPONSE)], False)
        rendered.add(tokenizer.encode(content), False)
        rendered.add([tokenizer.special(TOOL_RESPONSE_END)], False)
    else:
        rendered.add(tokenizer.encode(content), learned)
    for call in calls:
        rendered.add([tokenizer.special(TOOL_CALL)], True)
        rendered.add(tokenizer.encode(_call_text(call)), True)
        rendered.add([tokenizer.special(TOOL_CALL_END)], True)
    rendered.add([tokenizer.special(MESSAGE_END)], learned)


def _call_text(call: Any) -> str:
    function = call.get("function", call) if isinstance(call, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise ValueError("a tool call has no name")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise ValueError("a tool call's arguments are not JSON") from error
    if not isinstance(arguments, dict):
        raise ValueError("a tool call's arguments are not an object")
    try:
        return json.dumps({"name": function["name"], "arguments": arguments}, ensure_ascii=False)
    except (TypeError, RecursionError) as error:
        raise ValueError("a tool call's arguments are not JSON") from error


@dataclass
class Reply:
    """What the assistant's ids say. `ended`: its `<|im_end|>` came. `stray`: other markers stood in it."""

    content: str
    tool_calls: list[dict[str, Any]]
    ended: bool
    stray: bool


def parse(tokenizer: Tokenizer, ids: list[int]) -> Reply:
    """Reads the ids that follow a generation prompt. Only ids are control: a quoted marker is text. A call that is not
    a JSON object with a name and arguments stands in `tool_calls` with its text under `malformed`."""
    open_id, close_id = tokenizer.special(TOOL_CALL), tokenizer.special(TOOL_CALL_END)
    ended, stray = False, False
    content: list[int] = []
    call: list[int] | None = None
    calls: list[dict[str, Any]] = []
    for token in ids:
        if token == tokenizer.special(MESSAGE_END):
            ended = True
            break
        if token == open_id and call is None:
            call = []
        elif token == close_id and call is not None:
            calls.append(_read_call(tokenizer.decode(call)))
            call = None
        elif token in tokenizer.special_ids:
            stray = True
        else:
            (content if call is None else call).append(token)
    if call is not None:
        calls.append({"malformed": tokenizer.decode(call)})
    return Reply(tokenizer.decode(content), calls, ended, stray)


def _read_call(text: str) -> dict[str, Any]:
    try:
        call = json.loads(text)
        json.dumps(call, ensure_ascii=False).encode()  # an escaped lone surrogate is JSON, and no text
    except (ValueError, RecursionError):
        return {"malformed": text}
    if not isinstance(call, dict) or not isinstance(call.get("name"), str):
        return {"malformed": text}
    arguments = call.get("arguments") or {}
    if not isinstance(arguments, dict):
        return {"malformed": text}
    return {"type": "function", "function": {"name": call["name"], "arguments": arguments}}
