"""The bytes of a WARC file, wherever it is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from webtochat import storage
from webtochat.crawl.fetch import HttpReader
from webtochat.crawl.warc import Readable


@contextmanager
def open_stream(path: str) -> Iterator[Readable]:
    """A stream of a local file, an object of a store, or an http(s) address (politely, resumed where it is cut)."""
    if path.startswith(("http://", "https://")):
        with closing(HttpReader(path)) as source:
            yield source
    else:
        with storage.open_input(path) as source:
            yield source
