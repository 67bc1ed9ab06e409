"""Chat completions: events as OpenAI's answer, whole or in chunks. What this server's tools did stands in
`annotations`: each call when it begins and when it has its result (`tool_call`), and what the answer rests on
(`url_citation`).
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
    used = [prompt_tokens, 0]
    async for index, event in events:
        match event:
            case Text(text, logprobs):
                told = {"logprobs": {"content": logprobs, "refusal": None}} if logprobs else {}
                yield _chunk(head, index, {"content": text}, **told)
            case Called() | Returned():
                yield _chunk(head, index, {"annotations": [tool_turn(event)]})
            case Asked():
                yield _chunk(head, index, {"tool_calls": [{"index": calls[index], **_tool_call(event)}]})
                calls[index] += 1
            case Ended(reason, citations, read, generated):
                used = [used[0] + read, used[1] + generated]
                if citations:
                    yield _chunk(head, index, {"annotations": [_url_citation(each) for each in citations]})
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
                message.setdefault("annotations", []).append(tool_turn(event))
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


def tool_turn(event: Called | Returned) -> dict[str, Any]:
    """A call of this server's tools, for whoever shows what was searched and computed."""
    called = event if isinstance(event, Called) else event.called
    turn: dict[str, Any] = {"id": called.id, "name": called.name, "arguments": called.arguments}
    if isinstance(event, Called):
        turn["status"] = "in_progress"
    else:
        result = event.result
        sources = [{"title": title, "url": url} for title, url, _ in result.sources]
        turn |= {"status": "completed", "output": result.output, "error": result.error, "sources": sources}
    return {"type": "tool_call", "tool_call": turn}


def _tool_call(asked: Asked) -> dict[str, Any]:
    arguments = json.dumps(asked.arguments, ensure_ascii=False)
    return {"id": asked.id, "type": "function", "function": {"name": asked.name, "arguments": arguments}}


def _url_citation(citation: Citation) -> dict[str, Any]:
    (title, url, _), start, end = citation
    told = {"start_index": start, "end_index": end, "title": title, "url": url}
    return {"type": "url_citation", "url_citation": told}
