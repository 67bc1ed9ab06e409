"""A step of GRPO, sampling and all, beside TRL's GRPOTrainer with vLLM in its process, in seconds.

python benchmarks/grpo.py recipes/demo.yaml --peers .venv-peers/bin/python --write

The recipe's chat model, answers to each prompt, temperature and rate, with `rl.algorithm=grpo`, the miniweb's
exercises, one optimizer step each, no evaluation and no checkpoint; each side in processes of its own, in turns in one
run. Ours is the job as a user runs it, strictly on-policy (`rl.staleness=0`) and with sampling ahead by a step (1). A
step's time is from the end of one step to the end of the next.

TRL's way of handing weights to vLLM fails on a CPU (vLLM has repacked them there), so benchmarks/training_peers.py
hands them over by vLLM's own `reload_weights`, as ours does. Both compute the old log-probabilities, the reference's,
and the weights for the gap between sampler and trainer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
from pathlib import Path
from statistics import fmean, median
from typing import Any

import rl
from rl import ROOT
from trainers import Steps, made_by, ratio

WARM = 2
"""Steps in which things are compiled, allocated and cached."""
SIDES = {
    "ours": "webtochat", "ours-ahead": "webtochat, `rl.staleness=1`", "trl": "TRL, vLLM colocated",
}  # fmt: skip


def overrides(options: argparse.Namespace, staleness: int) -> list[str]:
    fixed = ["algorithm=grpo", "resample=false", "minibatches=1", "warmup_fraction=0"]
    fixed += ["max_held_out=0", "evaluate_every=0", f"staleness={staleness}"]
    fixed += [f"steps={options.steps}", f"checkpoint_every={options.steps}"]
    fixed += ['data=[{path: "python:miniweb.exercises:exercises"}]']
    return [*options.overrides, *(f"rl.{each}" for each in fixed)]


def ours(options: argparse.Namespace, staleness: int) -> Steps:
    """By the moments at which the driver told MLflow of a step."""
    import mlflow

    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as folder:
        made, _ = rl.run(options.recipe, overrides(options, staleness), Path(folder))
        client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
        history = client.get_metric_history(made.manifest.mlflow_run_id, "reward")
        ends = [point.timestamp / 1000 for point in sorted(history, key=lambda point: point.step)]
        return Steps([later - earlier for earlier, later in itertools.pairwise(ends)], [p.value for p in history])


def prepare(options: argparse.Namespace, folder: Path) -> None:
    """What TRL reads: the prompts to learn from, and the settings."""
    from collections import Counter

    from webtochat import recipe
    from webtochat.rl import tasks
    from webtochat.tokens import rows

    chosen = recipe.load(options.recipe, overrides(options, 0))
    section = chosen.rl
    assert section is not None
    skipped: Counter[str] = Counter()
    sources, _ = rows.available(section.data, chosen.miniweb)
    found = tasks.prompts((row for each in sources for row in rows.read(each, chosen.miniweb, skipped)), skipped)
    learned, _ = tasks.split(found, section.held_out_percent, section.max_held_out)
    names = ("steps", "prompts_per_step", "samples", "lr", "temperature", "max_new_tokens", "kl", "clip", "beta1",
             "beta2", "weight_decay", "sequence_length", "importance_cap", "clip_low")  # fmt: skip
    told = {name: getattr(section, name) for name in names} | {
        "model": str(Path(chosen.workspace, chosen.name, chosen.chat, "model").resolve()),
        "prompts": [{"prompt": each.messages, "answers": each.truth["answers"]} for each in learned],
        "kv_cache_gib": chosen.cluster.kv_cache_gib,
    }
    (folder / "grpo.json").write_text(json.dumps(told))


def run(side: str, options: argparse.Namespace, folder: Path) -> Steps:
    if side != "trl":
        return ours(options, int(side == "ours-ahead"))
    made = folder / "made.json"
    command = [os.path.abspath(options.peers), "-W", "ignore", str(ROOT / "benchmarks" / "training_peers.py"), "grpo"]
    return made_by([*command, str(folder), str(made), str(options.threads)], made)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("recipe")
    arguments.add_argument("overrides", nargs="*", metavar="key=value")
    arguments.add_argument("--steps", type=int, default=16)
    arguments.add_argument("--rounds", type=int, default=2)
    arguments.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of TRL's process")
    arguments.add_argument("--peers", help="a Python that has requirements/peers.txt; without it only ours")
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_intermixed_args()
    sides = [side for side in SIDES if options.peers or side != "trl"]
    found: dict[str, list[Steps]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as folder:
        prepare(options, Path(folder))
        told = json.loads(Path(folder, "grpo.json").read_text())
        for number in range(options.rounds):
            for side in sides if number % 2 == 0 else reversed(sides):
                found[side].append(run(side, options, Path(folder)))
                load = f"load {os.getloadavg()[0]:.1f}"
                print(f"round {number + 1} {side}: {step(found[side][-1]):.2f} s a step, {load}", flush=True)
    text = report(options, told, found)
    print(text)
    if options.write:
        from record import record

        given = " ".join(["benchmarks/grpo.py", options.recipe, *options.overrides])
        record("A step of GRPO beside TRL", f"{given} --rounds {options.rounds} --peers … --write", text)


def step(steps: Steps) -> float:
    return median(steps.seconds[WARM:])


def report(options: argparse.Namespace, told: dict[str, Any], found: dict[str, list[Steps]]) -> str:
    rates = {side: [1 / step(steps) for steps in runs] for side, runs in found.items()}
    rows = "".join(
        f"| {SIDES[side]} {runs[0].version} | {median(step(each) for each in runs):.2f} | {ratio(rates, side, 'trl')} "
        f"| {fmean(runs[0].losses[:3]):.3f} | {fmean(runs[0].losses[-3:]):.3f} |\n"
        for side, runs in found.items() if "trl" in found
    )  # fmt: skip
    return (
        f"{told['prompts_per_step']} prompts × {told['samples']} answers of at most {told['max_new_tokens']} tokens a "
        f"step, {len(told['prompts'])} prompts, {options.steps} steps, {options.threads} threads; medians of "
        f"{options.rounds} rounds in turns. Load of the machine at the end: {os.getloadavg()[0]:.1f}.\n\n"
        f"| | s a step | steps a second, times TRL's | mean reward, first 3 steps | last 3 |\n"
        f"| --- | --- | --- | --- | --- |\n{rows}"
    )


if __name__ == "__main__":
    main()
