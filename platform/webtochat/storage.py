"""Files on any file system, through pyarrow.fs: a local path, `s3://bucket/key` or `gs://bucket/key`.

Invariant: a file is invisible under its final name until it is complete. Locally it is written aside, flushed and
renamed; remotely it is written to a local temporary file and uploaded when that is whole. (An exception inside
pyarrow's own `open_output_stream` publishes a valid, truncated object.) Cost: one local copy of each remote file.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from pyarrow import NativeFile, fs

from webtochat.errors import MachineError, UserError

CHUNK = 4 << 20
PARTIAL = ".partial-"


@dataclass(frozen=True)
class Entry:
    """A file: its full path (with scheme), size in bytes, and what changes when its content does."""

    path: str
    size: int
    etag: str


def is_remote(path: str) -> bool:
    return "://" in path


def absolute(path: str) -> str:
    """As processes with other working directories find it."""
    return path if is_remote(path) else os.path.abspath(path)


@lru_cache(maxsize=32)
def _remote(scheme_and_bucket: str) -> fs.FileSystem:
    try:
        filesystem, _ = fs.FileSystem.from_uri(scheme_and_bucket)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot open {scheme_and_bucket}: {error}") from error
    return filesystem


def resolve(path: str) -> tuple[fs.FileSystem, str]:
    """The file system of `path`, and the path inside it."""
    if not is_remote(path):
        return fs.LocalFileSystem(), os.path.abspath(path)
    scheme, rest = path.split("://", 1)
    return _remote(f"{scheme}://{rest.split('/', 1)[0]}"), rest.rstrip("/")


def join(directory: str, *names: str) -> str:
    return "/".join([directory.rstrip("/"), *names])


def exists(path: str) -> bool:
    filesystem, inner = resolve(path)
    return filesystem.get_file_info(inner).type != fs.FileType.NotFound


def read_bytes(path: str) -> bytes:
    """A file's raw bytes (never decompressed by the name's ending)."""
    filesystem, inner = resolve(path)
    with filesystem.open_input_stream(inner, compression=None) as stream:
        return stream.read()


def open_input(path: str, compression: str | None = None) -> NativeFile:
    """A readable binary stream over a file's raw bytes (never decompressed by the name's ending)."""
    filesystem, inner = resolve(path)
    return filesystem.open_input_stream(inner, compression=compression)


def open_input_file(path: str) -> NativeFile:
    """A seekable binary file, as Parquet needs."""
    filesystem, inner = resolve(path)
    return filesystem.open_input_file(inner)


@contextmanager
def writing(path: str) -> Iterator[str]:
    """Yields a local path to write to; on a clean exit its content appears at `path`, whole, else not at all."""
    if is_remote(path):
        filesystem, inner = resolve(path)
        with tempfile.TemporaryDirectory(prefix="webtochat-") as scratch:
            local = os.path.join(scratch, "file")
            with machine_faults(path):
                yield local
                try:
                    with open(local, "rb") as source, filesystem.open_output_stream(inner, compression=None) as sink:
                        shutil.copyfileobj(source, sink, CHUNK)
                except BaseException:  # the stream's closing has published what had gone out
                    delete(path)
                    raise
        return
    directory, name = os.path.split(os.path.abspath(path))
    with machine_faults(path):
        os.makedirs(directory, exist_ok=True)
        aside = os.path.join(directory, f"{PARTIAL}{uuid.uuid4().hex[:12]}-{name}")
        try:
            yield aside
            with open(aside, "rb") as written:
                os.fsync(written.fileno())
            os.replace(aside, path)
        finally:
            if os.path.exists(aside):
                os.unlink(aside)


@contextmanager
def machine_faults(path: str) -> Iterator[None]:
    """Turns a full disk into one line that says so."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise MachineError(f"no space left for {path}: free some and run the same command again") from error
        raise


def write_bytes(path: str, content: bytes) -> None:
    with writing(path) as local, open(local, "wb") as sink:
        sink.write(content)


def files_below(directory: str) -> list[Entry]:
    """All complete files below a directory, sorted by path; none if it does not exist."""
    filesystem, inner = resolve(directory)
    selector = fs.FileSelector(inner, recursive=True, allow_not_found=True)
    found = [info for info in filesystem.get_file_info(selector) if info.type == fs.FileType.File]
    entries = [_entry(directory, inner, info) for info in found if "/" + PARTIAL not in info.path[len(inner) :]]
    return sorted(entries, key=lambda entry: entry.path)


def delete_partial(directory: str) -> None:
    """Removes what killed writers left aside below a local directory, while nobody writes there."""
    if not is_remote(directory):
        for root, folders, names in os.walk(directory):
            for name in [each for each in folders if each.startswith(PARTIAL)]:
                folders.remove(name)
                shutil.rmtree(os.path.join(root, name))
            for name in [each for each in names if each.startswith(PARTIAL)]:
                os.unlink(os.path.join(root, name))


def _entry(directory: str, inner: str, info: fs.FileInfo) -> Entry:
    relative = info.path[len(inner) :].lstrip("/")
    return Entry(join(directory, relative) if relative else directory, info.size, f"{info.size}-{info.mtime_ns}")


def glob(pattern: str) -> list[Entry]:
    """Files that match a pattern (`*`, `?`, `[…]` in any part); a plain path is itself. None match: an empty list."""
    if not any(mark in pattern for mark in "*?["):
        filesystem, inner = resolve(pattern)
        info = filesystem.get_file_info(inner)
        if info.type == fs.FileType.Directory:
            return files_below(pattern)
        return [_entry(pattern, inner, info)] if info.type == fs.FileType.File else []
    parts = pattern.split("/")
    fixed = next(index for index, part in enumerate(parts) if any(mark in part for mark in "*?["))
    directories = ["/".join(parts[:fixed]) or ("/" if pattern.startswith("/") else ".")]
    for part in parts[fixed:-1]:
        directories = [path for each in directories for path, info in _children(each, part) if not info.is_file]
    matches = [
        _entry(path, info.path, info)
        for each in directories
        for path, info in _children(each, parts[-1])
        if info.is_file and not info.base_name.startswith(PARTIAL)
    ]
    return sorted(matches, key=lambda entry: entry.path)


def _children(directory: str, pattern: str) -> list[tuple[str, fs.FileInfo]]:
    """What lies in a directory under a name that matches, with its path as a user would write it."""
    filesystem, inner = resolve(directory)
    selector = fs.FileSelector(inner, recursive=False, allow_not_found=True)
    return [
        (join(directory, info.base_name).removeprefix("./"), info)
        for info in filesystem.get_file_info(selector)
        if fnmatch.fnmatchcase(info.base_name, pattern)
    ]


def delete(path: str) -> None:
    """Removes a file or a whole directory; nothing there is fine. A local directory goes at once, by its name, so that
    a kill leaves no half of it."""
    filesystem, inner = resolve(path)
    kind = filesystem.get_file_info(inner).type
    if kind == fs.FileType.Directory and not is_remote(path):
        aside = os.path.join(os.path.dirname(inner), f"{PARTIAL}{uuid.uuid4().hex[:12]}")
        os.rename(inner, aside)
        shutil.rmtree(aside)
    elif kind == fs.FileType.Directory:
        filesystem.delete_dir(inner)
    elif kind == fs.FileType.File:
        filesystem.delete_file(inner)


def sha256(path: str) -> str:
    digest = hashlib.sha256()
    with open_input(path) as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def upload_directory(local: str, path: str) -> None:
    """Copies a local directory's files to `path`, each one whole; the caller writes what makes them count last."""
    for root, _, names in os.walk(local):
        for name in names:
            source = os.path.join(root, name)
            with writing(join(path, os.path.relpath(source, local))) as target:
                shutil.copyfile(source, target)


def local_copy(path: str, key: str) -> str:
    """A local directory with the files of `path`: itself if local, else this node's cache, by content `key`."""
    if not is_remote(path):
        return os.path.abspath(path)
    cache = os.path.join(tempfile.gettempdir(), "webtochat-cache", key)
    if not os.path.isdir(cache):
        aside = tempfile.mkdtemp(prefix=f"{PARTIAL}{key}-", dir=_made(os.path.dirname(cache)))
        for entry in files_below(path):
            target = os.path.join(aside, entry.path[len(path.rstrip("/")) + 1 :])
            os.makedirs(os.path.dirname(target), exist_ok=True)
            with open_input(entry.path) as source, open(target, "wb") as sink:
                shutil.copyfileobj(source, sink, CHUNK)
        try:
            os.rename(aside, cache)
        except OSError:  # another process was first: its copy is as good
            shutil.rmtree(aside)
    return cache


def _made(directory: str) -> str:
    os.makedirs(directory, exist_ok=True)
    return directory
