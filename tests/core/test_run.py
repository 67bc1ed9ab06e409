"""Runs: what stands on the screen, and what MLflow is told."""

from __future__ import annotations

import io
from pathlib import Path

import mlflow
import pytest

from webtochat.errors import UserError
from webtochat.recipe import Recipe
from webtochat.run import Run, Screen, Stage
from webtochat.tracking import Span, Tracking


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_has_one_line_of_progress_rewritten_in_place() -> None:
    stream = Terminal()
    screen = Screen(stream)
    screen.progress("1 of 3")
    screen.progress("2 of 3")  # within a quarter of a second: not shown
    screen.say("done")
    assert stream.getvalue() == "\r\x1b[K1 of 3\r\x1b[Kdone\n"


def test_a_file_gets_whole_lines_every_ten_seconds() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.progress("1 of 3")
    screen.progress("2 of 3")
    screen._shown -= 11
    screen.progress("3 of 3")
    assert stream.getvalue() == "1 of 3\n3 of 3\n"


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def started(workspace: Path, stage: str) -> Stage:
    stream = io.StringIO()
    begun = Run(Recipe(name="small", workspace=str(workspace)), Screen(stream)).begin(
        stage, {"tokens": {"seed": 1}}, []
    )
    assert isinstance(begun, Stage)
    return begun


def test_a_recipe_has_one_run_and_each_stage_a_child_with_curves_and_its_manifest(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with started(workspace, "tokens") as stage:
        for step in range(1200):  # more than one batch
            stage.metrics({"loss": 1 / (step + 1)}, step)
        stage.commit(counts={"tokens": 3}, summary="3 tokens")
    with pytest.raises(RuntimeError), started(workspace, "pretrain"):
        raise RuntimeError
    with pytest.raises(SystemExit), started(workspace, "sft"):
        raise SystemExit(143)

    client = mlflow.MlflowClient(f"sqlite:///{workspace}/mlflow.db")
    experiment = client.get_experiment_by_name("small")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"small", "tokens", "pretrain", "sft"}
    assert {run.data.tags.get("mlflow.parentRunId") for name, run in runs.items() if name != "small"} == {
        runs["small"].info.run_id
    }
    assert [runs[name].info.status for name in ("tokens", "pretrain", "sft")] == ["FINISHED", "FAILED", "KILLED"]
    tokens = runs["tokens"].info.run_id
    curve = client.get_metric_history(tokens, "loss")
    assert len(curve) == 1200 and {point.step for point in curve} == set(range(1200))
    assert runs["tokens"].data.params == {"tokens.seed": "1"}
    assert [each.path for each in client.list_artifacts(tokens)] == ["manifest.json"]
    assert [each.path for each in client.list_artifacts(runs["small"].info.run_id)] == ["recipe.yaml"]


def test_a_trace_is_an_answer_and_what_it_was_made_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # which MLflow sets: so it is as before afterwards
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    tracking = Tracking(f"{tmp_path}/x", str(tmp_path), "x")
    parts = [Span("generation", "LLM", 20, 30), Span("python", "TOOL", 30, 40, {"outcome": "ok"}, "6 * 7", "42")]
    before = mlflow.get_tracking_uri()
    try:
        tracking.trace(Span("turn", "AGENT", 10, 50, {"key": "ann"}), parts)
        mlflow.flush_trace_async_logging()
        [trace] = tracking.client().search_traces(locations=[tracking._experiment()])
    finally:
        mlflow.set_tracking_uri(before)
    root, *rest = trace.data.spans
    assert (root.name, root.span_type, root.inputs, root.attributes["key"]) == ("turn", "AGENT", None, "ann")
    assert [(span.name, span.parent_id, span.outputs) for span in rest] == [
        ("generation", root.span_id, None), ("python", root.span_id, "42")
    ]  # fmt: skip
    assert (root.start_time_ns, rest[1].start_time_ns, rest[1].end_time_ns, root.end_time_ns) == (10, 30, 40, 50)


def test_a_remote_workspace_asks_for_an_mlflow_server(monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = Tracking("s3://b/runs/x", "s3://b/runs", "x")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with pytest.raises(UserError, match="set MLFLOW_TRACKING_URI to a server"):
        _ = tracking.uri
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking.uri == "http://127.0.0.1:5000"
