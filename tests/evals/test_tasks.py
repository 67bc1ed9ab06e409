"""Tasks on models whose likelihoods are known, on ranks, and on the files that they are made for."""

from __future__ import annotations

import json
import os
import socket
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from tests.inference import tiny
from torch import Tensor, multiprocessing

from webtochat.errors import UserError
from webtochat.evals import likelihood, tasks
from webtochat.evals.tasks import Encoded, Item
from webtochat.recipe import Evaluate, Task
from webtochat.tokens import rows
from webtochat.tokens import tokenizer as bpe
from webtochat.tokens.tokenizer import SPECIALS, Tokenizer
from webtochat.train import together

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "eval"
BITS = {"a": 1, "b": 2, "c": 3, " ": 3}
"""What these letters cost under `unigrams`; they leave no probability to others, which cost 30."""


@cache
def letters() -> Tokenizer:
    """A token is a byte."""
    return bpe.train([], 256 + len(SPECIALS), tiny.PATTERN)


@cache
def words() -> Tokenizer:
    """A token is a word with the space before it, or a part of one."""
    return tiny.tokenizer()


def unigrams(tokens_BT: Tensor) -> Tensor:
    """Logits that do not depend on what comes before."""
    costs_V = torch.full((letters().vocabulary,), 30.0)
    for letter, bits in BITS.items():
        costs_V[letters().encode(letter)] = bits
    return (-costs_V * np.log(2)).expand(*tokens_BT.shape, -1)


def alphabet(tokens_BT: Tensor) -> Tensor:
    """A model that writes b after a, c after b, …"""
    following_VV = torch.zeros(letters().vocabulary, letters().vocabulary)
    for first, second in zip("abcdefgh", "bcdefghi", strict=True):
        following_VV[letters().encode(first)[0], letters().encode(second)] = 5.0
    return following_VV[tokens_BT]


def items(*read: dict[str, Any]) -> list[Item]:
    skipped: Counter[str] = Counter()
    found = tasks.from_rows(read, skipped)
    assert not skipped
    return found


def encoded(found: list[Item], words: Tokenizer, length: int = 256, most: int = 1000, **settings: Any) -> Encoded:
    return tasks.encode(Task(path="x.jsonl", **settings), found, most, words, length, 1, Counter())


def texts(one: Encoded, words: Tokenizer) -> list[tuple[str, str]]:
    """(what comes before, what is scored) of each option."""
    parts = np.split(one.tokens, np.cumsum(one.options["length"])[:-1])
    return [
        (words.decode(ids[:first].tolist()), words.decode(ids[first:].tolist()))
        for ids, first in zip(parts, one.options["first"], strict=True)
    ]


# forms ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("normalise", "right"), [("none", "b"), ("tokens", "aab"), ("bytes", "aab")])
def test_choices_are_compared_by_likelihood_for_their_length(normalise: str, right: str) -> None:
    """By hand: ` b` costs 3 + 2 bits, ` aab` 3 + 4; for 2 and 4 tokens, 1 and 3 bytes of the choices themselves."""
    found = items({"query": "c", "choices": ["b", "aab", "ccc"], "gold": 0})
    one = encoded(found, letters(), normalise=normalise)
    assert one.options["divisor"].tolist() == {"none": [1, 1, 1], "tokens": [2, 4, 4], "bytes": [1, 3, 3]}[normalise]
    assert likelihood.score(unigrams, [one], 265)[0].tolist() == [right == "b"]


def test_of_a_schema_the_continuation_alone_is_scored() -> None:
    rows_of = [{"context_options": ["ab", "b"], "continuation": "c", "gold": gold} for gold in (0, 1)]
    one = encoded(items(*rows_of), letters(), delimiter="")
    assert texts(one, letters())[:2] == [("<|endoftext|>ab", "c"), ("<|endoftext|>b", "c")]

    def far(tokens_BT: Tensor) -> Tensor:
        """c is the likelier the more letters precede it."""
        logits = torch.zeros(*tokens_BT.shape, letters().vocabulary)
        logits[..., letters().encode("c")] = torch.arange(tokens_BT.shape[1]).float()[:, None]
        return logits

    assert likelihood.score(far, [one], 265)[0].tolist() == [True, False]


@pytest.mark.parametrize(("row", "right"), [
    ({"context": "ha", "continuation": "bcd"}, True),
    ({"context": "ha", "continuation": "bce"}, False),
    ({"context": "ha", "continuation": "acd"}, False),
    ({"context": "ha", "answer": "x", "aliases": ["acd", "bc"]}, True),
    ({"context": "ha", "answer": "x", "aliases": ["acd"]}, False),
])  # fmt: skip
def test_a_continuation_must_be_what_the_model_would_write(row: dict[str, Any], right: bool) -> None:
    one = encoded(items(row), letters(), delimiter="")
    assert likelihood.score(alphabet, [one], 265)[0].tolist() == [right]
    assert one.rows["chance"].tolist() == [0.0]


def test_of_two_sentences_all_is_scored() -> None:
    one = encoded(items({"sentence_good": "abc", "sentence_bad": "acb"}), letters())
    assert texts(one, letters()) == [("<|endoftext|>", "abc"), ("<|endoftext|>", "acb")]
    assert likelihood.score(alphabet, [one], 265)[0].tolist() == [True]


def test_a_choice_that_begins_another_is_scored_too() -> None:
    one = encoded(items({"query": "c", "choices": ["ab", "a"], "gold": 1}), letters(), normalise="none")
    assert texts(one, letters()) == [("<|endoftext|>c", " ab"), ("<|endoftext|>c", " a")]
    assert likelihood.score(unigrams, [one], 265)[0].tolist() == [True]


def test_what_is_the_same_as_the_right_choice_is_right() -> None:
    one = encoded(items({"query": "c", "choices": ["a", "a", "b"], "gold": 1}), letters())
    assert likelihood.score(unigrams, [one], 265)[0].tolist() == [True]
    assert one.rows["chance"].tolist() == pytest.approx([2 / 3])


def test_the_space_before_a_choice_is_scored_and_choices_after_the_same_tokens() -> None:
    """` red` is one token, ` ?` two. The tokens of `Ada likes` part from those of `Ada l` before ` l`."""
    found = items({"query": "Ada likes", "choices": ["red", "?"], "gold": 0})
    one = encoded(found, words())
    assert texts(one, words()) == [("<|endoftext|>Ada likes", " red"), ("<|endoftext|>Ada likes", " ?")]
    assert one.options["divisor"].tolist() == [1, 2]
    assert encoded(found, words(), normalise="bytes").options["divisor"].tolist() == [3, 1]
    found = items({"query": "Ada l", "choices": ["ikes", "?"], "gold": 0})
    (before, likes), (same, mark) = texts(encoded(found, words(), delimiter=""), words())
    assert before == same == "<|endoftext|>Ada" and (likes, mark) == (" likes", " l?")


# prompts -------------------------------------------------------------------------------------------------------------


def numbered(count: int) -> list[Item]:
    return items(*({"query": f"q{number}", "choices": ["y", "n"], "gold": number % 2} for number in range(count)))


def test_examples_are_other_rows_drawn_by_seed() -> None:
    found = numbered(20)
    settings = {"few_shot": 2, "delimiter": ": ", "example_delimiter": "\n"}
    one = encoded([*found, *found], letters(), **settings)  # each row twice: its copy is no example
    prompts = [before for before, _ in texts(one, letters())[::2]]
    for number, prompt in enumerate(prompts):
        *examples, asked = prompt.removeprefix("<|endoftext|>").split("\n")
        assert asked == f"q{number % 20}:" and len(set(examples)) == 2
        for example in examples:
            query, answer = example.split(": ")
            assert query != asked[:-1] and answer == "yn"[int(query[1:]) % 2]
    again = encoded([*found, *found], letters(), **settings)
    assert np.array_equal(again.tokens, one.tokens)
    # A part of the rows has the prompts that it has among all.
    some = texts(encoded([*found, *found], letters(), most=7, **settings), letters())
    assert len(some) == 14 and {before for before, _ in some} < set(prompts)


def test_a_long_prompt_loses_its_first_examples_and_a_long_row_is_counted() -> None:
    found = [*numbered(20), *items({"query": "q" * 40, "choices": ["y", "n"], "gold": 0})]
    skipped: Counter[str] = Counter()
    task = Task(path="x", few_shot=3, example_delimiter="\n")
    # <|endoftext|>, `q7 y\n`, `q7 `: 10 inputs and more for two digits; three examples need 21 at most.
    one = tasks.encode(task, found[:20], 20, letters(), 14, 1, skipped)
    assert one.shortened == 20 and one.skipped == {}
    assert all(3 > before.count("\n") >= 1 for before, _ in texts(one, letters()))
    assert max(one.options["length"]) <= 15
    full = tasks.encode(task, found[:20], 20, letters(), 100, 1, skipped)
    for (short, _), (whole, _) in zip(texts(one, letters()), texts(full, letters()), strict=True):
        assert whole.endswith(short.removeprefix("<|endoftext|>"))
    left = tasks.encode(task, found, 21, letters(), 30, 1, skipped)
    assert left.skipped == {"too_long": 1} and len(left.rows) == 20


@pytest.mark.parametrize(("row", "reason"), [
    ({"query": "x", "choices": ["a", "b"], "gold": 2}, "gold_is_not_the_number_of_a_choice"),
    ({"query": "x", "choices": ["a", "b"], "gold": -1}, "gold_is_not_the_number_of_a_choice"),
    ({"query": "x", "choices": ["a", "b"], "gold": "1"}, "gold_is_not_the_number_of_a_choice"),
    ({"query": "x", "choices": ["a", "b"], "gold": True}, "gold_is_not_the_number_of_a_choice"),
    ({"query": "x", "choices": ["a", "b"]}, "gold_is_not_the_number_of_a_choice"),
    ({"query": "x", "choices": ["a", 3], "gold": 0}, "a_choice_is_not_text"),
    ({"query": "x", "choices": ["a", " "], "gold": 0}, "a_choice_is_not_text"),
    ({"query": "x", "choices": "ab", "gold": 0}, "choices_are_not_a_list"),
    ({"query": "x", "choices": ["a"], "gold": 0}, "fewer_than_two_choices"),
    ({"query": "x", "choices": ["a", "a"], "gold": 0}, "fewer_than_two_choices"),
    ({"query": None, "choices": ["a", "b"], "gold": 0}, "no_query"),
    ({"choices": ["a", "b"], "gold": 0}, "no_query"),
    ({"query": "\ud800", "choices": ["a", "b"], "gold": 0}, "not_UTF-8_text"),
    ({"context_options": ["a", "b"], "gold": 0}, "no_continuation"),
    ({"context": "a", "continuation": ""}, "no_continuation"),
    ({"context": 7, "continuation": "a"}, "no_context"),
    ({"context": "a", "answer": "b", "aliases": "c"}, "aliases_are_not_a_list"),
    ({"sentence_good": "a"}, "a_choice_is_not_text"),
    ({"text": "a"}, "unknown_form"),
    ({}, "unknown_form"),
])  # fmt: skip
def test_what_is_no_row_is_counted_by_reason(row: dict[str, Any], reason: str) -> None:
    skipped: Counter[str] = Counter()
    assert tasks.from_rows([row], skipped) == [] and skipped == {reason: 1}


def test_a_file_is_prepared_and_what_is_left_out_is_told(tmp_path: Path) -> None:
    good = json.dumps({"query": "c", "choices": ["a", "b"], "gold": 0})
    written = [good, good, good[:20], "[]", good.replace("0", "9"), '{"text": "a"}']
    (tmp_path / "copa.jsonl").write_text("\n".join(written))
    (tmp_path / "bad.jsonl").write_text("{}\n")
    said: list[str] = []
    sources = [{"path": f"{tmp_path}/copa.jsonl"}, {"path": "python:miniweb.x:y", "needs": "miniweb"}]
    section = Evaluate.model_validate({"tasks": sources})
    (one,) = tasks.prepare(section, 100, None, letters(), 64, said.append)
    assert one.name == "copa" and len(one.rows) == 2
    assert one.skipped == {
        "not_json": 1, "not_an_object": 1, "gold_is_not_the_number_of_a_choice": 1, "unknown_form": 1,
    }  # fmt: skip
    assert "copa: left out 1 rows: unknown form" in said and said[0].startswith("skipped the task y: ")
    section = Evaluate.model_validate({"tasks": [{"path": f"{tmp_path}/bad.jsonl", "name": "none"}]})
    with pytest.raises(UserError, match=r"the task none has no row that can be scored \({'unknown_form': 1}\)"):
        tasks.prepare(section, 100, None, letters(), 64, said.append)


def test_what_scores_depend_on_is_known_without_where_it_lies(tmp_path: Path) -> None:
    known = []
    for folder in ("one", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "t.jsonl").write_text("{}\n")
        os.utime(tmp_path / folder / "t.jsonl", (1, 1))
        section = Evaluate.model_validate({"tasks": [{"path": f"{tmp_path}/{folder}/t.jsonl", "few_shot": 2}]})
        known.append(tasks.identity(section, None))
    assert known[0] == known[1] and known[0][0]["few_shot"] == 2
    section.tasks *= 2
    with pytest.raises(UserError, match=r"two of evaluate\.tasks are called t"):
        tasks.identity(section, None)


# sums ----------------------------------------------------------------------------------------------------------------


def test_core_is_the_mean_of_what_lies_above_chance() -> None:
    """By hand: 3 of 4 with two choices is 0.5, 1 of 4 with four choices 0, 1 of 2 continuations 0.5."""
    pair = encoded(items(*[{"query": "c", "choices": ["a", "b"], "gold": 0}] * 4), letters(), name="pair")
    four = encoded(items(*[{"query": "c", "choices": list("abcd"), "gold": 0}] * 4), letters(), name="four")
    text = encoded(items(*[{"context": "c", "continuation": "a"}] * 2), letters(), name="text")
    flags = [np.array([1, 1, 1, 0], bool), np.array([1, 0, 0, 0], bool), np.array([1, 0], bool)]
    told = likelihood.tell([pair, four, text], flags)
    assert [each["centred"] for each in told["by_task"].values()] == pytest.approx([0.5, 0.0, 0.5])
    assert told["core"] == pytest.approx(1 / 3)
    assert told["by_task"]["pair"]["low"] == pytest.approx(0.3006, abs=1e-3)  # Wilson, 3 of 4
    assert likelihood.metrics([pair, four, text], flags) == pytest.approx(
        {"core": 1 / 3, "task/pair": 0.75, "task/four": 0.25, "task/text": 0.5}
    )
    json.dumps(told)
    by_recipe = encoded(items({"query": "c", "choices": ["a", "b"], "gold": 0}), letters(), chance=0.62)
    assert by_recipe.rows["chance"].tolist() == [0.62]


def test_letters_cost_one_sequence_and_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes: list[tuple[int, ...]] = []

    def counting(tokens_BT: Tensor) -> Tensor:
        shapes.append(tuple(tokens_BT.shape))
        return unigrams(tokens_BT)

    found = items(*({"query": f"q{n}", "choices": list("bca"), "gold": 2} for n in range(30)))
    one = encoded(found, letters())
    assert likelihood.score(counting, [one], 265)[0].all()
    assert sum(batch for batch, _ in shapes) == 30
    shapes.clear()
    monkeypatch.setattr(likelihood, "LOGITS", 265 * 12)
    assert likelihood.score(counting, [one], 265)[0].all()
    assert len(shapes) > 10 and all(batch * width <= 12 or batch == 1 for batch, width in shapes)


def sentences() -> list[Item]:
    """Which order the words have in `tiny.texts`."""
    names, colours = list(tiny.COLOURS), list(tiny.COLOURS.values())
    orders = [(f"{colour} {thing}.", f"{thing} {colour}.") for thing in ("house", "boat", "coat") for colour in colours]
    return items(*(
        {"query": f"{name} likes the", "choices": order[:: -1 if number % 2 else 1], "gold": number % 2}
        for name in names for number, order in enumerate(map(list, orders))
    ))  # fmt: skip


def test_a_trained_model_is_above_chance_and_an_untrained_one_is_not() -> None:
    model = tiny.transformer(words(), 3)
    found = [encoded(sentences(), words(), few_shot=1, name="order")]
    before = likelihood.tell(found, likelihood.score(model, found, words().vocabulary))
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    ids = torch.tensor([words().encode(text * 2)[:16] for text in tiny.texts(100)])
    for _ in range(40):
        loss = model(ids[:, :-1], None, ids[:, 1:]) / ids.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = likelihood.tell(found, likelihood.score(model, found, words().vocabulary))
    assert before["by_task"]["order"]["low"] < 0.5
    assert after["core"] > 0.9 and after["by_task"]["order"]["low"] > 0.5


# ranks ---------------------------------------------------------------------------------------------------------------


def scored(found: list[Encoded], shard: bool, world: int) -> list[list[bool]]:
    torch.set_num_threads(1)
    model = tiny.transformer(words(), 3)
    if shard:
        together.spread(model, shard=True)
    return [flags.tolist() for flags in likelihood.score(model, found, words().vocabulary)]


def _one_of_two(rank: int, port: int, held: str, told: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo")
    likelihood.POSITIONS = 300
    found = likelihood.read(held)
    told_by = {"whole": scored(found, False, 2), "sharded": scored(found, True, 2)}
    Path(f"{told}-{rank}").write_text(json.dumps(told_by))
    dist.destroy_process_group()


def test_one_rank_or_two_whole_or_sharded_give_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    guesses = items(*({"context": text[:30], "continuation": text[30:34]} for text in tiny.texts(40, 5)))
    found = [encoded(sentences()[:25], words(), few_shot=2, name="order"), encoded(guesses, words(), name="text")]
    monkeypatch.setattr(likelihood, "POSITIONS", 300)
    likelihood.write(str(tmp_path / "tasks.npz"), found)
    alone = scored(found, False, 1)
    assert 0 < sum(alone[0]) < 25
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (port, str(tmp_path / "tasks.npz"), str(tmp_path / "told"))
    multiprocessing.spawn(_one_of_two, arguments, nprocs=2)
    for rank in (0, 1):
        assert json.loads((tmp_path / f"told-{rank}").read_text()) == {"whole": alone, "sharded": alone}


# real files ----------------------------------------------------------------------------------------------------------


def files() -> list[str]:
    names = ["gauntlet/*.jsonl.gz", "mmlu-*.jsonl.gz", "blimp.jsonl.gz"]
    return sorted(str(path) for name in names for path in SHARED.glob(name))


def test_the_files_are_there() -> None:
    if not files():
        assert not os.environ.get("CI"), f"{SHARED} must be there in CI"
        pytest.skip(f"no {SHARED}")
    assert len(files()) == 37


@pytest.mark.parametrize("path", files(), ids=lambda path: Path(path).name.split(".")[0])
def test_every_row_of_a_real_file_is_scored(path: str) -> None:
    """One of them all is left out: BLiMP has a pair of which both sentences are the same."""
    skipped: Counter[str] = Counter()
    found = tasks.from_rows(rows.read(Task(path=path), None, skipped), skipped)
    assert skipped == ({"fewer_than_two_choices": 1} if "blimp" in path else {})
    one = encoded(found, words(), length=8192, most=20, few_shot=1)
    assert len(one.rows) == min(20, len(found)) and one.skipped == {} and one.shortened == 0
    flags = likelihood.score(lambda tokens: torch.zeros(*tokens.shape, 512), [one], 512)
    assert len(flags[0]) == len(one.rows)
