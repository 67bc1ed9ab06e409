"""Tasks whose right answer is told by likelihood, in the manner of CORE (Li et al. 2024, DCLM, section 3.5).

A row tells by its fields what it is:

    {query, choices, gold}                 the likeliest choice after the query; so {question, choices, answer} (MMLU)
    {sentence_good, sentence_bad}          the likelier sentence (BLiMP)
    {context_options, continuation, gold}  the context after which the continuation is likeliest (Winograd schemas)
    {context, continuation}                the continuation must be what the model itself would write
    {context, answer, aliases}             one of these must be

Centred accuracy is (accuracy − chance) / (1 − chance): 0 for blind guesses, 1 where all is right. CORE is its mean.
"""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np

from webtochat.errors import UserError
from webtochat.recipe import Evaluate, Task
from webtochat.recipe_pages import Miniweb
from webtochat.tokens import rows
from webtochat.tokens.rows import Row
from webtochat.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class Item:
    """A row as (context, continuation) pairs, of which some are right."""

    options: tuple[tuple[str, str], ...]
    right: tuple[bool, ...]
    greedy: bool = False
    """A right one must be what the model itself would write; else, the likeliest of all."""

    @property
    def chance(self) -> float:
        return 0.0 if self.greedy else sum(self.right) / len(self.right)

    @property
    def answered(self) -> tuple[str, str]:
        """The first right option."""
        return self.options[self.right.index(True)]


OPTION = np.dtype([("length", int), ("first", int), ("divisor", int), ("right", bool), ("row", int)])
"""Number of its tokens, place of the first that is scored, by what its log-likelihood is divided, whether it is right,
number of its row."""
ROW = np.dtype([("greedy", bool), ("chance", float)])


@dataclass(frozen=True)
class Encoded:
    """A task's rows as tokens, ready for any model that goes with the tokenizer."""

    name: str
    tokens: np.ndarray
    """int32: the options one after the other, each from <|endoftext|> on, as documents begin in training."""
    options: np.ndarray
    """OPTION, in the order of their rows."""
    rows: np.ndarray
    """ROW."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Rows left out, by reason."""
    shortened: int = 0
    """Rows whose prompt has not all the few-shot examples."""


def identity(section: Evaluate, miniweb: Miniweb | None) -> list[dict[str, Any]]:
    """What the scores depend on, beside the model, the seed and the number of rows. Raises UserError where two tasks
    have one name."""
    twice = [name for name, number in Counter(task.name for task in section.tasks).items() if number > 1]
    if twice:
        raise UserError(f"two of evaluate.tasks are called {twice[0]}: give them a name")
    return [
        task.model_dump(exclude={"path", "weight", "needs"}) | {"rows": rows.identity(task, miniweb)}
        for task in rows.available(section.tasks, miniweb)[0]
    ]


def prepare(
    section: Evaluate, most: int, miniweb: Miniweb | None, tokenizer: Tokenizer, length: int, say: Callable[[str], None]
) -> list[Encoded]:  # fmt: skip
    """At most `most` rows of each task, drawn by seed, for models of `length` positions. `say` is told what was left
    out. Raises UserError for a task of which no row is left."""
    found = []
    available, missing = rows.available(section.tasks, miniweb)
    for task in missing:
        say(f"skipped the task {task.name}: it is about the miniweb, which this recipe does not crawl")
    for task in available:
        skipped: Counter[str] = Counter()
        items = from_rows(rows.read(task, miniweb, skipped), skipped)
        encoded = encode(task, items, most, tokenizer, length, section.seed, skipped)
        for reason, number in encoded.skipped.items():
            say(f"{task.name}: left out {number} rows: {reason.replace('_', ' ')}")
        if encoded.shortened:
            say(f"{task.name}: no room for all {task.few_shot} examples before {encoded.shortened} rows")
        if not len(encoded.rows):
            raise UserError(f"the task {task.name} has no row that can be scored ({dict(skipped)}): see {task.path}")
        found.append(encoded)
    return found


# rows ----------------------------------------------------------------------------------------------------------------


def from_rows(read: Iterable[Row], skipped: Counter[str]) -> list[Item]:
    """Items from a data source's rows. A row that is none of the forms is counted in `skipped` by reason."""
    found = []
    for row in read:
        try:
            found.append(_item(row))
        except ValueError as error:
            skipped[str(error).replace(" ", "_")] += 1
    return found


def _item(row: Row) -> Item:
    """Raises ValueError with a short reason."""
    if "context_options" in row:
        continuation = _text(row.get("continuation"), "no continuation")
        return _chosen([(context, continuation) for context in _texts(row["context_options"])], row.get("gold"))
    if "choices" in row:
        query = _text(row.get("query", row.get("question")), "no query")
        return _chosen([(query, choice) for choice in _texts(row["choices"])], row.get("gold", row.get("answer")))
    if "sentence_good" in row:
        return _chosen([("", each) for each in _texts([row["sentence_good"], row.get("sentence_bad")])], 0)
    if "context" in row and ("continuation" in row or "answer" in row):
        context = _text(row["context"], "no context")
        aliases = row.get("aliases") or []
        if not isinstance(aliases, list):
            raise ValueError("aliases are not a list")
        answers = [row.get("continuation", row.get("answer")), *aliases]
        options = tuple(dict.fromkeys((context, _text(answer, "no continuation")) for answer in answers))
        return Item(options, (True,) * len(options), greedy=True)
    raise ValueError("unknown form")


def _chosen(options: list[tuple[str, str]], gold: Any) -> Item:
    """What is the same as the right one is as right."""
    if type(gold) is not int or not 0 <= gold < len(options):
        raise ValueError("gold is not the number of a choice")
    right = tuple(option == options[gold] for option in options)
    if all(right):
        raise ValueError("fewer than two choices")
    return Item(tuple(options), right)


def _texts(values: Any) -> list[str]:
    if not isinstance(values, list):
        raise ValueError("choices are not a list")
    return [_text(value, "a choice is not text") for value in values]


def _text(value: Any, reason: str) -> str:
    """Without the spaces around it: what stands between the parts of a prompt is the recipe's."""
    if not isinstance(value, str) or not value.strip():
        raise ValueError(reason)
    try:
        value.encode()
    except UnicodeEncodeError as error:  # a lone surrogate, as JSON may bring
        raise ValueError("not UTF-8 text") from error
    return value.strip()


# tokens --------------------------------------------------------------------------------------------------------------


def encode(
    task: Task, items: list[Item], most: int, tokenizer: Tokenizer, length: int, seed: int, skipped: Counter[str]
) -> Encoded:
    """At most `most` of the items, with few-shot examples from all of them. Of a prompt longer than `length` the first
    examples go, one by one; a row that does not fit without any is left out, as `too_long`."""
    pool = list(dict.fromkeys(items))
    separator = tokenizer.separator
    tokens = [np.zeros(0, np.int32)]
    options: list[tuple[int, int, int, bool, int]] = []
    kept: list[tuple[bool, float]] = []
    shortened = 0

    @cache
    def example(item: Item) -> list[int]:
        return tokenizer.encode(_joined(task, *item.answered) + task.example_delimiter)

    for place in sorted(random.Random(seed).sample(range(len(items)), min(most, len(items)))):
        item = items[place]
        own = _encoded(tokenizer, task, item)
        room = length - max(len(ids) for ids, _ in own)
        if room < 0:
            skipped["too_long"] += 1
            continue
        drawn = random.Random(f"{seed}:{place}").sample(pool, min(task.few_shot + 1, len(pool)))
        examples = [example(each) for each in drawn if each != item][: task.few_shot]
        shortened += sum(map(len, examples)) > room
        while sum(map(len, examples)) > room:
            del examples[0]
        before = [separator, *itertools.chain.from_iterable(examples)]
        for (ids, first), (_, continuation), right in zip(own, item.options, item.right, strict=True):
            divisor = {"tokens": len(ids) - first, "bytes": len(continuation.encode()), "none": 1}[task.normalise]
            options.append((len(before) + len(ids), len(before) + first, divisor, right, len(kept)))
            tokens.append(np.array(before + ids, np.int32))
        kept.append((item.greedy, item.chance if task.chance is None else task.chance))
    told = np.array(options, OPTION), np.array(kept, ROW)
    return Encoded(task.name, np.concatenate(tokens), *told, dict(skipped), shortened)


def _joined(task: Task, context: str, continuation: str) -> str:
    return f"{context}{task.delimiter}{continuation}" if context else continuation


def _encoded(tokenizer: Tokenizer, task: Task, item: Item) -> list[tuple[list[int], int]]:
    """Each option's tokens, and the place of the first that is scored: there its tokens part from those of its context
    alone, since a token may reach over the context's end. Spaces between the two are scored, as lm-evaluation-harness
    and DCLM do: most tokenizers make them part of the next word. Choices after one context are all scored from where
    the first of them parts, so that they are compared after the same tokens."""
    alone = {context: tokenizer.encode(_joined(task, context, "").rstrip()) for context, _ in item.options}
    whole = [tokenizer.encode(_joined(task, context, continuation)) for context, continuation in item.options]
    firsts = [_shared(alone[context], ids) for (context, _), ids in zip(item.options, whole, strict=True)]
    if len(alone) == 1 and not item.greedy:
        firsts = [min(firsts)] * len(firsts)
    return list(zip(whole, firsts, strict=True))


def _shared(one: list[int], other: list[int]) -> int:
    """Number of tokens that both begin with."""
    differ = (place for place, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1])
    return next(differ, min(len(one), len(other)))
