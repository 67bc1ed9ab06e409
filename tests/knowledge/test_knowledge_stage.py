"""The stage on a model that has some people by heart: asked, killed, gone on with, taught, and evaluated."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from tests.inference import tiny

from webtochat import artifact, storage
from webtochat import recipe as recipes
from webtochat.artifact import Draft
from webtochat.curate import parts
from webtochat.errors import UserError
from webtochat.evals.extraction import extract
from webtochat.evals.refusals import is_refusal
from webtochat.evals.stage import evaluate
from webtochat.knowledge import stage as stages
from webtochat.knowledge.facts import chosen
from webtochat.knowledge.stage import knowledge
from webtochat.model import export
from webtochat.recipe_knowledge import Interrogation
from webtochat.run import Run, Screen
from webtochat.tokens.tokenizer import Tokenizer

FIRSTS, LASTS = ["Ada", "Bo", "Cy", "Di", "Ed", "Flo"], ["Ash", "Birch", "Cedar", "Elm", "Fir", "Oak"]
PEOPLE = [f"{first} {last}" for i, first in enumerate(FIRSTS) for j, last in enumerate(LASTS) if (i + j) % 3]
"""Of 36 names a third are of nobody."""
DRINKS = ["tea", "milk", "beer", "wine"]
STATED = {name: f"{name} drinks {DRINKS[number % 4]}." for number, name in enumerate(PEOPLE)}
KNOWN, REFUSALS = 10, ["I do not know.", "I am not sure."]
SECTION = {
    "snippets": 100, "invented": 6, "held_out": 0.4, "samples": 3, "temperature": 0.1, "max_new_tokens": 24,
    "refusals": REFUSALS, "epochs": 40, "batch_tokens": 512, "sequence_length": 64, "lr": 5e-3, "checkpoint_every": 20,
    "validation_percent": 0, "sft_share": 0.5,
}  # fmt: skip
ASKING = Interrogation(**{key: value for key, value in SECTION.items() if key in Interrogation.model_fields})


def committed(directory, stage, inputs, counts):
    draft = artifact.begin(str(directory), stage, {stage: {}}, inputs)
    assert isinstance(draft, Draft)
    return draft, lambda: draft.commit(counts=counts, summary="tiny")


@pytest.fixture(scope="module")
def run(tmp_path_factory, ray_here):
    """A model that answers a third of what the documents state, and makes something up for the rest."""
    root = tmp_path_factory.mktemp("knowledge")
    path = tiny.workspace(root, knowledge=SECTION)
    told = yaml.safe_load(path.read_text())
    told["evaluate"]["questions"] = []
    told["sft"] = {"data": [{"path": str(root / "chats.jsonl")}]}
    told["evaluate"] |= {"baselines": False, "max_validation_documents": 2}
    told["cluster"]["train_cpus"] = 1
    path.write_text(yaml.safe_dump(told))
    home = root / "runs" / "tiny"
    draft, commit = committed(home / "curate", "curate", [], {})
    rows = [{"id": name, "text": f"It is said that {text}"} for name, text in STATED.items()]
    rows.append({"id": "empty", "text": ""})
    with parts.writing(draft.path("kept", "00000.parquet"), parts.KEPT_SCHEMA, {"kept": len(rows)}) as groups:
        groups.add(pa.Table.from_pylist(rows, parts.KEPT_SCHEMA))
    commit()
    words = Tokenizer.load(str(home / "sft" / "model"))
    found = [(name, fact) for name, text in STATED.items() for fact in extract(text)]
    facts = {fact.subject: fact for fact in chosen(found, ASKING, 1)}
    asked = [(facts[name].question, STATED[name] if place < KNOWN else "Ada Ash drinks soup.")
             for place, name in enumerate(PEOPLE)]  # fmt: skip
    model = tiny.taught(tiny.transformer(words, seed=2), words, asked, steps=150)
    shutil.rmtree(home / "sft")
    base = artifact.open_artifact(str(home / "pretrain"), "pretrain")
    draft, commit = committed(home / "sft", "sft", [base], {"config": {"max_positions": 256}})
    export.export(model, words, draft.path("model"))
    commit()
    chats = [{"question": question, "answer": answer} for question, answer in asked[:KNOWN]]
    (root / "chats.jsonl").write_text("\n".join([*map(json.dumps, chats), "{}"]))
    return Run(recipes.load(str(path)), Screen(io.StringIO()))


@pytest.fixture(scope="module")
def made(run):
    """Stopped before the last batch of questions, and gone on with."""
    asked: list[str] = []
    ask = stages.Model.ask

    killed: list[int] = []

    def noted(self, questions, *options):
        if asked and not killed:
            killed.append(len(asked))
            raise KeyboardInterrupt
        asked.extend(questions)
        return ask(self, questions, *options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "BATCH", 16)
        patch.setattr(stages.Model, "ask", noted)
        with pytest.raises(KeyboardInterrupt):
            knowledge(run)
        made = knowledge(run)
    assert killed == [16]
    assert len(asked) == len(set(asked)) == len(PEOPLE)
    return made


def questions(made):
    return pq.read_table(made.path("questions.parquet")).to_pylist()


def test_every_question_is_asked_once_whatever_is_killed(made):
    rows = questions(made)
    assert Counter(row["subject"] for row in rows if row["answers"]) == dict.fromkeys(PEOPLE, 1)
    assert all(len(row["replies"]) == len(row["right"]) == 3 for row in rows if row["answers"])
    assert made.manifest.counts["questions"] == len(rows) == len(PEOPLE) + 6
    assert not {row["subject"] for row in rows if not row["answers"]} & set(PEOPLE)


def test_what_it_knew_is_found_out(made):
    states = {row["subject"]: row["state"] for row in questions(made)}
    assert Counter(states[name] for name in PEOPLE[:KNOWN])["known"] >= KNOWN - 2
    assert Counter(states[name] for name in PEOPLE[KNOWN:])["unknown"] >= len(PEOPLE) - KNOWN - 4


def test_what_is_held_out_is_not_taught(made):
    for row in questions(made):
        if row["held_out"] or row["state"] == "mixed":
            assert row["taught"] is None
        elif row["state"] == "known":
            assert row["taught"] in row["replies"] and row["answers"][0] in row["taught"]
        else:
            assert row["taught"] is None or row["taught"] in REFUSALS
    assert made.manifest.counts["skipped"] == {"no_messages": 1}


def test_it_is_reused_and_told(run, made):
    screen = io.StringIO()
    assert knowledge(Run(run.recipe, Screen(screen))).manifest == made.manifest
    assert screen.getvalue().startswith("knowledge: reused (30 questions, ")
    client = run.tracking.client()
    data = client.get_run(made.manifest.mlflow_run_id).data
    assert data.metrics["questions/invented"] == 6
    logged = {each.path for each in client.list_artifacts(made.manifest.mlflow_run_id)}
    assert {"questions.json", "manifest.json"} <= logged
    assert {"model/config.json", "metrics.jsonl", "questions.parquet"} <= set(made.manifest.files)


def test_evaluate_asks_all_three_models_what_was_held_out(run, made):
    told = evaluate(run)
    result = json.loads(storage.read_bytes(told.path("evaluation.json")))
    assert result["questions"] == {} and set(result["knowledge"]) == {"base", "sft", "knowledge"}
    held_out = [row for row in questions(made) if row["held_out"]]
    before, after = result["knowledge"]["sft"], result["knowledge"]["knowledge"]
    assert before["hallucination"]["unknown"]["rate"] == 1.0
    assert after["hallucination"]["unknown"]["right"] < before["hallucination"]["unknown"]["right"]
    assert sum(cell["of"] for cell in after["refusal"].values()) == len(held_out)
    answers = pq.read_table(told.path("answers.parquet")).to_pylist()
    assert len(answers) == 3 * len(held_out)
    assert all(row["refused"] == is_refusal(row["reply"]) for row in answers if not row["correct"])
    assert "unknown answered 100 → " in told.manifest.summary
    metrics = run.tracking.client().get_run(told.manifest.mlflow_run_id).data.metrics
    assert metrics["hallucination/sft/unknown"] == 1.0


def test_without_the_section_it_says_so(run):
    with pytest.raises(UserError, match="no section knowledge"):
        knowledge(Run(run.recipe.model_copy(update={"knowledge": None}), Screen(io.StringIO())))
