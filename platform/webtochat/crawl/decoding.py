"""Bodies of HTTP answers without their encodings. A bomb is inflated no further than to the bytes that are wanted."""

from __future__ import annotations

import re
import zlib

import brotli
import pyarrow as pa

GZIP = b"\x1f\x8b"
ZSTD = b"\x28\xb5\x2f\xfd"
CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f]")
PIECE = 1 << 16


def decoded(body: bytes, fields: dict[str, str], max_bytes: int) -> tuple[bytes, str | None]:
    """A body without its transfer and content encodings. Crawlers often store it decoded under its old headers: what
    does not look encoded is taken as it is."""
    if "chunked" in fields.get("transfer-encoding", "").lower():
        body = _dechunked(body)
    for encoding in reversed(fields.get("content-encoding", "").lower().replace(" ", "").split(",")):
        try:
            if encoding in ("gzip", "x-gzip") and body.startswith(GZIP):
                body = _inflated(body, 31, max_bytes)
            elif encoding == "deflate":
                body = _inflated(body, 15 if body[:1] == b"\x78" else -15, max_bytes)
            elif encoding == "br":
                body = _unbrotlied(body, max_bytes)
            elif encoding == "zstd" and body.startswith(ZSTD):
                body = pa.CompressedInputStream(pa.BufferReader(body), "zstd").read(max_bytes + 1)
        except (zlib.error, brotli.error, OSError):  # pyarrow's is an OSError
            if not _looks_plain(body):
                return b"", "bad_encoding"
        if len(body) > max_bytes:
            return body[:max_bytes], "too_large"
    return body, None


def _looks_plain(body: bytes) -> bool:
    """Whether it begins as text does: without control characters, which compressed bytes are full of."""
    return CONTROL.search(body[:256]) is None


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
    inflater = zlib.decompressobj(wbits=wbits)
    inflated = inflater.decompress(body, max_bytes + 1)
    # Raw deflate has no magic: text may pass for its beginning, never for the whole of it.
    return body if not inflater.eof and len(inflated) <= max_bytes and _looks_plain(body) else inflated


def _unbrotlied(body: bytes, max_bytes: int) -> bytes:
    """As `_inflated`; nor has brotli a magic."""
    decoder, parts, size = brotli.Decompressor(), [], 0
    piece = decoder.process(body, output_buffer_limit=PIECE)
    while True:
        parts.append(piece)
        size += len(piece)
        if size > max_bytes or decoder.is_finished() or decoder.can_accept_more_data():
            break
        piece = decoder.process(b"", output_buffer_limit=PIECE)
    unfinished = size <= max_bytes and not decoder.is_finished()
    return body if unfinished and _looks_plain(body) else b"".join(parts)[: max_bytes + 1]
