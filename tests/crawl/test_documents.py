"""Clean text from elsewhere: Parquet and JSONL, whole and damaged."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from webtochat.crawl import documents
from webtochat.errors import UserError


def read(path: Path) -> list[dict[str, Any]]:
    return [row for batch in documents.rows(str(path), path.name) for row in batch.to_pylist()]


def test_documents_are_read_with_fineweb_s_columns(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["one", None], "url": ["http://a.example/", "u"], "id": ["7", "8"]}),
                   tmp_path / "d.parquet")  # fmt: skip
    (tmp_path / "d.jsonl").write_text('{"text": "two", "extra": 1}\nnot json\n{"text": 5}\n')
    parquet = [row for batch in documents.rows(str(tmp_path / "d.parquet"), "d") for row in batch.to_pylist()]
    lines = [row for batch in documents.rows(str(tmp_path / "d.jsonl"), "l") for row in batch.to_pylist()]
    assert [(row["id"], row["text"]) for row in parquet] == [("7", "one"), ("8", None)]
    assert [row["text"] for row in lines] == ["two", None, None] and len({row["id"] for row in lines}) == 3


LINES = "".join(json.dumps({"text": f"document {number}", "token_count": 2}) + "\n" for number in range(1200)).encode()


def packed(path: Path, content: bytes) -> None:
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content))
    else:
        with pa.CompressedOutputStream(str(path), "zstd") as sink:
            sink.write(content)


@pytest.mark.parametrize("ending", ["gz", "zst"])
def test_compressed_lines_and_where_they_are_cut(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"d.jsonl.{ending}"
    packed(path, LINES)
    found = read(path)
    assert [row["text"] for row in found] == [f"document {number}" for number in range(1200)]
    assert [row["offset"] for row in found] == list(range(1200)) and len({row["id"] for row in found}) == 1200
    assert found == read(path) and found[0]["token_count"] == 2
    path.write_bytes(path.read_bytes()[:-20])
    cut = read(path)
    assert len(cut) <= 1200 and cut[-1]["text"] is None and all(row["text"] for row in cut[:-1])


def test_strange_values_cost_a_row_at_most(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_bytes(
        b'{"text": "half \\ud800 pair", "id": 7}\n'
        + b'{"text": "\xff"}\n'
        + b"[" * 100_000
        + b"\n[1]\n"
        + b'{"text": "ok", "language_score": 1'
        + b"0" * 400
        + b', "url": 3, "token_count": -1}\n'
    )
    assert [(row["text"], row["language_score"]) for row in read(path)] == [
        ("half ? pair", None), (None, None), (None, None), (None, None), ("ok", None),
    ]  # fmt: skip
    assert read(path)[0]["id"] == "7"


def test_parquet_that_is_none_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    text = pa.array([b"good", b"\xff\xfe", b"fine"], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": text}), path)
    assert [row["text"] for row in read(path)] == ["good", None, "fine"]
    pq.write_table(pa.table({"body": ["x"]}), path)
    with pytest.raises(UserError, match="has no column text: its columns are body"):
        read(path)
    path.write_bytes(b"PAR1 not so")
    with pytest.raises(UserError, match="is not Parquet"):
        read(path)
    random = pa.table({"text": [f"{number} " * 50 for number in range(3000)]})
    pq.write_table(random, path, row_group_size=1000, compression="zstd")
    body = bytearray(path.read_bytes())
    body[200:400] = bytes(200)
    path.write_bytes(body)
    texts = [row["text"] for row in read(path)]
    assert texts.count(None) == 1 and texts[-2000:] == random["text"].to_pylist()[-2000:]


def test_other_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("x")
    with pytest.raises(UserError, match="neither Parquet nor JSONL"):
        documents.expand(str(tmp_path))
    with pytest.raises(UserError, match="download"):
        documents.expand("https://a.example/d.jsonl")
