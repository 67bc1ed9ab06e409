"""What a recipe starts from is found, and known by what is in it, not by where it is."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path

import huggingface_hub
import pytest

from webtochat import artifact, start, storage
from webtochat.artifact import Draft
from webtochat.errors import UserError
from webtochat.start import MODEL_FILES, TOKENIZER_FILES

NAMES = ["config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "tokenizer.json"]


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    made = tmp_path / "given"
    (made / "original").mkdir(parents=True)
    for name in [*NAMES, "README.md", "pytorch_model.bin", "original/consolidated.safetensors"]:
        (made / name).write_text(name)
    return made


def test_a_directory_is_known_by_the_files_that_are_read(directory: Path, tmp_path: Path) -> None:
    found = start.find(str(directory), MODEL_FILES)
    assert sorted(found.identity["files"]) == NAMES and found.local() == str(directory)
    shutil.move(directory, tmp_path / "moved")
    (tmp_path / "moved" / "README.md").write_text("other")
    os.utime(tmp_path / "moved" / "config.json", (1, 1))
    assert start.find(str(tmp_path / "moved") + "/", MODEL_FILES).identity == found.identity
    assert list(start.find(str(tmp_path / "moved"), TOKENIZER_FILES).identity["files"]) == ["tokenizer.json"]
    (tmp_path / "moved" / "config.json").write_text("config.jsoN")
    assert start.find(str(tmp_path / "moved"), MODEL_FILES).identity != found.identity


def test_an_artifact_is_known_by_its_content_hash(directory: Path, tmp_path: Path) -> None:
    for stage, inside in [("sft", "model"), ("tokenizer", "")]:
        draft = artifact.begin(str(tmp_path / stage), stage, {}, [])
        assert isinstance(draft, Draft)
        storage.upload_directory(str(directory), draft.path(inside) if inside else draft.path())
        made = draft.commit(counts={}, summary="")
        found = start.find(str(tmp_path / stage), MODEL_FILES)
        assert found.identity == {"artifact": made.content_hash}
        assert os.path.isfile(os.path.join(found.local(), "config.json"))
        assert pickle.loads(pickle.dumps(found)) == found  # to the workers


def test_a_remote_directory_comes_to_each_node(directory: Path, bucket: str) -> None:
    storage.upload_directory(str(directory), f"{bucket}/given")
    found = start.find(f"{bucket}/given/", MODEL_FILES)
    assert found.identity == start.find(str(directory), MODEL_FILES).identity
    assert Path(found.local(), "tokenizer.json").read_text() == "tokenizer.json"


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing to start from in .*nowhere: it has no config\.json"):
        start.find(str(tmp_path / "nowhere"), MODEL_FILES)
    with pytest.raises(UserError, match="cannot read hf://a/b/c"):
        start.find("hf://a/b/c", MODEL_FILES)


def test_the_hub_s_snapshot_is_that_of_a_commit(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub itself cannot be reached from a test: this stands for `snapshot_download`, with its links to blobs."""
    asked = []

    def snapshot(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision))
        assert "*.safetensors" in allow_patterns
        made = tmp_path / "snapshots" / "c0ffee"
        made.mkdir(parents=True, exist_ok=True)
        for name in NAMES:
            (made / name).unlink(missing_ok=True)
            (made / name).symlink_to(directory / name)
        return str(made)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot)
    found = start.find("hf://owner/name", MODEL_FILES)
    assert found.path == "hf://owner/name@c0ffee" and found.identity == start.find(str(directory), MODEL_FILES).identity
    assert os.path.isfile(os.path.join(found.local(), "config.json"))
    start.find("hf://owner/name@v1", MODEL_FILES)
    assert asked == [("owner/name", None), ("owner/name", "c0ffee"), ("owner/name", "v1")]
