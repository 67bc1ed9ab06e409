"""URLs that are not wanted: lists of domains, addresses and words, held as sorted 64-bit hashes (8 bytes an entry), so
that millions of entries pass through Ray's object store once a node and are read by its workers where they lie.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from urllib.parse import urlsplit

import numpy as np

from webtochat import storage
from webtochat.errors import UserError
from webtochat.recipe_pages import URLs

_WORD = re.compile(r"[^\W_]+")


@dataclass(frozen=True)
class Blocklists:
    """What a recipe's `measure.urls` names, read."""

    domains: np.ndarray
    """(D,) uint64, sorted: hosts, and domains with all below them."""
    addresses: np.ndarray
    """(A,) uint64, sorted: host/path, with all below it."""
    words: frozenset[str]
    """One of them in a URL is enough."""
    soft_words: frozenset[str]
    """It takes two."""
    substrings: tuple[str, ...]

    @classmethod
    def of(cls, section: URLs) -> Blocklists:
        """Reads the files. Raises UserError where one is missing."""
        domains = {_host(entry) for entry in _entries(section.domains, "domains", "domains")}
        addresses = {_address(entry) for entry in _entries(section.addresses, "urls", "addresses")}
        words, soft, within = (
            sorted({entry.lower() for entry in _entries(getattr(section, name), "expressions", name)})
            for name in ("words", "soft_words", "substrings")
        )
        return cls(_hashes(domains), _hashes(addresses), frozenset(words), frozenset(soft), tuple(within))

    def fingerprint(self) -> str:
        """A hash of what is on the lists."""
        texts = "\n".join([*sorted(self.words), "", *sorted(self.soft_words), "", *self.substrings])
        return hashlib.sha256(self.domains.tobytes() + b"|" + self.addresses.tobytes() + texts.encode()).hexdigest()

    def reason(self, url: str) -> str | None:
        """Why a URL is not wanted, or None."""
        try:
            parts = urlsplit(url.strip().lower())
            host = (parts.hostname or "").rstrip(".")
        except ValueError:  # a malformed address, such as an unclosed IPv6 bracket, names no host that could be listed
            return None
        labels = host.split(".")
        if _any(self.domains, [".".join(labels[start:]) for start in range(len(labels))]):
            return "blocked_domain"
        if len(self.addresses):
            path = _address(host + parts.path + (f"?{parts.query}" if parts.query else ""))
            ends = [match.start() for match in re.finditer(r"[/?]", path)]
            if _any(self.addresses, [path[:end] for end in [*ends, len(path)]]):
                return "blocked_address"
        if self.words or self.soft_words:
            words = set(_WORD.findall(host + " " + parts.path + " " + parts.query))
            if not self.words.isdisjoint(words):
                return "blocked_word"
            if len(self.soft_words & words) >= 2:
                return "blocked_soft_words"
        if any(each in host or each in parts.path for each in self.substrings):
            return "blocked_substring"
        return None


def _entries(named: Iterable[str], inside: str, key: str) -> Iterator[str]:
    """A recipe's entries; one with a `/` (and no http:// before it) or ending in `.txt` is a file of them, one a line,
    `#` begins a comment; a folder is one of UT1's categories (or of several), whose files `inside` are meant."""
    for entry in named:
        if entry.startswith(("http://", "https://")) or ("/" not in entry and not entry.endswith(".txt")):
            yield entry.strip()
            continue
        files = [found.path for found in storage.glob(entry)]
        if files != [entry]:
            files = [path for path in files if path.rsplit("/", 1)[-1] == inside]
        if not files:
            raise UserError(f"measure.urls.{key}: at {entry} is no list, nor a folder with files named {inside}")
        for path in files:
            for line in storage.read_bytes(path).decode("utf-8", "replace").splitlines():
                if found := line.split("#")[0].strip():
                    yield found


def _host(entry: str) -> str:
    return entry.lower().strip(".")


def _address(entry: str) -> str:
    """Without scheme, `www.` and a slash at the end, which lists write or leave out as they please."""
    return entry.lower().split("://")[-1].removeprefix("www.").rstrip("/")


def _hash(entry: str) -> int:
    return int.from_bytes(hashlib.blake2b(entry.encode("utf-8", "replace"), digest_size=8).digest(), "little")


def _hashes(entries: Iterable[str]) -> np.ndarray:
    return np.unique(np.fromiter((_hash(entry) for entry in entries if entry), np.uint64))


def _any(hashes: np.ndarray, candidates: list[str]) -> bool:
    if not len(hashes):
        return False
    wanted = np.array([_hash(each) for each in candidates], np.uint64)
    at = np.searchsorted(hashes, wanted)
    return bool((hashes[np.minimum(at, len(hashes) - 1)] == wanted).any())
