"""Records of a WARC file, as a stream. Every response is yielded, and every damaged region, so that nothing vanishes:
libraries that skip what they cannot read (FastWARC, warcio) cannot say what they skipped, hence a reader of our own.

Memory is bounded by `max_bytes` of one record, whatever the file inflates to. After damage the reader goes on at the
next gzip member that inflates to a WARC header, or at the next line that begins one.
"""

from __future__ import annotations

import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import brotli

CHUNK = 1 << 16
HEADER_LIMIT = 1 << 16
GZIP = b"\x1f\x8b\x08"
INFLATE_LIMIT = 8
"""A record or body is inflated to at most this many times `max_bytes` before the rest of it is given up."""


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

    def read(self, size: int) -> bytes:
        self.fill(size)
        return self.take(size)

    def skip(self, size: int) -> None:
        while size > 0:
            gone = len(self.read(min(size, CHUNK)))
            if not gone:
                raise _Ended
            size -= gone

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
        self._broken = False

    def read(self, size: int) -> bytes:
        while not self.finished:
            if not self._inflater.unconsumed_tail and not self._stream.fill(1):
                raise _Ended
            given = self._inflater.unconsumed_tail or self._stream.take(len(self._stream.buffer))
            try:
                piece = self._inflater.decompress(given, size)
            except zlib.error:
                # Back to the stream: the next member may begin in what the inflater has swallowed.
                self._stream.buffer = given + self._stream.buffer
                self._stream.offset -= len(given)
                self._broken = True
                raise
            if self._inflater.eof:
                self.finished = True
                unused = self._inflater.unused_data
                self._stream.buffer = unused + self._stream.buffer
                self._stream.offset -= len(unused)
            if piece:
                return piece
        return b""

    def abandon(self) -> None:
        """Gives back the compressed bytes that were not inflated, so that the search for the next member sees them."""
        tail = b"" if self._broken else self._inflater.unconsumed_tail
        self._stream.buffer = tail + self._stream.buffer
        self._stream.offset -= len(tail)


def records(source: Readable, max_bytes: int, skipped: Counter[str] | None = None) -> Iterator[Record | Damage]:
    """Responses and damaged regions of a WARC file, plain or gzipped, in order. `skipped` counts records of other types
    by type."""
    stream = _Stream(source)
    skipped = Counter() if skipped is None else skipped
    stream.fill(CHUNK)
    read = _gzipped if _is_gzipped(stream.buffer) else _plain
    yield from _merged(read(stream, max_bytes, skipped))


def _is_gzipped(start: bytes) -> bool:
    """By the first bytes; where those are damaged, by what the first 64 KiB hold."""
    return start[:2] == GZIP[:2] or (GZIP in start and not _HEADER_START.search(start))


def _merged(found: Iterator[Record | Damage]) -> Iterator[Record | Damage]:
    """Neighbouring damage of one kind is one region."""
    last: Damage | None = None
    for each in found:
        if isinstance(each, Damage):
            if last is not None and last.reason == each.reason:
                continue
            last = each
        else:
            last = None
        yield each


def _gzipped(stream: _Stream, max_bytes: int, skipped: Counter[str]) -> Iterator[Record | Damage]:
    magic = re.compile(re.escape(GZIP))
    while stream.fill(1):
        offset = stream.offset
        if not stream.buffer.startswith(GZIP) and stream.fill(3) and not stream.buffer.startswith(GZIP):
            if stream.buffer.strip(b"\0\r\n"):
                yield Damage(offset, "bad_gzip")
            stream.seek_to(magic, 2)
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
            member.abandon()
            _seek_member(stream, magic, offset)


def _seek_member(stream: _Stream, magic: re.Pattern[bytes], after: int) -> None:
    """Moves to the next place that inflates to something like a record's header. The bytes of a gzip magic occur in
    compressed data about once in 16 MB."""
    if stream.offset == after and stream.fill(1):
        stream.take(1)
    while stream.seek_to(magic, 2):
        stream.fill(1 << 12)
        try:
            head = zlib.decompressobj(wbits=31).decompress(stream.buffer[: 1 << 12], 64)
        except zlib.error:
            head = b""
        if head.startswith(b"WARC/"):
            return
        stream.take(1)


_HEADER_START = re.compile(rb"WARC/[01]\.\d+\r?\n")


def _plain(
    stream: _Stream, max_bytes: int, skipped: Counter[str], whole_member: bool = False
) -> Iterator[Record | Damage]:
    """Records of an uncompressed stream. In a gzip member the end of the stream is the end of the record's space, and
    errors of the member itself rise."""
    while True:
        while stream.fill(1) and stream.buffer[:1] in b"\r\n":
            stream.take(1)
        if not stream.buffer:
            return
        offset = stream.offset
        stream.fill(16)
        if not _HEADER_START.match(stream.buffer):
            yield Damage(offset, "not_warc")
            if not stream.seek_to(_HEADER_START, 12):
                return
            continue
        try:
            header = _header(stream)
            if header is None or not header.get("content-length", "").isdigit():
                yield Damage(offset, "bad_header")
                stream.read(1)  # else the search would find this header again
                if not stream.seek_to(_HEADER_START, 12):
                    return
                continue
            length = int(header["content-length"])
            kept = min(length, max_bytes + HEADER_LIMIT)
            block = stream.read(kept)
            if len(block) < kept:
                raise _Ended
            if whole_member and length - kept > INFLATE_LIMIT * max_bytes:
                yield _response(offset, header, block, max_bytes, cut=True) or Damage(offset, "too_large")
                return
            stream.skip(length - kept)
        except _Ended:
            if whole_member and not getattr(stream._source, "finished", True):
                raise
            yield Damage(offset, "truncated" if not whole_member else "wrong_length")
            return
        stream.fill(4)
        rest = stream.buffer[:4]
        if rest.strip(b"\r\n") and not _HEADER_START.match(stream.buffer):
            yield Damage(offset, "wrong_length")
            if not stream.seek_to(_HEADER_START, 12):
                return
            continue
        kind = header.get("warc-type", "").lower()
        if kind == "response":
            found = _response(offset, header, block, max_bytes, cut=length > kept)
            if found is not None:
                yield found
                continue
            kind = "response_not_http"
        skipped[kind or "untyped"] += 1


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


def decoded(body: bytes, fields: dict[str, str], max_bytes: int) -> tuple[bytes, str | None]:
    """A body without its transfer and content encodings. Crawlers often store it decoded under its old headers: what
    does not look encoded is taken as it is."""
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = _dechunked(body)
    for encoding in reversed(fields.get("content-encoding", "").lower().replace(" ", "").split(",")):
        try:
            if encoding in ("gzip", "x-gzip") and body.startswith(GZIP[:2]):
                body = _inflated(body, 31, max_bytes)
            elif encoding == "deflate":
                body = _inflated(body, 15 if body[:1] == b"\x78" else -15, max_bytes)
            elif encoding == "br" and b"<" not in body[:64]:
                body = _unbrotlied(body, max_bytes)
        except (zlib.error, brotli.error):
            looks_plain = b"<" in body[:256]
            if not looks_plain:
                return b"", "bad_encoding"
        if len(body) > max_bytes:
            return body[:max_bytes], "too_large"
    return body, None


def _dechunked(body: bytes) -> bytes:
    parts: list[bytes] = []
    position = 0
    while True:
        line_end = body.find(b"\r\n", position, position + 64)
        size = re.match(rb"[0-9a-fA-F]+", body[position:line_end]) if line_end > 0 else None
        if size is None:
            # Not chunked after all, or damaged: what was read so far, else the whole as it is.
            return b"".join(parts) if parts else body
        length = int(size[0], 16)
        if length == 0:
            return b"".join(parts)
        parts.append(body[line_end + 2 : line_end + 2 + length])
        position = line_end + 2 + length + 2
        if position >= len(body):
            return b"".join(parts)


def _inflated(body: bytes, wbits: int, max_bytes: int) -> bytes:
    """At most one byte more than `max_bytes`: a bomb is not inflated to find how large it is."""
    return zlib.decompressobj(wbits=wbits).decompress(body, max_bytes + 1)


def _unbrotlied(body: bytes, max_bytes: int) -> bytes:
    decoder, parts, size = brotli.Decompressor(), [], 0
    piece = decoder.process(body, output_buffer_limit=CHUNK)
    while True:
        parts.append(piece)
        size += len(piece)
        if size > max_bytes or decoder.is_finished() or decoder.can_accept_more_data():
            return b"".join(parts)[: max_bytes + 1]
        piece = decoder.process(b"", output_buffer_limit=CHUNK)
