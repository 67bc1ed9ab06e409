"""What a recipe starts from: a model or a tokenizer as Hugging Face's files, in a directory (local or remote), on the
hub (`hf://owner/name` or `hf://owner/name@revision`), or in a stage's artifact."""

from __future__ import annotations

import fnmatch
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from webtochat import artifact, storage
from webtochat.artifact import hash_of
from webtochat.errors import UserError

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "markers.json")
MODEL_FILES = ("config.json", "*.safetensors", *TOKENIZER_FILES)
"""What is read of a directory, and so is its identity."""
HUB = "hf://"


@dataclass(frozen=True)
class Start:
    path: str
    """Absolute or remote; on the hub with the commit that was found."""
    folder: str
    """Of the files, below the path."""
    wanted: tuple[str, ...]
    identity: dict[str, Any]
    """An artifact's content hash, or name, size and hash of the files."""

    def local(self) -> str:
        """A directory on this node with the files."""
        if self.path.startswith(HUB):
            return _downloaded(self.path, self.wanted)
        return os.path.normpath(os.path.join(storage.local_copy(self.path, hash_of(self.identity)), self.folder))


def find(path: str, wanted: tuple[str, ...]) -> Start:
    """Raises UserError, one line, where there is no such directory, repository or file. Reads all files: their hashes
    are what a stage is known by."""
    if path.startswith(HUB):
        directory = _downloaded(path, wanted)
        commit = os.path.basename(directory.rstrip("/"))
        return Start(f"{path.split('@')[0]}@{commit}", "", wanted, _identity(path, directory, wanted))
    path = path.rstrip("/") if storage.is_remote(path) else os.path.abspath(path)
    made = artifact.find(path)
    if made is None:
        return Start(path, "", wanted, _identity(path, path, wanted))
    folder = "model" if made.files("model/") else ""
    return Start(path, folder, wanted, {"artifact": made.content_hash})


def _identity(origin: str, directory: str, wanted: tuple[str, ...]) -> dict[str, Any]:
    below = {entry.path[len(directory) :].lstrip("/"): entry for entry in storage.files_below(directory)}
    entries = {
        name: entry for name, entry in below.items()
        if "/" not in name and any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)
    }  # fmt: skip
    if not entries:
        raise UserError(f"nothing to start from in {origin}: it has no {' and no '.join(wanted[:2])}")
    with ThreadPoolExecutor(4) as pool:
        hashes = list(pool.map(lambda entry: storage.sha256(entry.path), entries.values()))
    return {"files": {name: [entries[name].size, sha] for name, sha in zip(entries, hashes, strict=True)}}


def _downloaded(path: str, wanted: tuple[str, ...]) -> str:
    """This node's snapshot, in Hugging Face's cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    name, _, revision = path.removeprefix(HUB).partition("@")
    try:
        return snapshot_download(name, revision=revision or None, allow_patterns=list(wanted))
    except (OSError, HFValidationError) as error:
        raise UserError(f"cannot read {path}: {' '.join(str(error).split())[:200]}") from error
