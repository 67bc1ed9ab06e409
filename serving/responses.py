"""The Responses API: its requests as chat requests, and events as its output items. Nothing is stored: a client sends
what was said again, and what this server's tools did before is then left out, as the model has said what came of it.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr, model_validator

from serving.dialogue import Asked, Called, Citation, Ended, Event, Returned, Text
from serving.protocol import ApiError, ChatRequest, Choice, Function, Named, Sampling, ServerTool, refuse

Item = dict[str, Any]
TEXTS = ("input_text", "output_text", "text")
RAN_HERE = ("web_search_call", "code_interpreter_call", "reasoning")


class FlatFunction(Function):
    type: Literal["function"]


class FlatChoice(Named):
    type: Literal["function"]


class FlatForm(BaseModel):
    model_config = ConfigDict(extra="allow")
    type: Literal["text", "json_object", "json_schema"]

    @property
    def response_format(self) -> dict[str, Any]:
        flat = self.model_dump()
        return flat if self.type != "json_schema" else {"type": self.type, "json_schema": flat}


class TextOptions(BaseModel):
    format: FlatForm = FlatForm(type="text")


class ResponsesRequest(Sampling):
    input: Annotated[StrictStr | list[Item], Field(min_length=1)]
    instructions: StrictStr | None = None
    max_output_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    tools: list[Annotated[FlatFunction | ServerTool, Field(discriminator="type")]] = Field([], max_length=128)
    tool_choice: Choice | Annotated[FlatChoice | ServerTool, Field(discriminator="type")] | None = None
    parallel_tool_calls: StrictBool | None = None
    text: TextOptions = TextOptions()
    metadata: dict[str, StrictStr] | None = None

    @model_validator(mode="before")
    @classmethod
    def served(cls, request: Any) -> Any:
        return refuse(request, ("previous_response_id", "conversation", "background", "prompt", "top_logprobs"))

    def chat(self) -> ChatRequest:
        """The same as a chat request."""
        tools = [
            {"type": "function", "function": tool.model_dump(exclude={"type"})}
            if isinstance(tool, FlatFunction) else tool.model_dump()
            for tool in self.tools
        ]  # fmt: skip
        choice: Any = self.tool_choice
        if isinstance(choice, FlatChoice):
            choice = {"type": "function", "function": {"name": choice.name}}
        asked = self.model_dump(include={"model", "temperature", "top_p", "parallel_tool_calls"}) | {
            "messages": self._messages(), "tools": tools,
            "tool_choice": choice.model_dump() if isinstance(choice, BaseModel) else choice,
            "max_completion_tokens": self.max_output_tokens, "response_format": self.text.format.response_format,
        }  # fmt: skip
        try:
            return ChatRequest.model_validate(asked)
        except ValueError as error:
            first = error.errors()[0]  # type: ignore[attr-defined]
            told = {"messages": "input", "response_format": "text", "max_completion_tokens": "max_output_tokens"}
            name, *where = first["loc"] or ("input",)
            name = told.get(name, name)
            raise ApiError(400, f"{'.'.join(map(str, [name, *where]))}: {first['msg']}", param=name) from error

    def _messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = []
        if self.instructions:
            messages.append({"role": "system", "content": self.instructions})
        items = [{"role": "user", "content": self.input}] if isinstance(self.input, str) else self.input
        for item in items:
            match item.get("type", "message"):
                case "message":
                    messages.append({"role": item.get("role"), "content": _text(item.get("content"))})
                case "function_call":
                    if not messages or messages[-1]["role"] != "assistant":
                        messages.append({"role": "assistant", "content": None})
                    function = {"name": item.get("name"), "arguments": item.get("arguments")}
                    messages[-1].setdefault("tool_calls", []).append({"id": item.get("call_id"), "function": function})
                case "function_call_output":
                    told = {"tool_call_id": item.get("call_id"), "content": _text(item.get("output"))}
                    messages.append({"role": "tool"} | told)
                case kind if kind not in RAN_HERE:
                    raise ApiError(400, f"input: items of type {kind} are not understood", param="input")
        return messages


def _text(content: Any) -> Any:
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.get("type") not in TEXTS or not isinstance(part.get("text"), str):
            raise ApiError(400, "input: only parts of type input_text and output_text are understood", param="input")
    return "".join(part["text"] for part in content)


def head_of(request: ResponsesRequest, created: int, temperature: float) -> dict[str, Any]:
    """What stands in a response whatever comes of it."""
    return {
        "id": f"resp_{uuid.uuid4().hex}", "object": "response", "created_at": created, "model": request.model,
        "status": "in_progress", "error": None, "incomplete_details": None, "instructions": request.instructions,
        "output": [], "usage": None, "store": False, "previous_response_id": None, "metadata": request.metadata or {},
        "max_output_tokens": request.max_output_tokens, "parallel_tool_calls": request.parallel_tool_calls is not False,
        "temperature": temperature, "top_p": 1.0 if request.top_p is None else request.top_p, "truncation": "disabled",
        "tool_choice": request.model_dump(include={"tool_choice"})["tool_choice"] or "auto",
        "tools": [tool.model_dump(exclude_none=True) for tool in request.tools],
        "text": request.text.model_dump(),
    }  # fmt: skip


async def events(
    head: dict[str, Any], answer: AsyncIterator[tuple[int, Event]], prompt_tokens: int
) -> AsyncIterator[dict[str, Any]]:
    """The last has the whole response."""
    told = _Told(head)
    yield told.of_response("created")
    yield told.of_response("in_progress")
    try:
        async for _, event in answer:
            for each in told.of(event, prompt_tokens):
                yield each
    except ApiError as error:
        told.response |= {
            "status": "failed", "error": {"code": "server_error", "message": error.body["error"]["message"]}
        }  # fmt: skip
        yield told.of_response("failed")


class _Told:
    """What a response has said so far."""

    def __init__(self, head: dict[str, Any]):
        self.response = head | {"output": []}
        self._numbers = count()
        self._items: list[Item] = self.response["output"]
        self._ran: dict[str, int] = {}
        self._message: int | None = None
        self._said = 0

    def _event(self, kind: str, **more: Any) -> dict[str, Any]:
        return {"type": f"response.{kind}", "sequence_number": next(self._numbers), **more}

    def of_response(self, kind: str) -> dict[str, Any]:
        return self._event(kind, response=self.response | {"output": list(self._items)})

    def of(self, event: Event, prompt_tokens: int) -> Iterator[dict[str, Any]]:
        match event:
            case Text(text, _) if text:
                yield from self._speak(text)
            case Called():
                yield from self._close_message([])
                yield from self._call(event)
            case Returned():
                yield from self._return(event)
            case Asked(call, name, arguments):
                yield from self._close_message([])
                yield from self._ask(call, name, json.dumps(arguments, ensure_ascii=False))
            case Ended():
                if self._message is None and event.reason != "tool_calls":
                    yield from self._speak("")
                yield from self._close_message(event.citations)
                yield self._end(event, prompt_tokens)

    def _add(self, item: Item) -> dict[str, Any]:
        self._items.append(item)
        return self._event("output_item.added", output_index=len(self._items) - 1, item=dict(item))

    def _done(self, place: int, **more: Any) -> dict[str, Any]:
        self._items[place] |= {"status": "completed"} | more
        return self._event("output_item.done", output_index=place, item=self._items[place])

    def _speak(self, text: str) -> Iterator[dict[str, Any]]:
        if self._message is None:
            yield self._add(
                {"id": f"msg_{uuid.uuid4().hex}", "type": "message", "role": "assistant", "status": "in_progress",
                 "content": []}
            )  # fmt: skip
            self._message = len(self._items) - 1
            part: Item = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            yield self._event("content_part.added", **self._place(), part=dict(part, annotations=[]))
            self._items[self._message]["content"] = [part]
        self._items[self._message]["content"][0]["text"] += text
        self._said += len(text)
        if text:
            yield self._event("output_text.delta", **self._place(), delta=text, logprobs=[])

    def _place(self) -> dict[str, Any]:
        assert self._message is not None
        return {"item_id": self._items[self._message]["id"], "output_index": self._message, "content_index": 0}

    def _close_message(self, citations: list[Citation]) -> Iterator[dict[str, Any]]:
        if self._message is None:
            return
        part = self._items[self._message]["content"][0]
        before = self._said - len(part["text"])
        for number, ((title, url, _), start, end) in enumerate(citations):
            span = {"start_index": start - before, "end_index": end - before}
            part["annotations"].append({"type": "url_citation", **span, "title": title, "url": url})
            yield self._event(
                "output_text.annotation.added", **self._place(), annotation_index=number,
                annotation=part["annotations"][-1],
            )  # fmt: skip
        yield self._event("output_text.done", **self._place(), text=part["text"], logprobs=[])
        yield self._event("content_part.done", **self._place(), part=part)
        yield self._done(self._message)
        self._message = None

    def _call(self, called: Called) -> Iterator[dict[str, Any]]:
        item = _item_of(called)
        yield self._add(item)
        place = self._ran[called.id] = len(self._items) - 1
        where = {"item_id": item["id"], "output_index": place}
        yield self._event(f"{item['type']}.in_progress", **where)
        if item["type"] == "code_interpreter_call":
            yield self._event("code_interpreter_call_code.delta", **where, delta=item["code"])
            yield self._event("code_interpreter_call_code.done", **where, code=item["code"])
            yield self._event("code_interpreter_call.interpreting", **where)
        else:
            yield self._event("web_search_call.searching", **where)

    def _return(self, returned: Returned) -> Iterator[dict[str, Any]]:
        place = self._ran[returned.called.id]
        item = self._items[place]
        if item["type"] == "code_interpreter_call":
            item["outputs"] = [{"type": "logs", "logs": returned.result.text}]
        else:
            item["action"]["sources"] = [{"type": "url", "url": url} for _, url, _ in returned.result.sources]
        yield self._event(f"{item['type']}.completed", item_id=item["id"], output_index=place)
        yield self._done(place)

    def _ask(self, call: str, name: str, arguments: str) -> Iterator[dict[str, Any]]:
        item = {"id": f"fc_{uuid.uuid4().hex}", "type": "function_call", "call_id": call, "name": name}
        yield self._add(item | {"arguments": "", "status": "in_progress"})
        where = {"item_id": item["id"], "output_index": len(self._items) - 1}
        yield self._event("function_call_arguments.delta", **where, delta=arguments)
        yield self._event("function_call_arguments.done", **where, name=name, arguments=arguments)
        yield self._done(where["output_index"], arguments=arguments)

    def _end(self, ended: Ended, prompt_tokens: int) -> dict[str, Any]:
        cut = ended.reason == "length"
        read, generated = prompt_tokens + ended.read, ended.generated
        self.response |= {
            "status": "incomplete" if cut else "completed",
            "incomplete_details": {"reason": "max_output_tokens"} if cut else None,
            "usage": {
                "input_tokens": read, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": generated,
                "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": read + generated,
            },
        }  # fmt: skip
        return self.of_response(self.response["status"])


def _item_of(called: Called) -> Item:
    """A call of this server's tools as the item of OpenAI's tool that is nearest."""
    arguments = called.arguments
    if called.name == "python":
        code = str(arguments.get("code", ""))
        return {
            "id": f"ci_{called.id}", "type": "code_interpreter_call", "status": "in_progress", "code": code,
            "container_id": called.id, "outputs": [],
        }  # fmt: skip
    if called.name == "open_page":
        action = {"type": "open_page", "url": str(arguments.get("url", ""))}
        if arguments.get("find"):
            action |= {"type": "find_in_page", "pattern": str(arguments["find"])}
    else:
        action = {"type": "search", "query": str(arguments.get("query", ""))}
    return {"id": f"ws_{called.id}", "type": "web_search_call", "status": "in_progress", "action": action}
