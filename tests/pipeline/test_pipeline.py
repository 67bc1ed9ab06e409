"""The whole way, small: as a user runs it, killed on the way, and run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.inference import imported

from webtochat import recipe as recipes

ROOT = Path(__file__).resolve().parents[2]
SMALL = [
    "name=small", "crawl.site.miniweb.scale=0.04", "crawl.site.miniweb.docstring_bytes=300000",
    "tokenizer.vocabulary=1024", "model.depth=2", "model.width=64", "pretrain.tokens=60000",
    "pretrain.evaluate_every=20", "pretrain.checkpoint_every=10", "sft.epochs=0.3", "sft.checkpoint_every=10",
    "evaluate.max_questions_per_kind=12", "evaluate.max_call_tokens=64", "demonstrations.documents=20",
    "demonstrations.programs={sums: 20}", "demonstrations.questions=12", "demonstrations.pages=60",
    "knowledge.snippets=60", "knowledge.max_questions=40", "knowledge.invented=8", "knowledge.samples=2",
    "knowledge.epochs=0.3", "reward.answers.max_prompts=30", "reward.answers.least_difference=0",
    "rl.steps=2", "rl.prompts_per_step=4", "rl.samples=2",
]  # fmt: skip
STAGES = [
    "crawl", "measure", "curate", "index", "demonstrations", "tokenizer", "tokens", "pretrain", "sft", "knowledge",
    "reward", "rl", "evaluate",
]  # fmt: skip
TRAINED = STAGES[: STAGES.index("sft") + 1]
"""Those whose content hash is that of an undisturbed run; what comes after them samples."""


def pipeline(workspace: Path, *arguments: str) -> subprocess.Popen[str]:
    return job("recipes/demo.yaml", f"workspace={workspace}", *SMALL, *arguments)


def job(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "jobs/pipeline.py", *arguments],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str], seconds: int = 400) -> str:
    output, _ = process.communicate(timeout=seconds)
    assert process.returncode == 0, output
    return output


def hashes(workspace: Path) -> dict[str, str]:
    return {
        stage: json.loads((workspace / "small" / stage / "manifest.json").read_text())["content_hash"]
        for stage in STAGES
    }


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    workspace = tmp_path_factory.mktemp("undisturbed")
    return workspace, finished(pipeline(workspace))


def test_it_runs_whole_and_says_so(undisturbed: tuple[Path, str]) -> None:
    workspace, output = undisturbed
    for stage in STAGES:
        assert (workspace / "small" / stage / "manifest.json").exists()
        assert any(line.startswith(stage) for line in output.splitlines()), output
    assert "mlflow ui" in output and "jobs/serve.py" in output
    assert "step " in output and "norm " in output and "mfu n/a" in output
    for chatter in ("INFO", "WARNING", "Traceback", "(pid="):
        assert chatter not in output


def test_again_it_reuses_everything(undisturbed: tuple[Path, str]) -> None:
    workspace, _ = undisturbed
    before = hashes(workspace)
    output = finished(pipeline(workspace), 60)
    assert output.count("reused (") >= len(STAGES)
    assert hashes(workspace) == before


def test_other_settings_stop_in_one_line(undisturbed: tuple[Path, str]) -> None:
    workspace, _ = undisturbed
    process = pipeline(workspace, "curate.gopher.min_words=60")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2
    error = next(line for line in output.splitlines() if line.startswith("error: "))
    assert "curate.gopher.min_words: 50 → 60" in error and "--rebuild curate" in error
    assert "Traceback" not in output


def test_killed_again_and_again_it_ends_with_the_same_hashes(
    undisturbed: tuple[Path, str], tmp_path: Path
) -> None:
    """SIGKILL of the driver in crawl, in measure and in training; the run after them ends as an undisturbed one."""
    killed_in = []
    for stage, unit in [("crawl", "warc/*"), ("measure", "*.parquet"), ("pretrain", "_scratch/checkpoints/*")]:
        process = pipeline(tmp_path)
        directory = tmp_path / "small" / stage
        deadline = time.monotonic() + 240
        while process.poll() is None and time.monotonic() < deadline:
            if (directory / "draft.json").exists() and list(directory.glob(unit)):
                time.sleep(0.3)
                os.killpg(process.pid, signal.SIGKILL)
                killed_in.append(stage)
                break
            time.sleep(0.02)
        process.communicate(timeout=30)
    assert "pretrain" in killed_in, killed_in
    finished(pipeline(tmp_path, "--until", "sft"))
    disturbed = {
        stage: json.loads((tmp_path / "small" / stage / "manifest.json").read_text())["content_hash"]
        for stage in TRAINED
    }
    assert disturbed == {stage: value for stage, value in hashes(undisturbed[0]).items() if stage in TRAINED}


def test_the_parent_run_has_a_child_for_each_stage(undisturbed: tuple[Path, str]) -> None:
    import mlflow

    workspace, _ = undisturbed
    client = mlflow.MlflowClient(f"sqlite:///{workspace}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    runs = client.search_runs([experiment.experiment_id])
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.info.run_name for run in runs if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id}
    assert len(parents) == 1 and children == set(STAGES)
    pretrain = next(run for run in runs if run.info.run_name == "pretrain")
    assert len(client.get_metric_history(pretrain.info.run_id, "loss")) > 3


def test_from_an_imported_model_nothing_before_it_is_made(tmp_path: Path) -> None:
    """Imported, fine-tuned by one epoch of LoRA, evaluated; and the same again is reused."""
    import pipeline as jobs

    data = [{"path": str(tmp_path / "chats.jsonl"), "weight": 100}]
    settings = {"epochs": 1, "lora": {"rank": 16}, "lr": 1e-2, "sequence_length": 64, "batch_tokens": 128}
    path = imported.recipe(tmp_path, sft={"data": data, "validation_percent": 0, **settings})
    stages = ["pretrain", "sft", "evaluate"]
    assert jobs.stages_of(recipes.load(str(path)), None) == stages
    untaught = [stage for stage in STAGES if stage not in ("demonstrations", "knowledge", "reward", "rl")]
    assert jobs.stages_of(recipes.load(str(path), ["pretrain.tokens=1000"]), None) == untaught
    for key in ("demonstrations.documents=1", "knowledge={}"):
        other = "knowledge" if key.startswith("demonstrations") else "demonstrations"
        taught = jobs.stages_of(recipes.load(str(path), [key]), None)
        assert taught == [stage for stage in STAGES if stage not in ("tokenizer", "tokens", "reward", "rl", other)]
    rewarded = jobs.stages_of(recipes.load(str(path), ["reward.data=[{path: pairs.jsonl}]"]), None)
    assert rewarded == ["pretrain", "sft", "reward", "evaluate"]
    assert jobs.stages_of(recipes.load(str(path), ["rl={}"]), None) == ["pretrain", "sft", "rl", "evaluate"]
    output = finished(job(str(path)))
    assert sorted(folder.parent.name for folder in (tmp_path / "x").glob("*/manifest.json")) == sorted(stages)
    assert "no held-out bits per byte" in output and "facts 100 %" in output and "imported" in output
    assert finished(job(str(path)), 60).count("reused (") >= len(stages)
    process = job(str(path), "--until", "curate")
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2 and "this recipe's stages are pretrain, sft, evaluate" in output
