"""The stage on a little model: its answers sampled, killed, gone on with, judged, learned from; a file scored."""

from __future__ import annotations

import io
import json
import shutil
from collections import Counter
from pathlib import Path
from statistics import fmean, pstdev

import pyarrow.parquet as pq
import pytest
import yaml
from tests.inference import tiny

from webtochat import artifact
from webtochat import recipe as recipes
from webtochat.artifact import Draft
from webtochat.errors import UserError
from webtochat.model.export import load
from webtochat.model.reward import RewardModel
from webtochat.recipe_rl import DPO, PairSource
from webtochat.reward import stage as stages
from webtochat.reward.stage import reward, score
from webtochat.rl.direct import dpo
from webtochat.run import Run, Screen, Stage
from webtochat.tokens.tokenizer import Tokenizer

BATCH, SAMPLES = 16, 4
PROMPTS = [
    f"{asked} {name} {verb}?"
    for asked in ("What colour does", "Does")
    for name in tiny.COLOURS
    for verb in ("like", "paint", "see the house", "sell the boat", "sell")
]
GIVEN = [
    {"prompt": f"What does {name} like? {number}", "chosen": "The red house.", "rejected": "A coat.", "margin": 0.5}
    for name in tiny.COLOURS for number in range(6)
]  # fmt: skip
BAD = [
    {"prompt": "?", "chosen": "a", "rejected": "a"}, {"chosen": "a", "rejected": "b"},
    {"prompt": "Ada " * 300, "chosen": "a", "rejected": "b"},
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory, ray_here):
    root = tmp_path_factory.mktemp("reward")
    (root / "pairs.jsonl").write_text("\n".join([*map(json.dumps, [*GIVEN, *BAD]), "not json"]))
    asked = [{"prompt": text} for text in [*PROMPTS, PROMPTS[0], "Ada " * 300]]
    (root / "prompts.jsonl").write_text("\n".join([*map(json.dumps, asked), '{"text": "?"}']))
    answers = {
        "prompts": [{"path": str(root / "prompts.jsonl")}], "judge": "python:own_judge:likes_red", "samples": SAMPLES,
        "temperature": 1.5, "max_new_tokens": 12, "least_difference": 0.5,
    }  # fmt: skip
    section = {
        "data": [{"path": str(root / "pairs.jsonl")}], "answers": answers, "lr": 3e-3, "epochs": 4,
        "batch_tokens": 1024, "sequence_length": 128, "validation_percent": 25, "checkpoint_every": 20,
    }  # fmt: skip
    path = tiny.workspace(root, reward=section)
    told = yaml.safe_load(path.read_text())
    told["cluster"]["train_cpus"] = 1
    path.write_text(yaml.safe_dump(told))
    home = root / "runs" / "tiny"
    shutil.copytree(home / "sft" / "model", root / "model")
    shutil.rmtree(home / "sft")
    base = artifact.open_artifact(str(home / "pretrain"), "pretrain")
    draft = artifact.begin(str(home / "sft"), "sft", {"sft": {}}, [base])
    assert isinstance(draft, Draft)
    shutil.copytree(root / "model", draft.path("model"))
    draft.commit(counts={"config": {"max_positions": 256}}, summary="tiny")
    return Run(recipes.load(str(path)), Screen(io.StringIO()))


@pytest.fixture(scope="module")
def made(run):
    """Killed after the first batch of answers, and gone on with."""
    done: list[int] = []
    progress = Stage.progress

    def killing(self, number, total, unit, note=""):
        progress(self, number, total, unit, note)
        if unit == "prompts":
            done.append(number)
            if len(done) == 1:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "BATCH", BATCH)
        patch.setattr(Stage, "progress", killing)
        with pytest.raises(KeyboardInterrupt):
            reward(run)
        (kept,) = (Path(run.directory) / "reward" / "_scratch" / "answers").glob("*.json")
        first = json.loads(kept.read_text())
        made = reward(run)
    assert done == [16, 32, 40]
    told = {row["answer"] for row in pq.read_table(made.path("answers.parquet")).to_pylist()}
    assert {answer for some in first for answer in some if answer is not None} <= told
    return made


def test_every_prompt_is_answered_once_whatever_is_killed(made):
    rows = pq.read_table(made.path("answers.parquet")).to_pylist()
    asked = Counter(row["prompt"][-1]["content"] for row in rows)
    assert set(asked) == set(PROMPTS) and max(asked.values()) <= SAMPLES
    counts = made.manifest.counts
    assert counts["answers"]["prompts"] == len(PROMPTS) and counts["answers"]["different"] == len(rows)
    assert counts["answers"]["worst"] < counts["answers"]["mean"] < counts["answers"]["best"]


def test_what_is_left_out_is_counted(made):
    skipped = made.manifest.counts["skipped"]
    assert {reason: number for reason, number in skipped.items() if reason != "answer_is_not_plain_text"} == {
        "not_json": 1, "both_answers_are_alike": 1, "no_prompt": 2, "too_long": 1, "prompt_too_long": 1,
        "prompt_asked_before": 1,
    }  # fmt: skip


def test_it_learned_what_is_chosen_and_tells_how_well(run, made):
    counts = made.manifest.counts
    pairs = pq.read_table(made.path("pairs.parquet")).to_pylist()
    assert len(pairs) == counts["held_out_pairs"] == counts["calibration"]["accuracy"]["of"]
    assert {row["source"] for row in pairs} == {"pairs", "judged"} == set(counts["accuracy_by_source"])
    assert all("red" in row["chosen"] for row in pairs if row["source"] == "judged")
    right = sum(row["chosen_score"] > row["rejected_score"] for row in pairs)
    assert right == counts["calibration"]["accuracy"]["right"] > 0.7 * len(pairs)
    scores = [row[name] for row in pairs for name in ("chosen_score", "rejected_score")]
    assert counts["scores"] == pytest.approx({"mean": fmean(scores), "std": pstdev(scores)})
    directory = made.path("model")
    model = RewardModel.load(directory, Tokenizer.load(directory))
    assert (model.mean, model.std) == (counts["scores"]["mean"], counts["scores"]["std"])
    again = model.scores(Tokenizer.load(directory), [(row["prompt"], row["chosen"]) for row in pairs])
    assert again == pytest.approx([row["chosen_score"] for row in pairs], abs=1e-5)


def test_it_is_reused_and_told(run, made):
    screen = io.StringIO()
    assert reward(Run(run.recipe, Screen(screen))).manifest == made.manifest
    assert screen.getvalue().startswith("reward: reused (")
    assert "held-out accuracy" in made.manifest.gain
    assert "held-out accuracy" in run.screen.stream.getvalue() and "different answers" in run.screen.stream.getvalue()
    client = run.tracking.client()
    metrics = client.get_run(made.manifest.mlflow_run_id).data.metrics
    assert {"accuracy", "ece", "brier", "answers/best", "validation_margin", "loss"} <= set(metrics)
    logged = {each.path for each in client.list_artifacts(made.manifest.mlflow_run_id)}
    assert {"pairs.json", "manifest.json"} <= logged
    assert {"model/config.json", "model/scores.json", "metrics.jsonl"} <= set(made.manifest.files)


def test_a_file_of_answers_is_scored(run, made, tmp_path):
    good = [
        {"prompt": "What colour does Ada like?", "answer": "Ada likes red.", "id": 7},
        {"messages": [{"role": "user", "content": "Hi."}, {"role": "assistant", "content": "A coat."}]},
    ]
    bad = [{"prompt": "?"}, {"answer": "a"}, {"prompt": "Ada " * 300, "answer": "a"}]
    path = tmp_path / "some.jsonl"
    path.write_text("\n".join([json.dumps(good[0]), "not json", *map(json.dumps, bad), json.dumps(good[1])]))
    assert score(run, str(path), None) == str(tmp_path / "some.scored.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "some.scored.jsonl").read_text().splitlines()]
    model, tokenizer = RewardModel.load(made.path("model")), Tokenizer.load(made.path("model"))
    asked = [{"role": "user", "content": good[0]["prompt"]}]
    scores = model.scores(tokenizer, [(asked, "Ada likes red."), (good[1]["messages"][:1], "A coat.")])
    assert [row.pop("score") for row in rows] == pytest.approx(scores, abs=1e-5)
    assert rows == good
    shown = run.screen.stream.getvalue()
    for line in ("2 answers scored", "left out 1 rows: no answer", "left out 1 rows: no prompt", "1 rows: too long"):
        assert line in shown
    assert score(run, str(path), str(tmp_path / "out.jsonl")) == str(tmp_path / "out.jsonl")
    for name, said in (("*.jsonl", "say with --out"), ("none.jsonl", "no file matches")):
        with pytest.raises(UserError, match=said):
            score(run, str(tmp_path / name), None)


def test_what_was_judged_is_learned_from_directly(run, made, tmp_path):
    """The dpo stage on the same answers, and on a file's."""
    data = [PairSource(path="reward"), PairSource(path=str(tmp_path / "votes.jsonl"))]
    (tmp_path / "votes.jsonl").write_text("\n".join(map(json.dumps, [*GIVEN, *BAD])))
    section = DPO(data=data, lr=1e-3, epochs=3, batch_tokens=1024, sequence_length=128, validation_percent=25)
    learning = Run(run.recipe.model_copy(update={"dpo": section}), Screen(io.StringIO()))
    learned = dpo(learning)
    counts = learned.manifest.counts
    pairs = made.manifest.counts["pairs"] + made.manifest.counts["held_out_pairs"]
    assert counts["pairs"] + counts["held_out_pairs"] == pairs
    assert counts["skipped"] == {"both_answers_are_alike": 1, "no_prompt": 1, "too_long": 1}
    assert counts["validation_margin"] > 1 and counts["validation_accuracy"] > 0.6
    assert counts["validation_loss"] < 0.69 and "held-out margin 0.00 →" in learned.manifest.gain
    load(learned.path("model"))
    assert dpo(learning).manifest == learned.manifest and "dpo: reused (" in learning.screen.stream.getvalue()
    for changes, said in (
        ({"dpo": None}, "no section dpo"),
        ({"reward": None}, "no reward.answers that were judged"),
        ({"dpo": section.model_copy(update={"sequence_length": 600})}, "2 times the model's positions"),
        ({"dpo": section.model_copy(update={"data": data[1:], "validation_percent": 100})}, "no pair to train on"),
    ):
        other = learning.recipe.model_copy(update=changes)
        shutil.rmtree(f"{run.directory}/dpo", ignore_errors=True)
        with pytest.raises(UserError, match=said):
            dpo(Run(other, Screen(io.StringIO())))


def test_what_cannot_be_done_is_one_line(run, tmp_path):
    def of(**changes):
        section = None if changes.get("none") else run.recipe.reward.model_copy(update=changes)
        other = run.recipe.model_copy(update={"reward": section, "name": "other"})
        shutil.copytree(f"{run.directory}/sft", f"{run.recipe.workspace}/other/sft", dirs_exist_ok=True)
        shutil.rmtree(f"{run.recipe.workspace}/other/reward", ignore_errors=True)
        return Run(other, Screen(io.StringIO()))

    with pytest.raises(UserError, match="no section reward"):
        reward(of(none=True))
    with pytest.raises(UserError, match=r"run jobs/reward\.py first"):
        score(of(), "x.jsonl", None)
    with pytest.raises(UserError, match=r"\(600\) is more than 2 times the model's positions \(512\)"):
        reward(of(sequence_length=600))
    nothing = tmp_path / "nothing.jsonl"
    nothing.write_text(json.dumps(BAD[0]))
    data = [recipes.DataSource(path=str(nothing))]
    with pytest.raises(UserError, match="no pair to train on"):
        reward(of(data=data, answers=None))
    with pytest.raises(UserError, match="give no prompt"):
        reward(of(answers=run.recipe.reward.answers.model_copy(update={"prompts": data[:0]})))
