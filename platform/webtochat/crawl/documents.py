"""Somebody's clean text, with FineWeb's columns: it enters at curate."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from webtochat import storage
from webtochat.errors import UserError

COLUMNS = pa.schema([
    ("id", pa.string()), ("url", pa.string()), ("date", pa.string()), ("dump", pa.string()),
    ("file_path", pa.string()), ("offset", pa.int64()), ("text", pa.string()), ("language", pa.string()),
    ("language_score", pa.float64()), ("token_count", pa.int64()),
])  # fmt: skip
ROWS = 500


def expand(pattern: str) -> list[storage.Entry]:
    """Files of a path or glob, local, in a store, or on the Hugging Face hub (`hf://datasets/owner/name/…`)."""
    if not pattern.startswith("hf://"):
        return storage.glob(pattern)
    from huggingface_hub import HfFileSystem

    hub = HfFileSystem()
    found = hub.glob(pattern.removeprefix("hf://"), detail=True)
    return [
        storage.Entry(f"hf://{path}", info["size"], str(info.get("blob_id") or info["size"]))
        for path, info in sorted(found.items()) if info["type"] == "file"
    ]  # fmt: skip


def rows(path: str, name: str) -> Iterator[pa.RecordBatch]:
    """Batches of COLUMNS. Only `text` must be there: a row without it (or whose line is no JSON object) has a null
    text, so that it is counted where it is removed. Ids that are missing follow from the place in the file."""
    number = 0
    for raw in _raw(path):
        table = []
        for row in raw:
            table.append(_row(row, name, number))
            number += 1
        yield pa.RecordBatch.from_pylist(table, COLUMNS)


def _row(row: Any, name: str, number: int) -> dict[str, Any]:
    found = row if isinstance(row, dict) else {}
    text = found.get("text")
    identity = found.get("id")
    return {
        "id": str(identity) if identity else "doc:" + hashlib.sha256(f"{name}:{number}".encode()).hexdigest()[:32],
        "url": _text(found.get("url")), "date": _text(found.get("date")), "dump": _text(found.get("dump")),
        "file_path": name, "offset": number, "text": text if isinstance(text, str) else None,
        "language": _text(found.get("language")), "language_score": _number(found.get("language_score")),
        "token_count": None,
    }  # fmt: skip


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) else None


def _raw(path: str) -> Iterator[list[Any]]:
    with _open(path) as source:
        if path.endswith(".parquet"):
            try:
                file = pq.ParquetFile(source)
            except pa.ArrowInvalid as error:
                raise UserError(f"{path} is not Parquet: {error}") from error
            if "text" not in file.schema_arrow.names:
                raise UserError(f"{path} has no column text: its columns are {', '.join(file.schema_arrow.names)}")
            columns = [name for name in COLUMNS.names if name in file.schema_arrow.names]
            for batch in file.iter_batches(ROWS, columns=columns):
                yield batch.to_pylist()
            return
        lines = gzip.open(source, "rb") if path.endswith(".gz") else io.BufferedReader(source)  # type: ignore[arg-type]
        pending: list[Any] = []
        for line in lines:
            if not line.strip():
                continue
            try:
                pending.append(json.loads(line))
            except ValueError:
                pending.append(None)
            if len(pending) == ROWS:
                yield pending
                pending = []
        if pending:
            yield pending


def _open(path: str) -> Any:
    if path.startswith("hf://"):
        from huggingface_hub import HfFileSystem

        return HfFileSystem().open(path.removeprefix("hf://"), "rb")
    return storage.open_input_file(path)
