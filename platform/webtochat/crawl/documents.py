"""Somebody's clean text, with FineWeb's columns: it enters at curate."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import zlib
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
ENDINGS = (".parquet", ".jsonl", ".jsonl.gz", ".jsonl.zst", ".json", ".json.gz", ".json.zst")


def expand(pattern: str) -> list[storage.Entry]:
    """Files of a path or glob, local, in a store, or on the Hugging Face hub (`hf://datasets/owner/name/…`)."""
    if pattern.startswith(("http://", "https://")):
        raise UserError(f"documents are not read over http: download {pattern} first, or name it by hf://datasets/…")
    if not pattern.startswith("hf://"):
        found = storage.glob(pattern)
    else:
        from huggingface_hub import HfFileSystem

        listed: Any = HfFileSystem().glob(pattern.removeprefix("hf://"), detail=True)
        found = [
            storage.Entry(f"hf://{path}", info["size"], str(info.get("blob_id") or info["size"]))
            for path, info in sorted(listed.items()) if info["type"] == "file"
        ]  # fmt: skip
    unreadable = next((entry.path for entry in found if not entry.path.endswith(ENDINGS)), None)
    if unreadable:
        raise UserError(
            f"{unreadable} is neither Parquet nor JSONL (.jsonl, .jsonl.gz, .jsonl.zst): narrow crawl.paths"
        )
    return found


def rows(path: str, name: str) -> Iterator[pa.RecordBatch]:
    """Batches of COLUMNS. Only `text` must be there: a row without it, a line that is no JSON object, and the place
    where a damaged file ends have a null text, so that they are counted where they are removed. Ids that are missing
    follow from the place in the file."""
    number = 0
    for batch in raw(path, COLUMNS.names):
        table = [_row(row, name, number + position) for position, row in enumerate(batch)]
        number += len(table)
        yield pa.RecordBatch.from_pylist(table, COLUMNS)


def _row(row: Any, name: str, number: int) -> dict[str, Any]:
    found = row if isinstance(row, dict) else {}
    identity = found.get("id")
    return {
        "id": _text(str(identity)) if isinstance(identity, str | int) and identity != ""
        else "doc:" + hashlib.sha256(f"{name}:{number}".encode()).hexdigest()[:32],
        "url": _text(found.get("url")), "date": _date(found.get("date")), "dump": _text(found.get("dump")),
        "file_path": name, "offset": number, "text": _text(found.get("text")),
        "language": _text(found.get("language")), "language_score": _number(found.get("language_score")),
        "token_count": _count(found.get("token_count")),
    }  # fmt: skip


def _text(value: Any) -> str | None:
    """Half of a surrogate pair, which JSON may hold and UTF-8 may not, becomes `?`."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _date(value: Any) -> str | None:
    return value.isoformat() if hasattr(value, "isoformat") else _text(value)


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and 0 <= value < 2**63 else None


def raw(path: str, columns: list[str] | None = None) -> Iterator[list[Any]]:
    """Rows as they stand in a file, in batches; None for one that cannot be read. With `columns`, of which `text` must
    be there, no others are read where the format allows it."""
    with _open(path) as source:
        yield from _parquet(path, source, columns) if path.endswith(".parquet") else _lines(path, source)


def _parquet(path: str, source: Any, wanted: list[str] | None) -> Iterator[list[Any]]:
    try:
        file = pq.ParquetFile(source)
    except pa.ArrowInvalid as error:
        raise UserError(f"{path} is not Parquet ({str(error).splitlines()[0]}): take it out of crawl.paths") from error
    if wanted and "text" not in file.schema_arrow.names:
        raise UserError(f"{path} has no column text: its columns are {', '.join(file.schema_arrow.names)}")
    columns = [name for name in file.schema_arrow.names if wanted is None or name in wanted]
    for group in range(file.num_row_groups):
        try:
            for batch in file.iter_batches(ROWS, row_groups=[group], columns=columns):
                yield _listed(batch)
        except (pa.ArrowInvalid, OSError) as error:
            if isinstance(error, OSError) and not _damaged(error):
                raise
            yield [None]


def _listed(batch: pa.RecordBatch) -> list[Any]:
    """Rows of a batch; None for those that hold bytes that are not UTF-8."""
    try:
        return batch.to_pylist()
    except UnicodeDecodeError:
        return [_decoded(batch.slice(number, 1)) for number in range(batch.num_rows)]


def _decoded(row: pa.RecordBatch) -> Any:
    try:
        return row.to_pylist()[0]
    except UnicodeDecodeError:
        return None


def _lines(path: str, source: Any) -> Iterator[list[Any]]:
    lines: Any
    if path.endswith(".gz"):
        lines = gzip.GzipFile(fileobj=source)
    elif path.endswith(".zst"):
        lines = io.BufferedReader(pa.CompressedInputStream(source, "zstd"))
    else:
        lines = io.BufferedReader(source)
    pending: list[Any] = []
    try:
        for line in lines:
            if line.strip():
                pending.append(_parsed(line))
            if len(pending) == ROWS:
                yield pending
                pending = []
    except (EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and not _damaged(error):
            raise
        pending.append(None)
    if pending:
        yield pending


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _damaged(error: OSError) -> bool:
    """Whether the file's bytes are at fault, not the disk or the network: pyarrow raises OSError for both."""
    told = str(error).lower()
    return isinstance(error, gzip.BadGzipFile) or any(
        word in told for word in ("decompress", "truncated", "corrupt", "deserialize", "unexpected end of stream")
    )


def _open(path: str) -> Any:
    if path.startswith("hf://"):
        from huggingface_hub import HfFileSystem

        return HfFileSystem().open(path.removeprefix("hf://"), "rb")
    return storage.open_input_file(path)
