"""From an imported model to evaluate and serving, by vLLM: its stops, its prompts, no held-out bits unless there are
tokens of its own tokenizer."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from tests.inference import tiny
from tests.model import qwen

from webtochat import storage
from webtochat.errors import UserError
from webtochat.evals.stage import evaluate
from webtochat.model import export
from webtochat.model.imported import Given
from webtochat.recipe import Recipe
from webtochat.run import Run, Screen
from webtochat.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """{pretrain,sft} of an imported model, which knows where each one lives."""
    root = tmp_path_factory.mktemp("imported")
    qwen.save_model(root / "qwen", tied=False)
    recipe = Recipe.model_validate({"name": "x", "pretrain": {"start": str(root / "qwen"), "tokens": 0}})
    model, words = Given.of(recipe).loaded()
    export.export(model, words, str(root / "x" / "pretrain" / "model"))
    base = tiny.commit(root / "x" / "pretrain", "pretrain", [])
    pairs = [tuple(message["content"] for message in row["messages"]) for row in qwen.exchanges()]
    export.export(tiny.taught(model, words, pairs), words, str(root / "x" / "sft" / "model"))
    tiny.commit(root / "x" / "sft", "sft", [base])
    rows = [{"kind": "fact", "question": question, "answers": [answer]} for question, answer in pairs]
    (root / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return root


def run_of(home: Path) -> tuple[Run, io.StringIO]:
    shown = io.StringIO()
    recipe = Recipe.model_validate({
        "name": "x", "workspace": str(home), "pretrain": {"start": str(home / "qwen"), "tokens": 0},
        "tokens": {"sequence_length": 64}, "cluster": {"kv_cache_gib": 0.25},
        "evaluate": {"questions": [{"path": str(home / "questions.jsonl")}], "max_new_tokens": 24, "baselines": False},
    })  # fmt: skip
    return Run(recipe, Screen(shown)), shown


def test_it_answers_without_held_out_documents(home, ray_here):
    run, shown = run_of(home)
    made = evaluate(run)
    assert "no held-out bits per byte" in shown.getvalue() and set(made.manifest.inputs) == {"pretrain", "sft"}
    result = json.loads(storage.read_bytes(made.path("evaluation.json")))
    assert result["bits_per_byte"] == {"models": {}}
    assert result["questions"]["sft"]["accuracy"]["fact"]["rate"] == 1.0
    assert result["questions"]["sft"]["format"]["rate"] == 1.0
    replies = [row["reply"] for row in pq.read_table(made.path("answers.parquet")).to_pylist() if row["model"] == "sft"]
    assert replies == [f"{name} lives in {place}." for name, place in qwen.PLACES.items()]
    assert made.manifest.summary.startswith("facts 100 %")


def test_tokens_of_another_tokenizer_are_refused_and_its_own_are_scored(home, ray_here):
    for stage in ("tokenizer", "tokens"):
        shutil.copytree(tiny.committed() / stage, home / "x" / stage)
    run, _ = run_of(home)
    with pytest.raises(UserError, match="is not of the imported model's tokenizer: run again with --rebuild tokenizer"):
        evaluate(run)
    for stage in ("tokenizer", "tokens", "evaluate"):
        shutil.rmtree(home / "x" / stage)
    words = Tokenizer.load(str(home / "x" / "sft" / "model"))
    words.save(str(home / "x" / "tokenizer"))
    tiny.commit_tokens(home / "x", words, tiny.commit(home / "x" / "tokenizer", "tokenizer", []))
    told = json.loads(storage.read_bytes(evaluate(run).path("evaluation.json")))["bits_per_byte"]
    assert told["documents"] == 12
    assert told["models"]["base"]["total"] == pytest.approx(told["start"], rel=0.2)
