"""Fine-tuning steps without Ray, eager and compiled, beside TRL's SFTTrainer, in tokens that bear loss per second.

python benchmarks/sft.py --peers .venv-peers/bin/python --write

One pass of both over the same conversations (the miniweb's, rendered once, with the same mask), from the same weights
(random ones: speed does not depend on them), by the same AdamW, each in a process of its own, in turns in one run. Ours
packs whole conversations into windows and masks attention between them; TRL is timed as it pads them, as many rows a
step as a step of ours holds, and as it packs them, as many windows a step. Evaluation, checkpoints and logging are off.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path
from statistics import mean, median
from typing import Any

from train import LENGTH, ROOT, WARM
from trainers import Steps, made_by, ratio, timed

SIDES = {
    "ours": "webtochat", "ours-compiled": "webtochat, `cluster.compile`",
    "trl-padded": "TRL, padded", "trl-packed": "TRL, packed",
    "trl-padded-compiled": "TRL, padded, `torch_compile`", "trl-packed-compiled": "TRL, packed, `torch_compile`",
}  # fmt: skip


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """The model, and the conversations: as windows for ours, as rows for TRL."""
    from miniweb.conversations import about_people, everyday
    from miniweb.settings import Settings
    from webtochat.model.config import ModelConfig
    from webtochat.model.export import export
    from webtochat.model.transformer import Transformer
    from webtochat.recipe import Model, TokenizerSection
    from webtochat.tokens import tokenizer as bpe
    from webtochat.train.packing import pack_rows, rendered_rows
    from webtochat.train.rank import write_windows

    rows = list(itertools.islice(itertools.chain(everyday(), about_people(Settings())), options.rows))
    texts = [message["content"] for row in rows for message in row["messages"]]
    tokenizer = bpe.train(texts, 4096, TokenizerSection().pattern)
    shape = Model(depth=options.depth, width=options.width, head_size=32, max_positions=2 * LENGTH)
    export(Transformer(ModelConfig.of(shape, tokenizer.vocabulary), seed=1), tokenizer, str(folder / "base" / "model"))
    packed, validation, counts = pack_rows(tokenizer, rows, LENGTH, 0, 1)
    write_windows(str(folder / "windows.npz"), packed, validation)
    rendered = [each for _, each in rendered_rows(tokenizer, rows, LENGTH, Counter())]
    told = {
        "input_ids": [each.ids for each in rendered], "assistant_masks": [each.loss_mask for each in rendered],
        "windows_per_step": options.batch_tokens // LENGTH, "windows": len(packed),
        "rows_per_step": round(options.batch_tokens / LENGTH * len(rendered) / len(packed)),
        "length": LENGTH + 1, "trained": counts["trained_tokens"], "padding": counts["padding"],
        "lr": 4e-4, "beta1": 0.9, "beta2": 0.95, "weight_decay": 0.0, "clip": 1.0,
    }  # fmt: skip
    (folder / "rows.json").write_text(json.dumps(told))


def ours(folder: Path, threads: int, compiled: bool) -> Steps:
    from webtochat.recipe import SFT
    from webtochat.train.rank import FineTuneJob, sft_rank

    told = json.loads((folder / "rows.json").read_text())
    settings = SFT(
        optimizer="adamw", evaluate_every=0, checkpoint_every=0, warmup_fraction=0.0, decay_fraction=0.0,
        **{key: told[key] for key in ("lr", "beta1", "beta2", "weight_decay", "clip")},
    )  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as directory:
        job = FineTuneJob(
            directory=directory, settings=settings, sequence_length=LENGTH,
            windows_per_step=told["windows_per_step"], steps=told["windows"] // told["windows_per_step"],
            compile=compiled, line_seconds=0, base=(str(folder / "base"), ""), windows=str(folder / "windows.npz"),
        )  # fmt: skip
        return timed(lambda emit: sft_rank(job, emit, threads))


def run(side: str, options: argparse.Namespace, folder: Path) -> Steps:
    made = folder / "made.json"
    if side.startswith("ours"):
        command = [sys.executable, "-W", "ignore", __file__, "--side", side, "--folder", str(folder)]
        command += ["--threads", str(options.threads)]
    else:
        _, rows, *compiled = side.split("-")
        program = str(ROOT / "benchmarks" / "training_peers.py")
        command = [os.path.abspath(options.peers), "-W", "ignore", program, "trl", str(folder), str(made)]
        command += [str(options.threads), rows, "1" if compiled else "0"]
    return made_by(command, made)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--depth", type=int, default=4)
    arguments.add_argument("--width", type=int, default=160)
    arguments.add_argument("--batch-tokens", type=int, default=1024)
    arguments.add_argument("--rows", type=int, default=2400)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    arguments.add_argument("--peers", help="a Python that has requirements/peers.txt; without it only ours")
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    for hidden in ("--side", "--folder"):
        arguments.add_argument(hidden, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.side:
        steps = ours(Path(options.folder), options.threads, options.side.endswith("compiled"))
        Path(options.folder, "made.json").write_text(json.dumps(steps._asdict()))
        return
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as folder:
        prepare(options, Path(folder))
        about = json.loads(Path(folder, "rows.json").read_text())
        sides = [side for side in SIDES if options.peers or side.startswith("ours")]
        found: dict[str, list[Steps]] = {side: [] for side in sides}
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                found[side].append(run(side, options, Path(folder)))
                told = speed(found[side][-1], about)
                print(f"round {number + 1} {side}: {told:,.0f} tok/s, load {os.getloadavg()[0]:.1f}", flush=True)
    told = report(options, about, found)
    print(told)
    if options.write:
        from record import record

        sizes = f"--depth {options.depth} --width {options.width} --threads {options.threads}"
        record("Fine-tuning beside TRL", f"benchmarks/sft.py {sizes} --rounds {options.rounds} --peers … --write", told)


def speed(steps: Steps, about: dict[str, Any]) -> float:
    """Tokens that bear loss a second: those of all steps are as many for each side."""
    timed = steps.seconds[WARM:]
    return about["trained"] * len(timed) / len(steps.seconds) / sum(timed)


def report(options: argparse.Namespace, about: dict[str, Any], found: dict[str, list[Steps]]) -> str:
    speeds = {side: [speed(steps, about) for steps in runs] for side, runs in found.items()}
    rows = "".join(
        f"| {SIDES[side]} {runs[0].version} | {median(speeds[side]):,.0f} | {ratio(speeds, side, 'ours')} "
        f"| {len(runs[0].seconds)} | {sum(runs[0].seconds[:WARM]):.1f} "
        f"| {mean(runs[0].losses[-20:]):.3f} |\n"
        for side, runs in found.items()
    )
    lines = ""
    if "trl-padded" in found:
        fastest = sorted((side for side in found if side.startswith("trl")), key=lambda side: median(speeds[side]))
        best, eager = fastest[-1], [side for side in fastest if not side.endswith("compiled")][-1]
        lines = "\n" + "".join(
            f"- {SIDES[side]} by {SIDES[other]}, TRL's fastest{of}: {ratio(speeds, side, other)}; by round "
            f"{', '.join(f'{mine / theirs:.2f}' for mine, theirs in zip(speeds[side], speeds[other], strict=True))}\n"
            for side, other, of in (
                ("ours", eager, " eager"), ("ours-compiled", eager, " eager"), ("ours-compiled", best, "")
            )
        )  # fmt: skip
    return (
        f"Depth {options.depth}, width {options.width}, {len(about['input_ids']):,} conversations with "
        f"{about['trained']:,} tokens that bear loss, in {about['windows']:,} windows of {LENGTH} "
        f"({about['padding']:.1%} padding), {about['windows_per_step']} windows or {about['rows_per_step']} rows a "
        f"step, float32, {options.threads} threads; medians of {options.rounds} rounds in turns. Load of the machine "
        f"at the end: {os.getloadavg()[0]:.1f}.\n\n"
        f"| | tokens/s | times ours eager | steps | first {WARM}, s | loss of the last 20 |\n"
        f"| --- | --- | --- | --- | --- | --- |\n{rows}{lines}"
    )


if __name__ == "__main__":
    main()
