"""What likelier and less likely is made of: advantages, losses and how they are summed. Tensors in, tensors out.

Letters in names: B answers (a row each), T positions, G groups, N answers of a group. `mask_BT` is 1 where the model
wrote the token itself; the other positions hold anything finite and count nowhere. Log-probabilities are of the tokens
that were drawn, in nats, at the temperature of sampling: `logprobs_BT` under the weights being trained (with gradient),
`old_BT` under those at the beginning of the step, `sampled_BT` as the sampler told them, `reference_BT` under the model
that RL began with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

EPSILON = 1e-4
"""Added to a standard deviation that is divided by."""

# advantages ----------------------------------------------------------------------------------------------------------


def group_std(rewards_N: Tensor) -> Tensor:
    """A_i = (r_i - mean r) / (std r + ε), within a group of answers to one prompt (GRPO; Shao et al. 2024,
    "DeepSeekMath", section 4.1)."""
    std = rewards_N.std() if len(rewards_N) > 1 else rewards_N.new_zeros(())
    return (rewards_N - rewards_N.mean()) / (std + EPSILON)


def group_mean(rewards_N: Tensor) -> Tensor:
    """A_i = r_i - mean r. Without the division, groups that are nearly all right or wrong weigh no more than others
    (Dr. GRPO; Liu et al. 2025, "Understanding R1-Zero-like training", section 3.1)."""
    return rewards_N - rewards_N.mean()


def leave_one_out(rewards_N: Tensor) -> Tensor:
    """A_i = r_i - mean of the others' r (RLOO; Ahmadian et al. 2024, "Back to Basics", equation 9). A lone answer has
    nothing to be held against: 0."""
    N = len(rewards_N)
    return (rewards_N - rewards_N.mean()) * (N / (N - 1)) if N > 1 else torch.zeros_like(rewards_N)


GROUP_ADVANTAGES: dict[str, Callable[[Tensor], Tensor]] = {
    "group_std": group_std, "group_mean": group_mean, "leave_one_out": leave_one_out,
}  # fmt: skip


def advantages(kind: str, rewards_B: Tensor, groups: Sequence[int]) -> Tensor:
    """A_B of a whole step's answers; `groups` says which belong together. `batch_mean`: A_i = r_i - mean of all
    (REINFORCE with a baseline; Williams 1992)."""
    if kind == "batch_mean":
        return rewards_B - rewards_B.mean()
    members: dict[int, list[int]] = {}
    for place, group in enumerate(groups):
        members.setdefault(group, []).append(place)
    found_B = torch.zeros_like(rewards_B)
    for places in members.values():
        found_B[places] = GROUP_ADVANTAGES[kind](rewards_B[places])
    return found_B


def gae(rewards_BT: Tensor, values_BT: Tensor, mask_BT: Tensor, discount: float, decay: float) -> tuple[Tensor, Tensor]:
    """(advantages, returns): δ_t = r_t + γ V_{t+1} - V_t and A_t = δ_t + γ λ A_{t+1}, returns A + V (Schulman et al.
    2016, equation 16). Steps are the model's own tokens: what a tool said between two of them is passed over. After the
    last one the value is 0."""
    found_BT = torch.zeros_like(values_BT)
    ahead_B = later_B = values_BT.new_zeros(len(values_BT))
    for t in reversed(range(values_BT.shape[1])):
        own_B = mask_BT[:, t] > 0
        advantage_B = rewards_BT[:, t] + discount * ahead_B - values_BT[:, t] + discount * decay * later_B
        found_BT[:, t] = torch.where(own_B, advantage_B, 0.0)
        later_B = torch.where(own_B, advantage_B, later_B)
        ahead_B = torch.where(own_B, values_BT[:, t], ahead_B)
    return found_BT, (found_BT + values_BT) * mask_BT


# losses --------------------------------------------------------------------------------------------------------------


def token_ratio(logprobs_BT: Tensor, old_BT: Tensor) -> Tensor:
    """ρ = π/π_old of each token."""
    return (logprobs_BT - old_BT).exp()


def sequence_ratio(logprobs_BT: Tensor, old_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """One ratio for all tokens of an answer, s = exp(mean_t (log π - log π_old)): what is rewarded is the answer, so
    that is what is clipped (GSPO; Zheng et al. 2025, equations 5 to 7)."""
    return sequence_means(logprobs_BT - old_BT, mask_BT)[:, None].exp().expand_as(logprobs_BT)


def clipped(ratio_BT: Tensor, advantages_BT: Tensor, low: float, high: float) -> Tensor:
    """Per token, -min(ρA, clip(ρ, 1 - low, 1 + high) A) (PPO; Schulman et al. 2017, equation 7). DAPO sets `high` above
    `low`, so that unlikely tokens can rise (clip-higher; Yu et al. 2025, section 3.1)."""
    return -torch.min(ratio_BT * advantages_BT, ratio_BT.clamp(1 - low, 1 + high) * advantages_BT)


def outside(ratio_BT: Tensor, advantages_BT: Tensor, low: float, high: float) -> Tensor:
    """1 where clipping holds a token's gradient back."""
    return torch.where(advantages_BT > 0, ratio_BT > 1 + high, (ratio_BT < 1 - low) & (advantages_BT < 0)).float()


def reinforce(logprobs_BT: Tensor, advantages_BT: Tensor) -> Tensor:
    """Per token, -A log π (Williams 1992)."""
    return -advantages_BT * logprobs_BT


def k3(logprobs_BT: Tensor, reference_BT: Tensor) -> Tensor:
    """KL(π ‖ reference) per token, estimated by e^d - d - 1 with d = log reference - log π: unbiased where the tokens
    were drawn from π, and never negative (Schulman 2020, "Approximating KL divergence")."""
    gap_BT = reference_BT - logprobs_BT
    return gap_BT.exp() - gap_BT - 1


def divergence(logprobs_BT: Tensor, reference_BT: Tensor, sampled_BT: Tensor, cap: float) -> Tensor:
    """k3 times min(π / π_sampler, cap), held fixed: in the mean k3 and its gradient are then those of tokens drawn from
    π, whoever drew them. (DeepSeek-AI 2025, "DeepSeek-V3.2", section 3.1, lets the gradient through the factor too.)
    Without the factor a token that the first step had made unlikely counted e^d: the second step's gradient was up to
    400 times as long as others."""
    return k3(logprobs_BT, reference_BT) * importance(logprobs_BT, sampled_BT, cap).detach()


def importance(old_BT: Tensor, sampled_BT: Tensor, cap: float) -> Tensor:
    """min(π_old / π_sampler, cap), by which a token's loss is multiplied: sampler and trainer compute the same weights
    in other ways, and an answer may come from weights some steps older (truncated importance sampling; Ionides 2008;
    Yao et al. 2025)."""
    return (old_BT - sampled_BT).exp().clamp(max=cap)


def value_loss(values_BT: Tensor, old_values_BT: Tensor, returns_BT: Tensor, clip: float) -> Tensor:
    """Per token, half of max((V - R)², (V_old + clip(V - V_old, ±clip) - R)²) (PPO as Schulman's own code has it)."""
    near_BT = old_values_BT + (values_BT - old_values_BT).clamp(-clip, clip)
    return 0.5 * torch.max((values_BT - returns_BT) ** 2, (near_BT - returns_BT) ** 2)


def dpo(
    chosen_B: Tensor, rejected_B: Tensor, reference_chosen_B: Tensor, reference_rejected_B: Tensor, beta: float
) -> Tensor:
    """Per pair, -log σ(β ((log π - log reference of the chosen) - (likewise of the rejected))), of log-probabilities of
    whole answers: preferences without sampling and without a reward model (Rafailov et al. 2023, equation 7)."""
    return -F.logsigmoid(beta * ((chosen_B - reference_chosen_B) - (rejected_B - reference_rejected_B)))


# sums ----------------------------------------------------------------------------------------------------------------


def sequence_means(values_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Of each answer's own tokens; 0 of an answer without any."""
    return (values_BT * mask_BT).sum(1) / mask_BT.sum(1).clamp(min=1)


def reduce(losses_BT: Tensor, mask_BT: Tensor, kind: str, max_new_tokens: int) -> tuple[Tensor, Tensor]:
    """(sum, what the global sum is divided by). Both are added up over all passes and ranks before the division, so
    that no way of sharding a step changes its loss.

    tokens: a mean over all own tokens (DAPO, section 3.3). sequence_means: each answer's mean, then a mean over answers
    (GRPO). sequence_sums: each answer's sum, then a mean over answers (RLOO, REINFORCE). constant: that over
    `max_new_tokens`, so that no length is favoured (Dr. GRPO, section 3.2).
    """
    answers = (mask_BT.sum(1) > 0).sum()
    if kind == "sequence_means":
        return sequence_means(losses_BT, mask_BT).sum(), answers
    total = (losses_BT * mask_BT).sum()
    if kind == "tokens":
        return total, mask_BT.sum()
    return total, answers * (max_new_tokens if kind == "constant" else 1)
