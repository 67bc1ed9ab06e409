"""The one renderer of conversations: messages to token ids and back.

A message is `<|im_start|>role<|im_sep|>content<|im_end|>`, or what the tokenizer's marker map says. Markers are placed
by id and contents are encoded with the special tokens off, so nothing a user types can become control. Tool calls are
Hermes style; which tools there are stands at the end of the system message.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from webtochat.tokens.markers import DEFINITIONS, NAMES
from webtochat.tokens.tokenizer import Tokenizer

ROLES = ("system", "user", "assistant", "tool")
Message = dict[str, Any]
Definition = dict[str, Any]
"""Of a tool, in the form of OpenAI's API."""


@dataclass
class Rendered:
    ids: list[int] = field(default_factory=list)
    loss_mask: list[int] = field(default_factory=list)
    """1 where the token is the assistant's own: its contents, its calls and its `<|im_end|>`."""

    def add(self, ids: list[int], learned: bool) -> None:
        self.ids += ids
        self.loss_mask += [int(learned)] * len(ids)


class _Writer:
    """Text between two control tokens is encoded as one, as far as it is learned or not: where the assistant begins, a
    prompt ends."""

    def __init__(self, tokenizer: Tokenizer):
        self.tokenizer, self.rendered = tokenizer, Rendered()
        self._text, self._learned = "", False

    def text(self, text: str, learned: bool = False) -> None:
        if learned != self._learned:
            self.flush()
        self._text, self._learned = self._text + text, learned

    def mark(self, form: str | None, learned: bool = False) -> None:
        for part in self.tokenizer.parts(form or ""):
            if isinstance(part, str):
                self.text(part, learned)
            else:
                self.flush()
                self.rendered.add([part], learned)

    def flush(self) -> None:
        if self._text:
            self.rendered.add(self.tokenizer.encode(self._text), self._learned)
            self._text = ""


def render(
    tokenizer: Tokenizer, messages: list[Message], add_generation_prompt: bool = False, tools: Sequence[Definition] = ()
) -> Rendered:
    """Token ids of a conversation. `tools`: those that it is told of. Raises ValueError with a short reason where a row
    is not a conversation, or where the tokenizer has no markers for it."""
    if not isinstance(messages, list) or not messages:
        raise ValueError("no messages")
    if not tokenizer.markers.chats:
        raise ValueError("the tokenizer has no markers for messages")
    if any(not isinstance(message, dict) for message in messages):
        raise ValueError("a message is not an object")
    if tools and messages[0].get("role") != "system":
        messages = [{"role": "system", "content": ""}, *messages]
    writer, before = _Writer(tokenizer), None
    for number, message in enumerate(messages, 1):
        following = messages[number] if number < len(messages) else None
        _add_message(writer, message, before, following, () if before else tools)
        before = message
    if add_generation_prompt:
        _open(writer, "assistant")
        writer.mark(tokenizer.markers.thoughts)
    writer.flush()
    return writer.rendered


def following(tokenizer: Tokenizer, messages: list[Message]) -> list[int]:
    """The ids from the end of an assistant's message, whatever it holds, to where its next one begins: `messages` stand
    between. So what was generated stays as it is."""
    ids = render(tokenizer, [{"role": "assistant", "content": ""}, *messages], add_generation_prompt=True).ids
    return ids[ids.index(tokenizer.stops[0]) + 1 :]


def marker(tokenizer: Tokenizer, form: str | None) -> list[int]:
    """The ids of a marker that stands by itself."""
    writer = _Writer(tokenizer)
    writer.mark(form)
    writer.flush()
    return writer.rendered.ids


def _open(writer: _Writer, role: str) -> None:
    writer.mark(writer.tokenizer.markers.message_start)
    writer.text(role)
    writer.mark(writer.tokenizer.markers.role_end)


def _add_message(
    writer: _Writer, message: Message, before: Message | None, following: Message | None, tools: Sequence[Definition]
) -> None:
    """`before`, `following`: the messages beside it, or None. `tools`: those that it tells of."""
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
    markers, learned = writer.tokenizer.markers, role == "assistant"
    if (calls or role == "tool") and not markers.calls:
        raise ValueError("the tokenizer has no markers for tool calls")
    if role == "tool":
        together = markers.response_role != "tool"
        if together and _is_response(before):
            writer.mark(markers.between)
        else:
            _open(writer, markers.response_role)
        writer.mark(markers.response)
        writer.text(content)
        writer.mark(markers.response_end)
        if together and _is_response(following):
            return
    else:
        _open(writer, role)
        if learned and following is None:
            writer.mark(markers.thoughts)
        writer.text(content, learned)
        if tools:
            _tell(writer, tools, apart=bool(content))
    for number, call in enumerate(calls):
        if content or number:
            writer.mark(markers.between, True)
        writer.mark(markers.call, True)
        writer.text(_call_text(call), True)
        writer.mark(markers.call_end, True)
    writer.mark(markers.message_end, learned)
    writer.mark(markers.after_message)


def _tell(writer: _Writer, tools: Sequence[Definition], apart: bool) -> None:
    """Writes which tools there are; `apart`: from what the message says else."""
    if not writer.tokenizer.markers.calls:
        raise ValueError("the tokenizer has no markers for tool calls")
    functions = [_function(tool) for tool in tools]
    if any(not isinstance(each.get("name"), str) for each in functions):
        raise ValueError("a tool has no name")
    if apart:
        writer.text("\n\n")
    for piece in re.split(f"({NAMES}|{DEFINITIONS})", writer.tokenizer.markers.tools):
        if piece == NAMES:
            writer.text(", ".join(each["name"] for each in functions))
        elif piece == DEFINITIONS:
            writer.text("\n".join(map(_json, tools)))
        else:
            writer.mark(piece)


def _function(told: Any) -> dict[str, Any]:
    """What a call or a definition holds under `function`, or is."""
    function = told.get("function", told) if isinstance(told, dict) else None
    return function if isinstance(function, dict) else {}


def _is_response(message: Message | None) -> bool:
    return message is not None and message.get("role") == "tool"


def _call_text(call: Any) -> str:
    function = _function(call)
    if not isinstance(function.get("name"), str):
        raise ValueError("a tool call has no name")
    arguments = function.get("arguments") or {}
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError) as error:
            raise ValueError("a tool call's arguments are not JSON") from error
    if not isinstance(arguments, dict):
        raise ValueError("a tool call's arguments are not an object")
    return _json({"name": function["name"], "arguments": arguments})


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, RecursionError) as error:
        raise ValueError("a tool or a call of it is not JSON") from error


@dataclass
class Reply:
    """What the assistant's ids say. `ended`: its `<|im_end|>` came. `stray`: other markers stood in it."""

    content: str = ""
    tool_calls: list[dict[str, Any]] = field(default_factory=list)
    ended: bool = False
    stray: bool = False


class Reader:
    """Reads the ids that follow a generation prompt as they come. Only ids are control: a quoted marker is text. A call
    that is not a JSON object with a name and arguments stands in `reply.tool_calls` with its text under `malformed`.
    `calling`: within a call."""

    def __init__(self, tokenizer: Tokenizer, calls: bool = True):
        """`calls`: whether there are any; else what looks like one is text."""
        forms = (tokenizer.markers.call, tokenizer.markers.call_end) if calls else (None, None)
        self._open, self._close = (_token_of(tokenizer, form) for form in forms)
        self._tokenizer, self._end = tokenizer, tokenizer.stops[0]
        self._run: list[int] = []
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.reply, self.calling = Reply(), False

    def add(self, ids: Sequence[int]) -> str:
        """What they add to the content, in whole characters. The space before a call that may come is held back."""
        before = len(self.reply.content)
        for token in ids:
            if self.reply.ended:
                break
            if token == self._end:
                self._speak(whole=True)
                self.reply.ended = True
            elif token == self._open and not self.calling:
                self._speak(whole=True, before_call=True)
                self.calling = True
            elif token == self._close and self.calling:
                self.reply.tool_calls.append(_read_call(self._tokenizer.decode(self._run)))
                self._run, self.calling = [], False
            elif token in self._tokenizer.special_ids or token >= self._tokenizer.vocabulary:
                self.reply.stray = True
            else:
                self._run.append(token)
        self._speak()
        return self.reply.content[before:]

    def close(self) -> str:
        """No more comes: what was held back, and a call that was cut off."""
        before = len(self.reply.content)
        self._speak(whole=True)
        if self.calling:
            self.reply.tool_calls.append({"malformed": self._tokenizer.decode(self._run)})
            self._run, self.calling = [], False
        return self.reply.content[before:]

    def _speak(self, whole: bool = False, before_call: bool = False) -> None:
        if self.calling:
            return
        text = self._held + self._decoder.decode(self._tokenizer.bytes_of(self._run), final=whole)
        between = self._tokenizer.markers.between
        self._run, self._held = [], ""
        if before_call:
            text = text.removesuffix(between)
        elif not whole:
            self._held = next((between[:end] for end in range(len(between), 0, -1) if text.endswith(between[:end])), "")
            text = text.removesuffix(self._held)
        self.reply.content += text


def parse(tokenizer: Tokenizer, ids: Sequence[int]) -> Reply:
    """All that these ids say."""
    reader = Reader(tokenizer)
    reader.add(ids)
    reader.close()
    return reader.reply


def _token_of(tokenizer: Tokenizer, form: str | None) -> int | None:
    return next((part for part in tokenizer.parts(form or "") if isinstance(part, int)), None)


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
