"""Signatures: what makes texts alike, and how often alike texts meet."""

from __future__ import annotations

import random

import numpy as np
import pytest

from webtochat.duplicates.minhash import buckets, shingles, words_of
from webtochat.recipe_pages import NearDuplicates

FINEWEB = NearDuplicates()


def test_words_are_compared_without_case_accents_numbers_and_marks() -> None:
    assert words_of("Crème BRÛLÉE, for 12.50 €?") == ["creme", "brulee", "for", "0", "0"]
    assert words_of("猫が好き") == list("猫か好き") and words_of("\n…") == []


def test_shingles() -> None:
    assert len(shingles("one two three four five six seven", 5)) == 3
    assert len(shingles("one two", 5)) == 1 and len(shingles("", 5)) == 0
    assert shingles("a b c d e", 5)[0] != shingles("e d c b a", 5)[0] != shingles("a b c d", 5)[0]


def test_a_signature_is_the_texts_alone() -> None:
    text = "The miller of the upper valley kept three grey cats on the wall of the old mill." * 3
    first = buckets(text, FINEWEB)
    buckets("something else", FINEWEB)
    assert first.dtype == np.uint64 and len(set(first.tolist())) == 14
    assert (buckets(text.upper().replace(".", " !"), FINEWEB) == first).all()
    # The same on any machine and in any version: earlier crawls are compared with later ones.
    assert int(first[0]) == KNOWN
    assert (buckets(text, NearDuplicates(seed=2)) != first).all() and len(buckets(" ", FINEWEB)) == 0


KNOWN = 17245312705074136060


@pytest.mark.parametrize("similarity", [0.5, 0.65, 0.75, 0.85, 0.95, 1.0])
def test_alike_texts_meet_as_often_as_they_should(similarity: float) -> None:
    """Pairs with a known Jaccard similarity: words are used once, so that n words have n - 4 shingles, all different;
    texts that share the first k shingles of m each have similarity k / (2m - k)."""
    rng = random.Random(1)
    count, pairs = 100, 400
    common = round(2 * count * similarity / (1 + similarity))
    truth = common / (2 * count - common)
    met = 0
    for pair in range(pairs):
        shared = [f"w{pair}x{rng.random()}" for _ in range(common + 4)]
        texts = [" ".join([*shared, *(f"{side}y{pair}y{number}" for number in range(count - common))]) for side in "ab"]
        texts = [text.translate(str.maketrans("0123456789.", "abcdefghijk")) for text in texts]
        one, other = (buckets(text, FINEWEB) for text in texts)
        met += bool((one == other).any())
    expected = 1 - (1 - truth**8) ** 14
    assert abs(met / pairs - expected) < 3.5 * (expected * (1 - expected) / pairs) ** 0.5 + 1e-9
