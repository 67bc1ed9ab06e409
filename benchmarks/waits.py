"""How long training waits: for data, and for checkpoints, as a share of the time.

python benchmarks/waits.py --write

First the demo's pretraining in one plain process (its model, batch and interval, on Python's standard library), then
saves of the model of recipes/one-gpu.yaml with AdamW's moments, against what its interval takes by plan on one GPU.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from typing import Any

from train import ROOT, WARM, commit_tokens, library
from trainers import job_of

AFTER = 10
"""Steps after a save, in which it is still being written."""


def small(steps: int, interval: int, threads: int, workspace: str) -> str:
    from webtochat import recipe
    from webtochat.train.line import Line
    from webtochat.train.rank import pretrain_rank

    commit_tokens(workspace, "demo", library()[1:], library()[:1])
    demo = recipe.load(str(ROOT / "recipes" / "demo.yaml"), [f"workspace={workspace}"])
    demo.pretrain.tokens = steps * demo.pretrain.batch_tokens
    demo.pretrain.checkpoint_every, demo.pretrain.evaluate_every = interval, 0
    lines: list[Line] = []

    def emit(message: Any) -> None:
        if isinstance(message, Line):
            lines.append(message)

    state = pretrain_rank(job_of(demo, os.path.join(workspace, "made")), emit, threads)
    seconds = [demo.pretrain.batch_tokens / line.tokens_per_second for line in lines][WARM:]
    waited = [line.data * demo.pretrain.batch_tokens / line.tokens_per_second for line in lines][WARM:]
    usual = statistics.median(seconds)
    after = [seconds[start : start + AFTER] for start in range(interval - WARM, len(seconds) - AFTER, interval)]
    slower = statistics.mean(sum(steps) - AFTER * usual for steps in after)
    saves = -(-steps // interval)
    return (
        f"The demo's pretraining, {steps:,} steps of {demo.pretrain.batch_tokens:,} tokens at {1000 * usual:.0f} ms, "
        f"{threads} threads, a checkpoint every {interval} steps:\n\n"
        "| | | share of the time |\n| --- | --- | --- |\n"
        f"| waiting for data | {1000 * statistics.mean(waited):.2f} ms a step, at most {1000 * max(waited):.1f} "
        f"| {sum(waited) / sum(seconds):.2%} |\n"
        f"| waiting for a checkpoint | {1000 * state.saving / saves:.0f} ms each, {saves} of them "
        f"| {state.saving / (state.seconds + state.saving):.2%} |\n"
        f"| the {AFTER} steps after it, while it is written | {1000 * slower:+.0f} ms in all "
        f"| {slower / (interval * usual):.2%} |\n"
    )


def large(saves: int, device: str, mfu: float, workspace: str) -> str:
    import torch

    from webtochat import recipe
    from webtochat.model.config import ModelConfig
    from webtochat.model.transformer import Transformer
    from webtochat.train.checkpoint import Checkpointer
    from webtochat.train.loop import State
    from webtochat.train.optimizer import optimizers
    from webtochat.train.plan import plan

    chosen = recipe.load(str(ROOT / "recipes" / "one-gpu.yaml"))
    config = ModelConfig.of(chosen.model, chosen.tokenizer.vocabulary)
    model = Transformer(config, seed=1)
    stepping = optimizers(model, chosen.pretrain)
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 1e-3)
    for optimizer in stepping:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    checkpointer = Checkpointer(os.path.join(workspace, "large"), model, stepping, keep=1)
    waited, written = [], []
    for step in range(1, saves + 1):
        began = time.perf_counter()
        checkpointer.save(State(step=step))
        waited.append(time.perf_counter() - began)
        checkpointer.finish()
        written.append(time.perf_counter() - began)
    made = plan(chosen, 1, device, mfu)
    interval = chosen.pretrain.checkpoint_every * made.hours * 3600 / made.steps
    stall = statistics.median(waited)
    return (
        f"The {config.parameters / 1e6:.0f} M parameters of recipes/one-gpu.yaml and AdamW's moments, copied on this "
        f"CPU: steps wait {stall:.2f} s (median of {saves}), the files stand after {statistics.median(written):.1f} s. "
        f"Every {chosen.pretrain.checkpoint_every} steps of {made.step_tokens:,} tokens, which by the plan take "
        f"{interval:.0f} s on one {device} at {mfu:.0%} of its peak, that is {stall / interval:.2%} of the time.\n"
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--steps", type=int, default=1500)
    arguments.add_argument("--interval", type=int, default=500)
    arguments.add_argument("--saves", type=int, default=3)
    arguments.add_argument("--device", default="H100")
    arguments.add_argument("--mfu", type=float, default=0.4)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_args()
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")  # as the training stage has it
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as workspace:
        told = small(options.steps, options.interval, options.threads, workspace)
        told += "\n" + large(options.saves, options.device, options.mfu, workspace)
    print(told)
    if options.write:
        from record import record

        record("Waiting in training", "benchmarks/waits.py --write", told)


if __name__ == "__main__":
    main()
