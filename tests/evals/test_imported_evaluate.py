"""An imported model is asked in its own form, by vLLM; held-out bits are told where there are tokens of its own."""

from __future__ import annotations

import io
import json
import shutil

import pyarrow.parquet as pq
import pytest
from tests.inference import imported, tiny
from tests.model import qwen

from webtochat import recipe as recipes
from webtochat import storage
from webtochat.errors import UserError
from webtochat.evals.stage import evaluate
from webtochat.run import Run, Screen
from webtochat.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return imported.workspace(tmp_path_factory.mktemp("imported"))


def run_of(path):
    shown = io.StringIO()
    return Run(recipes.load(str(path)), Screen(shown)), shown


def test_it_answers_without_held_out_documents(path, ray_here):
    run, shown = run_of(path)
    made = evaluate(run)
    assert "no held-out bits per byte" in shown.getvalue() and set(made.manifest.inputs) == {"pretrain", "sft"}
    result = json.loads(storage.read_bytes(made.path("evaluation.json")))
    assert result["bits_per_byte"] == {"models": {}}
    assert result["questions"]["sft"]["accuracy"]["fact"]["rate"] == 1.0
    assert result["questions"]["sft"]["format"]["rate"] == 1.0
    replies = [row["reply"] for row in pq.read_table(made.path("answers.parquet")).to_pylist() if row["model"] == "sft"]
    assert replies == [f"{name} lives in {place}." for name, place in qwen.PLACES.items()]
    assert made.manifest.summary.startswith("facts 100 %")


def test_tokens_of_another_tokenizer_are_refused_and_its_own_are_scored(path, ray_here):
    home = path.parent
    for stage in ("tokenizer", "tokens"):
        shutil.copytree(tiny.committed() / stage, home / "x" / stage)
    run, _ = run_of(path)
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
