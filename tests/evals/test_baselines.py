from __future__ import annotations

import subprocess

import numpy as np
import pytest

from webtochat.evals.baselines import NGram, joined, ngram_bits, xz_bits_per_byte


def test_probabilities_of_all_symbols_sum_to_one():
    rng = np.random.default_rng(0)
    model = NGram(rng.integers(0, 6, 500), 8, order=4)  # 6 and 7 are never seen
    for context in ([], [1], [1, 2], [5, 0, 3], [7, 1, 7], [0, 0, 0, 0]):
        told = [2 ** -model.bits(np.array([*context, symbol]))[-1] for symbol in range(8)]
        assert sum(told) == pytest.approx(1)
        assert min(told) > 0


def test_a_repeated_text_costs_almost_nothing_and_noise_its_entropy():
    cycle = np.tile(np.arange(10), 300)
    assert NGram(cycle, 16).bits(cycle)[10:].mean() < 0.1
    noise = np.random.default_rng(1).integers(0, 16, 60_000)
    assert NGram(noise[:50_000], 16, order=2).bits(noise[50_000:]).mean() == pytest.approx(4, abs=0.05)


def test_more_context_helps_where_the_text_has_it():
    rng = np.random.default_rng(2)
    words = [rng.integers(0, 30, 6) for _ in range(40)]
    stream = np.concatenate([words[number] for number in rng.integers(0, 40, 4000)])
    costs = [NGram(stream[:20_000], 30, order).bits(stream[20_000:]).mean() for order in (1, 2, 3, 5)]
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < 0.5 * costs[0]


def test_keys_are_exact_for_large_vocabularies():
    stream = np.array([65_000, 1, 65_000, 2, 65_000, 1] * 50)
    told = NGram(stream, 1 << 20, order=5).bits(np.array([2, 65_000, 1, 65_000, 1]))
    assert told[-1] < 0.2


def test_separators_are_not_paid_for():
    documents = [np.array([1, 2]), np.array([3])]
    stream, numbers = joined(documents, 9)
    assert stream.tolist() == [9, 1, 2, 9, 3]
    assert numbers.tolist() == [-1, 0, 0, -1, 1]
    paid = NGram(stream, 10).bits(stream)
    np.testing.assert_allclose(ngram_bits(stream, documents, 9, 10), [paid[1] + paid[2], paid[4]])


def test_xz_is_that_of_the_command():
    documents = [b"a page about boats. " * 20, b"another page, of gardens. " * 30]
    joined_bytes = b"\n".join(documents)
    told = xz_bits_per_byte(documents)
    try:
        packed = subprocess.run(["xz", "-9e", "--stdout"], input=joined_bytes, capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip("no xz command here to compare with")
    assert told == pytest.approx(8 * len(packed) / sum(map(len, documents)))
