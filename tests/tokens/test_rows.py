"""Rows from the files that a recipe names."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from webtochat.errors import UserError
from webtochat.recipe import DataSource
from webtochat.recipe_pages import Miniweb
from webtochat.tokens import rows

ROWS = [{"messages": [{"role": "user", "content": f"{number} ünï"}]} for number in range(50)]


def read(path: Path | str) -> tuple[list[rows.Row], Counter[str]]:
    skipped: Counter[str] = Counter()
    return list(rows.read(DataSource(path=str(path)), None, skipped)), skipped


def test_jsonl_parquet_and_compressed_files_give_the_same_rows(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in ROWS).encode()
    (tmp_path / "a.jsonl").write_bytes(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines[:300]) + gzip.compress(lines[300:] + b"\n"))
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "c.parquet")
    for name in ("a.jsonl", "b.jsonl.gz", "c.parquet"):
        assert read(tmp_path / name) == (ROWS, Counter())
    assert read(tmp_path / "*") == (ROWS * 3, Counter())


def test_what_is_no_row_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"a": 1}\n\n\xff\xfe\n[1]\n' + b"[" * 100_000 + b'\n{"a": 2')
    assert read(tmp_path / "a.jsonl") == ([{"a": 1}], Counter(not_json=3, not_an_object=1))


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.parquet").write_bytes(b"not parquet")
    for path, message in [
        (tmp_path / "nowhere.jsonl", "no file matches"), (tmp_path / "a.parquet", "not a Parquet file"),
        ("python:nowhere:rows", "no module nowhere"), ("python:json:rows", "no function rows"),
        ("python:json", "python:module:function"),
    ]:  # fmt: skip
        with pytest.raises(UserError, match=message):
            read(path)


def test_a_weight_repeats_rows_and_is_the_seed_s(tmp_path: Path) -> None:
    def drawn(weight: float, seed: int) -> list[int]:
        return [row["n"] for row in rows.weighted(iter([{"n": n} for n in range(2000)]), weight, seed)]

    assert drawn(1, 1) == list(range(2000)) and drawn(2, 1)[:4] == [0, 0, 1, 1]
    assert drawn(0.25, 1) == drawn(0.25, 1) != drawn(0.25, 2)
    assert 400 < len(drawn(0.25, 1)) < 600 and 4800 < len(drawn(2.5, 1)) < 5200


def test_identity_follows_the_content(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n')
    one = rows.identity(DataSource(path=str(path)), None)
    assert one == rows.identity(DataSource(path=str(path)), None)
    path.write_text('{"a": 12}\n')
    assert rows.identity(DataSource(path=str(path)), None) != one
    assert str(tmp_path) not in json.dumps(one)


def test_the_miniweb_s_rows_need_it() -> None:
    source = DataSource(path="python:miniweb.conversations:about_people", needs="miniweb")
    assert rows.available([source], None) == ([], [source])
    assert rows.available([source], Miniweb()) == ([source], [])


def test_generated_rows_follow_the_miniweb_s_settings() -> None:
    source = DataSource(path="python:miniweb.conversations:about_people", needs="miniweb")
    small, other = Miniweb(docstring_bytes=0, scale=0.02), Miniweb(docstring_bytes=0, scale=0.02, seed=2)
    found = list(rows.read(source, small, Counter()))
    assert len(found) > 100 and {"messages", "kind"} <= set(found[0])
    assert found == list(rows.read(source, small, Counter()))
    assert rows.identity(source, small) == rows.identity(source, small) != rows.identity(source, other)
    with pytest.raises(UserError, match="this crawl has no miniweb"):
        list(rows.read(source, None, Counter()))
    assert len(list(rows.read(DataSource(path="python:miniweb.conversations:everyday"), None, Counter()))) > 500
