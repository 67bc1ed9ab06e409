from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.inference import tiny

from webtochat.evals import bits
from webtochat.tokens.shards import Document


def document(length: int, host: str = "a.example", seed: int = 0) -> Document:
    tokens = np.random.default_rng(seed).integers(1, 50, length)
    return Document(str(seed), host, tokens, 3 * length)


@pytest.mark.parametrize("length", [1, 7, 8, 9, 12, 13, 50])
def test_each_token_is_scored_once_with_its_context(length):
    one = document(length)
    whole = np.concatenate([[0], one.tokens])
    scored = []
    for window in bits.windows([one], 0, 8):
        assert len(window.tokens) <= 9
        start = len(scored) - window.first
        assert start == 0 or window.first >= 4  # half a window of context, but at the document's start
        np.testing.assert_array_equal(window.tokens, whole[start : start + len(window.tokens)])
        scored += window.tokens[window.first + 1 :].tolist()
    assert scored == one.tokens.tolist()


def test_uniform_model_pays_log2_of_the_vocabulary():
    documents = [document(length, seed=length) for length in (3, 20, 33)]
    paid = bits.document_bits(lambda tokens: torch.zeros(*tokens.shape, 64), documents, 0, 16, batch_tokens=40)
    np.testing.assert_allclose(paid, [6 * 3, 6 * 20, 6 * 33], rtol=1e-5)
    assert bits.by_source(paid, documents, {})["total"] == pytest.approx(2.0)
    assert bits.start_value(64, documents) == pytest.approx(2.0)


def test_bits_are_the_models_own_and_do_not_depend_on_the_batch():
    words = tiny.tokenizer()
    model = tiny.transformer(words, 3)
    documents = [
        Document(str(number), "", np.array(words.encode(text)), len(text.encode()))
        for number, text in enumerate(tiny.texts(4))
    ]
    paid = bits.document_bits(model, documents, 5, 256)
    with torch.no_grad():
        for told, each in zip(paid, documents, strict=True):
            tokens = torch.tensor([[5, *each.tokens.tolist()]])
            nats = torch.nn.functional.cross_entropy(model(tokens[:, :-1])[0], tokens[0, 1:], reduction="sum")
            assert told == pytest.approx(nats.item() / math.log(2), rel=1e-4)
    np.testing.assert_allclose(paid, bits.document_bits(model, documents, 5, 256, batch_tokens=1), rtol=1e-4)


def test_sources_are_globs_on_the_host():
    documents = [document(4, host) for host in ("x.docs.example", "y.docs.example", "z.example", "")]
    told = bits.by_source(np.array([12.0, 24.0, 6.0, 0.0]), documents, {"docs": "*.docs.example"})
    assert told == pytest.approx({"total": 42 / 48, "docs": 1.5, "other": 0.25})
