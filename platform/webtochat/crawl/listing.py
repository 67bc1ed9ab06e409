"""The listing: which files the next stage reads."""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from dataclasses import asdict, dataclass, replace

from webtochat import storage
from webtochat.artifact import Artifact

LISTING = "listing.jsonl"


@dataclass(frozen=True)
class WarcFile:
    name: str
    """Unique in the listing and free of this machine's paths: names what is made from the file."""
    path: str
    """A path or URL; relative to the artifact for files that were captured or copied into it."""
    size: int
    etag: str
    """Changes when the content does: the store's own for outside files, sha256 for ours."""


def named(entries: list[storage.Entry]) -> list[WarcFile]:
    """Outside files under their base names, made unique by a hash of the path where those collide. One that several
    patterns match is there once."""
    entries = [replace(each, path=storage.absolute(each.path)) for each in entries]
    entries = list({entry.path: entry for entry in entries}.values())
    bases = [entry.path.rsplit("/", 1)[-1] for entry in entries]
    count = Counter(bases)
    return [
        WarcFile(base if count[base] == 1 else f"{_short(entry.path)}-{base}", entry.path, entry.size, entry.etag)
        for base, entry in zip(bases, entries, strict=True)
    ]


def _short(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:8]


def write_listing(path: str, files: list[WarcFile]) -> None:
    rows = (json.dumps(asdict(file)) for file in sorted(files, key=lambda file: file.name))
    storage.write_bytes(path, "".join(row + "\n" for row in rows).encode())


def read_listing(artifact: Artifact) -> list[WarcFile]:
    """The files of a crawl, sorted by name, their paths resolved."""
    lines = storage.read_bytes(artifact.path(LISTING)).decode().splitlines()
    files = [WarcFile(**json.loads(line)) for line in lines]
    return [
        file if storage.is_remote(file.path) or os.path.isabs(file.path)
        else replace(file, path=artifact.path(file.path)) for file in files
    ]  # fmt: skip
