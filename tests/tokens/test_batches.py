from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from webtochat.tokens.batches import feistel, global_batch, share
from webtochat.tokens.shards import Document, Split, pretraining_window, write_shard


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
    seen = [number for step in range(7) for number in global_batch(10, step * 4, 4, 1)]
    assert sorted(seen[:10]) == sorted(seen[10:20]) == list(range(10))


@pytest.fixture
def split(tmp_path: Path) -> Split:
    generator = np.random.default_rng(0)
    for shard in range(2):
        documents = [
            Document(f"{shard}-{n}", "a.example", generator.integers(1, 400, generator.integers(5, 60)), 9)
            for n in range(30)
        ]  # fmt: skip
        write_shard(str(tmp_path / f"shard-{shard:05d}"), documents, 0, 500)
    return Split(str(tmp_path), 16, 500)


def test_documents_come_back(split: Split) -> None:
    documents = split.documents()
    assert len(documents) == 60 and [each.id for each in documents][29:31] == ["0-29", "1-0"]
    assert sum(len(each.tokens) + 1 for each in documents) == split.tokens


def test_the_documents_of_a_window_are_known(split: Split) -> None:
    ids = iter(split.documents())
    owners: list[list[str]] = []
    for shard in split._shards:
        owner: list[str] = []
        for token in shard.tolist():
            if token == 0:  # a separator; no document has it
                owner.append("")
                document = next(ids)
            else:
                owner.append(document.id)
        owners += [owner[start : start + 17] for start in range(0, len(owner) - 16, 16)]
    for number in range(len(split)):
        assert split.sources(number) == sorted(set(owners[number]) - {""}, key=owners[number].index)


@pytest.mark.parametrize("world", [1, 2, 3, 4])
def test_any_number_of_workers_takes_the_same_windows(split: Split, world: int) -> None:
    def window(number: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        return pretraining_window(split, 0, number)

    alone = share(window, len(split), 20, 10, 1)
    parts = [share(window, len(split), 20, 10, 1, rank, world) for rank in range(world)]
    assert len({part.tokens_BT.shape for part in parts}) == 1
    real = [row for part in parts for row, weight in zip(part.tokens_BT, part.weights_BT, strict=True) if weight.any()]
    assert [row.tolist() for row in real] == alone.tokens_BT.tolist()
    assert (alone.targets_BT[:, :-1] == alone.tokens_BT[:, 1:]).all()
    assert (alone.documents_BT.diff(dim=1) == (alone.tokens_BT[:, 1:] == 0)).all()
