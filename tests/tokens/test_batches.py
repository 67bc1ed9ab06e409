from __future__ import annotations

import os
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webtochat.errors import UserError
from webtochat.tokens.batches import TURNS, Order, feistel, in_turns, share, turns
from webtochat.tokens.shards import Document, Split, write_shard, write_windows


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 9), st.integers(0, 5))
def test_each_epoch_is_a_permutation(size: int, seed: int, epoch: int) -> None:
    assert sorted(feistel(np.arange(size), size, seed, epoch)) == list(range(size))


def test_epochs_and_seeds_differ() -> None:
    one = feistel(np.arange(1000), 1000, 1, 0)
    assert (one != feistel(np.arange(1000), 1000, 1, 1)).mean() > 0.9
    assert (one != feistel(np.arange(1000), 1000, 2, 0)).mean() > 0.9
    assert abs(np.corrcoef(one, np.arange(1000))[0, 1]) < 0.15


def test_over_endless_epochs_nothing_is_lost_or_repeated() -> None:
    order = Order((10,), (1.0,), 1)
    seen = [number for step in range(7) for number in order.windows(step * 4, 4)]
    assert sorted(seen[:10]) == sorted(seen[10:20]) == list(range(10)) and seen[:10] != seen[10:20]


SHARES = st.lists(st.floats(0.001, 1), min_size=1, max_size=7).map(tuple)


@settings(max_examples=30, deadline=None)
@given(SHARES)
def test_at_any_time_each_corpus_has_had_its_share_to_within_one(shares: tuple[float, ...]) -> None:
    rounded = in_turns(shares)
    assert sum(rounded) == TURNS
    assert np.abs(np.array(rounded) / TURNS - np.array(shares) / sum(shares)).max() <= 1 / TURNS
    turn, before = turns(rounded)
    for corpus, part in enumerate(rounded):
        mine = turn == corpus
        had = np.cumsum(mine)
        assert had[-1] == part and np.array_equal(before[mine], np.arange(part))
        assert np.abs(had - np.arange(1, TURNS + 1) * part / TURNS).max() < 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 40), st.floats(0.05, 1)), min_size=1, max_size=4), st.integers(0, 300_000))
def test_the_order_goes_on_from_anywhere(corpora: list[tuple[int, float]], consumed: int) -> None:
    """Windows, one by one or all at once, are the same; each corpus goes through all of its own before one comes again.
    """
    counts, shares = (tuple(each) for each in zip(*corpora, strict=True))
    order = Order(counts, shares, 3)
    size = 250
    windows = order.windows(consumed, size)
    assert [number for place in range(size) for number in order.windows(consumed + place, 1)] == windows
    assert order.windows(consumed, 90) + order.windows(consumed + 90, size - 90) == windows
    whole = order.windows(0, 3 * size)
    for corpus, count in enumerate(counts):
        own = [number - sum(counts[:corpus]) for number in whole if 0 <= number - sum(counts[:corpus]) < count]
        for begin in range(0, len(own) - count + 1, count):
            assert sorted(own[begin : begin + count]) == list(range(count))


def documents(shard: int) -> list[Document]:
    generator = np.random.default_rng(shard)
    return [
        Document(f"{shard}-{n}", "a.example", generator.integers(1, 400, generator.integers(5, 60)), 9)
        for n in range(30)
    ]  # fmt: skip


@pytest.fixture(params=["stream", "best-fit"])
def split(tmp_path: Path, request: pytest.FixtureRequest) -> Split:
    for shard in range(2):
        stem = str(tmp_path / f"shard-{shard:05d}")
        write_shard(stem, documents(shard), 0, 500)
        write_windows(stem, documents(shard), request.param, 16)
    return Split(str(tmp_path), 16, 500)


def test_documents_come_back(split: Split) -> None:
    found = list(split.documents())
    assert [each.id for each in found] == [each.id for shard in range(2) for each in documents(shard)]
    assert all(
        np.array_equal(one.tokens, other.tokens)
        for one, other in zip(found, documents(0) + documents(1), strict=True)
    )
    assert sum(len(each.tokens) + 1 for each in found) == split.tokens and split.counts() == [30, 30]


def test_the_documents_of_a_window_are_known(split: Split) -> None:
    """By a list of which document each token of a shard is of."""
    owners = [[id for each in documents(shard) for id in ["", *[each.id] * len(each.tokens)]] for shard in range(2)]
    for number in range(len(split)):
        shard, spans = split.spans(number)
        mine = [owners[shard][first : first + length + 1] for first, length in spans]
        assert split.sources(number) == [id for each in mine for id in dict.fromkeys(each) if id]


def test_a_token_and_a_document_are_found(split: Split) -> None:
    owners = [
        (each.id, place) for shard in range(2) for each in documents(shard) for place in range(-1, len(each.tokens))
    ]
    for number in (0, 1, 500, len(owners) - 1):
        shard, spans = split.token(number)
        [[row]] = split.documents_in(shard, spans)
        assert (row["id"], spans[0][0] - row["first"]) == owners[number]
    for number in (0, 29, 30, 59):
        shard, [span] = split.document(number)
        [[row]] = split.documents_in(shard, [span])
        assert row["id"] == f"{number // 30}-{number % 30}" and row["number"] == number % 30 and shard == number // 30
        assert split.tokens_of(shard, *span)[0] == 0 and span[1] == row["length"] + 1


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_any_number_of_workers_takes_the_same_windows(split: Split, world: int) -> None:
    window, order = partial(split.window, separator=0), Order((len(split),), (1.0,), 1)
    alone = share(window, order, 20, 10)
    parts = [share(window, order, 20, 10, rank, world) for rank in range(world)]
    assert len({part.tokens_BT.shape for part in parts}) == 1
    real = [row for part in parts for row, weight in zip(part.tokens_BT, part.weights_BT, strict=True) if weight.any()]
    assert [row.tolist() for row in real] == alone.tokens_BT.tolist()


@pytest.mark.parametrize(("name", "cut", "told"), [
    ("shard-00001.bin", 14, "holds 7 tokens, not the"), ("shard-00001.bin", 13, "is missing or damaged"),
    ("shard-00001.parquet", 14, "is missing or damaged"), ("shard-00001.parquet", None, "is missing or damaged"),
    ("shard-00001.windows.arrow", 14, "is missing or damaged"),
    ("shard-00001.windows.arrow", None, "is missing or damaged"),
])  # fmt: skip
def test_what_is_cut_or_missing_is_one_line(
    split: Split, tmp_path: Path, name: str, cut: int | None, told: str
) -> None:
    if cut is None:
        (tmp_path / name).unlink()
    else:
        os.truncate(tmp_path / name, cut)
    with pytest.raises(UserError, match=told) as raised:
        opened = Split(str(tmp_path), 16, 500)
        assert len(opened) and list(opened.documents())
    assert name in str(raised.value) and "--rebuild tokens" in str(raised.value) and "\n" not in str(raised.value)


def test_windows_of_another_length_are_refused(split: Split, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"windows of 16 tokens, not of 32: .*set tokens\.sequence_length"):
        len(Split(str(tmp_path), 32, 500))


def test_it_reads_what_it_is_asked_for(split: Split, tmp_path: Path) -> None:
    """Held-out documents need no windows, windows no documents."""
    for kind in ("parquet", "windows.arrow"):
        aside = tmp_path / f"shard-00001.{kind}"
        aside.rename(tmp_path / "aside")
        opened = Split(str(tmp_path), 16, 500)
        if kind == "parquet":
            assert opened.window(len(opened) - 1, 0).weights.any()
        assert next(opened.documents()).id == "0-0"
        (tmp_path / "aside").rename(aside)
