"""Rows (dictionaries) from the data sources that a recipe names: JSONL and Parquet files, `hf://`, Python functions.

A line that is no JSON object is counted under a reason and left out; the rest goes on.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import IO, Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from webtochat import storage
from webtochat.artifact import hash_of
from webtochat.errors import UserError
from webtochat.recipe import DataSource
from webtochat.recipe_pages import Miniweb

Row = dict[str, Any]
Each = TypeVar("Each")
Source = TypeVar("Source", bound=DataSource)
COMPRESSIONS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2"}


def available(sources: list[Source], miniweb: Miniweb | None) -> tuple[list[Source], list[Source]]:
    """(those that can be read, those that need a miniweb where the recipe has none)."""
    missing = [source for source in sources if source.needs == "miniweb" and miniweb is None]
    return [source for source in sources if source not in missing], missing


def identity(source: DataSource, miniweb: Miniweb | None) -> dict[str, Any]:
    """What the rows depend on: the hash of generated rows; name, size and etag of files."""
    known: dict[str, Any] = {"weight": source.weight}
    if source.path.startswith("python:"):
        return known | {"function": source.path, "rows": hash_of(list(_generated(source, miniweb)))}
    if source.path.startswith("hf://"):
        filesystem, files = _hub_files(source)
        infos = [filesystem.info(file) for file in files]
        return known | {"files": [[info["name"], info["size"], str(info.get("blob_id"))] for info in infos]}
    entries = _local_files(source)
    return known | {"files": [[entry.path.rsplit("/", 1)[-1], entry.size, entry.etag] for entry in entries]}


def read(source: DataSource, miniweb: Miniweb | None, skipped: Counter[str]) -> Iterator[Row]:
    """The rows of one source in a fixed order. `skipped` counts what is not a row, by reason.

    Raises UserError, in one line, where there is no such file or function.
    """
    if source.path.startswith("python:"):
        yield from _generated(source, miniweb)
    elif source.path.startswith("hf://"):
        filesystem, files = _hub_files(source)
        for file in files:
            with filesystem.open(file, "rb") as stream:
                yield from _parsed(file, stream, skipped)
    else:
        for entry in _local_files(source):
            if entry.path.endswith(".parquet"):
                with storage.open_input_file(entry.path) as stream:
                    yield from _parsed(entry.path, stream, skipped)
                continue
            ending = next((each for each in COMPRESSIONS if entry.path.endswith(each)), None)
            with storage.open_input(entry.path, COMPRESSIONS[ending] if ending else None) as stream:
                yield from _parsed(entry.path.removesuffix(ending or ""), stream, skipped)


def weighted(rows: Iterator[Each], weight: float, seed: int) -> Iterator[Each]:
    """Each row floor(weight) times, and once more with the probability of the rest, drawn from a hash of its number."""
    whole, rest = int(weight), weight - int(weight)
    for number, row in enumerate(rows):
        draw = int.from_bytes(hashlib.sha256(f"{seed}:{number}".encode()).digest()[:8], "big") / 2**64
        for _ in range(whole + (draw < rest)):
            yield row


def function_of(path: str) -> Callable[..., Any]:
    """What `python:module:function` names. Raises UserError where there is none."""
    parts = path.split(":")
    if len(parts) != 3:
        raise UserError(f"{path!r} names no function: write python:module:function")
    _, module, name = parts
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        raise UserError(f"{path}: no module {error.name} under recipes/ or installed") from error
    except AttributeError as error:
        raise UserError(f"{path}: the module {module} has no function {name}") from error


def _generated(source: DataSource, miniweb: Miniweb | None) -> Iterator[Row]:
    function: Callable[..., Iterator[Row]] = function_of(source.path)
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters or (miniweb is None and parameters[0].default is not inspect.Parameter.empty):
        yield from function()
        return
    if miniweb is None:
        raise UserError(
            f"{source.path} takes the miniweb's settings, and this crawl has no miniweb: mark it needs: miniweb"
        )
    settings = importlib.import_module("miniweb.settings").Settings(**miniweb.model_dump())
    yield from function(settings)


def _local_files(source: DataSource) -> list[storage.Entry]:
    entries = storage.glob(source.path)
    if not entries:
        raise UserError(f"no file matches {source.path}: check the path of this data source")
    return entries


def _hub_files(source: DataSource) -> tuple[Any, list[str]]:
    """The hub's file system, and the data files: those that match, or all Parquet and JSONL files of a repository."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.errors import HfHubHTTPError

    filesystem = HfFileSystem()
    path = source.path.removeprefix("hf://")
    try:
        named = any(mark in path for mark in "*?[") or path.endswith((".parquet", ".jsonl", *COMPRESSIONS))
        patterns = [path] if named else [f"{path}/**/*.parquet", f"{path}/**/*.jsonl"]
        files = sorted(file for pattern in patterns for file in filesystem.glob(pattern))
    except (OSError, HfHubHTTPError) as error:
        raise UserError(f"cannot read {source.path}: {' '.join(str(error).split())[:200]}") from error
    if not files:
        raise UserError(f"no Parquet or JSONL file at {source.path}")
    return filesystem, files


def _parsed(path: str, stream: IO[bytes], skipped: Counter[str]) -> Iterator[Row]:
    if path.endswith(".parquet"):
        try:
            for batch in pq.ParquetFile(stream).iter_batches():
                yield from batch.to_pylist()
        except pa.ArrowInvalid as error:
            raise UserError(f"{path} is not a Parquet file: {' '.join(str(error).split())[:120]}") from error
        return
    for line in _lines(stream):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            skipped["not_json"] += 1
            continue
        if isinstance(row, dict):
            yield row
        else:
            skipped["not_an_object"] += 1


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    """Lines of a binary stream that may only know `read` (pyarrow's compressed ones)."""
    rest = b""
    while chunk := stream.read(1 << 20):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    yield rest
