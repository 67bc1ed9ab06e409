"""The whole stage on a tiny workspace: real shards, real models, vLLM."""

from __future__ import annotations

import io
import json

import pyarrow.parquet as pq
import pytest
from tests.inference import tiny

from webtochat import recipe as recipes
from webtochat import storage
from webtochat.evals.stage import evaluate
from webtochat.run import Run, Screen


@pytest.fixture(scope="module")
def told(tmp_path_factory, ray_here):
    root = tmp_path_factory.mktemp("evaluate")
    screen = io.StringIO()
    order = [
        {"query": f"What colour does {name} like?", "choices": [f"{name} likes {each}." for each in (colour, "wall")],
         "gold": 0}
        for name, colour in tiny.COLOURS.items()
    ]  # fmt: skip
    (root / "order.jsonl").write_text("\n".join([*map(json.dumps, order), "{}"]))
    tasks = f"evaluate.tasks=[{{path: {root}/order.jsonl, few_shot: 1}}, {{path: {root}/order.jsonl, name: again}}]"
    run = Run(recipes.load(str(tiny.workspace(root)), [tasks]), Screen(screen))
    return run, evaluate(run), screen.getvalue()


def read(made, name):
    return storage.read_bytes(made.path(name))


def test_both_models_are_asked_and_the_taught_one_knows(told):
    _, made, _ = told
    result = json.loads(read(made, "evaluation.json"))
    assert result["questions"]["sft"]["accuracy"]["fact"]["rate"] == 1.0
    assert result["questions"]["sft"]["format"]["rate"] == 1.0
    assert result["questions"]["base"]["accuracy"]["fact"]["rate"] < 1.0
    assert set(result["questions"]["sft"]["by_stated"]["fact"]) == {"1", "10"}
    answers = pq.read_table(made.path("answers.parquet")).to_pylist()
    assert len(answers) == 8
    assert [row["reply"] for row in answers if row["model"] == "sft"] == [reply for _, reply in tiny.questions()]


def test_bits_per_byte_stand_beside_the_baselines(told):
    _, made, _ = told
    held_out = json.loads(read(made, "evaluation.json"))["bits_per_byte"]
    assert set(held_out["models"]["base"]) == {"total", "first", "second", "other"}
    # Hardly trained, so about the start value; the 5-gram model has read the training documents.
    assert held_out["models"]["base"]["total"] == pytest.approx(held_out["start"], rel=0.15)
    assert 0 < held_out["5gram"] < held_out["xz"] < 8
    assert 0 < held_out["5gram_of_bytes"] < held_out["xz"]
    assert held_out["documents"] == 12


def test_tasks_are_scored_on_both_models(told):
    run, made, screen = told
    result = json.loads(read(made, "evaluation.json"))["tasks"]
    assert set(result) == {"base", "sft"} and list(result["sft"]["by_task"]) == ["order", "again"]
    for each in result["sft"]["by_task"].values():
        assert each["of"] == 4 and each["chance"] == 0.5 and each["skipped"] == {"unknown_form": 1}
        assert each["low"] <= each["rate"] <= each["high"] and each["centred"] == 2 * each["rate"] - 1
    assert "order: left out 1 rows: unknown form" in screen
    assert "again  base " in screen and "; chance 50 %, 4 rows" in screen and "core   base " in screen
    metrics = run.tracking.client().get_run(made.manifest.mlflow_run_id).data.metrics
    assert metrics["core/sft"] == pytest.approx(result["sft"]["core"])
    assert metrics["task/base/order"] == result["base"]["by_task"]["order"]["rate"]
    assert f"core {result['base']['core']:.3f}" in made.manifest.summary


def test_what_was_made_is_told(told):
    run, made, screen = told
    assert "skipped python:miniweb.conversations:questions_about_people: it asks about the miniweb" in screen
    assert "facts 100 % (chance 25 %)" in made.manifest.summary
    assert made.manifest.gain.endswith("facts, format 100.0 %")
    assert made.manifest.counts["rows_skipped"] == {"not_json": 1, "no_question": 1}
    assert read(made, "facts_curve.svg").decode().startswith("<?xml")
    metrics = run.tracking.client().get_run(made.manifest.mlflow_run_id).data.metrics
    assert metrics["accuracy/sft/fact"] == 1.0
    assert metrics["accuracy/sft/fact/stated_10"] == 1.0
    assert metrics["bits_per_byte/base/total"] > 0


def test_it_is_reused(told):
    run, made, _ = told
    screen = io.StringIO()
    again = evaluate(Run(run.recipe, Screen(screen)))
    assert again.manifest == made.manifest
    assert screen.getvalue().startswith("evaluate: reused (")
