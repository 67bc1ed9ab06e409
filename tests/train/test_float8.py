"""float8's rounding, emulated: it learns all but the same, and leaves the model's weights what they are."""

from __future__ import annotations

import os

import pytest
import torch
from small_training import job_of, quiet, tiny

from webtochat.errors import UserError
from webtochat.model.config import ModelConfig
from webtochat.model.transformer import Transformer
from webtochat.recipe import Model
from webtochat.train import float8
from webtochat.train.rank import pretrain_rank

if not os.environ.get("CI"):
    pytest.importorskip("torchao", reason="torchao is not installed: make setup")


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


def test_it_learns_all_but_the_same_and_exports_the_same_names() -> None:
    config = ModelConfig.of(Model(depth=2, width=64, head_size=16), 64)
    plain, rounded = Transformer(config, seed=1), Transformer(config, seed=1)
    float8.convert(rounded, emulate=True)
    assert rounded.state_dict().keys() == plain.state_dict().keys()
    ours, theirs = losses(plain, 60), losses(rounded, 60)
    assert ours[-1] < 0.75 * ours[0] and ours != theirs
    assert theirs == pytest.approx(ours, rel=0.02)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_such_a_gpu_it_is_refused_in_one_line(workspace, tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=r"float8 needs a GPU of .* set it to false"):
        pretrain_rank(job_of(tiny(workspace, pretrain={"float8": True}), tmp_path), quiet, 1)
