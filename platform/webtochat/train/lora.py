"""Low-rank adaptation (Hu et al. 2021): the weights stay, and beside each matrix of the blocks a product of two thin
ones is learned. Gradients and moments are of those alone; before the model is handed on they are added to the weights,
so what is exported is a plain model."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from webtochat.model.reward import RewardModel
from webtochat.model.transformer import Decoder
from webtochat.recipe import LoRA


class LoRALinear(nn.Linear):
    """y = x Wᵀ + (x Aᵀ) Bᵀ × scale. B begins at zero, so that the model begins as it was."""

    def __init__(self, given: nn.Linear, rank: int, scale: float, generator: torch.Generator):
        super().__init__(given.in_features, given.out_features, bias=False, device="meta")
        self.weight = nn.Parameter(given.weight.detach(), requires_grad=False)
        self.scale = scale
        a_RC = torch.randn(rank, given.in_features, generator=generator) / math.sqrt(given.in_features)
        self.lora_a = nn.Parameter(a_RC.to(given.weight))
        self.lora_b = nn.Parameter(given.weight.new_zeros(given.out_features, rank))

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + F.linear(F.linear(input, self.lora_a), self.lora_b) * self.scale

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        plain = nn.Linear(self.in_features, self.out_features, bias=False, device="meta")
        plain.weight = nn.Parameter(self.weight + self.scale * self.lora_b @ self.lora_a)
        return plain


def adapt(model: Decoder, settings: LoRA, seed: int) -> None:
    """Freezes the model, but for a reward model's new head, and puts a LoRALinear in the place of each matrix of its
    blocks. Drawn on the CPU, so that every rank begins alike."""
    generator = torch.Generator().manual_seed(seed)
    model.requires_grad_(False)
    if isinstance(model, RewardModel):
        model.score.requires_grad_(True)
    for module in model.model.layers.modules():
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                scale = settings.alpha / settings.rank
                setattr(module, name, LoRALinear(child, settings.rank, scale, generator))


def merge(model: Decoder) -> None:
    """Puts plain matrices back, with what was learned added to them."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, LoRALinear):
                setattr(module, name, child.merged())
