"""A file of prompts answered, without a cluster: cut into parts, each answered whole, and put together again in order.
A row is answered once, or says under `error` why it cannot be."""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from webtochat import storage
from webtochat.inference.engine import Completion
from webtochat.recipe_operation import Generate
from webtochat.tokens.chat import parse, render
from webtochat.tokens.rows import Row
from webtochat.tokens.tokenizer import Tokenizer


class Asking(NamedTuple):
    """What a model's prompts are made with. `chats`: whether it was tuned to; else a prompt is text to go on with."""

    tokenizer: Tokenizer
    positions: int
    chats: bool
    system_prompt: str | None
    section: Generate


def part_path(directory: str, kind: str, number: int) -> str:
    """`kind`: `prompts` or `answers`."""
    return storage.join(directory, f"{kind}-{number:06d}.jsonl")


def split(rows: Iterator[Row], directory: str, size: int) -> int:
    """Writes the rows as parts of `size`. Returns how many parts."""
    for number in itertools.count():
        part = list(itertools.islice(rows, size))
        if not part:
            return number
        write(part_path(directory, "prompts", number), part)
    raise AssertionError


def write(path: str, rows: Sequence[Row]) -> None:
    lines = [json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows]
    storage.write_bytes(path, "".join(lines).encode(errors="backslashreplace"))  # of half a character: JSON's own form


def read(path: str) -> list[Row]:
    return [json.loads(line) for line in storage.read_bytes(path).split(b"\n") if line]


def ids_of(row: Row, asking: Asking) -> list[int]:
    """A row's prompt. Raises ValueError with a short reason."""
    prompt, messages = row.get("prompt"), row.get("messages")
    if (prompt is None) == (messages is None):
        raise ValueError("a row has either prompt or messages")
    if prompt is not None and not isinstance(prompt, str):
        raise ValueError("prompt is not text")
    if asking.chats:
        asked = [{"role": "user", "content": prompt}] if messages is None else messages
        if asking.system_prompt and not _begins_with_system(asked):
            asked = [{"role": "system", "content": asking.system_prompt}, *asked]
        ids = render(asking.tokenizer, asked, add_generation_prompt=True).ids
    elif prompt is None:
        raise ValueError("a base model takes prompts, no messages")
    else:
        ids = [asking.tokenizer.separator, *asking.tokenizer.encode(prompt)]
    if len(ids) >= asking.positions:
        raise ValueError("longer than the model's context")
    return ids


def _begins_with_system(messages: Any) -> bool:
    """True as well where they are no messages: the renderer says so."""
    first = messages[0] if isinstance(messages, list) and messages else None
    return not isinstance(first, dict) or first.get("role") == "system"


def answer(
    rows: Sequence[Row], generate: Callable[..., list[list[Completion]]], asking: Asking, seed: int
) -> list[Row]:
    """The rows, each with `answer`, `finish_reason`, `prompt_tokens` and `completion_tokens`, or with `error`."""
    prompts: dict[int, list[int]] = {}
    told = [dict(row) for row in rows]
    for place, row in enumerate(rows):
        try:
            prompts[place] = ids_of(row, asking)
        except ValueError as error:
            told[place]["error"] = str(error)
    section = asking.section
    finished = generate(
        list(prompts.values()), max_new_tokens=section.max_new_tokens, temperature=section.temperature,
        top_p=section.top_p, seed=seed, stop_token_ids=asking.tokenizer.stops,
    ) if prompts else []  # fmt: skip
    for place, [completion] in zip(prompts, finished, strict=True):
        told[place] |= {
            "answer": parse(asking.tokenizer, completion.ids).content, "finish_reason": completion.finish_reason,
            "prompt_tokens": len(prompts[place]), "completion_tokens": len(completion.ids),
        }  # fmt: skip
    return told


def join(directory: str, count: int, out: str) -> Counter[str]:
    """Writes the parts' answers one after another. Returns how many rows were answered, and how many were not by
    reason."""
    counts: Counter[str] = Counter()
    with storage.writing(out) as local, open(local, "wb") as sink:
        for number in range(count):
            path = part_path(directory, "answers", number)
            counts.update(row.get("error", "answered") for row in read(path))
            sink.write(storage.read_bytes(path))
        os.fsync(sink.fileno())
    return counts
