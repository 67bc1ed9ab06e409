"""A Llama-family decoder that is exactly transformers' `Qwen3ForCausalLM`: RMSNorm, rotary positions, grouped-query
attention with normalised queries and keys, SwiGLU, no biases. Module names are Qwen3's, so a checkpoint exports as is.

Letters in names: B batch, T positions, D width, H heads, K key/value heads, S head size, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils.checkpoint import checkpoint

from webtochat.model.config import ModelConfig

Mask = Tensor | BlockMask | None
"""Where a position may look, [B, 1, T, T]; None: plain causal."""
FLEX_HEAD_SIZE = 16
"""The smallest head that FlexAttention's kernels take."""
CHUNKED = nn.LinearCrossEntropyOptions()
CHUNKED_ON_CPU = nn.LinearCrossEntropyOptions(batch_chunk_size=256, chunking_method=None)
"""The cross-entropy of 2,048 positions of width 160 over 4,096 ids, forward and backward on one core: 156 ms with all
logits at once, 126 ms in the chunks that torch chooses, 89 ms in these."""


class Attention(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.heads, self.kv_heads, self.head_size = config.heads, config.kv_heads, config.head_size
        self.q_proj = nn.Linear(config.width, config.heads * config.head_size, bias=False)
        self.k_proj = nn.Linear(config.width, config.kv_heads * config.head_size, bias=False)
        self.v_proj = nn.Linear(config.width, config.kv_heads * config.head_size, bias=False)
        self.o_proj = nn.Linear(config.heads * config.head_size, config.width, bias=False)
        self.q_norm = nn.RMSNorm(config.head_size, config.norm_epsilon)
        self.k_norm = nn.RMSNorm(config.head_size, config.norm_epsilon)

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask: Mask) -> Tensor:
        B, T, _ = x_BTD.shape
        q_BHTS = self.q_norm(self.q_proj(x_BTD).view(B, T, self.heads, self.head_size)).transpose(1, 2)
        k_BKTS = self.k_norm(self.k_proj(x_BTD).view(B, T, self.kv_heads, self.head_size)).transpose(1, 2)
        v_BKTS = self.v_proj(x_BTD).view(B, T, self.kv_heads, self.head_size).transpose(1, 2)
        q_BHTS, k_BKTS = rotate(q_BHTS, rotary), rotate(k_BKTS, rotary)
        out_BHTS = attend(q_BHTS, k_BKTS, v_BKTS, mask)
        return self.o_proj(out_BHTS.transpose(1, 2).reshape(B, T, -1))


class MLP(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=False)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=False)

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x_BTD)) * self.up_proj(x_BTD))


class Block(nn.Module):
    def __init__(self, config: ModelConfig):
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.width, config.norm_epsilon)
        self.self_attn = Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.width, config.norm_epsilon)
        self.mlp = MLP(config)

    def forward(self, x_BTD: Tensor, rotary: tuple[Tensor, Tensor], mask: Mask) -> Tensor:
        x_BTD = x_BTD + self.self_attn(self.input_layernorm(x_BTD), rotary, mask)
        return x_BTD + self.mlp(self.post_attention_layernorm(x_BTD))


class Body(nn.Module):
    """Embedding, blocks and final norm: Qwen3's `model`."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.norm = nn.RMSNorm(config.width, config.norm_epsilon)


class Decoder(nn.Module):
    """What stands before a head: `Transformer`'s over the vocabulary, or a reward model's (model/reward.py)."""

    HUGGING_FACE: ClassVar[dict[str, Any]]
    """What config.json says of the head."""
    outputs: int | None = None
    """Of the head; None: the vocabulary."""

    def __init__(self, config: ModelConfig):
        """With torch's default weights, to be loaded over."""
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.recompute = False
        """Blocks keep their input only, and run again in the backward pass (Chen et al. 2016)."""
        self._rotary: tuple[Tensor, Tensor] | None = None

    def hidden(self, tokens_BT: Tensor, documents_BT: Tensor | None = None) -> Tensor:
        """x_BTD after the final norm."""
        T = tokens_BT.shape[1]
        rotary = self._rotary_of(T, tokens_BT.device)
        mask: Mask = None
        if documents_BT is not None:
            flex = documents_BT.is_cuda and self.config.head_size >= FLEX_HEAD_SIZE
            mask = block_mask(documents_BT) if flex else document_mask(documents_BT)
        x_BTD = self.model.embed_tokens(tokens_BT)
        for layer in self.model.layers:
            if self.recompute and torch.is_grad_enabled():
                x_BTD = checkpoint(layer, x_BTD, rotary, mask, use_reentrant=False)
            else:
                x_BTD = layer(x_BTD, rotary, mask)
        return self.model.norm(x_BTD)

    def _rotary_of(self, length: int, device: torch.device) -> tuple[Tensor, Tensor]:
        if self._rotary is None or self._rotary[0].shape[0] < length or self._rotary[0].device != device:
            self._rotary = rotary_table(max(length, self.config.max_positions), self.config, device)
        return self._rotary[0][:length], self._rotary[1][:length]


class Transformer(Decoder):
    HUGGING_FACE: ClassVar[dict[str, Any]] = {"architectures": ["Qwen3ForCausalLM"]}

    def __init__(self, config: ModelConfig, seed: int | None = None, zero_residual: bool = False):
        """With a seed, freshly initialised."""
        super().__init__(config)
        self.lm_head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.tie_embeddings:
            self.lm_head.weight = self.model.embed_tokens.weight
        if seed is not None:
            initialise(self, seed, zero_residual)

    def forward(
        self, tokens_BT: Tensor, documents_BT: Tensor | None = None, targets_BT: Tensor | None = None
    ) -> Tensor:
        """logits_BTV; or, with targets, the summed cross-entropy in nats (targets of -100 bear none, and cost no
        logits). The loss is part of forward so that DistributedDataParallel sees it, and so that it never holds all the
        logits.

        `documents_BT`: attention stays within equal numbers; None: plain causal.
        """
        x_BTD = self.hidden(tokens_BT, documents_BT)
        if targets_BT is None:
            return self.lm_head(x_BTD)
        x_ND, targets_N = x_BTD.flatten(0, 1), targets_BT.flatten()
        learned = (targets_N != -100).nonzero().squeeze(1)
        if len(learned) < len(targets_N):
            x_ND, targets_N = x_ND[learned], targets_N[learned]
        chunked = (CHUNKED if x_ND.is_cuda else CHUNKED_ON_CPU) if torch.is_grad_enabled() else None
        return F.linear_cross_entropy(x_ND, self.lm_head.weight, targets_N, reduction="sum", options=chunked)


def rotary_table(length: int, config: ModelConfig, device: torch.device) -> tuple[Tensor, Tensor]:
    """cos and sin, each [T, S], in float32 (Su et al. 2021, in the half-split layout of Llama and Qwen)."""
    steps = torch.arange(0, config.head_size, 2, device=device, dtype=torch.float32) / config.head_size
    # Not theta**-steps: another rounding, which long contexts multiply.
    frequencies = 1.0 / config.rope_theta**steps
    angles = torch.outer(torch.arange(length, device=device, dtype=torch.float32), frequencies)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def rotate(x_BHTS: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    cos_TS, sin_TS = (table.to(x_BHTS.dtype) for table in rotary)
    first, second = x_BHTS.chunk(2, dim=-1)
    return x_BHTS * cos_TS + torch.cat([-second, first], dim=-1) * sin_TS


def attend(q_BHTS: Tensor, k_BKTS: Tensor, v_BKTS: Tensor, mask: Mask) -> Tensor:
    """Softmax attention within the mask, H query heads over K key heads. Returns [B, H, T, S]."""
    grouped = q_BHTS.shape[1] != k_BKTS.shape[1]
    if isinstance(mask, BlockMask):
        kind = v_BKTS.dtype  # under autocast the norms return float32, and FlexAttention wants one type
        return _flex()(q_BHTS.to(kind), k_BKTS.to(kind), v_BKTS, block_mask=mask, enable_gqa=grouped)
    return F.scaled_dot_product_attention(
        q_BHTS, k_BKTS, v_BKTS, attn_mask=mask, is_causal=mask is None, enable_gqa=grouped
    )  # fmt: skip


@cache
def _flex() -> Callable[..., Tensor]:
    """Compiled where there is CUDA: without that FlexAttention holds all the scores."""
    if torch.cuda.is_available():
        return torch.compile(flex_attention)
    return flex_attention


def block_mask(documents_BT: Tensor) -> BlockMask:
    """`document_mask` for FlexAttention: blocks of 128 × 128 without a pair that may look are skipped."""
    B, T = documents_BT.shape

    def may_look(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query >= key) & (documents_BT[b, query] == documents_BT[b, key])

    return create_block_mask(may_look, B, None, T, T, device=documents_BT.device)


def document_mask(documents_BT: Tensor) -> Tensor:
    """[B, 1, T, T], True where a position may look: the same document, not later. Dense: B × T² bytes, built once a
    batch (FlexAttention has no backward on CPU)."""
    T = documents_BT.shape[1]
    causal_TT = torch.ones(T, T, dtype=torch.bool, device=documents_BT.device).tril()
    return ((documents_BT[:, :, None] == documents_BT[:, None, :]) & causal_TT)[:, None]


@torch.no_grad()
def initialise(model: Transformer, seed: int, zero_residual: bool) -> None:
    """All initialisation. Normal with 0.02 for embeddings and 1/√width for matrices; what writes to the residual stream
    is smaller by √(2 × depth) (Radford et al. 2019), or begins at zero, so that blocks pass on what they get (Zhang et
    al. 2019). The same numbers on any device count: drawn on the CPU by name."""
    config = model.config
    generator = torch.Generator().manual_seed(seed)
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.fill_(1.0)
            continue
        std = 0.02 if "embed" in name or "lm_head" in name else 1 / math.sqrt(config.width)
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            std = 0.0 if zero_residual else std / math.sqrt(2 * config.depth)
        weight.copy_(torch.randn(weight.shape, generator=generator) * std)
