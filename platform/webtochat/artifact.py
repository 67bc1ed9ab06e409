"""A stage's output: a directory of files that counts only once `manifest.json` stands in it, written last.

`content_hash` covers the stage, its identity (literals and the content hashes of its inputs) and the hashes of its
files. Times, run ids, paths and the code version stand beside it, so that a moved or repeated run hashes the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from pydantic import BaseModel

from webtochat import __version__, storage
from webtochat.errors import UserError

MANIFEST = "manifest.json"
DRAFT = "draft.json"
SCRATCH = "_scratch"


class FileHash(BaseModel):
    size: int
    sha256: str


class Manifest(BaseModel):
    stage: str
    identity: dict[str, Any]
    identity_hash: str
    inputs: dict[str, str]
    """Content hashes of the artifacts that the stage read, by stage."""
    content_hash: str
    files: dict[str, FileHash]
    counts: dict[str, Any]
    summary: str
    """What the stage made, in a few words, for the table at the end of a run."""
    gain: str
    code_version: str
    wall_seconds: float
    created: str
    mlflow_run_id: str | None = None


def hash_of(value: Any) -> str:
    """sha256 of a value's canonical JSON."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


@cache
def code_version() -> str:
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=os.path.dirname(__file__), capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return f"{__version__}+{found.stdout.strip()}"
    except (OSError, subprocess.SubprocessError):
        return __version__


class Artifact:
    """A committed output. `path(name)` of a file in it, `files(prefix)` sorted."""

    def __init__(self, directory: str, manifest: Manifest):
        self.directory = directory
        self.manifest = manifest

    @property
    def stage(self) -> str:
        return self.manifest.stage

    @property
    def content_hash(self) -> str:
        return self.manifest.content_hash

    def path(self, *names: str) -> str:
        return storage.join(self.directory, *names)

    def files(self, prefix: str = "") -> list[str]:
        return [self.path(name) for name in sorted(self.manifest.files) if name.startswith(prefix)]

    def local(self) -> str:
        """A directory on this node that holds the files."""
        return storage.local_copy(self.directory, self.content_hash)

    def verify(self, prefix: str | None = "") -> list[str]:
        """Names of the files that are missing, or whose bytes are not those that were committed. Reads all that begins
        with `prefix`; None: nothing, so only what is missing is found."""
        return [
            name for name, known in self.manifest.files.items()
            if not storage.exists(self.path(name))
            or (prefix is not None and name.startswith(prefix) and storage.sha256(self.path(name)) != known.sha256)
        ]  # fmt: skip

    def check(self, prefix: str | None = "") -> None:
        """Raises UserError where `verify` finds a file."""
        damaged = self.verify(prefix)
        if damaged:
            raise UserError(
                f"{self.path(damaged[0])} is not what was committed: make it anew with --rebuild {self.stage}"
            )


def find(directory: str) -> Artifact | None:
    """The committed artifact in a directory, or None."""
    path = storage.join(directory, MANIFEST)
    if not storage.exists(path):
        return None
    try:
        return Artifact(directory, Manifest.model_validate_json(storage.read_bytes(path)))
    except ValueError as error:
        raise UserError(f"{path} is not a manifest this version reads: remove the stage with --rebuild") from error


def open_artifact(directory: str, stage: str) -> Artifact:
    found = find(directory)
    if found is None:
        raise UserError(f"{directory} holds no committed {stage}: run jobs/{stage}.py first")
    return found


class Draft:
    """An output being made. Write files under `path(...)` (with `storage.writing`), then `commit`.

    What a killed run left under the same identity is kept, so a stage goes on from its last whole unit. Files under
    `_scratch/` (checkpoints, parts) are the stage's own and go when it commits.
    """

    def __init__(self, directory: str, stage: str, identity: dict[str, Any], inputs: list[Artifact]):
        self.directory = directory
        self.stage = stage
        self.identity = identity
        self.inputs = {each.stage: each.content_hash for each in inputs}
        self.started = time.monotonic()
        self.mlflow_run_id: str | None = None

    def path(self, *names: str) -> str:
        return storage.join(self.directory, *names)

    def scratch(self, *names: str) -> str:
        return storage.join(self.directory, SCRATCH, *names)

    def files(self, prefix: str = "") -> list[storage.Entry]:
        skipped = {self.path(MANIFEST), self.path(DRAFT)}
        return [
            entry for entry in storage.files_below(self.directory)
            if entry.path not in skipped
            and not entry.path.startswith(self.scratch() + "/")
            and entry.path.startswith(self.path(prefix))
        ]  # fmt: skip

    def commit(self, *, counts: dict[str, Any], summary: str, gain: str = "") -> Artifact:
        """Hashes every file, then writes the manifest: from here on the artifact is there."""
        storage.delete_partial(self.directory)
        entries = self.files()
        with ThreadPoolExecutor(4) as pool:
            hashes = list(pool.map(lambda entry: storage.sha256(entry.path), entries))
        names = [entry.path[len(self.directory.rstrip("/")) + 1 :] for entry in entries]
        files = {
            name: FileHash(size=entry.size, sha256=sha) for name, entry, sha in zip(names, entries, hashes, strict=True)
        }
        identity = _full_identity(self.identity, self.inputs)
        earlier = json.loads(storage.read_bytes(self.path(DRAFT)))["seconds"]
        manifest = Manifest(
            stage=self.stage, identity=self.identity, identity_hash=hash_of(identity), inputs=self.inputs,
            content_hash=hash_of([self.stage, identity, {name: file.sha256 for name, file in files.items()}]),
            files=files, counts=counts, summary=summary, gain=gain, code_version=code_version(),
            wall_seconds=round(earlier + time.monotonic() - self.started, 3),
            created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), mlflow_run_id=self.mlflow_run_id,
        )  # fmt: skip
        storage.write_bytes(self.path(MANIFEST), manifest.model_dump_json(indent=1).encode())
        storage.delete(self.scratch())
        storage.delete(self.path(DRAFT))
        return Artifact(self.directory, manifest)

    def interrupted(self) -> None:
        """Adds this attempt's time to the draft, so that the manifest tells the whole."""
        draft = json.loads(storage.read_bytes(self.path(DRAFT)))
        draft["seconds"] += time.monotonic() - self.started
        storage.write_bytes(self.path(DRAFT), json.dumps(draft).encode())


def _full_identity(identity: dict[str, Any], inputs: dict[str, str]) -> dict[str, Any]:
    return {**identity, "inputs": inputs}


def differences(old: Any, new: Any, prefix: str = "") -> list[str]:
    """`key: old → new` for each leaf that differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = []
        for key in sorted({*old, *new}):
            found += differences(old.get(key), new.get(key), f"{prefix}.{key}" if prefix else key)
        return found
    return [] if old == new else [f"{prefix}: {_short(old)} → {_short(new)}"]


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else text[:57] + "…"


def begin(directory: str, stage: str, identity: dict[str, Any], inputs: list[Artifact]) -> Artifact | Draft:
    """The committed artifact if it has this identity, else a draft to fill.

    Raises UserError if the directory holds another identity's output, committed or half-done: nothing is overwritten.
    """
    draft = Draft(directory, stage, json.loads(json.dumps(identity)), inputs)
    wanted = _full_identity(draft.identity, draft.inputs)
    committed, held = find(directory), _held(directory)
    if held is None:
        if storage.files_below(directory):
            raise UserError(f"{directory} holds files that no stage of webtochat wrote: choose another workspace=")
        storage.write_bytes(draft.path(DRAFT), json.dumps({"identity": wanted, "seconds": 0.0}).encode())
        return draft
    changed = differences(held, wanted)
    if changed:
        raise UserError(
            f"{directory} was {'half-' if committed is None else ''}made with other settings "
            f"({'; '.join(changed[:6])}): choose another workspace= or name=, or run again with --rebuild {stage}"
        )
    return committed if committed is not None else draft


def _held(directory: str) -> dict[str, Any] | None:
    """The full identity of what a directory holds, committed or half-made."""
    committed = find(directory)
    if committed is not None:
        return _full_identity(committed.manifest.identity, committed.manifest.inputs)
    draft = storage.join(directory, DRAFT)
    return json.loads(storage.read_bytes(draft))["identity"] if storage.exists(draft) else None


def discard_other(directory: str, stage: str, identity: dict[str, Any], inputs: list[Artifact]) -> None:
    """Deletes what a directory holds if it is of another identity. Only where the user asked for it (--rebuild)."""
    draft = Draft(directory, stage, json.loads(json.dumps(identity)), inputs)
    held = _held(directory)
    if held is not None and differences(held, _full_identity(draft.identity, draft.inputs)):
        storage.delete(directory)
