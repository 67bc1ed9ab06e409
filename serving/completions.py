"""Completions of raw text: vLLM's chunks as OpenAI's answer, whole or in chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from serving.dialogue import Chunk, refused_by_engine
from serving.stream import merged


async def chunks(head: dict[str, Any], told: AsyncIterator[Chunk], wants_usage: bool) -> AsyncIterator[dict[str, Any]]:
    async for chunk in _unrefused(told):
        for choice in chunk["choices"]:
            yield head | {"choices": [_choice(choice)]}
        if chunk.get("usage") and wants_usage:
            yield head | {"choices": [], "usage": _usage(chunk)}


async def whole(head: dict[str, Any], told: AsyncIterator[Chunk]) -> dict[str, Any]:
    all_of_it = merged([chunk async for chunk in _unrefused(told)])
    return head | {"choices": [_choice(choice) for choice in all_of_it["choices"]], "usage": _usage(all_of_it)}


async def _unrefused(told: AsyncIterator[Chunk]) -> AsyncIterator[Chunk]:
    async for chunk in told:
        if "error" in chunk:
            raise refused_by_engine(chunk["error"])
        yield chunk


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    return {key: choice.get(key) for key in ("index", "text", "logprobs", "finish_reason")}


def _usage(chunk: Chunk) -> dict[str, Any]:
    return {key: chunk["usage"][key] for key in ("prompt_tokens", "completion_tokens", "total_tokens")}
