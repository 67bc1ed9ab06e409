"""Artifacts: what counts, what is refused, what the content hash covers."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from webtochat import artifact, storage
from webtochat.artifact import Artifact, Draft
from webtochat.errors import UserError


def begun(directory: str, identity: dict[str, object] | None = None, inputs: list[Artifact] | None = None) -> Draft:
    draft = artifact.begin(directory, "curate", identity or {"curate": {"min": 3}}, inputs or [])
    assert isinstance(draft, Draft)
    return draft


def made(directory: str, content: bytes = b"rows", identity: dict[str, object] | None = None) -> Artifact:
    draft = begun(directory, identity)
    storage.write_bytes(draft.path("kept/part-0"), content)
    return draft.commit(counts={"kept": 1}, summary="1 document")


def test_a_committed_artifact_is_found_with_all_that_it_says(anywhere: str) -> None:
    made(anywhere)
    found = artifact.open_artifact(anywhere, "curate")
    assert found.files("kept/") == [anywhere + "/kept/part-0"] and found.files("removed/") == []
    assert found.manifest.counts == {"kept": 1} and found.manifest.files["kept/part-0"].size == 4
    assert found.verify() == []


def test_without_a_manifest_nothing_counts_whatever_lies_around(anywhere: str) -> None:
    storage.write_bytes(anywhere + "/kept/part-0", b"rows")
    with pytest.raises(UserError, match=r"holds no committed curate: run jobs/curate\.py first"):
        artifact.open_artifact(anywhere, "curate")
    with pytest.raises(UserError, match="holds files that no stage of webtochat wrote"):
        artifact.begin(anywhere, "curate", {}, [])


def test_the_same_identity_is_reused_in_under_a_second(anywhere: str) -> None:
    first = made(anywhere)
    began = time.monotonic()
    again = artifact.begin(anywhere, "curate", {"curate": {"min": 3}}, [])
    assert time.monotonic() - began < 1
    assert isinstance(again, Artifact) and again.manifest == first.manifest


def test_another_identity_is_refused_and_names_what_changed(anywhere: str) -> None:
    before = made(anywhere).manifest
    with pytest.raises(UserError) as caught:
        artifact.begin(anywhere, "curate", {"curate": {"min": 4}, "seed": 1}, [])
    message = str(caught.value)
    assert "curate.min: 3 → 4" in message and "seed: null → 1" in message
    assert "--rebuild curate" in message and "workspace=" in message and "\n" not in message
    assert artifact.open_artifact(anywhere, "curate").manifest == before


def test_half_made_with_another_identity_is_refused_too(anywhere: str) -> None:
    storage.write_bytes(begun(anywhere).path("kept/part-0"), b"rows")
    with pytest.raises(UserError, match="was half-made with other settings"):
        artifact.begin(anywhere, "curate", {"curate": {"min": 4}}, [])


def test_half_made_is_not_there_but_goes_on_from_what_is_whole(anywhere: str) -> None:
    first = begun(anywhere)
    storage.write_bytes(first.path("kept/part-0"), b"rows")
    storage.write_bytes(first.scratch("checkpoints/7"), b"state")
    with pytest.raises(RuntimeError), storage.writing(first.path("kept/part-1")):
        raise RuntimeError("killed")
    first.started -= 100  # it had worked for this long
    first.interrupted()
    assert artifact.find(anywhere) is None

    second = begun(anywhere)
    assert [entry.path for entry in second.files("kept/")] == [anywhere + "/kept/part-0"]
    assert storage.read_bytes(second.scratch("checkpoints/7")) == b"state"
    storage.write_bytes(second.path("kept/part-1"), b"more")
    resumed = second.commit(counts={}, summary="")
    assert list(resumed.manifest.files) == ["kept/part-0", "kept/part-1"]
    assert resumed.manifest.wall_seconds > 100
    assert storage.files_below(anywhere + "/" + artifact.SCRATCH) == []
    assert not storage.exists(anywhere + "/" + artifact.DRAFT)


def test_the_content_hash_knows_no_time_place_or_run(tmp_path: Path, bucket: str) -> None:
    first = made(str(tmp_path / "a"))
    time.sleep(1.1)
    draft = begun(bucket + "/elsewhere/b")
    draft.mlflow_run_id = "some run"
    storage.write_bytes(draft.path("kept/part-0"), b"rows")
    second = draft.commit(counts={"kept": 1}, summary="told otherwise", gain="told")
    assert first.manifest.created != second.manifest.created
    assert first.content_hash == second.content_hash


def test_the_content_hash_knows_bytes_names_settings_and_inputs(tmp_path: Path) -> None:
    plain = made(str(tmp_path / "plain"))
    hashes = {plain.content_hash, made(str(tmp_path / "bytes"), b"rowz").content_hash}
    hashes.add(made(str(tmp_path / "settings"), identity={"curate": {"min": 4}}).content_hash)
    renamed = begun(str(tmp_path / "renamed"))
    storage.write_bytes(renamed.path("kept/part-1"), b"rows")
    hashes.add(renamed.commit(counts={}, summary="").content_hash)
    fed = begun(str(tmp_path / "fed"), inputs=[plain])
    storage.write_bytes(fed.path("kept/part-0"), b"rows")
    hashes.add(fed.commit(counts={}, summary="").content_hash)
    assert len(hashes) == 5


def test_a_rebuilt_input_makes_what_follows_due_again(tmp_path: Path) -> None:
    directory = str(tmp_path / "out")
    begun(directory, inputs=[made(str(tmp_path / "first"))]).commit(counts={}, summary="")
    with pytest.raises(UserError, match=r"inputs\.curate"):
        artifact.begin(directory, "curate", {"curate": {"min": 3}}, [made(str(tmp_path / "second"), b"other rows")])


def test_verify_names_a_flipped_bit_and_a_lost_file(tmp_path: Path) -> None:
    draft = begun(str(tmp_path / "out"))
    for name in ("a", "b", "c"):
        storage.write_bytes(draft.path(name), bytes(range(200)))
    committed = draft.commit(counts={}, summary="")
    path = tmp_path / "out" / "b"
    flipped = bytearray(path.read_bytes())
    flipped[100] ^= 1
    path.write_bytes(flipped)
    (tmp_path / "out" / "c").unlink()
    assert committed.verify() == ["b", "c"]


def test_only_what_has_another_identity_is_discarded(anywhere: str) -> None:
    made(anywhere)
    artifact.discard_other(anywhere, "curate", {"curate": {"min": 3}}, [])
    assert artifact.find(anywhere) is not None
    artifact.discard_other(anywhere, "curate", {"curate": {"min": 4}}, [])
    assert storage.files_below(anywhere) == []
    artifact.discard_other(anywhere, "curate", {"curate": {"min": 4}}, [])


def test_a_manifest_that_is_no_manifest_is_the_users_to_mend(tmp_path: Path) -> None:
    storage.write_bytes(str(tmp_path / "out" / "manifest.json"), json.dumps({"stage": "curate"}).encode())
    with pytest.raises(UserError, match="--rebuild"):
        artifact.find(str(tmp_path / "out"))


def test_what_killed_writers_left_goes_with_the_commit(tmp_path: Path) -> None:
    draft = begun(str(tmp_path / "out"))
    storage.write_bytes(draft.path("kept/part-0"), b"rows")
    (tmp_path / "out" / "kept" / f"{storage.PARTIAL}abc-part-1").write_bytes(b"half")
    draft.commit(counts={}, summary="")
    assert sorted(path.name for path in (tmp_path / "out").rglob("*")) == ["kept", "manifest.json", "part-0"]
