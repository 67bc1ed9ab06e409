"""Duplicates over the cluster: in one task or by shuffles, whatever the split, and against earlier runs."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray

from webtochat.duplicates import signatures, stage

ROOT = Path(__file__).resolve().parents[2]
Documents = list[list[tuple[str, list[int]]]]
"""By part: (text, buckets)."""


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory):
    ray.init(
        address="local", num_cpus=3, include_dashboard=False, log_to_driver=False, logging_level="error",
        _temp_dir=str(tmp_path_factory.mktemp("find", numbered=False))[:60],
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT / "platform")}},
    )  # fmt: skip
    yield
    ray.shutdown()


def signed(folder: Path, documents: Documents) -> list[tuple[str, int]]:
    files = []
    for part, texts in enumerate(documents):
        path = str(folder / f"{part}.parquet")
        signatures.write(path, [
            {"row": 2 * row, "text_hash": hashlib.sha256(text.encode()).digest()[:16], "bytes": 1, "buckets": met}
            for row, (text, met) in enumerate(texts)
        ])  # fmt: skip
        files.append((path, part))
    return files


def found(directory: Path) -> list[tuple[int, int, tuple[int, int], bool]]:
    """(part, row, (part, row) of the one that stays, exact), in order of files."""
    rows = [row for path in sorted(directory.glob("*.parquet")) for row in pq.read_table(path).to_pylist()]
    return [(row["part"], row["row"], (row["kept"] >> 32, row["kept"] & 0xFFFFFFFF), row["exact"]) for row in rows]


SMALL: Documents = [
    [("a", [1, 2]), ("b", [3, 4]), ("c", [5, 6])],
    [("b", [3, 4]), ("d", [9, 6]), ("e", [9, 7])],
    [("f", []), ("f", []), ("g", [2, 3])],
]
"""c, d and e are a chain; g ties a to b, and b's copy with them."""
SMALL_FOUND = [(0, 2, (0, 0), False), (1, 0, (0, 0), True), (1, 2, (0, 4), False), (1, 4, (0, 4), False),
               (2, 2, (2, 0), True), (2, 4, (0, 0), False)]  # fmt: skip


def test_the_first_of_a_cluster_stays(tmp_path: Path) -> None:
    files = signed(tmp_path, SMALL)
    stage.find(files, [0, 2], str(tmp_path / "found"), True, True)
    assert found(tmp_path / "found") == SMALL_FOUND
    assert [path.name for path in sorted((tmp_path / "found").iterdir())] == ["00000.parquet", "00001.parquet"]


def test_one_kind_or_none(tmp_path: Path) -> None:
    files = signed(tmp_path, SMALL)
    stage.find(files, [0], str(tmp_path / "exact"), True, False)
    assert found(tmp_path / "exact") == [(1, 0, (0, 2), True), (2, 2, (2, 0), True)]
    stage.find(files, [0], str(tmp_path / "near"), False, True)
    assert [(part, row) for part, row, _, _ in found(tmp_path / "near")] == [(0, 2), (1, 0), (1, 2), (1, 4), (2, 4)]
    stage.find(files, [0], str(tmp_path / "none"), False, False)
    assert not (tmp_path / "none").exists()


def test_earlier_runs_keep_what_they_have(tmp_path: Path) -> None:
    """g would tie a to b; both stay, as the run that has them is over."""
    stage.find(signed(tmp_path, SMALL), [2], str(tmp_path / "found"), True, True)
    assert found(tmp_path / "found") == [(2, 2, (2, 0), True), (2, 4, (0, 0), False)]


def test_alone_and_spread_find_the_same(tmp_path: Path) -> None:
    rng = random.Random(1)
    documents: Documents = [
        [(f"text {rng.randrange(900)}", [rng.randrange(1, 3000) for _ in range(3)]) for _ in range(250)]
        for _ in range(4)
    ]
    files = signed(tmp_path, documents)
    stage.find(files, [0, 1, 3], str(tmp_path / "alone"), True, True)
    stage.find(files[::-1], [0, 1, 3], str(tmp_path / "spread"), True, True, 0, 700)
    assert found(tmp_path / "alone") == found(tmp_path / "spread") != []
