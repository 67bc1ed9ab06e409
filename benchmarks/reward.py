"""How often a reward model scores the chosen answer of a held-out pair above the rejected one: the demo's, and one that
the demo's chat model became on other people's pairs.

python benchmarks/reward.py runs/demo --pairs ../shared/data/posttrain/hh-rlhf-pairs.jsonl.gz --write

Other people's pairs are cut in two by prompt (by the first thing that the user says). A model learns from each half and
is asked about the other, so that all are held out once.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
for folder in ("recipes", "platform"):
    sys.path.insert(0, str(ROOT / folder))

READERS = 200
"""Whose scores are averaged for what they like in common."""


def cell(told: dict[str, Any]) -> str:
    return f"{told['rate']:.1%} [{told['low']:.1%}, {told['high']:.1%}] of {told['of']:,}"


def row(name: str, pairs: int, told: dict[str, Any], bar: str) -> str:
    return f"| {name} | {pairs:,} | {cell(told['accuracy'])} | {told['brier']:.3f} | {told['ece']:.3f} | {bar} |\n"


def demo(home: Path) -> tuple[str, str]:
    """(its row of the table, more about it)."""
    import pyarrow.parquet as pq

    from miniweb.raters import liked
    from webtochat.artifact import open_artifact
    from webtochat.evals.questions import rate

    made = open_artifact(str(home / "reward"), "reward")
    counts, pairs = made.manifest.counts, pq.read_table(made.path("pairs.parquet")).to_pylist()

    def common(pair: dict[str, Any], name: str) -> float:
        return sum(liked(pair["prompt"], pair[name], seed) for seed in range(READERS)) / READERS

    agreed = rate([common(pair, "chosen") > common(pair, "rejected") for pair in pairs])
    answers = counts["answers"]
    told = (
        f"The demo's: {answers['different']:,} different answers to {answers['prompts']:,} prompts, {counts['steps']} "
        "steps. What its readers like, less what differs from reader to reader, agrees with "
        f"{cell(agreed)} of the held-out pairs: no model can be expected to do better. "
        f"Their mean score of a prompt's answers is {answers['mean']:.2f}, of its best one {answers['best']:.2f}, of "
        f"its worst one {answers['worst']:.2f}.\n\n"
        "| how sure | pairs | mean of that | right |\n| --- | --- | --- | --- |\n"
    )
    told += "".join(
        f"| {each['from']:.2f} to {each['to']:.2f} | {each['pairs']} | {each['sure']:.2f} | {each['right']:.2f} |\n"
        for each in counts["calibration"]["reliability"]
    )
    return row("the demo's", counts["pairs"], counts["calibration"], cell(agreed)), told


def others(options: argparse.Namespace) -> tuple[str, str]:
    """The same of other people's pairs."""
    from webtochat.evals.calibration import calibration
    from webtochat.evals.questions import rate
    from webtochat.model.export import read_config
    from webtochat.recipe import DataSource
    from webtochat.tokens import rows
    from webtochat.tokens.preferences import preferences
    from webtochat.tokens.tokenizer import Tokenizer
    from webtochat.train.pairs import encoded, split

    chat = options.chat or str(options.home / "knowledge")
    source, skipped = DataSource(path=options.pairs), Counter[str]()
    tokenizer, config = Tokenizer.load(f"{chat}/model"), read_config(f"{chat}/model")
    read = preferences(rows.read(source, None, skipped), source.stem, skipped)
    pairs = encoded(tokenizer, read, config.max_positions, options.length, skipped)
    halves = split(pairs, 50)
    began = time.perf_counter()
    margins = [
        margin for learned, asked in (halves, halves[::-1])
        for margin in trained(options, chat, tokenizer, learned, asked)
    ]  # fmt: skip
    longer = rate([len(pair.chosen) > len(pair.rejected) for pair in pairs])
    left_out = ", ".join(f"{number:,} {reason.replace('_', ' ')}" for reason, number in sorted(skipped.items()))
    about = (
        f"\n{source.stem}: pairs of at most {options.length} tokens together (left out: {left_out}); "
        f"{config.parameters / 1e6:.1f}M parameters, {options.epochs} epochs at {options.lr:g}; both halves in "
        f"{time.perf_counter() - began:.0f} s with {options.threads} threads, load of the machine "
        f"{os.getloadavg()[0]:.1f}. Beside it: how often the longer answer is the chosen one.\n"
    )
    return row(source.stem, len(pairs) // 2, calibration(margins), cell(longer)), about


def trained(
    options: argparse.Namespace, chat: str, tokenizer: Any, learned: Sequence[Any], asked: Sequence[Any]
) -> list[float]:
    """The margins that a model which learned from some pairs gives to others."""
    from webtochat.model.reward import RewardModel
    from webtochat.recipe import DataSource, Reward
    from webtochat.train.line import Line
    from webtochat.train.pairs import pack_pairs
    from webtochat.train.rank import FineTuneJob, reward_rank, write_windows

    settings = Reward(
        data=[DataSource(path=options.pairs)], lr=options.lr, epochs=options.epochs, batch_tokens=options.batch_tokens,
        evaluate_every=0, checkpoint_every=0,
    )  # fmt: skip
    packed, none = (
        pack_pairs(list(each), options.length, settings.margin, tokenizer.pad, settings.seed) for each in (learned, [])
    )
    per_step = max(1, options.batch_tokens // options.length)
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as folder:
        write_windows(f"{folder}/windows.npz", packed, none)
        job = FineTuneJob(
            directory=folder, settings=settings, sequence_length=options.length, windows_per_step=per_step,
            steps=math.ceil(options.epochs * len(packed) / per_step), base=(chat, ""), windows=f"{folder}/windows.npz",
        )  # fmt: skip
        reward_rank(job, lambda message: print(message.text()) if isinstance(message, Line) else None, options.threads)
        model = RewardModel.load(f"{folder}/model")
    scores = model.scores_of([ids for pair in asked for ids in (pair.chosen, pair.rejected)])
    return [chosen - rejected for chosen, rejected in zip(scores[::2], scores[1::2], strict=True)]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("home", type=Path, help="a run of the demo, such as runs/demo")
    arguments.add_argument("--pairs", help="other people's pairs, JSONL or Parquet; without them only the demo's")
    arguments.add_argument("--chat", help="the artifact whose model learns from them; by default the run's knowledge")
    arguments.add_argument("--length", type=int, default=512, help="of a window, which holds both answers of a pair")
    arguments.add_argument("--batch-tokens", type=int, default=4096)
    arguments.add_argument("--lr", type=float, default=3e-4)
    arguments.add_argument("--epochs", type=float, default=1)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_args()
    (first, told), (second, about) = demo(options.home), others(options) if options.pairs else ("", "")
    body = (
        "| pairs | learned from | right, of those held out | Brier | calibration error | to compare |\n"
        f"| --- | --- | --- | --- | --- | --- |\n{first}{second}\n{told}{about}"
    )
    print(body)
    if options.write:
        from record import record

        sizes = f"--pairs … --length {options.length} --batch-tokens {options.batch_tokens} " if options.pairs else ""
        command = f"benchmarks/reward.py runs/demo {sizes}--write"
        record("Reward model", command, body)


if __name__ == "__main__":
    main()
