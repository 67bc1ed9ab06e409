"""Matrices of the blocks multiplied in float8 (Micikevicius et al. 2022): e4m3 forward, e5m2 for gradients,
each tensor scaled by its largest value. Weights, gradients and what is exported stay as they are. The output layer
stays in bf16, as its error falls on the loss itself.

torchao has this too; but where it is installed transformers and vLLM import it at every start, with warnings."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from webtochat.errors import UserError
from webtochat.model.transformer import Decoder

CAPABILITY = (8, 9)
"""Of the first GPUs whose tensor cores take float8: Ada and Hopper."""
E4M3, E5M2 = torch.float8_e4m3fn, torch.float8_e5m2


def check(device: torch.device) -> None:
    """Raises UserError where the device has no float8."""
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < CAPABILITY:
        raise UserError("pretrain.float8 needs a GPU of Ada's or Hopper's generation or newer: set it to false")


def convert(model: Decoder) -> None:
    """In place, before the model is compiled and distributed. Widths must be multiples of 16."""
    for module in model.model.layers.modules():
        if type(module) is nn.Linear:
            module.__class__ = Float8Linear


class Float8Linear(nn.Linear):
    def forward(self, input: Tensor) -> Tensor:
        device = input.device.type
        kind = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else input.dtype
        return _Product.apply(input.flatten(0, -2), self.weight, kind).unflatten(0, input.shape[:-1])


class _Product(torch.autograd.Function):
    """x_NC W_RCᵀ. CUDA wants the second of two matrices by columns, hence the copies."""

    @staticmethod
    def forward(ctx: Any, x_NC: Tensor, w_RC: Tensor, kind: torch.dtype) -> Tensor:
        (x, x_scale), (w, w_scale) = scaled(x_NC, E4M3), scaled(w_RC, E4M3)
        ctx.save_for_backward(x, x_scale, w, w_scale)
        ctx.kinds = x_NC.dtype, w_RC.dtype
        return torch._scaled_mm(x, w.t(), x_scale, w_scale, out_dtype=kind)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient_NR: Tensor) -> tuple[Tensor, Tensor, None]:
        x, x_scale, w, w_scale = ctx.saved_tensors
        g, g_scale = scaled(gradient_NR, E5M2)
        x_kind, w_kind = ctx.kinds
        of_x = torch._scaled_mm(g, _by_columns(w), g_scale, w_scale, out_dtype=x_kind)
        of_w = torch._scaled_mm(g.t().contiguous(), _by_columns(x), g_scale, x_scale, out_dtype=w_kind)
        return of_x, of_w, None


def scaled(tensor: Tensor, kind: torch.dtype) -> tuple[Tensor, Tensor]:
    """The tensor in float8, and what to multiply it by to have it back."""
    back = tensor.abs().amax().float().clamp(min=1e-12) / torch.finfo(kind).max
    return (tensor.float() / back).to(kind), back


def _by_columns(matrix: Tensor) -> Tensor:
    return matrix.t().contiguous().t()
