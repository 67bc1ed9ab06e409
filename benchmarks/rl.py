"""What learning by reward gains on a recipe's held-out prompts, in what time, and how busy its parts are.

python benchmarks/rl.py recipes/demo.yaml --runs demo-1 demo-2 demo-3 --write
python benchmarks/rl.py recipes/demo.yaml --runs demo-1 demo-2 demo-3 --finished --write
python benchmarks/rl.py recipes/demo.yaml rl.kl=0.1 --title "Learning what people like" --write

The recipe's rl stage as its job runs it, for each run in a workspace of its own that holds links to the committed
stages before it; runs whose names differ have each the seed of their place. --finished: what their rl stages made.
Held-out prompts are answered greedily. Where the reward model's score counts, the judge that it learned from says
whether it prefers these answers to those of before.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("platform", "recipes", "jobs")]
BEFORE = ("pretrain", "sft", "knowledge", "reward", "dpo", "index")


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
    names = ("sampling_tok/s", "learning_tok/s", "sampler_idle", "learner_idle", "gap", "dead", "reward", "kl")
    histories = {name: client.get_metric_history(made.manifest.mlflow_run_id, name) for name in names}
    return {name: [point.value for point in history] for name, history in histories.items() if history}


def evaluated(chosen: Any, made: Any) -> list[dict[str, Any]]:
    """Of each evaluation: step, rewards, and of the prompts that are answered otherwise than at first the share whose
    new answer the judge prefers."""
    from webtochat.rl import rollouts
    from webtochat.tokens import rows

    answers = chosen.reward.answers if "model" in chosen.rl.rewards.weights else None
    judge = rows.function_of(answers.judge) if answers is not None else None
    found: list[dict[str, Any]] = []
    first: dict[str, str] = {}
    for path in sorted(made.files("evaluations/")):
        read = rollouts.read(path, ["prompt", "answer", "reward"])
        first = first or {row["prompt"]: row["answer"] for row in read}
        told = {"step": int(Path(path).stem.removeprefix("step-"))}
        told["rewards"] = [row["reward"] for row in read if row["reward"] is not None]
        other = [row for row in read if judge is not None and row["answer"] != first[row["prompt"]]]

        def liked(prompt: str, answer: str) -> float:
            return judge([{"role": "user", "content": prompt}], answer, chosen.reward.seed)

        better = [liked(row["prompt"], row["answer"]) > liked(row["prompt"], first[row["prompt"]]) for row in other]
        told["preferred"], told["other"] = sum(better), len(better)
        found.append(told)
    return found


def interval(values: list[float]) -> str:
    """Mean and 95 % interval: Wilson's of shares."""
    from webtochat.evals.questions import wilson

    if set(values) <= {0.0, 1.0}:
        low, high = wilson(int(sum(values)), len(values))
        return f"{100 * fmean(values):.1f} % ({100 * low:.1f} to {100 * high:.1f})"
    return f"{fmean(values):.2f} ± {1.96 * stdev(values) / len(values) ** 0.5:.2f}"


def report(runs: list[tuple[Any, Any, float, Path]]) -> str:
    lines = ["| run | after step | held-out prompts: reward | of | KL | preferred by the judge |",
             "| --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    curves, gains, deviations, answers = [], [], [], 0
    for chosen, made, _, folder in runs:
        curves.append(metrics(made, folder))
        kl = dict(enumerate(curves[-1].get("kl", []), 1))
        told = evaluated(chosen, made)
        gains.append(fmean(told[-1]["rewards"]) - fmean(told[0]["rewards"]))
        deviations.append(stdev(told[0]["rewards"]))
        answers += sum(made.manifest.counts["rollouts"].values())
        for each in told:
            share = f"{100 * each['preferred'] / each['other']:.0f} % of {each['other']}" if each["other"] else ""
            divergence = f"{kl[each['step']]:.3f}" if each["step"] in kl else ""
            lines.append(
                f"| {chosen.name} | {each['step']} | {interval(each['rewards'])} | {len(each['rewards'])} "
                f"| {divergence} | {share} |"
            )

    def mean(name: str) -> float:
        return fmean(value for curve in curves for value in curve[name][1:])

    spread = f" ± {stdev(gains):.3f}" if len(gains) > 1 else ""
    rewards = [curve["reward"] for curve in curves]
    tenth = max(1, len(rewards[0]) // 10)
    seconds = ", ".join(f"{seconds:.0f}" for *_, seconds, _ in runs)
    return "\n".join(lines) + (
        f"\n\nGain: {fmean(gains):.3f}{spread}, {fmean(gains) / fmean(deviations):.2f} standard deviations of the "
        f"rewards before. {answers:,} answers in {seconds} s with the start of Ray and the "
        f"engine; load of the machine at the end: {os.getloadavg()[0]:.1f}. Mean reward of the sampled answers: "
        f"{fmean(value for each in rewards for value in each[:tenth]):.3f} in the first tenth of the steps, "
        f"{fmean(value for each in rewards for value in each[-tenth:]):.3f} in the last. Sampling "
        f"{mean('sampling_tok/s'):,.0f} tokens/s while it samples, learning {mean('learning_tok/s'):,.0f} (of answers) "
        f"while it learns; idle {100 * mean('sampler_idle'):.0f} % and {100 * mean('learner_idle'):.0f} % of the time. "
        f"Groups that teach nothing: {100 * mean('dead'):.0f} %. Log-probabilities of sampler and trainer differ by "
        f"{mean('gap'):.1e} on the mean."
    )


def main() -> None:
    from webtochat import artifact
    from webtochat import recipe as recipes

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("recipe")
    arguments.add_argument("overrides", nargs="*", metavar="key=value")
    arguments.add_argument("--runs", nargs="+", help="names of finished runs; by default the recipe's")
    arguments.add_argument("--finished", action="store_true", help="run nothing: tell of their committed rl stages")
    arguments.add_argument("--title", default="Learning by reward", help="of the section in docs/benchmarks.md")
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_intermixed_args()
    if any("=" in name for name in options.runs or []):
        arguments.error("key=value stands before --runs")
    names = options.runs or [recipes.load(options.recipe, options.overrides).name]
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as folder:
        runs = []
        for seed, name in enumerate(names, 1):
            overrides = [*options.overrides, f"name={name}", *([f"rl.seed={seed}"] if len(names) > 1 else [])]
            chosen = recipes.load(options.recipe, overrides)
            if options.finished:
                made = artifact.open_artifact(str(Path(chosen.workspace, name, "rl")), "rl")
                runs.append((chosen, made, made.manifest.wall_seconds, Path(chosen.workspace)))
                continue
            home = Path(folder, name)
            home.mkdir()
            runs.append((chosen, *run(options.recipe, overrides, home), home))
        told = report(runs)
    print(told)
    if options.write:
        from record import record

        command = ["benchmarks/rl.py", options.recipe, *options.overrides]
        command += ["--runs", *options.runs] if options.runs else []
        command += ["--finished"] if options.finished else []
        record(options.title, " ".join([*command, "--write"]), told)


if __name__ == "__main__":
    main()
