"""float8 on the CPU, which multiplies it too: products are near, it learns all but the same, weights stay weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_training import job_of, quiet, tiny

from webtochat.errors import UserError
from webtochat.model.config import ModelConfig
from webtochat.model.transformer import Transformer
from webtochat.recipe import Model
from webtochat.train import float8
from webtochat.train.rank import pretrain_rank


def losses(model: Transformer, steps: int) -> list[float]:
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    told = []
    for _ in range(steps):
        tokens_BT = torch.randint(0, 8, (8, 32), generator=generator).cumsum(1) % 64
        loss = model(tokens_BT[:, :-1], None, tokens_BT[:, 1:]) / tokens_BT[:, 1:].numel()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        told.append(loss.item())
    return told


def test_products_and_gradients_are_near() -> None:
    plain = torch.nn.Linear(64, 48, bias=False)
    rounded = torch.nn.Linear(64, 48, bias=False)
    rounded.load_state_dict(plain.state_dict())
    rounded.__class__ = float8.Float8Linear
    x_BTC, weights_BTR = torch.randn(4, 8, 64), torch.randn(4, 8, 48)
    made = []
    for layer in (plain, rounded):
        x = x_BTC.clone().requires_grad_()
        out = layer(x)
        (out * weights_BTR).sum().backward()
        made.append((out.detach(), x.grad, layer.weight.grad))
    for ours, theirs in zip(*made, strict=True):
        assert ours is not None and theirs is not None and ours.shape == theirs.shape
        assert 0 < (ours - theirs).norm() / ours.norm() < 0.1


def test_it_learns_all_but_the_same_and_exports_the_same_names() -> None:
    config = ModelConfig.of(Model(depth=2, width=64, head_size=16), 64)
    plain, rounded = Transformer(config, seed=1), Transformer(config, seed=1)
    float8.convert(rounded)
    assert rounded.state_dict().keys() == plain.state_dict().keys()
    ours, theirs = losses(plain, 60), losses(rounded, 60)
    assert ours[-1] < 0.75 * ours[0] and ours != theirs
    assert theirs == pytest.approx(ours, rel=0.04)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_such_a_gpu_it_is_refused_in_one_line(workspace: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"float8 needs a GPU of .* set it to false"):
        pretrain_rank(job_of(tiny(workspace, pretrain={"float8": True}), tmp_path), quiet, 1)
