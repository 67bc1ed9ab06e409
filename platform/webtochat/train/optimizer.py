"""AdamW and Muon, and the learning rate by step."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from webtochat.recipe import Optimizer, Pretrain


def optimizers(model: nn.Module, settings: Optimizer) -> list[torch.optim.Optimizer]:
    """AdamW for all; or Muon for the matrices of the blocks, and AdamW for embeddings, output layer and gains."""
    trained = {name: each for name, each in model.named_parameters() if each.requires_grad}
    if settings.optimizer == "adamw":
        return [adamw(trained, settings)]
    inner = {name: each for name, each in trained.items() if ".layers." in name and each.dim() == 2}
    muon = Muon(inner.values(), settings.lr, settings.weight_decay)
    return [muon, adamw({name: each for name, each in trained.items() if name not in inner}, settings)]


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal (Jordan et al. 2024), as large as AdamW's steps are (Liu et al. 2025, section 2.2), so
    that one learning rate and weight decay serve both. torch.optim.Muon computes in bfloat16 also on the CPU, where the
    same batch in two parts then moves the loss by 1e-3; here it is float32, and matrices of a shape go together."""

    def __init__(self, matrices: Iterable[Tensor], lr: float, weight_decay: float, momentum: float = 0.95):
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            together: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                ahead = weight.grad.lerp(state["momentum"], group["momentum"])  # Nesterov's
                together[weight.shape].append((weight, ahead))
            for shape, pairs in together.items():
                updates = orthogonal(torch.stack([ahead for _, ahead in pairs]))
                size = group["lr"] * 0.2 * math.sqrt(max(shape))
                for (weight, _), update in zip(pairs, updates, strict=True):
                    weight.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=size)


def orthogonal(matrices_NRC: Tensor, steps: int = 5) -> Tensor:
    """Each matrix with all its singular values about 1 (0.7 to 1.2), by Newton and Schulz's iteration with Jordan's
    coefficients. In bfloat16 on CUDA, else in float32."""
    wide = matrices_NRC.shape[-2] > matrices_NRC.shape[-1]
    x_NRC = matrices_NRC.to(torch.bfloat16 if matrices_NRC.is_cuda else torch.float32)
    x_NRC = x_NRC.mT if wide else x_NRC
    x_NRC = x_NRC / x_NRC.norm(dim=(-2, -1), keepdim=True).clamp(min=1e-7)
    for _ in range(steps):
        gram_NRR = x_NRC @ x_NRC.mT
        x_NRC = 3.4445 * x_NRC + (-4.7750 * gram_NRR + 2.0315 * gram_NRR @ gram_NRR) @ x_NRC
    return (x_NRC.mT if wide else x_NRC).to(matrices_NRC.dtype)


def adamw(trained: Mapping[str, Tensor], settings: Optimizer) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019), fused. Weight decay falls on matrices only, not on norms' gains, and as much
    on embeddings as on others, whatever `times` their learning rate is the others'."""
    ends = [each for name, each in trained.items() if "embed_tokens" in name or "lm_head" in name]
    matrices = [each for each in trained.values() if each.dim() >= 2 and not any(each is end for end in ends)]
    gains = [each for each in trained.values() if each.dim() < 2]
    times = settings.embedding_lr
    groups = [
        {"params": ends, "weight_decay": settings.weight_decay / times, "times": times},
        {"params": matrices, "weight_decay": settings.weight_decay, "times": 1.0},
        {"params": gains, "weight_decay": 0.0, "times": 1.0},
    ]
    fused = all(each.device.type in {"cpu", "cuda"} for each in trained.values())
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=fused,
    )  # fmt: skip


def at_width(settings: Pretrain, width: int) -> Pretrain:
    """The settings with the learning rate that a model of this width trains at: the wider, the smaller."""
    if settings.lr_width is None:
        return settings
    return settings.model_copy(update={"lr": settings.lr * settings.lr_width / width})


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
