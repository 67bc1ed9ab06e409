"""How the ranks of a process group hold one model: spread over them before training, whole again after it."""

from __future__ import annotations

import torch.distributed as dist
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.nn.parallel import DistributedDataParallel

from webtochat.model.transformer import Decoder
from webtochat.recipe import LoRA
from webtochat.train.lora import adapt


def spread(model: Decoder, *, shard: bool = False, compile: bool = False, recompute: bool = False) -> nn.Module:
    """The model, which is on its device, as the ranks train it: each with all of it (DistributedDataParallel), or with
    a share of every weight, gradient and moment, put together block by block where it is needed (FSDP2; Zhao et al.
    2023)."""
    model.recompute = recompute
    if compile:
        for block in model.model.layers:  # one by one: they share the compiled code, and FSDP2 shards them one by one
            block.compile()
    world = dist.get_world_size() if dist.is_initialized() else 1
    device = next(model.parameters()).device
    if world == 1:
        return model
    if not shard:
        return DistributedDataParallel(model, device_ids=[device.index] if device.type == "cuda" else None)
    mesh = init_device_mesh(device.type, (world,))
    for block in model.model.layers:
        fully_shard(block, mesh=mesh)
    fully_shard(model, mesh=mesh)
    return model


def gathered(model: Decoder, lora: LoRA | None) -> Decoder:
    """The model with whole weights, on rank 0. Every rank calls it."""
    if not isinstance(model, FSDPModule):
        return model
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True, cpu_offload=True))
    if dist.get_rank():
        return model
    whole = type(model)(model.config)
    if lora is not None:
        adapt(whole, lora, seed=0)
    whole.load_state_dict(weights)
    return whole
