"""Low-rank adaptation: what begins as the model, learns beside it and ends as a plain model."""

from __future__ import annotations

from pathlib import Path

import pytest
import small_training
import torch
from small_training import quiet, spawn, tiny

from webtochat.model.config import ModelConfig
from webtochat.model.export import load
from webtochat.model.transformer import Transformer
from webtochat.recipe import SFT, LoRA, Model
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.train.lora import adapt, merge
from webtochat.train.packing import pack_rows
from webtochat.train.rank import FineTuneJob, pretrain_rank, sft_rank, write_windows


def test_it_begins_as_the_model_and_ends_as_a_plain_one() -> None:
    config = ModelConfig.of(Model(depth=2, width=32, head_size=16, max_positions=16), 64)
    model, tokens_BT = Transformer(config, seed=1), torch.arange(16)[None]
    names, before = set(model.state_dict()), model(tokens_BT)
    adapt(model, LoRA(rank=4, alpha=8), seed=1)
    assert torch.equal(model(tokens_BT), before)
    trained = {name for name, each in model.named_parameters() if each.requires_grad}
    assert len(trained) == 2 * 7 * 2 and all("lora_" in name for name in trained)
    with torch.no_grad():
        for name, each in model.named_parameters():
            if "lora_b" in name:
                each.normal_()
    adapted = model(tokens_BT)
    assert not torch.allclose(adapted, before, atol=1e-2)
    merge(model)
    assert set(model.state_dict()) == names
    assert torch.allclose(model(tokens_BT), adapted, atol=1e-4)


@pytest.fixture(scope="module")
def base(workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("base")
    pretrain_rank(small_training.job_of(tiny(workspace), directory), quiet, 1)
    return directory


@pytest.fixture(scope="module")
def windows(base: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    rows = [
        {"messages": [
            {"role": "user", "content": f"Where is {who}?"}, {"role": "assistant", "content": f"In {where}."},
        ]}
        for who, where in [("Ann", "Rome"), ("Bob", "Oslo"), ("Cid", "Bonn")] * 8
    ]  # fmt: skip
    tokenizer = Tokenizer.load(str(base / "model"))
    packed, held_out, _ = pack_rows(tokenizer, rows, 32, 30.0, seed=1)
    assert len(packed) and len(held_out)
    path = str(tmp_path_factory.mktemp("windows") / "windows.npz")
    write_windows(path, packed, held_out)
    return path


def job_of(
    base: Path, windows: str, directory: Path, steps: int, lr: float = 2e-2, **changes: object
) -> FineTuneJob:
    even = {"decay_fraction": 0.0, "warmup_fraction": 0.0}
    settings = SFT(lora=LoRA(rank=8), lr=lr, checkpoint_every=10, evaluate_every=20, **even)
    prompt = ({"role": "user", "content": "Where is Ann?"},)
    return FineTuneJob(
        directory=str(directory), settings=settings, sequence_length=32, windows_per_step=4, steps=steps,
        base=(str(base), "-"), windows=windows, sample_prompt=prompt, **changes,  # type: ignore[arg-type]
    )  # fmt: skip


def test_sft_trains_by_it_and_goes_on_from_a_checkpoint(base: Path, windows: str, tmp_path: Path) -> None:
    """What is exported is the base but for the blocks' matrices."""
    state = sft_rank(job_of(base, windows, tmp_path / "whole", 40), quiet, 1)
    losses = [point["loss"] for point in state.curve if "loss" in point]
    assert losses[-1] < losses[0] - 1
    sft_rank(job_of(base, windows, tmp_path / "parts", 20), quiet, 1)
    sft_rank(job_of(base, windows, tmp_path / "parts", 40), quiet, 1)
    made, again, before = (load(str(each / "model")) for each in (tmp_path / "whole", tmp_path / "parts", base))
    for (name, new), old, other in zip(made.named_parameters(), before.parameters(), again.parameters(), strict=True):
        assert torch.equal(new, old) == (not name.endswith("proj.weight")), name
        assert torch.equal(new, other), name


@pytest.mark.parametrize("shard", [False, True])
def test_two_workers_end_with_the_weights_of_one(base: Path, windows: str, tmp_path: Path, shard: bool) -> None:
    """DDP and FSDP2 over gloo, sharded in passes of one window; from a checkpoint of theirs half-way. Steps are small,
    as AdamW's first ones are no smaller for a gradient that is all rounding."""
    sft_rank(job_of(base, windows, tmp_path / "one", 20, 3e-3), quiet, 1)
    for steps in (10, 20):
        passes = 32 if shard else None
        spawn(sft_rank, job_of(base, windows, tmp_path / "two", steps, 3e-3, shard=shard, device_batch_tokens=passes))
    before, one, two = (load(str(path / "model")) for path in (base, tmp_path / "one", tmp_path / "two"))
    moved = [(new - old).abs().max() for new, old in zip(one.parameters(), before.parameters(), strict=True)]
    apart = [(new - old).abs().max() for new, old in zip(one.parameters(), two.parameters(), strict=True)]
    assert max(moved) > 0.01 and max(apart) < 1e-5
