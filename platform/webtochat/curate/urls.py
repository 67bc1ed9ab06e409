"""Hosts whose pages are not wanted."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from webtochat import storage
from webtochat.errors import UserError


def blocklist(entries: Iterable[str]) -> frozenset[str]:
    """Hosts and domains from a recipe's entries; an entry with a `/` or ending in `.txt` is a file of them, one a line,
    `#` begins a comment."""
    hosts: set[str] = set()
    for entry in entries:
        if "/" in entry or entry.endswith(".txt"):
            if not storage.exists(entry):
                raise UserError(f"measure.blocked_hosts: no file at {entry}")
            lines = storage.read_bytes(entry).decode("utf-8", "replace").splitlines()
            hosts.update(line.split("#")[0].strip().lower() for line in lines)
        else:
            hosts.add(entry.strip().lower())
    return frozenset(hosts - {""})


def blocked(url: str, hosts: frozenset[str]) -> bool:
    """Whether the host of a URL, or a domain above it, is on the list."""
    try:
        host = (urlsplit(url).hostname or "").rstrip(".")
    except ValueError:  # a malformed address, such as an unclosed IPv6 bracket, names no host that could be listed
        return False
    parts = host.split(".")
    return any(".".join(parts[start:]) in hosts for start in range(len(parts)))
