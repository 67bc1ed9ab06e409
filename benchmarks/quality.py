"""Bits per byte of held-out text after the same tokens: webtochat beside nanochat, each by its own defaults.

python benchmarks/quality.py --peers .venv-peers/bin/python --nanochat ../nanochat --write

The texts are cut into passages of at most 800 characters, documents held out whole. Both read the same passages through
the same tokenizer and train at the same depth, for as many tokens in steps of as many; ours by the demo's settings of
`pretrain`, nanochat by its own script (scripts/base_train.py), which derives its rates from the batch. Each held-out
passage is read on its own, from the separator on. `../nanochat` is a checkout of karpathy/nanochat.
"""

from __future__ import annotations

import argparse
import glob
import gzip
import json
import lzma
import math
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from train import LENGTH, ROOT, commit_tokens
from trainers import job_of

NAME, SCORED = "quality", 1500
PASSAGE = re.compile(r"(?s).{1,800}(?:\n|\Z)|.{1,800}\s")
"""Up to the last end of a line, else the last white space."""


class Result(NamedTuple):
    parameters: int
    multiplied: int
    """Of them, those that a position is multiplied with: not the look-ups."""
    nats: float
    seconds: float


def passages(pattern: str, characters: int) -> tuple[list[str], list[str]]:
    """(training, held out), shuffled: one document in 50 is held out."""
    rng = random.Random(1)
    found: tuple[list[str], list[str]] = ([], [])
    for path in sorted(glob.glob(pattern)):
        with gzip.open(path, "rt", encoding="utf-8") as lines:
            for line in lines:
                found[rng.random() < 0.02].extend(PASSAGE.findall(json.loads(line)["text"]))
    if not found[0]:
        sys.exit(f"error: no text in {pattern}")
    for texts in found:
        rng.shuffle(texts)
    training: list[str] = []
    for text in found[0]:
        if characters <= 0:
            break
        training.append(text)
        characters -= len(text)
    return training, found[1][:SCORED]


def held_out_rows(learned: Any, texts: list[str], path: Path) -> int:
    """Writes each passage as a row of LENGTH + 1 ids from the separator on, -1 where it has ended. Returns the bytes of
    all that is to be guessed."""
    import numpy as np

    from webtochat.tokens.tokenizer import END_OF_TEXT
    from webtochat.train.validation import byte_counts

    rows = np.full((len(texts), LENGTH + 1), -1, np.int32)
    for row, ids in zip(rows, learned.encode_batch(texts), strict=True):
        whole = [learned.special(END_OF_TEXT), *ids][: LENGTH + 1]
        row[: len(whole)] = whole
    np.save(path, rows)
    return int(byte_counts(learned)[rows[:, 1:][rows[:, 1:] >= 0]].sum())


def ours(recipe_path: str, overrides: list[str], rows: Path, threads: int) -> Result:
    import numpy as np
    import torch

    from webtochat import recipe
    from webtochat.model.export import load
    from webtochat.train.line import Line
    from webtochat.train.rank import pretrain_rank

    def emit(message: Any) -> None:
        if isinstance(message, Line) and message.step % 100 == 0:
            print(message.text(), flush=True)

    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as directory:
        began = time.perf_counter()
        pretrain_rank(job_of(recipe.load(recipe_path, overrides), directory), emit, threads)
        seconds = time.perf_counter() - began
        model = load(os.path.join(directory, "model")).eval()
    nats = 0.0
    with torch.no_grad():
        for part in torch.from_numpy(np.load(rows).astype(np.int64)).split(16):
            targets = part[:, 1:].masked_fill(part[:, 1:] < 0, -100)
            nats += model(part[:, :-1].clamp(min=0), None, targets).item()
    config = model.config
    multiplied = config.parameters - (0 if config.tie_embeddings else config.vocabulary * config.width)
    return Result(config.parameters, multiplied, nats, seconds)


def nanochat(options: argparse.Namespace, folder: Path, settings: list[str]) -> Result:
    made = folder / "made.json"
    command = [os.path.abspath(options.peers), "-W", "ignore", str(ROOT / "benchmarks" / "training_peers.py")]
    command += ["nanochat-quality", str(folder), str(made), str(options.threads), options.nanochat, *settings]
    subprocess.run(command, check=True, env=os.environ | {"GOMP_SPINCOUNT": "30000"})
    return Result(**json.loads(made.read_text()))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("texts", nargs="?", default=str(ROOT / "../shared/data/prose/*.jsonl.gz"))
    arguments.add_argument("--depth", type=int, default=4)
    arguments.add_argument("--tokens", type=int, default=3_000_000)
    arguments.add_argument("--batch-tokens", type=int, default=4096)
    arguments.add_argument("--vocabulary", type=int, default=4096)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--peers", help="a Python that has requirements/peers.txt; without it only ours")
    arguments.add_argument("--nanochat", help="a checkout of karpathy/nanochat")
    arguments.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="over the demo's settings")
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as workspace:
        compare(options, Path(workspace))


def compare(options: argparse.Namespace, workspace: Path) -> None:
    from webtochat import recipe

    whole = recipe.load(str(ROOT / "recipes" / "demo.yaml"))
    demo, packing = whole.pretrain, whole.tokens.packing
    training, held_out = passages(options.texts, 8 * options.tokens)
    learned = commit_tokens(str(workspace), NAME, training, held_out[:1], options.vocabulary, packing)
    size = held_out_rows(learned, held_out, workspace / "held-out.npy")
    tree = {
        "name": NAME, "workspace": str(workspace), "tokens": {"sequence_length": LENGTH},
        "model": {"depth": options.depth, "max_positions": LENGTH, "zero_residual": whole.model.zero_residual},
        "cluster": {"compile": True},
        "pretrain": demo.model_dump() | {
            "tokens": options.tokens, "batch_tokens": options.batch_tokens, "evaluate_every": 0, "checkpoint_every": 0,
        },
    }  # fmt: skip
    path = workspace / "quality.yaml"
    path.write_text(json.dumps(tree))
    found = {"webtochat, the demo's recipe": ours(str(path), options.set, workspace / "held-out.npy", options.threads)}
    if options.peers and options.nanochat:
        learned.save_ranks(str(workspace / "tokenizer.tiktoken"))
        told = {"training": training, "held_out": held_out, "pattern": recipe.TokenizerSection().pattern}
        (workspace / "passages.json").write_text(json.dumps(told))
        for name, batch, more in (
            ("nanochat", options.batch_tokens, []), ("nanochat", 16_384, []),
            ("nanochat as its runs/runcpu.sh", 16_384, ["--head-dim=64", "--window-pattern=L"]),
        ):  # fmt: skip
            sizes = [f"--depth={options.depth}", f"--max-seq-len={LENGTH}", f"--total-batch-size={batch}"]
            rows = options.batch_tokens // LENGTH
            sizes += [f"--num-iterations={options.tokens // batch}", f"--device-batch-size={rows}"]
            found[f"{name}, {batch:,} tokens a step"] = nanochat(options, workspace, [*sizes, *more])
    told = report(options, found, size, held_out)
    print(told)
    if options.write:
        from record import record

        sizes = f"--depth {options.depth} --tokens {options.tokens} --batch-tokens {options.batch_tokens}"
        command = f"benchmarks/quality.py {sizes} --peers … --nanochat … --write"
        record(f"Quality beside nanochat ({sizes})", command, told)


def report(options: argparse.Namespace, found: dict[str, Result], size: int, held_out: list[str]) -> str:
    xz = 8 * len(lzma.compress("".join(held_out).encode(), preset=9)) / len("".join(held_out).encode())
    rows = "".join(
        f"| {name} | {each.parameters / 1e6:.2f} M | {each.multiplied / 1e6:.2f} M | {each.seconds:,.0f} "
        f"| {each.nats / math.log(2) / size:.4f} |\n"
        for name, each in found.items()
    )
    return (
        f"Depth {options.depth}, {options.tokens:,} tokens; ours {options.batch_tokens:,} a step, {LENGTH} positions, "
        f"a vocabulary of {options.vocabulary:,}, float32, {options.threads} threads. {len(held_out):,} held-out "
        f"passages, {size:,} bytes, for which xz -9 takes {xz:.3f} bits each. Seconds with start and compilation.\n\n"
        "| | parameters | of them multiply | seconds | bits per byte |\n| --- | --- | --- | --- | --- |\n" + rows
    )


if __name__ == "__main__":
    main()
