"""From a model that is there already, on a real, small Ray: imported, gone on with, fine-tuned."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from small_training import ROOT, job_of, quiet
from tests.model import qwen

from webtochat import artifact
from webtochat.artifact import Artifact, Draft
from webtochat.errors import UserError
from webtochat.model.export import load
from webtochat.model.generate import generate
from webtochat.model.imported import Given
from webtochat.recipe import Recipe
from webtochat.run import Run, Screen
from webtochat.tokens.chat import parse, render
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.train.rank import pretrain_rank


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    os.environ.update(RAY_TRAIN_V2_ENABLED="1", RAY_USAGE_STATS_ENABLED="0", MLFLOW_DISABLE_TELEMETRY="true")
    import ray

    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
        _temp_dir=str(tmp_path_factory.mktemp("ray", numbered=True))[:60],
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT / "platform"), "RAY_TRAIN_V2_ENABLED": "1"}},
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("given")
    qwen.save_model(directory / "qwen")
    return directory


def run_of(home: Path, name: str, tokens: int = 0, **changes: object) -> tuple[Run, io.StringIO]:
    sections: dict[str, object] = {
        "tokens": {"sequence_length": 32, "validation_percent": 10},
        "pretrain": {
            "start": str(home / "qwen"), "tokens": tokens, "batch_tokens": 256, "lr": 3e-3, "checkpoint_every": 10,
        },
        "cluster": {"train_cpus": 1, "train_retries": 1},
    }  # fmt: skip
    for section, values in changes.items():
        sections[section] = sections.get(section, {}) | values  # type: ignore[operator]
    shown = io.StringIO()
    return Run(Recipe.model_validate({"name": name, "workspace": str(home), **sections}), Screen(shown)), shown


def curated(run: Run) -> None:
    draft = artifact.begin(os.path.join(run.directory, "curate"), "curate", {}, [])
    assert isinstance(draft, Draft)
    os.mkdir(draft.path("kept"))
    rows = [
        {"id": f"{name}-{number}", "url": "http://a.example/", "text": f"{name} lives in {place}. <|im_end|> " * 4}
        for number in range(30) for name, place in qwen.PLACES.items()
    ]  # fmt: skip
    pq.write_table(pa.Table.from_pylist(rows), draft.path("kept", "part-00000.parquet"))
    draft.commit(counts={}, summary="")


@pytest.fixture(scope="module")
def imported(home: Path) -> Artifact:
    from webtochat.train.stage import pretrain

    run, shown = run_of(home, "imported")
    made = pretrain(run)
    assert "imported" in made.manifest.summary and shown.getvalue() == "pretrain …\n"
    return made


def test_nothing_is_trained_where_no_tokens_are_asked_for(home: Path, imported: Artifact) -> None:
    from webtochat.train.stage import pretrain

    assert imported.manifest.inputs == {} and imported.manifest.counts["tokens"] == 0
    assert imported.manifest.counts["config"]["vocabulary"] == 512
    assert {"model/model.safetensors", "model/markers.json", "model/tokenizer.json"} <= set(imported.manifest.files)
    again, shown = run_of(home, "imported", pretrain={"lr": 3.0})
    assert pretrain(again).content_hash == imported.content_hash and "reused" in shown.getvalue()
    with pytest.raises(UserError, match="made with other settings"):
        pretrain(run_of(home, "imported", pretrain={"add_markers": True})[0])
    with pytest.raises(UserError, match=r"model\.width=32, but the model of pretrain\.start has 64"):
        pretrain(run_of(home, "otherwise", model={"width": 32})[0])


def test_it_goes_on_from_its_weights_with_its_own_tokenizer(home: Path, tmp_path: Path) -> None:
    from webtochat.tokens.stage import tokenizer, tokens
    from webtochat.train.stage import pretrain

    run, shown = run_of(home, "continued", 30 * 256)
    curated(run)
    learned = tokenizer(run)
    assert learned.manifest.inputs == {} and "imported" in learned.manifest.summary
    assert Path(learned.path("tokenizer.json")).read_bytes() == (home / "qwen" / "tokenizer.json").read_bytes()
    tokens(run)
    made = pretrain(run)
    assert "30 steps" in shown.getvalue() and set(made.manifest.inputs) == {"tokenizer", "tokens"}
    curve = [json.loads(line) for line in Path(made.path("metrics.jsonl")).read_text().splitlines()]
    assert curve[-1]["validation_bpb"] < 0.5 * curve[0]["validation_bpb"]
    # It begins as the given model: a rate of nothing leaves that.
    still, _ = run_of(home, "continued", 256, pretrain={"lr": 0.0})
    pretrain_rank(job_of(still.recipe, tmp_path, given=Given.of(still.recipe)), quiet, 1)
    same, given = load(str(tmp_path / "model")), load(str(home / "qwen"))
    assert all(torch.equal(new, old) for new, old in zip(same.parameters(), given.parameters(), strict=True))
    assert Tokenizer.load(made.path("model")).markers == Tokenizer.load(learned.directory).markers


def test_of_another_tokenizer_s_tokens_it_does_not_go_on(home: Path) -> None:
    from webtochat.tokens.stage import tokenizer, tokens
    from webtochat.train.stage import pretrain

    qwen.save_tokenizer(home / "other", special=[*qwen.SPECIAL[1:], qwen.SPECIAL[0]])
    run, _ = run_of(home, "mixed", 256, tokenizer={"start": str(home / "other")})
    curated(run)
    tokenizer(run), tokens(run)
    with pytest.raises(UserError, match=r"the tokens are not of the tokenizer of .*qwen, which the model keeps"):
        pretrain(run)


def test_it_is_fine_tuned_in_its_own_form(home: Path, imported: Artifact, tmp_path: Path) -> None:
    """One epoch by LoRA. What a user types of its markers stays text."""
    from webtochat.train.stage import sft

    rows = [
        {"messages": [{"role": "system", "content": f"Be {number}."}, *row["messages"]]}  # type: ignore[misc]
        for number in range(25) for row in qwen.exchanges()
    ]  # fmt: skip
    (tmp_path / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    run, shown = run_of(home, "imported", sft={
        "data": [{"path": str(tmp_path / "chats.jsonl"), "weight": 8}], "epochs": 1, "lora": {"rank": 16}, "lr": 1e-2,
        "sequence_length": 64, "batch_tokens": 128, "validation_percent": 10,
    })  # fmt: skip
    made = sft(run)
    tokenizer, model = Tokenizer.load(made.path("model")), load(made.path("model")).eval()
    for row in rows[:4]:
        *question, answer = row["messages"]
        prompt = render(tokenizer, question, add_generation_prompt=True).ids
        reply = parse(tokenizer, generate(model, prompt, 24, frozenset(tokenizer.stops)))
        assert (reply.content, reply.ended, reply.stray) == (answer["content"], True, False)
    assert "<|im_start|>assistant" in shown.getvalue() and made.manifest.counts["validation_accuracy"] > 0.95
    assert Path(made.path("model", "tokenizer_config.json")).read_text() == (
        (home / "qwen" / "tokenizer_config.json").read_text()
    )


def test_a_base_model_without_markers_is_not_fine_tuned(home: Path) -> None:
    from webtochat.train.stage import pretrain, sft

    qwen.save_model(home / "base", special=["<|endoftext|>"], plain=[], chat_template=None)
    run, shown = run_of(home, "base", pretrain={"start": str(home / "base")})
    pretrain(run)
    assert "no markers of messages: it cannot be fine-tuned or chat" in shown.getvalue()
    with pytest.raises(UserError, match=r"import it again with pretrain\.add_markers=true"):
        sft(run)
    run, shown = run_of(home, "grown", pretrain={"start": str(home / "base"), "add_markers": True})
    assert Tokenizer.load(pretrain(run).path("model")).markers.calls and "added to the tokenizer" in shown.getvalue()
