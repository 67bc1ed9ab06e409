"""API keys: a key is 256 random bits that its owner sees once; what is kept is its sha256, a name and its limits. (So
many random bits need no slow hash: they cannot be tried out.)"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Iterable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from webtochat import storage
from webtochat.errors import UserError

PREFIX = "wtc-"
VARIABLE = "env:"
Limit = Annotated[int, Field(ge=1)]


class Key(BaseModel):
    """One line of the file. `None` is no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(min_length=1)
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    created: str
    requests_per_minute: Limit | None = None
    tokens_per_minute: Limit | None = None


def made(name: str, requests_per_minute: int | None = None, tokens_per_minute: int | None = None) -> tuple[str, Key]:
    """A new key, and what is kept of it."""
    text = PREFIX + secrets.token_urlsafe(32)
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return text, Key(
        name=name, sha256=hash_of(text), created=created, requests_per_minute=requests_per_minute,
        tokens_per_minute=tokens_per_minute,
    )  # fmt: skip


def hash_of(text: str) -> str:
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()


def known(keys: Iterable[Key], text: str) -> Key | None:
    """The key that `text` is. All are compared, each in the same time."""
    asked, found = hash_of(text), None
    for key in keys:
        if hmac.compare_digest(key.sha256, asked):
            found = key
    return found


def read(where: str) -> list[Key]:
    """The keys in a file (none where there is no file yet) or, as env:NAME, in a variable. Raises UserError, which
    shows nothing of what stands there."""
    if where.startswith(VARIABLE):
        held = os.environ.get(where.removeprefix(VARIABLE))
        if held is None:
            raise UserError(f"serve.keys={where}, and there is no such variable: jobs/keys.py makes keys")
    else:
        held = storage.read_bytes(where).decode(errors="replace") if storage.exists(where) else ""
    keys = []
    for number, line in enumerate(held.splitlines(), 1):
        if not line.strip():
            continue
        try:
            keys.append(Key.model_validate_json(line))
        except ValidationError as error:
            raise UserError(f"{where}, line {number}, is no API key: let jobs/keys.py write it") from error
    if len({key.name for key in keys}) < len(keys):
        raise UserError(f"{where} has two keys of one name: remove one")
    return keys


def write(path: str, keys: Iterable[Key]) -> None:
    """Replaces the file. On this machine its owner alone reads it."""
    with storage.writing(path) as local:
        descriptor = os.open(local, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as sink:
            sink.writelines(key.model_dump_json() + "\n" for key in keys)
