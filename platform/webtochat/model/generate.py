"""A small sampler, for looking at a model while it trains. Serving and rollouts use vLLM."""

from __future__ import annotations

import torch

from webtochat.model.transformer import Transformer


@torch.no_grad()
def generate(
    model: Transformer, ids: list[int], max_new_tokens: int, stop: frozenset[int] = frozenset(),
    temperature: float = 0.0, seed: int = 0,
) -> list[int]:  # fmt: skip
    """New ids after `ids`. No cache: O(T²) work, fine for a few dozen tokens of a small model."""
    generator = torch.Generator().manual_seed(seed)
    device = next(model.parameters()).device
    known = list(ids)
    for _ in range(max_new_tokens):
        window = torch.tensor([known[-model.config.max_positions :]], device=device)
        with torch.compiler.set_stance("force_eager"):  # else blocks that are compiled would be again for each length
            logits_V = model(window)[0, -1].float().cpu()
        if temperature == 0:
            token = int(logits_V.argmax())
        else:
            token = int(torch.multinomial((logits_V / temperature).softmax(-1), 1, generator=generator))
        known.append(token)
        if token in stop:
            break
    return known[len(ids) :]
