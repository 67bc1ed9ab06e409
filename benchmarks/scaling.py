"""The loss of a larger model, told from small ones before it is trained, and what it then is.

python benchmarks/scaling.py ../shared/data/prose/enwiki-sample.jsonl.gz --write
python benchmarks/scaling.py ../shared/data/prose/enwiki-sample.jsonl.gz --widths 24 48 72 --predict 96

As a user would: `jobs/sweep.py` with a list of widths and `--predict`, on tokens of the given texts (gzipped JSONL; the
first ones are held out). Every size has as many tokens for each parameter; no text is seen twice. Widths are multiples
of 24, so that heads (24) and MLPs (8/3 of the width) are alike in all.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from record import PAGE, record
from tokenizer import read
from train import LENGTH, ROOT, commit_tokens

HELD_OUT = 100
NAME = "scaling"


def tree(options: argparse.Namespace, workspace: str) -> dict[str, Any]:
    return {
        "name": NAME, "workspace": workspace, "tokens": {"sequence_length": LENGTH},
        "model": {"depth": options.depth, "head_size": 24, "max_positions": LENGTH},
        "pretrain": {
            "tokens_per_parameter": options.ratio, "batch_tokens": options.batch_tokens, "optimizer": "muon",
            "lr": options.lr, "lr_width": options.lr_width, "decay_fraction": 0.5, "evaluate_every": 500,
            "checkpoint_every": 500, "validation_tokens": 100_000,
        },
    }  # fmt: skip


def swept(options: argparse.Namespace, workspace: str) -> Path:
    """Runs the sweep, and returns its directory."""
    path = os.path.join(workspace, f"{NAME}.yaml")
    Path(path).write_text(json.dumps(tree(options, workspace)))
    texts = list(read(options.texts, options.characters))
    commit_tokens(workspace, NAME, texts[HELD_OUT:], texts[:HELD_OUT], options.vocabulary)
    widths = f"model.width=[{','.join(map(str, options.widths))}]"
    command = [sys.executable, str(ROOT / "jobs" / "sweep.py"), path, widths]
    subprocess.run([*command, "--predict", f"model.width={options.predict}"], check=True, cwd=ROOT)
    return Path(workspace) / NAME / "sweep"


def report(options: argparse.Namespace, sweep: Path, seconds: float) -> str:
    from webtochat.train.scaling import Prediction

    target = sweep / f"model.width={options.predict}"
    told = Prediction.model_validate_json((target / "prediction.json").read_text())
    rows, epochs = [], 0.0
    for width, point in zip([*options.widths, options.predict], [*told.points, told.target], strict=True):
        manifest = json.loads((sweep / f"model.width={width}" / "pretrain" / "manifest.json").read_text())
        counts, foretold = manifest["counts"], told.law(point.flops)
        epochs = max(epochs, *counts["epochs"].values())
        rows.append(
            f"| {width}{' (predicted)' if width == options.predict else ''} | {counts['parameters']:,} | "
            f"{counts['tokens']:,} | {point.flops:.3g} | {counts['validation_loss']:.4f} | {foretold:.4f} | "
            f"{100 * (foretold / counts['validation_loss'] - 1):+.2f} % |"
        )
    law = told.law
    without = told.between and f", {told.between[0]:.4f} to {told.between[1]:.4f} with one of them left out"
    return (
        f"Depth {options.depth}, vocabulary {options.vocabulary:,}, {LENGTH} positions, {options.batch_tokens:,} "
        f"tokens a step, Muon at {options.lr:g} × {options.lr_width} / width; {options.ratio:g} tokens a parameter "
        f"(embeddings included), at most {epochs:.2f} of the texts. Loss on {HELD_OUT} held-out ones, nats per token. "
        f"All took {seconds / 60:.1f} minutes.\n\n"
        f"Through the smaller ones L(C) = {law.irreducible:.3f} + {law.scale:.4g} · C^-{law.exponent:.4f}; predicted, "
        f"before the larger one was trained: {told.target.loss:.4f}{without or ''}.\n\n"
        "| width | parameters | tokens | FLOPs | measured | law | off |\n| --- | --- | --- | --- | --- | --- | --- |\n"
        + "\n".join(rows) + "\n\n![loss against compute, predicted and measured](scaling.svg)"
    )  # fmt: skip


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("texts", help="gzipped JSONL with a column `text`, or a glob")
    arguments.add_argument("--characters", type=int, default=60_000_000, help="so many are read")
    arguments.add_argument("--widths", type=int, nargs="+", default=[24, 48, 72, 96])
    arguments.add_argument("--predict", type=int, default=144, metavar="WIDTH")
    arguments.add_argument("--depth", type=int, default=2)
    arguments.add_argument("--vocabulary", type=int, default=1024)
    arguments.add_argument("--ratio", type=float, default=6, help="tokens for each parameter")
    arguments.add_argument("--batch-tokens", type=int, default=1024)
    arguments.add_argument("--lr", type=float, default=1.2e-2)
    arguments.add_argument("--lr-width", type=int, default=96)
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as workspace:
        began = time.monotonic()
        sweep = swept(options, workspace)
        told = report(options, sweep, time.monotonic() - began)
        print(told)
        if options.write:
            picture = sweep / f"model.width={options.predict}" / "scaling.svg"
            shutil.copyfile(picture, PAGE.parent / "scaling.svg")
            record("A larger model's loss, foretold", "benchmarks/scaling.py ../shared/data/prose/… --write", told)


if __name__ == "__main__":
    main()
