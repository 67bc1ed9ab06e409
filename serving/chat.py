"""Chat completions: events as OpenAI's answer, whole or in chunks. What this server's tools did stands in
`annotations`: each call with its result (`tool_call`), and what the answer rests on (`url_citation`). In a stream they
have an `index`, as calls of the client's functions do: a call comes when it begins, and its result later, at the same
index. So clients put the two together.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from serving.dialogue import Asked, Called, Citation, Ended, Event, Returned, Text
from serving.protocol import usage

Events = AsyncIterator[tuple[int, Event]]


async def chunks(
    head: dict[str, Any], events: Events, number: int, prompt_tokens: int, wants_usage: bool
) -> AsyncIterator[dict[str, Any]]:
    """`number`: of answers."""
    for index in range(number):
        yield _chunk(head, index, {"role": "assistant", "content": ""})
    calls = [0] * number
    annotated: list[list[str]] = [[] for _ in range(number)]
    used = [prompt_tokens, 0]
    async for index, event in events:
        match event:
            case Text(text, logprobs):
                told = {"logprobs": {"content": logprobs, "refusal": None}} if logprobs else {}
                yield _chunk(head, index, {"content": text}, **told)
            case Called():
                annotated[index].append(event.id)
                yield _chunk(head, index, {"annotations": [_begun(event) | {"index": len(annotated[index]) - 1}]})
            case Returned():
                place = annotated[index].index(event.called.id)
                yield _chunk(head, index, {"annotations": [_done(event) | {"index": place}]})
            case Asked():
                yield _chunk(head, index, {"tool_calls": [{"index": calls[index], **_tool_call(event)}]})
                calls[index] += 1
            case Ended(reason, citations, read, generated):
                used = [used[0] + read, used[1] + generated]
                for place, citation in enumerate(citations, len(annotated[index])):
                    yield _chunk(head, index, {"annotations": [_url_citation(citation) | {"index": place}]})
                yield _chunk(head, index, {}, finish_reason=reason)
    if wants_usage:
        yield head | {"object": "chat.completion.chunk", "choices": [], "usage": usage(*used)}


async def whole(head: dict[str, Any], events: Events, number: int, prompt_tokens: int) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "assistant", "content": "", "refusal": None} for _ in range(number)]
    choices = [
        {"index": index, "message": message, "logprobs": None, "finish_reason": "stop"}
        for index, message in enumerate(messages)
    ]
    used = [prompt_tokens, 0]
    async for index, event in events:
        message, choice = messages[index], choices[index]
        match event:
            case Text(text, logprobs):
                message["content"] += text
                if logprobs:
                    choice["logprobs"] = choice["logprobs"] or {"content": [], "refusal": None}
                    choice["logprobs"]["content"] += logprobs
            case Returned():
                turn = _begun(event.called)["tool_call"] | _done(event)["tool_call"]
                message.setdefault("annotations", []).append({"type": "tool_call", "tool_call": turn})
            case Asked():
                message.setdefault("tool_calls", []).append(_tool_call(event))
            case Ended(reason, citations, read, generated):
                used = [used[0] + read, used[1] + generated]
                choice["finish_reason"] = reason
                if citations:
                    message.setdefault("annotations", []).extend(map(_url_citation, citations))
                if "tool_calls" in message:
                    message["content"] = message["content"] or None
    return head | {"object": "chat.completion", "choices": choices, "usage": usage(*used)}


def _chunk(head: dict[str, Any], index: int, delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": None} | more
    return head | {"object": "chat.completion.chunk", "choices": [choice]}


def _begun(called: Called) -> dict[str, Any]:
    return {"type": "tool_call", "tool_call": {"id": called.id, "name": called.name, "arguments": called.arguments}}


def _done(returned: Returned) -> dict[str, Any]:
    result = returned.result
    sources = [{"title": title, "url": url} for title, url, _ in result.sources]
    return {"type": "tool_call", "tool_call": {"output": result.output, "error": result.error, "sources": sources}}


def _tool_call(asked: Asked) -> dict[str, Any]:
    arguments = json.dumps(asked.arguments, ensure_ascii=False)
    return {"id": asked.id, "type": "function", "function": {"name": asked.name, "arguments": arguments}}


def _url_citation(citation: Citation) -> dict[str, Any]:
    (title, url, _), start, end = citation
    told = {"start_index": start, "end_index": end, "title": title, "url": url}
    return {"type": "url_citation", "url_citation": told}
