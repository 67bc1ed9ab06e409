"""Many conversations answered together: one engine generates for all that go on, and their calls run beside each
other."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from webtochat.agent.conversation import Call, Conversation
from webtochat.inference.engine import Completion
from webtochat.recipe_tools import Tools
from webtochat.tools import tool

Generate = Callable[..., list[list[Completion]]]
"""`Engine.generate`, here or in its actor."""


def answer(
    conversations: Sequence[Conversation], generate: Generate, *, max_new_tokens: int, temperature: float = 0.0,
    top_p: float = 1.0, seed: int | Sequence[int] = 0, section: Tools | None = None, threads: int = 8,
) -> None:  # fmt: skip
    """Brings all of them to their end. `max_new_tokens`: of each completion. In round r of N conversations the p-th
    that goes on is drawn with `seed` + r·N + p, or, where each conversation has a seed, with its own + r. `section`:
    the limits of calls; `threads`: calls at a time."""
    with ThreadPoolExecutor(threads) as pool:
        for turn in itertools.count():
            numbers = [number for number, each in enumerate(conversations) if not each.finished]
            going_on = [conversations[number] for number in numbers]
            if not going_on:
                return
            finished = generate(
                [each.ids for each in going_on],
                max_new_tokens=[min(max_new_tokens, each.room) for each in going_on],
                temperature=temperature, top_p=top_p, stop_token_ids=going_on[0].tokenizer.stops,
                seed=(
                    seed + turn * len(conversations) if isinstance(seed, int)
                    else [seed[number] + turn for number in numbers]
                ),
            )  # fmt: skip
            results = []
            for each, [completion] in zip(going_on, finished, strict=True):
                calls = each.generated(completion.ids, completion.logprobs, completion.versions)
                results.append([pool.submit(_text, each, call, section) for call in calls])
            for each, texts in zip(going_on, results, strict=True):
                if not each.finished:
                    each.answered([text.result() for text in texts])


def _text(conversation: Conversation, call: Call, section: Tools | None) -> str:
    return tool.call(conversation.tools, call.name, call.arguments, section).text
