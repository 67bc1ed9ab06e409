"""The model that is taught: a transformer that tells the log-probabilities of given tokens, and, for PPO, what it
expects to be rewarded with."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from webtochat.model.transformer import Transformer

POSITIONS = 4096
"""Whose logits are held at a time where activations are computed again (cluster.recompute)."""
VALUE = "value_head."
"""What the names of its weights begin with."""


class Policy(Transformer):
    """`forward` is what is asked of it, so that DistributedDataParallel sees it."""

    @staticmethod
    def of(given: Transformer, valued: bool) -> Policy:
        policy = Policy(given.config)
        policy.load_state_dict(given.state_dict())
        if valued:
            policy.value_head = nn.Linear(given.config.width, 1)
            nn.init.zeros_(policy.value_head.weight)
            nn.init.zeros_(policy.value_head.bias)
        return policy

    def plain(self) -> Transformer:
        """Without the value head: what is handed on."""
        made = Transformer(self.config)
        made.load_state_dict({name: each for name, each in self.state_dict().items() if not name.startswith(VALUE)})
        return made

    def forward(  # type: ignore[override]
        self, tokens_BT: Tensor, targets_BT: Tensor, mask_BT: Tensor, temperature: float,
        documents_BT: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
        """(log-probabilities of the targets, entropies, values), each [B, T], at the temperature that was sampled with;
        0 where the mask is. Position t predicts target t. Only the model's own tokens cost logits."""
        x_BTD = self.hidden(tokens_BT, documents_BT)
        chosen_BT = mask_BT > 0
        x_ND, targets_N = x_BTD[chosen_BT], targets_BT[chosen_BT]
        parts = []
        for x_PD, targets_P in zip(x_ND.split(POSITIONS), targets_N.split(POSITIONS), strict=True):
            if self.recompute and torch.is_grad_enabled():
                parts.append(checkpoint(self._drawn, x_PD, targets_P, temperature, use_reentrant=False))
            else:
                parts.append(self._drawn(x_PD, targets_P, temperature))
        logprobs_N, entropies_N = (torch.cat(each) for each in zip(*parts, strict=True))
        head = getattr(self, "value_head", None)
        values_N = torch.zeros_like(logprobs_N) if head is None else head(x_ND)[:, 0].float()

        def spread(each_N: Tensor) -> Tensor:
            return torch.zeros_like(mask_BT).masked_scatter(chosen_BT, each_N)

        return spread(logprobs_N), spread(entropies_N), spread(values_N)

    def _drawn(self, x_PD: Tensor, targets_P: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        logprobs_PV = (self.lm_head(x_PD).float() / temperature).log_softmax(-1)
        entropies_P = -(logprobs_PV.detach().exp() * logprobs_PV.detach()).sum(-1)
        return logprobs_PV.gather(-1, targets_P[:, None])[:, 0], entropies_P


def for_engines(model: Transformer) -> dict[str, np.ndarray]:
    """Weights by the names of a checkpoint, in float32."""
    left_out = (VALUE, "lm_head.") if model.config.tie_embeddings else (VALUE,)
    return {
        name: each.detach().float().cpu().numpy()
        for name, each in model.state_dict().items() if not name.startswith(left_out)
    }  # fmt: skip
