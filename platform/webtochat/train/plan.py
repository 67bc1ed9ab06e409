"""What a pretraining run will take, before anything is rented: parameters, tokens, operations, memory, hours. Counted
from the structure; nothing is allocated.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from webtochat import start
from webtochat.errors import UserError
from webtochat.model.config import ModelConfig, device_memory, device_peak
from webtochat.model.export import read_config
from webtochat.recipe import Recipe

SPARE = 0.9
"""Of a device's memory that a run may take: the rest is fragments, kernels' workspaces and NCCL's buffers."""


@dataclass(frozen=True)
class Plan:
    config: ModelConfig
    tokens: int
    """Positions trained on: whole steps."""
    steps: int
    step_tokens: int
    devices: int
    device: str
    device_tokens: int
    """Of one forward pass on one device."""
    passes: int
    """Forward passes of a device in one step."""
    flops: float
    states: int
    """Bytes on each device: weights, their bf16 copies, gradients, AdamW's two moments."""
    activations: int
    """Bytes that one forward pass keeps for the backward one."""
    memory: float
    """Bytes of one device."""
    hours: float
    mfu: float


def budget(recipe: Recipe, config: ModelConfig) -> tuple[int, int]:
    """(windows a step, steps): the whole steps that first reach the recipe's budget of tokens."""
    settings, length = recipe.pretrain, recipe.tokens.sequence_length
    windows = max(1, settings.batch_tokens // length)
    tokens: float = settings.tokens
    if settings.tokens_per_parameter is not None:
        tokens = settings.tokens_per_parameter * config.parameters
    return windows, math.ceil(tokens / (windows * length))


def plan(recipe: Recipe, devices: int, device: str, mfu: float) -> Plan:
    """The run of a recipe on so many devices, at a share `mfu` of their peak. Raises UserError for a device that is not
    known, a batch that does not divide, and what does not fit."""
    peak, memory = device_peak(device), device_memory(device)
    if peak is None or memory is None:
        raise UserError(f"--device {device} is not in the table of devices (model/config.py): name one like H100 or L4")
    if devices < 1 or not 0 < mfu <= 1:
        raise UserError("--devices must be at least 1, --mfu above 0 and at most 1")
    if recipe.pretrain.start is None:
        config = ModelConfig.of(recipe.model, recipe.tokenizer.vocabulary)
    else:
        config = read_config(start.find(recipe.pretrain.start, ("config.json",)).local())
        config.agrees(recipe.model)
    length = recipe.tokens.sequence_length
    if length > config.max_positions:
        raise UserError(f"tokens.sequence_length ({length}) is more than model.max_positions ({config.max_positions})")
    windows, steps = budget(recipe, config)
    own = math.ceil(windows / devices)
    at_once = own
    if recipe.cluster.device_batch_tokens is not None:
        at_once = min(own, max(1, recipe.cluster.device_batch_tokens // length))
    step_tokens = windows * length
    tokens = steps * step_tokens
    flops = config.flops_per_token(length) * tokens
    if recipe.cluster.shard and devices > 1:
        # A share of float32 weights, gradients and moments; whole, at a time, two blocks and the embeddings, with bf16.
        block = (config.parameters - _embeddings(config)) // config.depth
        states = config.parameters * (4 + 4 + 8) // devices + (2 * block + _embeddings(config)) * (4 + 2 + 4)
    else:
        # float32 weights, gradients (twice where DistributedDataParallel gathers them in buckets) and moments; autocast
        # holds each matrix in bf16 as well.
        states = config.parameters * (4 + 2 + 4 + 4 * (devices > 1) + 8)
    activations = activation_bytes(config, at_once * length, recompute=recipe.cluster.recompute)
    if states + activations > SPARE * memory:
        fits = int((SPARE * memory - states) // (activations // (at_once * length)) // length * length)
        way = (
            f"cluster.device_batch_tokens={fits} fits" if fits >= length
            else "no batch is small enough: lower model.depth, set cluster.shard or take a larger device"
        )  # fmt: skip
        raise UserError(
            f"{(states + activations) / 1e9:.1f} GB do not fit into {SPARE:.0%} of the {memory / 1e9:.0f} GB of one "
            f"{device} ({states / 1e9:.1f} GB for {config.parameters / 1e6:,.0f}M parameters and their moments, "
            f"{activations / 1e9:.1f} GB for {at_once * length:,} positions): {way}"
        )
    # What divides badly makes the others wait: a step takes as long as the device with most windows.
    busy = own * devices / windows
    hours = flops * busy / (devices * peak * mfu) / 3600
    return Plan(
        config, tokens, steps, step_tokens, devices, device, at_once * length, math.ceil(own / at_once), flops, states,
        activations, memory, hours, mfu,
    )  # fmt: skip


def _embeddings(config: ModelConfig) -> int:
    return config.vocabulary * config.width * (1 if config.tie_embeddings else 2)


def activation_bytes(config: ModelConfig, positions: int, cuda: bool = True, recompute: bool = False) -> int:
    """What the forward pass keeps, not compiled. On CUDA the residual stream and the norms are float32, what matrices
    multiply and attention takes is bf16. On the CPU all is float32; there a norm is not one kernel and keeps what it
    normalised, and what comes out of attention need not be copied. With `recompute`: each block's input, and all of the
    one block that is being computed again."""
    half, whole = (2 if cuda else 4), 4
    D, M = config.width, config.mlp_width
    Q, K = config.heads * config.head_size, config.kv_heads * config.head_size
    norms = 2 * D * (whole + half) + (Q + K) * whole  # what goes in; of the first two also what the matrices take
    attention = (2 * Q + 2 * K) * half  # q, k, v and out
    mlp = 4 * M * half  # gate, its SiLU, up, their product
    apart = Q * half if cuda else (2 * D + Q + K) * whole
    ends = 2 * D * whole + D * half  # embedding, final norm
    block = norms + attention + mlp + apart
    blocks = config.depth * D * whole + block if recompute else config.depth * block
    return positions * (blocks + ends)


def table(made: Plan) -> list[tuple[str, str]]:
    """(what, how much) as shown."""
    config = made.config
    inner = config.parameters - _embeddings(config)
    states, activations, memory = (size / 1e9 for size in (made.states, made.activations, made.memory))
    shape = f"depth {config.depth}, width {config.width}, {config.heads} heads, vocabulary {config.vocabulary:,}"
    held = f"{states:.1f} weights, gradients and moments, {activations:.1f} activations"
    on = f"{made.devices} × {made.device} at {made.mfu:.0%} of its peak ({made.hours * made.devices:,.0f} device hours)"
    return [
        ("model", shape),
        ("parameters", f"{config.parameters:,} ({inner:,} without the embeddings)"),
        ("tokens", f"{made.tokens:,}, {made.tokens / config.parameters:.1f} a parameter"),
        ("steps", f"{made.steps:,} of {made.step_tokens:,} tokens"),
        ("a step", f"{made.devices} × {made.passes} forward passes of {made.device_tokens:,} tokens"),
        ("FLOPs", f"{made.flops:.3g}"),
        ("memory", f"{states + activations:.1f} of {memory:.0f} GB a device: {held}"),
        ("time", f"{made.hours:,.1f} h on {on}"),
    ]
