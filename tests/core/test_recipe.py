"""Recipes: what is refused, and in which words; what a stage's identity holds."""

from __future__ import annotations

from pathlib import Path

import pytest

from webtochat import recipe
from webtochat.errors import UserError

ROOT = Path(__file__).resolve().parents[2]


def written(folder: Path, text: str) -> str:
    path = folder / "small.yaml"
    path.write_text(text)
    return str(path)


def refusal(path: str, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        recipe.load(path, list(overrides))
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_recipe_takes_its_name_from_its_file_and_the_rest_from_the_defaults(tmp_path: Path) -> None:
    loaded = recipe.load(written(tmp_path, "crawl: {paths: a.warc.gz}"))
    assert loaded.name == "small" and loaded.workspace == "runs"
    assert loaded.crawl.paths == ["a.warc.gz"]
    assert loaded.curate.gopher.min_words == 50


@pytest.mark.parametrize(
    ("override", "near"),
    [
        ("curate.gopher.min_word=3", "curate.gopher.min_words"),
        ("pretrian.lr=1e-3", "pretrain"),
        ("crawl.site.miniweb.sede=3", "seed"),
        ("sft.learning_rate_of_mine=1", None),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest_name(tmp_path: Path, override: str, near: str | None) -> None:
    message = refusal(written(tmp_path, "name: x"), override)
    assert f"unknown key {override.split('=')[0]}"[:20] in message
    if near:
        assert message.endswith(f"did you mean {near.split('.')[-1]}?")
    else:
        assert "did you mean" not in message


def test_an_unknown_key_in_a_list_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    assert "did you mean weight?" in refusal(written(tmp_path, "sft: {data: [{path: a.jsonl, wieght: 2}]}"))


def test_overrides_are_yaml_values_of_the_right_type(tmp_path: Path) -> None:
    loaded = recipe.load(
        written(tmp_path, "pretrain: {lr: 1e-3, tokens: 5}"),
        ["pretrain.lr=3e-4", "pretrain.mask_documents=false", "crawl.paths=[a, b]", "workspace=/x", "model.width=null"],
    )
    assert (loaded.pretrain.lr, loaded.pretrain.tokens, loaded.pretrain.mask_documents) == (3e-4, 5, False)
    assert loaded.crawl.paths == ["a", "b"] and loaded.workspace == "/x" and loaded.model.width is None


@pytest.mark.parametrize(
    ("text", "overrides", "said"),
    [
        ("a: [1", [], "is not YAML"),
        ("- 1\n- 2", [], "must be a mapping"),
        ("", [], "must be a mapping"),
        ("name: x", ["pretrain.lr"], "write section.key=value"),
        ("name: x", ["pretrain.lr=abc"], "pretrain.lr: "),
        ("name: x", ["name.of.it=3"], "name is a value, not a section"),
        ("name: x", ["pretrain.lr=[1"], "the value is not YAML"),
        ("name: ../x", [], "must be a plain folder name"),
        ("crawl: {source: ftp}", [], "crawl.source: input should be 'warc'"),
        ("model: {depth: 0}", [], "model.depth: "),
    ],
)
def test_mistakes_are_one_line(tmp_path: Path, text: str, overrides: list[str], said: str) -> None:
    assert said in refusal(written(tmp_path, text), *overrides)


def test_a_missing_file_and_a_binary_one_are_one_line(tmp_path: Path) -> None:
    assert "no recipe at" in refusal(str(tmp_path / "none.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    assert "is not YAML" in refusal(str(tmp_path / "binary.yaml"))


def test_identity_holds_what_changes_the_result_and_nothing_of_where_it_runs(tmp_path: Path) -> None:
    path = written(tmp_path, "name: x")
    plain = recipe.load(path)
    moved = recipe.load(path, ["workspace=s3://b/runs", "cluster.train_workers=8", "cluster.engines=4", "name=y"])
    sections = set(recipe.Recipe.model_fields) - {"name", "workspace", "cluster"}
    assert moved.identity(*sections) == plain.identity(*sections)
    other = recipe.load(path, ["curate.gopher.min_words=60"])
    assert other.identity("curate") != plain.identity("curate")
    assert other.identity("measure", "tokens") == plain.identity("measure", "tokens")


@pytest.mark.parametrize("path", sorted(ROOT.glob("recipes/*.yaml")), ids=lambda path: path.name)
def test_every_recipe_that_we_ship_loads(path: Path) -> None:
    recipe.load(str(path))


def test_a_task_is_called_what_its_source_is(tmp_path: Path) -> None:
    sources = ["path: /x/copa.jsonl.gz", "path: python:own.tasks:sums", "path: hf://x/piqa", "{path: /y/*, name: z}"]
    loaded = recipe.load(written(tmp_path, "evaluate: {tasks: [" + ", ".join(sources) + "]}"))
    assert [task.name for task in loaded.evaluate.tasks] == ["copa", "sums", "piqa", "z"]
    assert "/y/*.jsonl gives no plain name: set name=" in refusal(
        written(tmp_path, "evaluate: {tasks: [{path: /y/*.jsonl}]}")
    )
    assert "did you mean few_shot?" in refusal(written(tmp_path, "evaluate: {tasks: [{path: a.jsonl, fewshot: 2}]}"))
