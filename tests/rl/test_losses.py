"""Losses and advantages against numbers worked out by hand, and against TRL's own where it is installed."""

from __future__ import annotations

import math
from collections import defaultdict
from types import SimpleNamespace

import pytest
import torch

from webtochat.rl import losses

LOG2, LOG15 = math.log(2), math.log(1.5)
MASK = torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


def close(found: torch.Tensor, wanted: object) -> bool:
    return torch.allclose(found.double(), torch.tensor(wanted, dtype=torch.float64), atol=1e-6)


def test_advantages_by_hand() -> None:
    rewards, groups = torch.tensor([1.0, 0.0, 0.0, 1.0, 3.0, 3.0, 7.0]), [4, 4, 4, 4, 9, 9, 5]
    worth = 0.5 / (math.sqrt(1 / 3) + losses.EPSILON)
    assert close(losses.advantages("group_std", rewards, groups), [worth, -worth, -worth, worth, 0, 0, 0])
    assert close(losses.advantages("group_mean", rewards, groups), [0.5, -0.5, -0.5, 0.5, 0, 0, 0])
    # 1 against the others' mean of 1/3, 0 against 2/3; a lone answer against nothing.
    assert close(losses.advantages("leave_one_out", rewards, groups), [2 / 3, -2 / 3, -2 / 3, 2 / 3, 0, 0, 0])
    assert close(losses.advantages("batch_mean", rewards, groups), [reward - 15 / 7 for reward in rewards.tolist()])


def test_groups_need_not_stand_together() -> None:
    mixed = losses.advantages("group_mean", torch.tensor([1.0, 5.0, 3.0, 1.0]), [0, 1, 0, 1])
    assert close(mixed, [-1, 2, 1, -2])


def test_gae_by_hand() -> None:
    """γ = 0.5, λ = 0.5: δ = (0 + .5 × 2 - 1, 1 + 0 - 2) = (0, -1); A = (0 + .25 × -1, -1)."""
    rewards, values = torch.tensor([[0.0, 1.0, 9.0]]), torch.tensor([[1.0, 2.0, 9.0]])
    found, returns = losses.gae(rewards, values, torch.tensor([[1.0, 1.0, 0.0]]), 0.5, 0.5)
    assert close(found, [[-0.25, -1, 0]]) and close(returns, [[0.75, 1, 0]])


def test_gae_passes_over_what_a_tool_said() -> None:
    plain = losses.gae(torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 2.0]]), torch.ones(1, 2), 0.9, 0.8)
    between = losses.gae(
        torch.tensor([[0.0, 5.0, 5.0, 1.0]]), torch.tensor([[1.0, 7.0, 7.0, 2.0]]),
        torch.tensor([[1.0, 0.0, 0.0, 1.0]]), 0.9, 0.8,
    )  # fmt: skip
    for one, other in zip(plain, between, strict=True):
        assert torch.equal(one, other[:, [0, 3]]) and not other[:, 1:3].any()


def test_clipping_by_hand() -> None:
    """ρ = 1.5 or 0.5, between 1 - .2 and 1 + .28: the gain of a good token is cut, the loss of a bad one is not."""
    ratio = losses.token_ratio(torch.tensor([[LOG15, LOG15, -LOG2, -LOG2]]), torch.zeros(1, 4))
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    assert close(losses.clipped(ratio, advantages, 0.2, 0.28), [[-1.28, 1.5, -0.5, 0.8]])
    assert close(losses.outside(ratio, advantages, 0.2, 0.28), [[1, 0, 0, 1]])


def test_no_gradient_where_it_is_clipped() -> None:
    logprobs = torch.tensor([[LOG15, LOG15, -LOG2, -LOG2]], requires_grad=True)
    ratio = losses.token_ratio(logprobs, torch.zeros(1, 4))
    losses.clipped(ratio, torch.tensor([[1.0, -1.0, 1.0, -1.0]]), 0.2, 0.28).sum().backward()
    assert logprobs.grad is not None and close(logprobs.grad, [[0, 1.5, -0.5, 0]])


def test_a_sequence_has_one_ratio() -> None:
    """Mean log-ratio (log 2 + 0) / 2: √2 for both of its tokens, whatever stands behind the mask."""
    ratio = losses.sequence_ratio(torch.tensor([[LOG2, 0.0, 50.0]]), torch.zeros(1, 3), torch.tensor([[1.0, 1.0, 0.0]]))
    assert close(ratio, [[math.sqrt(2)] * 3])


def test_in_the_divergence_what_became_unlikely_does_not_outweigh_all() -> None:
    logprobs = torch.tensor([LOG15, -10.0], requires_grad=True)
    found = losses.divergence(logprobs, torch.tensor([LOG2, 0.0]), torch.zeros(2), 2.0)
    assert close(found.detach(), [1.5 * (2 / 1.5 - (LOG2 - LOG15) - 1), 1 - 11 * math.exp(-10)])
    found.sum().backward()
    assert logprobs.grad is not None and close(logprobs.grad, [1.5 - 2, math.exp(-10) - 1])


def test_divergence_importance_and_values_by_hand() -> None:
    assert close(losses.k3(torch.tensor([0.0, 0.0]), torch.tensor([LOG2, 0.0])), [2 - LOG2 - 1, 0])
    assert close(losses.importance(torch.tensor([LOG2, math.log(5), -LOG2]), torch.zeros(3), 2.0), [2, 2, 0.5])
    # V moved from 0 to 1 and counts as having moved to 0.2 where that is worse.
    worse = losses.value_loss(torch.tensor([1.0, 1.0]), torch.zeros(2), torch.tensor([1.0, 0.0]), 0.2)
    assert close(worse, [0.5 * 0.8**2, 0.5])


def test_dpo_by_hand() -> None:
    """β = 0.5, margin (1 - 0) - (-1 - 1) = 3: -log σ(1.5)."""
    found = losses.dpo(torch.tensor([1.0]), torch.tensor([-1.0]), torch.tensor([0.0]), torch.tensor([1.0]), 0.5)
    assert close(found, [math.log(1 + math.exp(-1.5))])


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("tokens", 7 / 3), ("sequence_means", (1.5 + 4) / 2), ("sequence_sums", 7 / 2), ("constant", 7 / 20)],
)
def test_sums_by_hand_however_they_are_shared(kind: str, wanted: float) -> None:
    values = torch.tensor([[1.0, 2.0, 99.0], [4.0, 99.0, 99.0]])
    total, weight = losses.reduce(values, MASK, kind, 10)
    assert float(total / weight) == pytest.approx(wanted)
    padding = losses.reduce(values[:1], torch.zeros(1, 3), kind, 10)
    parts = [losses.reduce(values[row : row + 1], MASK[row : row + 1], kind, 10) for row in (0, 1)]
    sums = [sum(float(each) for each in both) for both in zip(*parts, padding, strict=True)]
    assert sums[0] / sums[1] == pytest.approx(wanted)


class Trainer(SimpleNamespace):
    """As much of a GRPOTrainer as its loss asks for: what it has not been given is off."""

    def __getattr__(self, name: str) -> object:
        return False


@pytest.mark.parametrize(
    ("trl_type", "level", "reduce", "high", "kl"),
    [
        ("grpo", "token", "sequence_means", 0.2, 0.04), ("dr_grpo", "token", "constant", 0.2, 0.0),
        ("dapo", "token", "tokens", 0.28, 0.0), ("grpo", "sequence", "sequence_means", 4e-4, 0.0),
    ],
)  # fmt: skip
def test_losses_are_trls(trl_type: str, level: str, reduce: str, high: float, kl: float) -> None:
    """GRPOTrainer's own `_compute_loss`, on the same log-probabilities, with its correction for the sampler."""
    grpo_trainer = pytest.importorskip("trl.trainer.grpo_trainer", reason="trl is not installed here")
    torch.manual_seed(3)
    logprobs, old, sampled, reference = (-torch.rand(4, 6, dtype=torch.float64) * 2 for _ in range(4))
    old = logprobs + (old - old.mean()) * 0.3
    sampled = old + (sampled - sampled.mean()) * 0.3
    mask = (torch.arange(6) < torch.tensor([[6], [2], [4], [1]])).double()
    advantages = torch.tensor([1.0, -0.5, 0.3, -2.0], dtype=torch.float64)
    weights = losses.importance(old, sampled, 2.0)

    ratio = losses.token_ratio(logprobs, old) if level == "token" else losses.sequence_ratio(logprobs, old, mask)
    low = 0.2 if level == "token" else 3e-4
    loss = losses.clipped(ratio, advantages[:, None], low, high) * weights
    loss = loss + kl * losses.k3(logprobs, reference)
    total, weight = losses.reduce(loss, mask, reduce, 32)

    told: dict[str, defaultdict[str, list[float]]] = {"eval": defaultdict(list)}
    trainer = Trainer(
        _get_per_token_logps_and_entropies=lambda *_, **__: (logprobs, torch.zeros_like(logprobs), None),
        args=SimpleNamespace(use_bias_correction_kl=False, delta=None, steps_per_generation=1),
        model=SimpleNamespace(training=False), accelerator=SimpleNamespace(
            num_processes=1, gather=lambda each: each, reduce=lambda each, reduction: each
        ), top_entropy_quantile=1.0, off_policy_mask_threshold=None, importance_sampling_level=level, beta=kl,
        loss_type=trl_type, epsilon_low=low, epsilon_high=high, use_vllm=True, max_completion_length=32,
        vllm_importance_sampling_correction=True, current_gradient_accumulation_steps=1, _metrics=told,
    )  # fmt: skip
    inputs = {
        "prompt_ids": torch.zeros(4, 1, dtype=torch.long), "prompt_mask": torch.ones(4, 1, dtype=torch.long),
        "completion_ids": torch.zeros(4, 6, dtype=torch.long), "completion_mask": mask, "advantages": advantages,
        "old_per_token_logps": old, "ref_per_token_logps": reference, "importance_sampling_ratio": weights,
        "num_items_in_batch": mask.sum(),
    }  # fmt: skip
    theirs = grpo_trainer.GRPOTrainer._compute_loss(trainer, None, inputs)
    assert float(total / weight) == pytest.approx(float(theirs), rel=1e-9)
