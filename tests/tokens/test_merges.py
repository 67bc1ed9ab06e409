"""Merges from counts: those of Hugging Face's trainer, in its order, ties included."""

from __future__ import annotations

import json
import random

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from webtochat.recipe import TokenizerSection
from webtochat.tokens import counts, merges
from webtochat.tokens import tokenizer as bpe

PATTERN = TokenizerSection().pattern


def theirs(texts: list[str], vocabulary: int) -> str:
    """What Hugging Face's trainer learns, as its file."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    backend.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(bpe.SPECIALS), initial_alphabet=alphabet, show_progress=False, special_tokens=[]
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens(bpe.SPECIALS)
    return backend.to_str()


@pytest.mark.parametrize("seed", range(4))
def test_the_file_is_hugging_face_s_to_the_byte(seed: int) -> None:
    rng = random.Random(seed)
    letters = "aab" if seed == 0 else "abcdefgh" if seed == 1 else "abcdeéßжд中文한 '1\n"
    texts = ["".join(rng.choices(letters, k=rng.randint(0, 80))) + " " for _ in range(400)]
    assert bpe.train(texts, 1000, PATTERN).backend.to_str() == theirs(texts, 1000)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text("ab ", max_size=30), max_size=8))
def test_runs_and_ties_too(texts: list[str]) -> None:
    assert bpe.train(texts, 330, PATTERN).backend.to_str() == theirs(texts, 330)


def learned(counted: dict[str, int], wanted: int) -> list[tuple[int, int]]:
    """With ids that are the bytes."""
    table = pa.Table.from_pylist([{"piece": p, "count": n} for p, n in counted.items()], counts.SCHEMA)
    return merges.learn(table, np.arange(256), wanted)


def test_ties_go_to_the_smaller_ids_whatever_the_order_of_the_pieces() -> None:
    assert learned({"xy": 3, "ab": 3, "ac": 3}, 9) == [(97, 98), (97, 99), (120, 121)]
    assert learned({"ac": 3, "ab": 3, "xy": 3}, 9) == [(97, 98), (97, 99), (120, 121)]


def test_counts_beyond_32_bits_and_no_counts() -> None:
    assert learned({"ab": 2**40, "bc": 2**40 + 1, "cd": 2**61}, 3) == [(99, 100), (98, 99), (97, 98)]
    assert learned({}, 3) == [] and learned({"a": 5}, 3) == []


def test_the_file_that_a_long_piece_makes_is_the_same() -> None:
    texts = ["a" * 5000 + " " + "ab" * 3000]
    assert json.loads(bpe.train(texts, 300, PATTERN).backend.to_str()) == json.loads(theirs(texts, 300))
