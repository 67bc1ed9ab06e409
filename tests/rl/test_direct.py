"""Pairs of answers in windows, and what a policy is told of them."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from tests.inference import tiny

from webtochat.rl import direct, losses
from webtochat.rl.policy import Policy
from webtochat.tokens.batches import collate
from webtochat.tokens.chat import render
from webtochat.tokens.preferences import Preference
from webtochat.train.pairs import encoded

ASKED = [{"role": "user", "content": "What colour does Ada like?"}]
TOLD = [("Ada likes red.", "Bo."), ("Red house.", "A white boat, a green door."), ("Ada.", "Cy sees the wall.")]


def test_every_answer_has_the_likelihood_that_it_has_alone() -> None:
    words = tiny.tokenizer()
    policy = Policy.of(tiny.transformer(words, seed=1), valued=False)
    reference = Policy.of(tiny.transformer(words, seed=2), valued=False)
    pairs = encoded(words, [Preference(ASKED, *each, "test") for each in TOLD], 256, 128, Counter())
    packed = direct.pack(pairs, words, 128, 1)
    windows = [packed.window(number) for number in range(len(packed))]
    assert len(windows) < len(pairs)
    assert sum(int((window.weights != 0).sum()) for window in windows) == sum(
        pair.length - 2 * len(render(words, ASKED, add_generation_prompt=True).ids) for pair in pairs
    )

    def alone(model: Policy, ids: list[int]) -> float:
        start = len(render(words, ASKED, add_generation_prompt=True).ids)
        logprobs = super(Policy, model).forward(torch.tensor([ids[:-1]])).log_softmax(-1)[0]
        return float(logprobs.detach()[torch.arange(start - 1, len(ids) - 1), ids[start:]].sum())

    found = direct.likelihoods(policy, collate(windows))
    values = sorted(float(each.detach()) for side in found for each in side.flatten() if each != 0)
    assert values == pytest.approx(sorted(alone(policy, ids) for pair in pairs for ids in pair[1:]), abs=1e-4)

    total, number = direct.direct(reference, 0.3)(policy, collate(windows))
    wanted = sum(
        losses.dpo(*(torch.tensor(alone(model, ids)) for model in (policy, reference) for ids in pair[1:]), 0.3)
        for pair in pairs
    )
    assert int(number) == 3 and float(total) == pytest.approx(float(wanted), abs=1e-4)
    total.backward()
    assert policy.lm_head.weight.grad is not None and reference.lm_head.weight.grad is None


def test_a_model_that_is_its_own_reference_loses_log_2() -> None:
    words = tiny.tokenizer()
    policy = Policy.of(tiny.transformer(words, seed=1), valued=False)
    pairs = encoded(words, [Preference(ASKED, *TOLD[0], "test")], 256, 128, Counter())
    packed = direct.pack(pairs, words, 128, 1)
    total, number = direct.direct(policy, 0.1)(policy, collate([packed.window(0)]))
    assert float(total / number) == pytest.approx(0.6931, abs=1e-4)
    told = direct.held_out_metrics(policy, policy, 0.1, [packed.window(0)], torch.device("cpu"))
    assert told["validation_margin"] == 0 == told["validation_accuracy"]
