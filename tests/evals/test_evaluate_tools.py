"""Held-out questions asked without tools and with them, of a model that was taught to call one."""

from __future__ import annotations

import io
import json
import shutil

import pyarrow.parquet as pq
import pytest
from tests.inference import tiny

from webtochat import artifact, storage
from webtochat import recipe as recipes
from webtochat.evals.results import tool_lines
from webtochat.evals.stage import evaluate
from webtochat.model import export
from webtochat.run import Run, Screen
from webtochat.tokens.chat import render
from webtochat.tools.python import Python
from webtochat.tools.tool import definitions

SUMS = [(17, 25), (31, 46), (52, 39), (64, 18)]
TOOLS = {"names": ["python"]}


def conversation(first: int, second: int) -> list[dict[str, object]]:
    call = {"name": "python", "arguments": {"code": f"{first}+{second}"}}
    return [
        {"role": "user", "content": f"{first} + {second}?"}, {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": str(first + second)}, {"role": "assistant", "content": f"{first + second}"},
    ]  # fmt: skip


@pytest.fixture(scope="module")
def told(tmp_path_factory, ray_here):
    root = tmp_path_factory.mktemp("evaluate")
    path = tiny.workspace(root, demonstrations={"programs": {"sums": 4}}, tools=TOOLS)
    home, words = root / "runs" / "tiny", tiny.tokenizer()
    rows = [render(words, conversation(*each), tools=definitions([Python()])) for each in SUMS]
    shutil.rmtree(home / "sft")
    export.export(tiny.fitted(tiny.transformer(words, 1), rows, 80), words, str(home / "sft" / "model"))
    tiny.commit(home / "sft", "sft", [artifact.open_artifact(str(home / "pretrain"), "pretrain")])
    asked = [{"kind": "sums", "question": f"{a} + {b}?", "answers": [str(a + b)]} for a, b in SUMS]
    asked.append({"kind": "long", "question": "? " * 300, "answers": ["no"]})
    for stage in ("index", "demonstrations"):
        (home / stage).mkdir()
        (home / stage / "questions.jsonl").write_text("\n".join(map(json.dumps, asked)))
        tiny.commit(home / stage, stage, [])
    screen = io.StringIO()
    run = Run(recipes.load(str(path), ["evaluate.max_call_tokens=100", "evaluate.baselines=false"]), Screen(screen))
    return run, evaluate(run), screen.getvalue()


def test_rates_without_tools_and_with_them(told):
    run, made, screen = told
    result = json.loads(storage.read_bytes(made.path("evaluation.json")))["tools"]
    assert result["with"]["accuracy"]["sums"]["rate"] == 1.0 and result["with"]["accuracy"]["sums"]["of"] == 4
    assert result["without"]["accuracy"]["sums"]["rate"] < 1.0
    assert result["with"]["format"]["right"] == 4 and result["with"]["format"]["of"] == 5
    metrics = run.tracking.client().get_run(made.manifest.mlflow_run_id).data.metrics
    assert metrics["tools/with/sums"] == 1.0 and metrics["tools/with/format"] == 0.8
    assert "→ 100 %" in made.manifest.summary and "sums    without tools" in screen
    assert {"demonstrations", "index"} <= set(made.manifest.inputs) and tool_lines({}) == []


def test_answers_hold_the_whole_conversation(told):
    rows = pq.read_table(told[1].path("answers.parquet")).to_pylist()
    with_tools = [row for row in rows if row["tools"] and row["kind"] == "sums"]
    assert len(with_tools) == 4 and {row["model"] for row in with_tools} == {"sft"}
    for row in with_tools:
        assert row["correct"] and row["format_kept"]
        assert f"<tool_response>{row['reply']}</tool_response>" in row["conversation"]
    [too_long] = [row for row in rows if row["kind"] == "long" and row["tools"]]
    assert too_long["reply"] == "" and not too_long["format_kept"]
