"""Storage: a file is there whole or not at all, on disk and on S3."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from webtochat import storage
from webtochat.errors import MachineError, UserError

ROOT = Path(__file__).resolve().parents[2]


def names(directory: str) -> list[str]:
    return [entry.path[len(directory) + 1 :] for entry in storage.files_below(directory)]


def test_what_is_written_is_read_and_listed(anywhere: str) -> None:
    assert storage.files_below(anywhere) == [] and not storage.exists(anywhere + "/a/b")
    storage.write_bytes(anywhere + "/a/b", b"hello")
    storage.write_bytes(anywhere + "/a/c d", b"")
    storage.write_bytes(anywhere + "/a/b", b"again")
    assert storage.read_bytes(anywhere + "/a/b") == b"again"
    assert names(anywhere) == ["a/b", "a/c d"]
    assert [entry.size for entry in storage.files_below(anywhere)] == [5, 0]
    assert storage.sha256(anywhere + "/a/c d") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    storage.delete(anywhere + "/a")
    storage.delete(anywhere + "/a")
    assert names(anywhere) == []


def test_an_exception_publishes_nothing_and_keeps_what_was_there(anywhere: str) -> None:
    path = anywhere + "/file"
    storage.write_bytes(path, b"old")
    with pytest.raises(KeyError), storage.writing(path) as local:
        Path(local).write_bytes(b"half of the new")
        raise KeyError
    assert storage.read_bytes(path) == b"old"
    with pytest.raises(KeyError), storage.writing(anywhere + "/other") as local:
        Path(local).write_bytes(b"half")
        raise KeyError
    assert names(anywhere) == ["file"]


def test_while_it_is_written_nobody_sees_it(anywhere: str) -> None:
    with storage.writing(anywhere + "/deep/file") as local:
        Path(local).write_bytes(b"x" * 100)
        assert names(anywhere) == [] and not storage.exists(anywhere + "/deep/file")
        assert storage.glob(anywhere + "/*/*") == []
    assert names(anywhere) == ["deep/file"]


def test_a_killed_writer_leaves_nothing_that_counts_and_its_rest_can_be_removed(tmp_path: Path) -> None:
    code = (
        "import os, sys\nfrom webtochat import storage\n"
        f"with storage.writing({str(tmp_path / 'file')!r}) as local:\n"
        "    open(local, 'wb').write(b'half')\n    os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT / "platform")})
    assert killed.returncode == -9
    assert len(os.listdir(tmp_path)) == 1 and names(str(tmp_path)) == []
    (tmp_path / f"{storage.PARTIAL}folder").mkdir()
    (tmp_path / f"{storage.PARTIAL}folder" / "file").write_bytes(b"of a directory that was being deleted")
    assert names(str(tmp_path)) == []
    storage.delete_partial(str(tmp_path))
    assert os.listdir(tmp_path) == []


def test_two_writers_of_one_file_do_not_mix(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    with storage.writing(path) as first, storage.writing(path) as second:
        assert first != second
        Path(first).write_bytes(b"first")
        Path(second).write_bytes(b"second")
    assert storage.read_bytes(path) == b"first" and names(str(tmp_path)) == ["file"]


def test_glob_matches_part_by_part(anywhere: str) -> None:
    for name in ["a/1.gz", "a/2.gz", "b/1.gz", "b/deep/3.gz", "a/1.txt"]:
        storage.write_bytes(f"{anywhere}/{name}", b"x")

    def found(pattern: str) -> list[str]:
        return [entry.path[len(anywhere) + 1 :] for entry in storage.glob(f"{anywhere}/{pattern}")]

    assert found("a/*.gz") == ["a/1.gz", "a/2.gz"]
    assert found("*/[12].gz") == ["a/1.gz", "a/2.gz", "b/1.gz"]
    assert found("*/deep/?.gz") == ["b/deep/3.gz"]
    assert found("a/1.txt") == ["a/1.txt"]
    assert found("a") == ["a/1.gz", "a/1.txt", "a/2.gz"]
    assert found("none/*.gz") == [] and found("a/none") == [] and found("a/*.zip") == []


def test_relative_globs_keep_their_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    storage.write_bytes("data/x.gz", b"1")
    assert [entry.path for entry in storage.glob("data/*.gz")] == ["data/x.gz"]
    assert [entry.path for entry in storage.glob("*/x.gz")] == ["data/x.gz"]


def test_an_etag_changes_with_the_content(tmp_path: Path) -> None:
    path = str(tmp_path / "file")
    storage.write_bytes(path, b"one")
    before = storage.glob(path)[0].etag
    time.sleep(0.02)
    storage.write_bytes(path, b"two")
    assert storage.glob(path)[0].etag != before


def test_a_directory_goes_up_whole_and_comes_down_once(tmp_path: Path, bucket: str) -> None:
    (tmp_path / "model" / "deep").mkdir(parents=True)
    (tmp_path / "model" / "deep" / "weights").write_bytes(os.urandom(6 << 20))
    (tmp_path / "model" / "config").write_bytes(b"{}")
    storage.upload_directory(str(tmp_path / "model"), bucket + "/model")
    key = f"test-{tmp_path.parent.name}-{tmp_path.name}"
    here = storage.local_copy(bucket + "/model", key)
    assert Path(here, "deep/weights").read_bytes() == (tmp_path / "model/deep/weights").read_bytes()
    storage.delete(bucket + "/model")
    assert storage.local_copy(bucket + "/model", key) == here
    storage.delete(here)
    assert storage.local_copy(str(tmp_path / "model"), "any") == str(tmp_path / "model")


def test_an_upload_that_breaks_off_publishes_nothing(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def breaks(source: object, sink: object, size: int) -> None:
        sink.write(b"half of it")  # type: ignore[attr-defined]
        raise ConnectionResetError("the network went away")

    monkeypatch.setattr(storage.shutil, "copyfileobj", breaks)
    with pytest.raises(ConnectionResetError):
        storage.write_bytes(bucket + "/file", b"all of it")
    assert storage.files_below(bucket) == []


def test_an_unknown_scheme_is_the_users_mistake() -> None:
    with pytest.raises(UserError, match="cannot open ftp://host"):
        storage.exists("ftp://host/file")


def test_a_full_disk_is_one_line_and_publishes_nothing(tiny_disk: Path) -> None:
    path = str(tiny_disk / "data" / "file")
    storage.write_bytes(path, b"old")
    with pytest.raises(MachineError, match=r"no space left for .*: free some and run the same command again"):
        storage.write_bytes(path, os.urandom(2 << 20))
    assert storage.read_bytes(path) == b"old" and os.listdir(tiny_disk / "data") == ["file"]
    storage.write_bytes(path, os.urandom(100 << 10))


def test_a_file_that_may_not_grow_is_one_line_and_publishes_nothing(tmp_path: Path) -> None:
    """RLIMIT_FSIZE: the same path through the code as a full disk, where nothing can be mounted."""
    code = (
        "import resource, signal\nfrom webtochat import storage\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))\n"
        f"storage.write_bytes({str(tmp_path / 'file')!r}, bytes(1 << 20))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(ROOT / "platform")},
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr.splitlines()[-1].startswith("webtochat.errors.MachineError: no space left for"), done.stderr
    assert os.listdir(tmp_path) == []
