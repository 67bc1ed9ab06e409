"""What a chat request asks of each of its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.protocol import ApiError, ChatRequest, Function, ServerTool
from webtochat.tokens.chat import marker
from webtochat.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Wish:
    """`sampling`: of vLLM's CompletionRequest. `told`: the tools that the model is told of; those named in `ours` are
    run here, others are the client's. `forced`: the first thing it writes is a call of one of these. `form`: what
    vLLM's structured outputs hold the answer to. `limit`: of generated tokens, all rounds together. `cite_share`:
    `serve.cite_share` of the recipe."""

    sampling: dict[str, Any]
    told: Sequence[Function]
    ours: frozenset[str]
    forced: Sequence[Function]
    form: dict[str, Any] | None
    limit: int | None
    stop: Sequence[str]
    top_logprobs: int
    cite_share: float

    @staticmethod
    def of(
        request: ChatRequest, tools: Sequence[Function], every: bool, sampling: dict[str, Any], tokenizer: Tokenizer,
        cite_share: float,
    ) -> Wish:  # fmt: skip
        """`tools`: those that can be run here; `every`: whether all are, or those that the request names. `sampling`:
        what the request says of it. Raises ApiError where tools do not fit together."""
        here = _run_here(request, tools, every)
        told = [*here, *request.functions]
        names = [tool.name for tool in told]
        if len(set(names)) < len(names):
            raise ApiError(400, "two tools have the same name", param="tools")
        choice, forced = request.tool_choice, list[Function]()
        if choice == "none":
            told = []
        elif choice not in (None, "auto"):
            forced = [tool for tool in told if choice == "required" or tool.name in choice.names]
            if not forced:
                raise ApiError(400, "tool_choice names a tool that tools does not have", param="tool_choice")
        sampling = sampling | {"return_token_ids": True}
        if told and request.parallel_tool_calls is False:
            closing = set(marker(tokenizer, tokenizer.markers.call_end)) & tokenizer.special_ids
            sampling["stop_token_ids"] = [*tokenizer.stops, *closing]
        if request.logprobs:
            sampling |= {"logprobs": request.top_logprobs or 0, "return_tokens_as_token_ids": True}
        return Wish(
            sampling=sampling, told=told, ours=frozenset(tool.name for tool in here), forced=forced,
            form=request.response_format and request.response_format.structured_outputs,
            limit=request.max_completion_tokens or request.max_tokens, stop=request.stop or (),
            top_logprobs=request.top_logprobs or 0, cite_share=cite_share,
        )  # fmt: skip


def _run_here(request: ChatRequest, tools: Sequence[Function], every: bool) -> list[Function]:
    named: set[str] = set()
    for tool in request.tools:
        if isinstance(tool, ServerTool):
            found = {each.name for each in tools} & set(tool.names)
            if not found:
                known = ", ".join(each.name for each in tools) or "no tools"
                raise ApiError(400, f"this server does not run {tool.type}; it has {known}", param="tools")
            named |= found
    return [tool for tool in tools if every or tool.name in named]
