"""Training speed under Ray Train, with data, logging and MLflow, against a bare PyTorch loop.

python benchmarks/train.py
python benchmarks/train.py --width 192 --rounds 5 --write

The same model, windows, batch, optimizer and number of threads in both, in turns in one run: the bare loop in a process
of its own, ours as `jobs/pretrain.py` runs it, with a line to the screen and to MLflow at every step (a longer run has
one in 200). The speed is that of the median step; start-up, evaluation and checkpoints are outside of both.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
for folder in ("jobs", "recipes", "platform"):
    sys.path.insert(0, str(ROOT / folder))

if TYPE_CHECKING:
    from webtochat.tokens.tokenizer import Tokenizer

LENGTH, VOCABULARY, WARM = 256, 4096, 3
"""The first steps are not timed: memory is taken and threads start."""


class Speed(NamedTuple):
    tokens_per_second: float
    loss: float
    """Of the last step: that both did the same."""


def library() -> list[str]:
    """The Python standard library's source."""
    return [path.read_text("utf-8", "replace") for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))]


def commit_tokens(
    workspace: str, name: str, training: list[str], held_out: list[str], vocabulary: int = VOCABULARY,
    packing: str = "stream",
) -> Tokenizer:  # fmt: skip
    """Tokens of the texts, as the stages before pretrain would leave them."""
    import numpy as np

    from webtochat import artifact
    from webtochat.recipe import TokenizerSection
    from webtochat.tokens import tokenizer as bpe
    from webtochat.tokens.shards import Document, write_shard, write_windows
    from webtochat.tokens.tokenizer import END_OF_TEXT

    learned = bpe.train(training, vocabulary, TokenizerSection().pattern)
    home = os.path.join(workspace, name)
    draft = artifact.begin(os.path.join(home, "tokenizer"), "tokenizer", {}, [])
    assert isinstance(draft, artifact.Draft)
    learned.save(draft.directory)
    made = draft.commit(counts={}, summary="")
    draft = artifact.begin(os.path.join(home, "tokens"), "tokens", {}, [made])
    assert isinstance(draft, artifact.Draft)
    for split, texts in (("train", training), ("validation", held_out)):
        documents = [
            Document(str(number), "", np.asarray(ids, np.uint32), len(text.encode()))
            for number, (text, ids) in enumerate(zip(texts, learned.encode_batch(texts), strict=True))
        ]
        os.mkdir(draft.path(split))
        write_shard(draft.path(split, "shard-00000"), documents, learned.special(END_OF_TEXT), learned.vocabulary)
        write_windows(draft.path(split, "shard-00000"), documents, packing, LENGTH)
    draft.commit(counts={}, summary="")
    return learned


def bare(recipe_path: str, steps: int, threads: int, compiled: bool = False) -> tuple[list[float], list[float]]:
    """What one would write without a platform. Returns the seconds and the loss of each step."""
    import torch

    from webtochat import recipe
    from webtochat.model.config import ModelConfig
    from webtochat.model.transformer import Transformer
    from webtochat.tokens.batches import Order, share
    from webtochat.tokens.shards import Split
    from webtochat.tokens.tokenizer import END_OF_TEXT, Tokenizer

    torch.set_num_threads(threads)
    torch.set_flush_denormal(True)
    chosen = recipe.load(recipe_path)
    settings, home = chosen.pretrain, Path(chosen.workspace) / chosen.name
    tokenizer = Tokenizer.load(str(home / "tokenizer"))
    split = Split(str(home / "tokens" / "train"), LENGTH, tokenizer.vocabulary)
    separator = tokenizer.special(END_OF_TEXT)
    model = Transformer(ModelConfig.of(chosen.model, tokenizer.vocabulary), seed=chosen.model.seed)
    matrices = [each for each in model.parameters() if each.dim() >= 2]
    gains = [each for each in model.parameters() if each.dim() < 2]
    optimizer = torch.optim.AdamW(
        [{"params": matrices, "weight_decay": settings.weight_decay}, {"params": gains, "weight_decay": 0.0}],
        lr=settings.lr, betas=(settings.beta1, settings.beta2), fused=True,
    )  # fmt: skip
    order, windows = Order((len(split),), (1.0,), settings.seed), settings.batch_tokens // LENGTH
    forward = torch.compile(model) if compiled else model
    seconds, losses = [], []
    for step in range(steps):
        began = time.perf_counter()
        batch = share(lambda number: split.window(number, separator), order, step * windows, windows)
        documents_BT = batch.documents_BT if settings.mask_documents else None
        loss = forward(batch.tokens_BT, documents_BT, batch.targets_BT) / batch.targets_BT.numel()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        losses.append(loss.item())
        seconds.append(time.perf_counter() - began)
    return seconds, losses


def bare_apart(recipe_path: str, options: argparse.Namespace) -> Speed:
    command = [sys.executable, "-W", "ignore", __file__, "--bare", recipe_path, "--steps", str(options.steps)]
    done = subprocess.run([*command, "--threads", str(options.threads)], capture_output=True, text=True, check=True)
    seconds, losses = json.loads(done.stdout.splitlines()[-1])
    return Speed(options.batch_tokens / statistics.median(seconds[WARM:]), losses[-1])


def ours(run: Any) -> Speed:
    """The pretrain stage. Its lines reach MLflow with the time at which the driver had them."""
    from webtochat.train.stage import pretrain

    run.discard("pretrain")
    made = pretrain(run)
    points = run.tracking.client().get_metric_history(made.manifest.mlflow_run_id, "loss")
    timed = sorted((point.step, point.timestamp, point.value) for point in points if point.step >= WARM)
    seconds = [(later[1] - earlier[1]) / 1000 for earlier, later in itertools.pairwise(timed)]
    return Speed(run.recipe.pretrain.batch_tokens / statistics.median(seconds), timed[-1][2])


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--depth", type=int, default=4)
    arguments.add_argument("--width", type=int, default=160)
    arguments.add_argument("--batch-tokens", type=int, default=4096)
    arguments.add_argument("--steps", type=int, default=60)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    arguments.add_argument("--bare", metavar="RECIPE", help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.bare:
        print(json.dumps(bare(options.bare, options.steps, options.threads)))
        return
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as workspace:
        compare(options, workspace)


def compare(options: argparse.Namespace, workspace: str) -> None:
    from job import started

    tree = {
        "name": "speed", "workspace": workspace, "tokens": {"sequence_length": LENGTH},
        "model": {"depth": options.depth, "width": options.width, "head_size": 32, "max_positions": LENGTH},
        "pretrain": {
            "tokens": options.steps * options.batch_tokens, "batch_tokens": options.batch_tokens, "lr": 1e-3,
            "warmup_fraction": 0.0, "decay_fraction": 0.0, "evaluate_every": 0, "checkpoint_every": 0,
        },
        "cluster": {"train_cpus": options.threads},
    }  # fmt: skip
    path = os.path.join(workspace, "speed.yaml")
    Path(path).write_text(json.dumps(tree))
    commit_tokens(workspace, "speed", library()[1:], library()[:1])
    found: dict[str, list[Speed]] = {"bare": [], "ours": []}
    with started(path, []) as run:
        say = run.screen.stream
        run.screen = type(run.screen)(open(os.devnull, "w"))  # noqa: SIM115 (until the end)
        for number in range(options.rounds):
            for name in ("bare", "ours") if number % 2 == 0 else ("ours", "bare"):
                speed = ours(run) if name == "ours" else bare_apart(path, options)
                found[name].append(speed)
                print(f"round {number + 1} {name}: {speed.tokens_per_second:,.0f} tok/s", file=say, flush=True)
    told = report(options, found)
    print(told)
    if options.write:
        from record import record

        sizes = f"--depth {options.depth} --width {options.width} --threads {options.threads}"
        record(f"Training speed ({sizes})", f"benchmarks/train.py {sizes} --rounds {options.rounds} --write", told)


def report(options: argparse.Namespace, found: dict[str, list[Speed]]) -> str:
    median = {name: statistics.median(each.tokens_per_second for each in speeds) for name, speeds in found.items()}
    ratios = [o.tokens_per_second / b.tokens_per_second for b, o in zip(found["bare"], found["ours"], strict=True)]
    apart = max(abs(o.loss - b.loss) for b, o in zip(found["bare"], found["ours"], strict=True))
    return (
        f"Depth {options.depth}, width {options.width}, vocabulary {VOCABULARY:,}, {LENGTH} positions, "
        f"{options.batch_tokens:,} tokens a step, float32, {options.threads} threads; median steps, medians of "
        f"{options.rounds} rounds of {options.steps} steps in turns. The last losses differ by at most {apart:.1e}. "
        f"Load of the machine at the end: {os.getloadavg()[0]:.1f}.\n\n"
        "| | tokens/s |\n| --- | --- |\n"
        f"| bare PyTorch loop | {median['bare']:,.0f} |\n"
        f"| Ray Train, data, logging, MLflow | {median['ours']:,.0f} |\n"
        f"| ratio of the medians | {median['ours'] / median['bare']:.3f} |\n"
        f"| ratio by round | {', '.join(f'{ratio:.3f}' for ratio in ratios)} |\n"
    )


if __name__ == "__main__":
    main()
