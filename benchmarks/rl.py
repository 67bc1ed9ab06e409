"""What learning by reward gains on a recipe's held-out prompts, in what time, and how busy its parts are.

python benchmarks/rl.py recipes/demo.yaml --write

The recipe's rl stage as its job runs it, in a workspace of its own that holds links to the committed stages before it.
Right is what the recipe's rewards call so: a held-out answer, the likeliest one, whose parts are all 1.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("platform", "recipes", "jobs")]
BEFORE = ("pretrain", "sft", "knowledge", "reward", "index")


def run(recipe: str, overrides: list[str], folder: Path) -> tuple[Any, float]:
    """(the artifact, seconds of the whole command)."""
    from webtochat import artifact
    from webtochat import recipe as recipes

    chosen = recipes.load(recipe, overrides)
    home = folder / chosen.name
    home.mkdir(parents=True)
    for stage in BEFORE:
        made = Path(chosen.workspace, chosen.name, stage)
        if made.is_dir():
            (home / stage).symlink_to(made.resolve(), target_is_directory=True)
    command = [sys.executable, str(ROOT / "jobs" / "rl.py"), recipe, *overrides, f"workspace={folder}"]
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return artifact.open_artifact(str(home / "rl"), "rl"), time.perf_counter() - began


def metrics(made: Any, folder: Path) -> dict[str, list[float]]:
    """MLflow's curves of the driver's clock."""
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{folder}/mlflow.db")
    names = ("sampling_tok/s", "learning_tok/s", "sampler_idle", "learner_idle", "gap", "dead", "reward")
    histories = {name: client.get_metric_history(made.manifest.mlflow_run_id, name) for name in names}
    return {name: [point.value for point in history] for name, history in histories.items() if history}


def report(made: Any, seconds: float, folder: Path) -> str:
    from webtochat.evals.questions import wilson
    from webtochat.rl import rollouts

    steps, curves = made.manifest.counts["steps"], metrics(made, folder)
    rows = ""
    for path in made.files("evaluations/"):
        found = [row for row in rollouts.read(path, ["reward", "parts"]) if row["reward"] is not None]
        right = sum(all(value == 1.0 for _, value in row["parts"]) for row in found)
        low, high = wilson(right, len(found))
        step = int(Path(path).stem.removeprefix("step-"))
        rows += f"| {step} | {100 * right / len(found):.1f} % ({100 * low:.1f} to {100 * high:.1f}) | {len(found)} |\n"
    training = [json.loads(line) for line in Path(made.path("metrics.jsonl")).read_text().splitlines()]
    tokens = sum(point.get("tokens", 0) for point in training)
    rewards = curves["reward"]
    tenth = max(1, len(rewards) // 10)
    speed = {name: fmean(curves[f"{name}_tok/s"][1:]) for name in ("sampling", "learning")}
    idle = {name: 100 * fmean(curves[f"{name}_idle"][1:]) for name in ("sampler", "learner")}
    answers = sum(made.manifest.counts["rollouts"].values())
    return (
        f"{steps} steps, {answers:,} answers, {tokens:,.0f} tokens learned from, in {seconds:.0f} s with the start of "
        f"Ray and the engine; load of the machine at the end: {os.getloadavg()[0]:.1f}.\n\n"
        f"| after step | held-out prompts answered right | of |\n| --- | --- | --- |\n{rows}\n"
        f"Mean reward of the sampled answers: {fmean(rewards[:tenth]):.3f} in the first tenth of the steps, "
        f"{fmean(rewards[-tenth:]):.3f} in the last. Sampling {speed['sampling']:,.0f} tokens/s while it samples, "
        f"learning {speed['learning']:,.0f} (of answers) while it learns; idle {idle['sampler']:.0f} % and "
        f"{idle['learner']:.0f} % of the time. Groups that teach nothing: {100 * fmean(curves['dead']):.0f} %. "
        f"Log-probabilities of sampler and trainer differ by {fmean(curves['gap']):.1e} on the mean."
    )


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("recipe")
    arguments.add_argument("overrides", nargs="*", metavar="key=value")
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_intermixed_args()
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as folder:
        made, seconds = run(options.recipe, options.overrides, Path(folder))
        told = report(made, seconds, Path(folder))
    print(told)
    if options.write:
        from record import record

        command = " ".join(["benchmarks/rl.py", options.recipe, *options.overrides, "--write"])
        record("Learning by reward", command, told)


if __name__ == "__main__":
    main()
