"""Share of a GPU's peak that pretraining reaches (model FLOPs utilisation), for the shapes of recipes. Without Ray: in
one process, or under torchrun with one a GPU.

python benchmarks/mfu.py recipes/gpt2.yaml recipes/1b.yaml --write
torchrun --nproc-per-node 8 benchmarks/mfu.py recipes/1b.yaml 'cluster.shard=true'

The training loop and its loss as they are, on random tokens in documents of some 700, so that attention is masked as in
a real run; each process takes the share of the recipe's batch that one of its workers would. No data is read, nothing
evaluated or saved. The speed is that of the median line after the first steps, which compile.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

if TYPE_CHECKING:
    from webtochat.recipe import Recipe
    from webtochat.tokens.batches import Batch
    from webtochat.train.line import Line

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "platform"))

DOCUMENT = 700
"""Tokens of a document, in the mean."""


@dataclass(frozen=True)
class Measured:
    name: str
    parameters: int
    passes: str
    tokens_per_second: float
    """Of one device."""
    mfu: float | None
    memory: float
    """Bytes at most, of this process's device; 0 on the CPU."""
    estimated: float
    """Of activations alone, not compiled: what --plan counts."""
    last_loss: float


def windows(batch: int, length: int, vocabulary: int, seed: int) -> Batch:
    from webtochat.tokens.batches import Batch

    generator = torch.Generator().manual_seed(seed)
    tokens_BT = torch.randint(0, vocabulary, (batch, length + 1), generator=generator)
    documents_BT = (torch.rand(batch, length, generator=generator) < 1 / DOCUMENT).long().cumsum(1)
    return Batch(tokens_BT[:, :-1].contiguous(), tokens_BT[:, 1:].contiguous(), torch.ones(batch, length), documents_BT)


def measure(name: str, chosen: Recipe, steps: int, warm: int) -> Measured:
    from webtochat.model.config import ModelConfig, device_peak
    from webtochat.model.transformer import Transformer
    from webtochat.train import float8, together
    from webtochat.train.line import Line
    from webtochat.train.loop import Plan, State, train
    from webtochat.train.optimizer import learning_rate, optimizers
    from webtochat.train.plan import activation_bytes
    from webtochat.train.rank import cross_entropy, cut, prepare

    device = prepare(chosen.cluster.train_cpus)
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    config = ModelConfig.of(chosen.model, chosen.tokenizer.vocabulary)
    settings, length = chosen.pretrain, chosen.tokens.sequence_length
    model = Transformer(config, seed=chosen.model.seed).to(device)
    if settings.float8:
        float8.check(device)
        float8.convert(model)
    cluster = chosen.cluster
    trained = together.spread(model, shard=cluster.shard, compile=cluster.compile, recompute=cluster.recompute)
    chosen_optimizers = optimizers(model, settings)
    own = max(1, settings.batch_tokens // length // chosen.cluster.workers[1])
    peak = device_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    plan = Plan(
        steps=warm + steps, windows_per_step=own * world, tokens_per_step=own * world * length, clip=settings.clip,
        evaluate_every=0, checkpoint_every=0, line_seconds=0.0, flops_per_token=config.flops_per_token(length),
        peak_flops=peak * world if peak else None,
    )  # fmt: skip
    whole = windows(own, length, config.vocabulary, seed=rank)
    lines: list[Line] = []

    def log(line: Line) -> None:
        lines.append(line)
        print(f"  {line.text()}", flush=True)

    train(
        model=trained, optimizers=chosen_optimizers, lr_at=learning_rate(settings, plan.steps),
        batches=lambda _: cut(whole, chosen.cluster.device_batch_tokens, device),
        loss=partial(cross_entropy, mask_documents=settings.mask_documents), plan=plan, state=State(),
        save=lambda _: None, evaluate=lambda _: {}, log=log,
    )  # fmt: skip
    timed = lines[warm:] or [Line(0, 0, 0, 0, 0, None, 0, 0, 0)]  # no lines but on rank 0
    speed = statistics.median(line.tokens_per_second for line in timed) / world
    at_once = min(own * length, chosen.cluster.device_batch_tokens or own * length)
    return Measured(
        name, config.parameters, f"{own * length // at_once} × {at_once:,}", speed,
        speed * plan.flops_per_token / peak if peak else None,
        torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0.0,
        activation_bytes(config, at_once, cuda=device.type == "cuda", recompute=model.recompute), timed[-1].loss,
    )  # fmt: skip


def main() -> None:
    from webtochat import recipe as recipes
    from webtochat.errors import UserError

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("recipes", nargs="+", metavar="RECIPE | key=value", help="overrides are for all recipes")
    arguments.add_argument("--steps", type=int, default=20)
    arguments.add_argument("--warm", type=int, default=5, help="steps before those that count (5)")
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_intermixed_args()
    if "RANK" in os.environ:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    paths = [each for each in options.recipes if "=" not in each]
    overrides = [each for each in options.recipes if "=" in each]
    if not any(each.startswith("cluster.compile=") for each in overrides):
        overrides.append("cluster.compile=true")
    found = []
    try:
        for path in paths:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            print(f"{path} …", flush=True)
            found.append(measure(Path(path).stem, recipes.load(path, overrides), options.steps, options.warm))
    except UserError as error:
        sys.exit(f"error: {error}")
    if dist.is_initialized():
        first = dist.get_rank() == 0
        dist.destroy_process_group()
        if not first:
            return
    told = report(found, overrides)
    print(told)
    if options.write:
        from record import record

        record("Share of the peak", f"benchmarks/mfu.py {' '.join(options.recipes)} --write", told)


def report(found: list[Measured], overrides: list[str]) -> str:
    from webtochat.train.line import amount

    name = torch.cuda.get_device_name() if torch.cuda.is_available() else "the CPU, whose peak is not known"
    rows = [
        f"| {each.name} | {amount(each.parameters)} | {each.passes} | {each.tokens_per_second:,.0f} "
        f"| {'n/a' if each.mfu is None else f'{each.mfu:.1%}'} | {each.memory / 1e9:.1f} | {each.estimated / 1e9:.1f} |"
        for each in found
    ]  # fmt: skip
    return (
        f"{os.environ.get('WORLD_SIZE', '1')} × {name}, torch {torch.__version__}, {', '.join(overrides)}.\n\n"
        "| recipe | parameters | passes × tokens of a step | tokens/s a device | MFU | GB at most | of it activations, "
        "counted |\n"
        "| --- | --- | --- | --- | --- | --- | --- |\n" + "\n".join(rows) + "\n"
    )


if __name__ == "__main__":
    main()
