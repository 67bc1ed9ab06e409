"""Completions of raw text: vLLM's chunks as OpenAI's answer, whole or in chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from serving.dialogue import Chunk, refused_by_engine


async def chunks(head: dict[str, Any], told: AsyncIterator[Chunk], wants_usage: bool) -> AsyncIterator[dict[str, Any]]:
    async for chunk in told:
        if "error" in chunk:
            raise refused_by_engine(chunk["error"])
        for choice in chunk["choices"]:
            yield head | {"choices": [_choice(choice)]}
        if not chunk["choices"] and wants_usage:
            yield head | {"choices": [], "usage": _usage(chunk)}


async def whole(head: dict[str, Any], told: AsyncIterator[Chunk]) -> dict[str, Any]:
    choices: dict[int, dict[str, Any]] = {}
    usage: dict[str, Any] = {}
    async for chunk in told:
        if "error" in chunk:
            raise refused_by_engine(chunk["error"])
        for part in map(_choice, chunk["choices"]):
            choice = choices.setdefault(part["index"], part | {"text": "", "logprobs": None})
            choice["text"] += part["text"]
            choice["finish_reason"] = part["finish_reason"] or choice["finish_reason"]
            if part["logprobs"] and choice["logprobs"]:
                choice["logprobs"] = {key: choice["logprobs"][key] + part["logprobs"][key] for key in part["logprobs"]}
            else:
                choice["logprobs"] = choice["logprobs"] or part["logprobs"]
        if chunk.get("usage"):
            usage = _usage(chunk)
    return head | {"choices": [choices[index] for index in sorted(choices)], "usage": usage}


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    return {key: choice.get(key) for key in ("index", "text", "logprobs", "finish_reason")}


def _usage(chunk: Chunk) -> dict[str, Any]:
    return {key: chunk["usage"][key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")}
