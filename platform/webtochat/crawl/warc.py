"""Records of a WARC file, as a stream. Every response is yielded, and every damaged region, so that nothing vanishes:
libraries that skip what they cannot read (FastWARC, warcio) cannot say what they skipped, hence a reader of our own.

Memory is bounded by `max_bytes` of one record, whatever the file inflates to. After damage the reader goes on at the
next gzip member that inflates to a WARC header, or at the next line that begins one.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from webtochat.crawl.decoding import decoded

CHUNK = 1 << 16
HEADER_LIMIT = 1 << 16
GZIP = b"\x1f\x8b\x08"
INFLATE_LIMIT = 8
"""A record or body is inflated to at most this many times `max_bytes` before the rest of it is given up. Bytes are read
again, after a wrong length, at most about so many times too."""
DAMAGE_LIMIT = 1000
"""After so many damaged places in a row a gzip member is given up: it is made to cost time."""
HELD = 1 << 20
"""Compressed bytes of a member that are held, to look for the next member in them if this one is corrupt."""


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


@dataclass
class Record:
    """One `response`. `body` is decoded of chunks and compression and cut at `max_bytes`."""

    offset: int
    """Of the gzip member or of the header, in the file; unique in it."""
    id: str
    url: str
    date: str
    status: int
    content_type: str
    body: bytes
    problem: str | None
    """Why the body cannot be used: `too_large`, `bad_http`, `bad_encoding`; else None."""


@dataclass
class Damage:
    offset: int
    reason: str
    """`not_warc`, `bad_gzip`, `truncated`, `bad_header`, `wrong_length`, `too_large`."""


class _Ended(Exception):
    """The stream ended inside a record."""


class _Stream:
    """Buffered bytes with their offset, from anything that has `read`."""

    def __init__(self, source: Readable, offset: int = 0):
        self._source = source
        self.buffer = b""
        self.offset = offset
        """Of buffer[0]."""
        self.ended = False

    def fill(self, size: int) -> bool:
        """Makes `size` bytes available, or as many as there are; whether all are."""
        parts, have = [self.buffer], len(self.buffer)
        while have < size and not self.ended:
            piece = self._source.read(max(CHUNK, size - have))
            if not piece:
                self.ended = True
            parts.append(piece)
            have += len(piece)
        self.buffer = b"".join(parts)
        return have >= size

    def take(self, size: int) -> bytes:
        taken, self.buffer = self.buffer[:size], self.buffer[size:]
        self.offset += len(taken)
        return taken

    def give_back(self, taken: bytes) -> None:
        """Undoes a `take`."""
        self.buffer = taken + self.buffer
        self.offset -= len(taken)

    def read(self, size: int) -> bytes:
        self.fill(size)
        return self.take(size)

    def seek_to(self, pattern: re.Pattern[bytes], overlap: int) -> bool:
        """Drops bytes up to the next match; False if there is none."""
        while True:
            found = pattern.search(self.buffer)
            if found:
                self.take(found.start())
                return True
            if self.ended:
                self.take(len(self.buffer))
                return False
            self.take(max(0, len(self.buffer) - overlap))
            self.fill(len(self.buffer) + CHUNK)


class _Member:
    """One gzip member of a stream, inflated as it is read. Raises zlib.error where it is corrupt."""

    def __init__(self, stream: _Stream):
        self._stream = stream
        self._inflater = zlib.decompressobj(wbits=31)
        self.finished = False
        self._taken: deque[bytes] = deque()
        self._held = 0

    def read(self, size: int) -> bytes:
        while not self.finished:
            given = self._inflater.unconsumed_tail or self._take()
            piece = self._inflater.decompress(given, size)
            if self._inflater.eof:
                self.finished = True
                self._stream.give_back(self._inflater.unused_data)
            if piece:
                return piece
        return b""

    def _take(self) -> bytes:
        if not self._stream.fill(1):
            raise _Ended
        given = self._stream.take(len(self._stream.buffer))
        self._taken.append(given)
        self._held += len(given)
        while self._held - len(self._taken[0]) >= HELD:
            self._held -= len(self._taken.popleft())
        return given

    def abandon(self, corrupt: bool) -> int:
        """Gives back compressed bytes, so that the search for the next member sees them: what was not inflated, or all
        that is held of a corrupt member, whose inflater may have run on into the next one. Returns how many."""
        given = b"".join(self._taken) if corrupt else self._inflater.unconsumed_tail
        self._stream.give_back(given)
        return len(given)


def records(source: Readable, max_bytes: int, skipped: Counter[str] | None = None) -> Iterator[Record | Damage]:
    """Responses and damaged regions of a WARC file, plain or gzipped, in order. `skipped` counts records of other types
    by type."""
    stream = _Stream(source)
    skipped = Counter() if skipped is None else skipped
    stream.fill(CHUNK)
    read = _gzipped if _is_gzipped(stream.buffer) else _plain
    yield from _merged(read(stream, max_bytes, skipped), skipped)


def _is_gzipped(start: bytes) -> bool:
    """By the first bytes; where those are damaged, by what the first 64 KiB hold."""
    return start[:2] == GZIP[:2] or (GZIP in start and not _HEADER_START.search(start))


def _merged(found: Iterator[Record | Damage], skipped: Counter[str]) -> Iterator[Record | Damage]:
    """Damage of one kind is one region, as long as no whole record, of whatever type, stands between."""
    last: str | None = None
    passed = 0
    for each in found:
        reason = each.reason if isinstance(each, Damage) else None
        if reason is None or reason != last or skipped.total() != passed:
            yield each
        last, passed = reason, skipped.total()


def _gzipped(stream: _Stream, max_bytes: int, skipped: Counter[str]) -> Iterator[Record | Damage]:
    reread = 0
    while stream.fill(1):
        offset = stream.offset
        if not stream.buffer.startswith(GZIP) and stream.fill(3) and not stream.buffer.startswith(GZIP):
            if stream.buffer.strip(b"\0\r\n"):
                yield Damage(offset, "bad_gzip")
            stream.seek_to(_MAGIC, 2)
            continue
        member = _Member(stream)
        inside = _Stream(member)
        reason = None
        found = 0  # in this member, whose records stand at one place of the file: counted on to tell them apart
        try:
            for each in _plain(inside, max_bytes, skipped, whole_member=True):
                each.offset = offset + found
                found += 1
                yield each
            if not member.finished:  # a record was given up: what is left of its member is not worth inflating
                reason = "abandoned"
        except _Ended:
            reason = "truncated"
        except zlib.error:
            reason = "bad_gzip"
        if reason is not None:
            if reason != "abandoned":
                yield Damage(offset + found, reason)
            corrupt = reason != "abandoned" and reread <= INFLATE_LIMIT * (stream.offset + HELD)
            reread += member.abandon(corrupt)
            _seek_member(stream, offset)


def _seek_member(stream: _Stream, after: int) -> None:
    """Moves to the next place that inflates to something like a record's header. The bytes of a gzip magic occur in
    compressed data about once in 16 MB."""
    start = 1 if stream.offset == after else 0
    while True:
        stream.fill(CHUNK)
        searched = len(stream.buffer) - (0 if stream.ended else HEAD)
        for found in _MAGIC.finditer(stream.buffer, start, max(start, searched) + len(GZIP) - 1):
            try:
                head = zlib.decompressobj(wbits=31).decompress(stream.buffer[found.start() : found.start() + HEAD], 64)
            except zlib.error:
                continue
            if head.startswith(b"WARC/"):
                stream.take(found.start())
                return
        stream.take(searched)
        start = 0
        if stream.ended:
            return


_MAGIC = re.compile(re.escape(GZIP))
HEAD = 1 << 12
_HEADER_START = re.compile(rb"WARC/[01]\.\d+\r?\n")
_NEXT_HEADER = re.compile(rb"WARC/[01]\.\d+\r?\n(?i:WARC|Content)-")
"""Where a block may be in the way, whose text may speak of WARC: a stricter sign."""
_NEXT_RECORD = re.compile(rb"\r?\n\r?\n" + _NEXT_HEADER.pattern)
OVERLAP = 32
"""More than any of these matches."""


def _plain(
    stream: _Stream, max_bytes: int, skipped: Counter[str], whole_member: bool = False
) -> Iterator[Record | Damage]:
    """Records of an uncompressed stream. In a gzip member the end of the stream is the end of the record's space, and
    errors of the member itself rise. Returns early where the rest of a member is not worth inflating."""
    first = True  # a member's first record is most often its only one
    damaged = reread = 0
    while True:
        while stream.fill(1) and stream.buffer[:1] in b"\r\n":
            stream.take(len(stream.buffer) - len(stream.buffer.lstrip(b"\r\n")))
        if not stream.buffer or (whole_member and damaged > DAMAGE_LIMIT):
            return
        offset = stream.offset
        stream.fill(16)
        damaged += 1  # until it turns out to be whole
        if not _HEADER_START.match(stream.buffer):
            yield Damage(offset, "not_warc")
            if not stream.seek_to(_HEADER_START, OVERLAP):
                return
            continue
        try:
            header = _header(stream)
        except _Ended:
            if whole_member and not getattr(stream._source, "finished", True):
                raise
            yield Damage(offset, "wrong_length" if whole_member else "truncated")
            return
        if header is None or not header.get("content-length", "").isdecimal():
            yield Damage(offset, "bad_header")
            if header is None:
                stream.take(HEADER_LIMIT)  # no empty line follows within twice that, so no header ends from here
            if not stream.seek_to(_HEADER_START, OVERLAP):
                return
            continue
        # More digits than any file's size have, and than Python turns into a number.
        length = int(header["content-length"][:18])
        kept = min(length, max_bytes + HEADER_LIMIT)
        block = stream.read(kept)
        if len(block) == kept < length and whole_member and first and length - kept > INFLATE_LIMIT * max_bytes:
            yield _response(offset, header, block, max_bytes, cut=True) or Damage(offset, "too_large")
            return
        short = len(block) < kept
        alone, first = whole_member and first, False
        if short or not _skipped(stream, length - kept, block, alone) or not _at_end(stream):
            ended = stream.ended and not stream.buffer
            if (short or length == kept) and reread + len(block) <= INFLATE_LIMIT * (stream.offset + max_bytes):
                reread += len(block)  # the records that a wrong length made part of this one are read after all
                stream.give_back(block)
            more = stream.seek_to(_NEXT_HEADER, OVERLAP)
            yield Damage(offset, "truncated" if ended and not more and not whole_member else "wrong_length")
            if not more:
                return
            continue
        damaged = 0
        kind = header.get("warc-type", "").lower()
        if kind == "response":
            found = _response(offset, header, block, max_bytes, cut=length > kept)
            if found is not None:
                yield found
                continue
            kind = "response_not_http"
        skipped[kind or "untyped"] += 1


def _skipped(stream: _Stream, size: int, block: bytes, alone: bool) -> bool:
    """Passes over what is not kept of a record's block, up to its declared end. False where the file ends before or,
    unless the record is `alone` in its member, where another record begins: then the declared length is wrong, and the
    stream stands near that record."""
    if size <= 0:
        return True
    if not alone:
        found = _NEXT_RECORD.search(block)
        again = block[found.start() :] if found else block[-OVERLAP:]
        stream.give_back(again)
        size += len(again)
    while size > 0:
        stream.fill(min(size, CHUNK))
        if not stream.buffer:
            return False
        if not alone and _NEXT_RECORD.search(stream.buffer[:size]):
            return False
        # What may be the beginning of a match stays, while there is more to come.
        step = min(size, len(stream.buffer))
        if step < size and step > OVERLAP and not alone:
            step -= OVERLAP
        stream.take(step)
        size -= step
    return True


def _at_end(stream: _Stream) -> bool:
    """Whether the stream stands where a record may end."""
    stream.fill(16)
    return not stream.buffer[:4].strip(b"\r\n") or _HEADER_START.match(stream.buffer) is not None


def _header(stream: _Stream) -> dict[str, str] | None:
    """The header's fields by lower-case name; None where no empty line ends it within 64 KiB."""
    size = CHUNK // 16
    while True:
        stream.fill(size)
        end = re.search(rb"\r?\n\r?\n", stream.buffer)
        if end:
            break
        if stream.ended:
            raise _Ended
        if size > HEADER_LIMIT:
            return None
        size *= 2
    lines = stream.take(end.end()).decode("utf-8", "replace").splitlines()
    return _fields(lines[1:])


def _fields(lines: list[str]) -> dict[str, str]:
    fields: dict[str, str] = {}
    name = ""
    for line in lines:
        if line.startswith((" ", "\t")) and name:
            fields[name] += " " + line.strip()
        elif line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields.setdefault(name, value.strip())
    return fields


def _response(offset: int, header: dict[str, str], block: bytes, max_bytes: int, cut: bool) -> Record | None:
    """The HTTP response in a record's block; None if the record holds another protocol's."""
    url = header.get("warc-target-uri", "").strip("<>")
    if not url.startswith(("http://", "https://")):
        return None
    record = Record(offset, header.get("warc-record-id", ""), url, header.get("warc-date", ""), 0, "", b"", None)
    end = re.search(rb"\r?\n\r?\n", block[:HEADER_LIMIT])
    lines = block[: end.start() if end else 0].decode("latin-1").splitlines()
    status = re.match(r"HTTP/\d(?:\.\d)?\s+(\d{3})", lines[0]) if lines else None
    if end is None or status is None:
        record.problem = "bad_http"
        return record
    fields = _fields(lines[1:])
    record.status = int(status[1])
    record.content_type = fields.get("content-type", "")
    body = block[end.end() :]
    if cut or len(body) > max_bytes:
        record.body, record.problem = body[:max_bytes], "too_large"
        return record
    record.body, record.problem = decoded(body, fields, max_bytes)
    return record
