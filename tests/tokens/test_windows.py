"""Documents to windows: nothing is lost or told twice, short documents stay whole, what is empty is counted."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from webtochat.model.config import ModelConfig
from webtochat.model.transformer import Transformer
from webtochat.recipe import Model
from webtochat.tokens.batches import collate
from webtochat.tokens.shards import Document, Split, write_shard, write_windows
from webtochat.tokens.windows import PACKINGS, fitted, read_index, write_index
from webtochat.train.rank import cross_entropy
from webtochat.train.validation import document_windows

LENGTHS = st.lists(st.integers(0, 70), max_size=40).map(lambda each: np.array(each, np.int64))
PACKING = st.sampled_from(sorted(PACKINGS))


@settings(max_examples=200, deadline=None)
@given(LENGTHS, st.integers(1, 33), PACKING)
def test_every_position_is_in_one_window_or_counted(lengths: np.ndarray, length: int, packing: str) -> None:
    index = PACKINGS[packing](lengths, length)
    assert index.tokens == lengths.sum() + len(lengths)
    taken = np.zeros(max(0, index.tokens - 1), int)
    for number in range(len(index)):
        spans = index.spans(number)
        assert spans and sum(each for _, each in spans) <= length
        for first, each in spans:
            assert each > 0
            taken[first : first + each] += 1
    assert taken.max(initial=0) <= 1 and (taken == 0).sum() == index.cropped
    assert index.padding == len(index) * length - taken.sum()
    assert index.padding == 0 if packing == "stream" else index.cropped == 0


@settings(max_examples=100, deadline=None)
@given(LENGTHS, st.integers(2, 33))
def test_a_document_that_fits_is_never_cut(lengths: np.ndarray, length: int) -> None:
    """A longer one only every `length` positions from its start."""
    index = PACKINGS["best-fit"](lengths, length)
    spans = dict(zip(index.first.tolist(), index.length.tolist(), strict=True))
    first = 0
    for number, each in enumerate(lengths.tolist()):
        size = each + (number + 1 < len(lengths))
        for begin in range(0, size, length):
            assert spans.pop(first + begin) == min(length, size - begin)
        first += each + 1
    assert not spans


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 20), max_size=80), st.integers(20, 30))
def test_it_is_best_fit_decreasing(lengths: list[int], size: int) -> None:
    """As one would write it with a look at every window."""
    room: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [number for number, left in enumerate(room) if left >= length]
        if not fitting:
            fitting = [len(room)]
            room.append(size)
        room[min(fitting, key=lambda number: room[number])] -= length
    pieces, begin = fitted(np.array(lengths, np.int64), size)
    assert sorted(pieces.tolist()) == list(range(len(lengths)))
    left = [size - sum(lengths[piece] for piece in pieces[a:b]) for a, b in itertools.pairwise(begin)]
    assert sorted(left) == sorted(room)


def split_of(folder: Path, lengths: np.ndarray, length: int, packing: str) -> tuple[Split, np.ndarray]:
    generator = np.random.default_rng(1)
    documents = [Document(str(n), "", generator.integers(1, 60, each), 1) for n, each in enumerate(lengths.tolist())]
    write_shard(str(folder / "shard-00000"), documents, 0, 64)
    write_windows(str(folder / "shard-00000"), documents, packing, length)
    return Split(str(folder), length, 64), np.fromfile(folder / "shard-00000.bin", "<u2")


@settings(max_examples=50, deadline=None)
@given(LENGTHS.filter(lambda each: each.sum() + len(each) > 1), st.integers(1, 33), PACKING)
def test_a_window_is_what_its_spans_say(
    tmp_path_factory: pytest.TempPathFactory, lengths: np.ndarray, length: int, packing: str
) -> None:
    """Each position's target is the token after it in the shard; numbers of documents tell apart what is of two."""
    split, flat = split_of(tmp_path_factory.mktemp("windows"), lengths, length, packing)
    owner = np.cumsum(flat == 0)
    for number in range(len(split)):
        window, (_, spans) = split.window(number, 0), split.spans(number)
        places = np.concatenate([np.arange(first, first + each) for first, each in spans])
        filled = len(places)
        assert all(len(part) == length for part in window)
        assert np.array_equal(window.tokens[:filled], flat[places])
        assert np.array_equal(window.targets[:filled], flat[places + 1])
        assert window.weights.tolist() == [1] * filled + [0] * (length - filled)
        same = owner[places][:, None] == owner[places][None]
        numbers = window.documents[:filled]
        assert np.array_equal(numbers[:, None] == numbers[None], same)
        empty = window.documents[filled:].tolist()
        assert len(set(empty)) == len(empty) and not set(empty) & set(numbers.tolist())


def test_the_index_is_the_same_again(tmp_path: Path) -> None:
    index = PACKINGS["best-fit"](np.arange(500) * 7 % 300, 64)
    for name in ("one", "two"):
        write_index(str(tmp_path / name), index)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    again = read_index(str(tmp_path / "one"))
    assert (again.sequence_length, again.tokens) == (64, index.tokens)
    assert len(again) == len(index)
    assert all(again.spans(number) == index.spans(number) for number in range(len(index)))


def test_a_packed_window_costs_what_its_documents_cost_alone(tmp_path: Path) -> None:
    """Attention crosses neither documents nor padding, and padding costs nothing."""
    model = Transformer(ModelConfig.of(Model(depth=2, width=32, head_size=16, max_positions=64), 64), seed=1)
    split, flat = split_of(tmp_path, np.array([20, 9, 17, 3]), 64, "best-fit")
    assert len(split) == 1
    window = split.window(0, 0)
    assert window.weights.sum() == 52
    total, weight = cross_entropy(model, collate([window]))
    alone = torch.zeros(())
    for first, length in split.spans(0)[1]:
        piece = torch.from_numpy(flat[first : first + length + 1].astype(np.int64))[None]
        alone = alone + model(piece[:, :-1], None, piece[:, 1:])
    assert weight == 52
    torch.testing.assert_close(total, alone, rtol=1e-5, atol=1e-4)


def test_what_is_held_out_does_not_depend_on_the_packing(tmp_path: Path) -> None:
    """Bits per byte stay comparable: the same windows, whatever the index says."""
    windows = []
    for packing in PACKINGS:
        (tmp_path / packing).mkdir()
        split, _ = split_of(tmp_path / packing, np.array([20, 70, 3, 0, 33]), 16, packing)
        windows.append(document_windows(split, 0, 63, 100))
    assert len(windows[0]) == 7 and len(windows[0]) == len(windows[1])
    for one, other in zip(*windows, strict=True):
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(one, other, strict=True))
        assert not one.weights[one.targets == 0].any()
