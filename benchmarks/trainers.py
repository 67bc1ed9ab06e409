"""Pretraining steps without Ray, eager and compiled, beside a bare PyTorch loop, transformers' Trainer and nanochat.

python benchmarks/trainers.py --peers .venv-peers/bin/python --nanochat ../nanochat --write

The same shape, batch and windows in the same order for all, each in a process of its own, in turns in one run. The bare
loop, ours and the Trainer (Qwen3ForCausalLM) start from the same weights and step by the same AdamW, so their losses
must agree; nanochat's model is its own at the same width, depth and heads, with its own optimizer. Speed is that of the
median step; the first one holds the compilation, made anew each time. `../nanochat` is a checkout of karpathy/nanochat.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from train import LENGTH, ROOT, VOCABULARY, WARM, bare, commit_tokens, library

NAME = "trainers"
SIDES = {
    "bare": "bare PyTorch loop", "bare-compiled": "bare PyTorch loop, compiled whole",
    "ours": "webtochat", "ours-compiled": "webtochat, `cluster.compile`",
    "trainer": "transformers' Trainer", "trainer-compiled": "transformers' Trainer, `torch_compile`",
    "ours-muon": "webtochat, `cluster.compile`, Muon", "nanochat": "nanochat, compiled, its own optimizer",
}  # fmt: skip
SAME_LOSS = [side for side in SIDES if side not in {"ours-muon", "nanochat"}]


class Steps(NamedTuple):
    seconds: list[float]
    losses: list[float]
    version: str = ""


def job_of(recipe: Any, directory: str) -> Any:
    """The pretraining of a recipe whose tokens are committed, as `torchrun` or a plain process would run it."""
    from webtochat.tokens.mixture import Corpus
    from webtochat.train.rank import PretrainJob

    home, length = Path(recipe.workspace) / recipe.name, recipe.tokens.sequence_length
    windows = recipe.pretrain.batch_tokens // length
    return PretrainJob(
        directory=directory, settings=recipe.pretrain, sequence_length=length, windows_per_step=windows,
        steps=recipe.pretrain.tokens // (windows * length), mask_documents=recipe.pretrain.mask_documents,
        compile=recipe.cluster.compile, line_seconds=0, model=recipe.model,
        tokenizer=(str(home / "tokenizer"), ""), tokens=(str(home / "tokens"), ""),
        mixture=(Corpus("own", str(home / "tokens"), "", 1.0),),
    )  # fmt: skip


def ours(recipe_path: str, threads: int, overrides: list[str]) -> Steps:
    from webtochat import recipe
    from webtochat.train.rank import pretrain_rank

    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as directory:
        job = job_of(recipe.load(recipe_path, overrides), directory)
        return timed(lambda emit: pretrain_rank(job, emit, threads))


def timed(train: Callable[[Callable[[Any], None]], object]) -> Steps:
    """The steps of a rank, by the lines that it emits."""
    from webtochat.train.line import Line
    from webtochat.train.rank import Evaluation

    times, losses = [], []

    def emit(message: Any) -> None:
        if isinstance(message, Line):
            times.append(time.perf_counter())
            losses.append(message.loss)
        elif isinstance(message, Evaluation) and message.step == 0:
            times.append(time.perf_counter())

    train(emit)
    return Steps([later - earlier for earlier, later in itertools.pairwise(times)], losses)


def prepare(recipe_path: str, folder: Path) -> None:
    """What the peers read: the windows in our order, our first weights as Hugging Face has them, and the settings."""
    import numpy as np

    from webtochat import recipe
    from webtochat.model.config import ModelConfig
    from webtochat.model.export import export
    from webtochat.model.transformer import Transformer
    from webtochat.tokens.batches import Order
    from webtochat.tokens.shards import Split
    from webtochat.tokens.tokenizer import Tokenizer

    chosen = recipe.load(recipe_path)
    settings, home = chosen.pretrain, Path(chosen.workspace) / chosen.name
    tokenizer = Tokenizer.load(str(home / "tokenizer"))
    split = Split(str(home / "tokens" / "train"), LENGTH, tokenizer.vocabulary)
    order = Order((len(split),), (1.0,), settings.seed).windows(0, settings.tokens // LENGTH)
    windows = [split.window(number, tokenizer.separator) for number in order]
    rows = np.stack([np.append(each.tokens, each.targets[-1]) for each in windows])
    np.save(folder / "windows.npy", rows.astype(np.int32))
    config = ModelConfig.of(chosen.model, tokenizer.vocabulary)
    export(Transformer(config, seed=chosen.model.seed), tokenizer, str(folder / "model"))
    told = settings.model_dump() | {"windows_per_step": settings.batch_tokens // LENGTH, "config": config.as_dict()}
    (folder / "settings.json").write_text(json.dumps(told))


def run(side: str, options: argparse.Namespace, recipe_path: str, folder: Path) -> Steps:
    made, compiled = folder / "made.json", "0" if side in {"trainer", "bare", "ours"} else "1"
    if side.startswith(("bare", "ours")):
        command = [sys.executable, "-W", "ignore", __file__, "--side", side, "--recipe", recipe_path]
        command += ["--steps", str(options.steps), "--threads", str(options.threads), "--made", str(made)]
    else:
        program = str(ROOT / "benchmarks" / "training_peers.py")
        command = [os.path.abspath(options.peers), "-W", "ignore", program, side.partition("-")[0], str(folder)]
        command += [str(made), str(options.threads), options.nanochat if side == "nanochat" else compiled]
    return made_by(command, made)


def made_by(command: list[str], made: Path) -> Steps:
    """What a side in a process of its own writes, with an empty cache of compiled code."""
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as cache:
        # Threads spin as the training stage has it (train/stage.py).
        environment = os.environ | {"GOMP_SPINCOUNT": "30000", "TORCHINDUCTOR_CACHE_DIR": cache}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-3000:]}")
    return Steps(**json.loads(made.read_text()))


def one_side(options: argparse.Namespace) -> Steps:
    compiled = options.side.endswith(("compiled", "muon"))
    if options.side.startswith("bare"):
        return Steps(*bare(options.recipe, options.steps, options.threads, compiled))
    overrides = [f"cluster.compile={str(compiled).lower()}"]
    if options.side == "ours-muon":
        overrides.append("pretrain.optimizer=muon")
    return ours(options.recipe, options.threads, overrides)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--depth", type=int, default=4)
    arguments.add_argument("--width", type=int, default=160)
    arguments.add_argument("--head-size", type=int, default=32)
    arguments.add_argument("--batch-tokens", type=int, default=4096)
    arguments.add_argument("--steps", type=int, default=60)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--peers", help="a Python that has requirements/peers.txt; without it only ours and bare")
    arguments.add_argument("--nanochat", help="a checkout of karpathy/nanochat; without it that is left out")
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    for hidden in ("--side", "--recipe", "--made"):
        arguments.add_argument(hidden, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.side:
        Path(options.made).write_text(json.dumps(one_side(options)._asdict()))
        return
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as workspace:
        compare(options, Path(workspace))


def compare(options: argparse.Namespace, workspace: Path) -> None:
    tree = {
        "name": NAME, "workspace": str(workspace), "tokens": {"sequence_length": LENGTH},
        "model": {
            "depth": options.depth, "width": options.width, "head_size": options.head_size, "max_positions": LENGTH,
        },
        "pretrain": {
            "tokens": options.steps * options.batch_tokens, "batch_tokens": options.batch_tokens, "lr": 1e-3,
            "warmup_fraction": 0.0, "decay_fraction": 0.0, "evaluate_every": 0, "checkpoint_every": 0,
            "validation_tokens": LENGTH, "mask_documents": False,
        },
    }  # fmt: skip
    path, folder = str(workspace / "trainers.yaml"), workspace / "peers"
    Path(path).write_text(json.dumps(tree))
    folder.mkdir()
    commit_tokens(str(workspace), NAME, library()[1:], library()[:1])
    prepare(path, folder)
    given = {"trainer": options.peers, "nanochat": options.peers and options.nanochat}
    sides = [side for side in SIDES if given.get(side.partition("-")[0], True)]
    found: dict[str, list[Steps]] = {side: [] for side in sides}
    for number in range(options.rounds):
        for side in sides if number % 2 == 0 else reversed(sides):
            found[side].append(run(side, options, path, folder))
            told = speed(found[side][-1], options.batch_tokens)
            print(f"round {number + 1} {side}: {told:,.0f} tok/s, load {os.getloadavg()[0]:.1f}", flush=True)
    told = report(options, found)
    print(told)
    if options.write:
        from record import record

        sizes = f"--depth {options.depth} --width {options.width} --threads {options.threads}"
        command = f"benchmarks/trainers.py {sizes} --rounds {options.rounds} --peers … --nanochat … --write"
        record(f"Training speed beside others ({sizes})", command, told)


def speed(steps: Steps, tokens: int) -> float:
    return tokens / statistics.median(steps.seconds[WARM:])


def report(options: argparse.Namespace, found: dict[str, list[Steps]]) -> str:
    tokens = options.batch_tokens
    speeds = {side: [speed(steps, tokens) for steps in runs] for side, runs in found.items()}
    first = {
        side: statistics.median(steps.seconds[0] - statistics.median(steps.seconds[WARM:]) for steps in runs)
        for side, runs in found.items()
    }
    rows = "".join(
        f"| {SIDES[side]} {runs[0].version} | {statistics.median(speeds[side]):,.0f} "
        f"| {ratio(speeds, side, 'bare')} | {first[side]:.1f} | {runs[0].losses[-1]:.5f} |\n"
        for side, runs in found.items()
    )
    same = [side for side in SAME_LOSS if side in found]
    apart = max(
        abs(loss - other)
        for side in same
        for loss, other in zip(found[side][0].losses, found["bare"][0].losses, strict=True)
    )
    claims = [("webtochat", "ours", "bare"), ("webtochat, compiled,", "ours-compiled", "bare-compiled")]
    if "trainer" in found:
        claims += [
            ("webtochat", "ours", "trainer"), ("webtochat, compiled,", "ours-compiled", "trainer"),
            ("webtochat, compiled,", "ours-compiled", "trainer-compiled"),
        ]  # fmt: skip
    lines = "".join(
        f"- {who} by {SIDES[other]}: {ratio(speeds, side, other)}; by round "
        f"{', '.join(f'{mine / theirs:.3f}' for mine, theirs in zip(speeds[side], speeds[other], strict=True))}\n"
        for who, side, other in claims
    )
    return (
        f"Depth {options.depth}, width {options.width}, heads of {options.head_size}, vocabulary {VOCABULARY:,}, "
        f"{LENGTH} positions, {tokens:,} tokens a step, float32, {options.threads} threads; medians of "
        f"{options.rounds} rounds of {options.steps} steps in turns. The losses of all but the last two differ by at "
        f"most {apart:.1e} at any step. Load of the machine at the end: {os.getloadavg()[0]:.1f}.\n\n"
        "| | tokens/s | times bare | to compile, s | last loss |\n| --- | --- | --- | --- | --- |\n"
        f"{rows}\n{lines}"
    )


def ratio(speeds: dict[str, list[float]], side: str, other: str) -> str:
    return f"{statistics.median(speeds[side]) / statistics.median(speeds[other]):.2f}"


if __name__ == "__main__":
    main()
