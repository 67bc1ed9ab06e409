"""The stage by its job, as a user runs it: the driver, an engine and the learner are killed with SIGKILL while it runs,
and every prompt is answered as often as it should be, no matter what."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from tests.inference import tiny

from webtochat import artifact
from webtochat.artifact import Artifact
from webtochat.rl import rollouts
from webtochat.tokens.batches import Order

STEPS, PER_STEP, SAMPLES = 8, 4, 4
NAMES = ["Ada", "Bo", "Cy", "Di"]
SECTION = {
    "steps": STEPS, "prompts_per_step": PER_STEP, "samples": SAMPLES, "max_new_tokens": 12, "lr": 1e-3,
    "temperature": 1.5, "staleness": 1, "update": "interrupt", "algorithm": "dr_grpo", "checkpoint_every": 2,
    "evaluate_every": 0, "rewards": {"weights": {"length": 1.0}, "soft_tokens": 0}, "sequence_length": 64,
}  # fmt: skip


def recipe_at(root: Path) -> Path:
    rows = [{"question": f"What does {name} {verb}?", "answer": "red"} for name in NAMES for verb in ("see", "sell")]
    rows += [{"question": "What colour does Di like?", "held_out": True}, {"question": "Ada " * 80}, {"answer": "1"}]
    (root / "prompts.jsonl").write_text("\n".join([*map(json.dumps, rows), "not json"]))
    section = SECTION | {"data": [{"path": str(root / "prompts.jsonl")}]}
    cluster = {"kv_cache_gib": 0.25, "train_cpus": 1, "engine_groups": 2, "cpus": 4}
    return tiny.workspace(root, rl=section, cluster=cluster)


def started(recipe: Path, *overrides: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(tiny.ROOT / "jobs" / "rl.py"), str(recipe), *overrides]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def until(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 400) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None and time.monotonic() < deadline, process.stdout and process.stdout.read()
        time.sleep(0.02)


def kill_child(process: subprocess.Popen[str], title: str) -> int:
    """SIGKILL of the process of our own Ray that has this in its title."""
    for child in psutil.Process(process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # one that was killed just now
            if title in " ".join(child.cmdline()):
                child.send_signal(signal.SIGKILL)
                return child.pid
    raise AssertionError(f"no {title} among the children")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, str]:
    """A run whose driver is killed in its third step, and which then loses the learner, the engine, which may want the
    weights that the learner had, and what rewards."""
    root = tmp_path_factory.mktemp("rl")
    recipe = recipe_at(root)
    home = root / "runs" / "tiny" / "rl"

    def steps() -> int:
        return len(list((home / "rollouts").glob("step-*.parquet")))

    process = started(recipe)
    until(lambda: steps() >= 3, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    psutil.wait_procs(children, timeout=30)
    assert not (home / artifact.MANIFEST).exists()

    process = started(recipe)
    before = steps()
    until(lambda: steps() >= before + 2, process)
    kill_child(process, "RayTrainWorker")
    kill_child(process, "Sampler")
    kill_child(process, "Rewarder")
    shown, _ = process.communicate(timeout=600)
    assert process.returncode == 0, shown
    return artifact.open_artifact(str(home), "rl"), shown


def rows_of(artifact: Artifact) -> list[list[rollouts.Row]]:
    return [rollouts.read(path) for path in artifact.files("rollouts/")]


def test_each_prompt_is_answered_once_whatever_was_killed(made: tuple[Artifact, str]) -> None:
    steps = rows_of(made[0])
    assert len(steps) == STEPS
    for number, rows in enumerate(steps):
        groups = rollouts.by_group(rows)
        assert len(groups) == PER_STEP and all(len(some) == SAMPLES for some in groups.values())
        assert {row["step"] for row in rows} == {number}
    numbers = [number for rows in steps for number in rollouts.by_group(rows)]
    assert sorted(numbers) == list(range(STEPS * PER_STEP))


def test_a_number_is_always_the_same_prompt_and_each_comes_round(made: tuple[Artifact, str]) -> None:
    prompts = {row["group"]: row["prompt"] for rows in rows_of(made[0]) for row in rows}
    asked = [f"What does {name} {verb}?" for name in NAMES for verb in ("see", "sell")]
    order = Order((len(asked),), (1.0,), 1).windows(0, len(prompts))
    assert [prompts[number] for number in range(len(prompts))] == [asked[place] for place in order]
    assert sorted(prompts[number] for number in range(8)) == sorted(asked)


def test_no_answer_is_drawn_by_weights_too_old(made: tuple[Artifact, str]) -> None:
    for number, rows in enumerate(rows_of(made[0])):
        versions = {
            version for row in rows for version, own in zip(row["versions"], row["own"], strict=True) if own
        }
        assert versions <= set(range(max(0, number - 1), number + 1)), (number, versions)
        assert all(row["reward"] == -sum(row["own"]) / 12 for row in rows)
        assert all(row["advantage"] is not None and row["parts"] for row in rows)


def test_the_screen_and_the_manifest_tell_what_happened(made: tuple[Artifact, str]) -> None:
    artifact, shown = made
    assert "steps and" in shown and "further groups were sampled before" in shown
    assert "learning goes on from the checkpoint of step " in shown
    assert "engine 0 died and is replaced" in shown
    assert f"step {STEPS}/{STEPS} | reward -" in shown and " tok/s | idle " in shown
    assert f"step {STEPS} | held out/reward " in shown
    counts = artifact.manifest.counts
    assert counts["skipped"] == {
        "not_json": 1, "no_prompt": 1, "prompt_longer_than_the_model's_positions": 1,
    }  # fmt: skip
    assert counts["rollouts"] == {"rewarded": STEPS * PER_STEP * SAMPLES}
    assert set(counts["held_out"]) == {"0", str(STEPS)}
    files = set(artifact.manifest.files)
    assert {"model/config.json", "metrics.jsonl", "rollouts.html", "evaluations/step-000000.parquet"} <= files
    assert artifact.verify() == [] and not Path(artifact.path("_scratch")).exists()
    curve = [json.loads(line) for line in Path(artifact.path("metrics.jsonl")).read_text().splitlines()]
    assert [point["step"] for point in curve] == list(range(STEPS + 1))
    assert all(point["gap"] < 0.5 for point in curve[1:]) and curve[1]["gap"] < 1e-4


def test_mlflow_has_the_curves(made: tuple[Artifact, str]) -> None:
    import mlflow

    workspace = Path(made[0].directory).parents[1]
    client = mlflow.MlflowClient(f"sqlite:///{workspace}/mlflow.db")
    run_id = made[0].manifest.mlflow_run_id
    assert run_id is not None
    for name in ("reward", "reward/length", "length", "dead", "entropy", "clipped", "gap", "sampler_idle",
                 "learner_idle", "sampling_tok/s", "learning_tok/s", "held_out/reward"):  # fmt: skip
        assert client.get_metric_history(run_id, name), name


def test_it_is_reused_and_without_its_section_refused(made: tuple[Artifact, str]) -> None:
    recipe = Path(made[0].directory).parents[2] / "tiny.yaml"
    assert os.path.exists(recipe)
    again = started(recipe)
    shown, _ = again.communicate(timeout=120)
    assert again.returncode == 0 and "rl: reused (128 answers in 8 steps)" in shown
