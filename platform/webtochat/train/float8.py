"""Matrices of the blocks multiplied in float8 (Micikevicius et al. 2022), by torchao: e4m3 forward, e5m2 for
gradients, each tensor scaled by its largest value. Weights, gradients and what is exported stay as they are. The output
layer stays in bf16, as its error falls on the loss itself."""

from __future__ import annotations

import torch

from webtochat.errors import UserError
from webtochat.model.transformer import Transformer

CAPABILITY = (8, 9)
"""Of the first GPUs whose tensor cores take float8: Ada and Hopper."""


def check(device: torch.device) -> None:
    """Raises UserError where the device has no float8, or torchao is missing."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY:
        raise UserError("pretrain.float8 needs a GPU of Ada's or Hopper's generation or newer: set it to false")
    try:
        import torchao.float8  # noqa: F401
    except ImportError as error:
        raise UserError("pretrain.float8 needs torchao: pip install -c constraints.txt torchao") from error


def convert(model: Transformer, emulate: bool = False) -> None:
    """In place, before the model is compiled and distributed. `emulate`: in float32 with float8's rounding, on any
    device."""
    from torchao.float8 import Float8LinearConfig, convert_to_float8_training

    convert_to_float8_training(model.model.layers, config=Float8LinearConfig(emulate=emulate))
