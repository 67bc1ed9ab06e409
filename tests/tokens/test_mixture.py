"""Several corpora: each has its share of the tokens and its own epochs, and every window is known by where it is from.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import numpy as np
import pytest

from webtochat import storage
from webtochat.errors import UserError
from webtochat.tokens.mixture import Corpus, Mixture
from webtochat.tokens.shards import Document, write_shard, write_windows

LENGTH = 32


def corpus(folder: Path, weight: float, size: int, count: int = 200) -> Corpus:
    """Documents of `size` tokens; its tokens tell it from others."""
    (folder / "train").mkdir(parents=True)
    tokens = np.full(size, sum(folder.name.encode()) % 50 + 1)
    documents = [Document(f"{folder.name}-{number}", "", tokens, size) for number in range(count)]
    stem = str(folder / "train" / "shard-00000")
    write_shard(stem, documents, 0, 64)
    write_windows(stem, documents, "best-fit", LENGTH)
    return Corpus(folder.name, str(folder), "-", weight)


def test_shares_are_of_the_tokens_that_bear_a_loss(tmp_path: Path) -> None:
    """Documents of 20 tokens fill two thirds of a window, those of 31 all of it."""
    mixture = Mixture((corpus(tmp_path / "a", 3, 20), corpus(tmp_path / "b", 1, 31)), LENGTH, 64)
    order, seen = mixture.order(1), {"a": 0.0, "b": 0.0}
    windows = order.windows(0, 2000)
    for number in windows:
        told = mixture.sources(number)
        name = Path(told["corpus"]).name
        window = mixture.window(number, 0)
        seen[name] += window.weights.sum()
        assert told["documents"] and all(each.startswith(f"{name}-") for each in told["documents"])
        assert set(window.tokens.tolist()) == {0, sum(name.encode()) % 50 + 1}
        assert told["window"] < len(mixture.splits["ab".index(name)])
    assert seen["a"] / sum(seen.values()) == pytest.approx(0.75, abs=0.001)
    epochs = mixture.epochs(2000)
    for place, name in enumerate("ab"):
        count = len(mixture.splits[place])
        taken = sum(Path(mixture.sources(number)["corpus"]).name == name for number in windows)
        assert epochs[name] == pytest.approx(taken / count, abs=1 / count)


def test_alone_a_corpus_comes_in_its_own_order(tmp_path: Path) -> None:
    one, other = corpus(tmp_path / "a", 0.3, 20), corpus(tmp_path / "b", 0.7, 25)
    mixed, alone = Mixture((one, other), LENGTH, 64), Mixture((one,), LENGTH, 64)
    count = len(alone.splits[0])
    mine = [number for number in mixed.order(1).windows(0, 3 * count) if number < count]
    assert mine == alone.order(1).windows(0, len(mine))


def test_a_corpus_may_be_remote(tmp_path: Path, bucket: str) -> None:
    one = corpus(tmp_path / "a", 1, 20)
    storage.upload_directory(str(tmp_path / "a"), f"{bucket}/a")
    there = Mixture((Corpus("a", f"{bucket}/a", uuid.uuid4().hex, 1),), LENGTH, 64)
    here = Mixture((one,), LENGTH, 64)
    assert there.order(1) == here.order(1)
    assert np.array_equal(there.window(5, 0).tokens, here.window(5, 0).tokens)
    assert there.sources(5)["corpus"] == f"{bucket}/a"


def test_what_cannot_be_mixed_is_one_line(tmp_path: Path) -> None:
    one = corpus(tmp_path / "a", 1, 20)
    with pytest.raises(UserError, match=r"the share of b is below 1/65,536"):
        Mixture((one, corpus(tmp_path / "b", 1e-6, 20)), LENGTH, 64)
    with pytest.raises(UserError, match="do not fill a window of 32"):
        Mixture((one, corpus(tmp_path / "c", 1, 0, count=1)), LENGTH, 64)
    with pytest.raises(UserError, match="no token shards in"):
        Mixture((one, Corpus("d", str(tmp_path / "d"), "-", 1)), LENGTH, 64)
