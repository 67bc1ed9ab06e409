"""AdamW, and the learning rate by step."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from webtochat.recipe import Optimizer


def adamw(model: nn.Module, settings: Optimizer) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019), fused. Weight decay falls on matrices only: not on norms' gains."""
    trained = [each for each in model.parameters() if each.requires_grad]
    groups = [
        {"params": [each for each in trained if each.dim() >= 2], "weight_decay": settings.weight_decay},
        {"params": [each for each in trained if each.dim() < 2], "weight_decay": 0.0},
    ]
    fused = all(each.device.type in {"cpu", "cuda"} for each in trained)
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=fused,
    )  # fmt: skip


def learning_rate(settings: Optimizer, steps: int) -> Callable[[int], float]:
    """Step (from 0) → learning rate: a linear warm-up, constant, then linear to `final_lr_fraction`
    (the trapezoid of Hägele et al. 2024). A function of the step alone, so that it has no state to resume."""
    warmup = round(settings.warmup_fraction * steps)
    decay = round(settings.decay_fraction * steps)

    def at(step: int) -> float:
        rising = (step + 1) / warmup if step < warmup else 1.0
        left = steps - step
        falling = left / decay if left < decay else 1.0
        return settings.lr * min(rising, falling + (1 - falling) * settings.final_lr_fraction)

    return at
