"""HTML bytes to readable text: Resiliparse's main-content extraction. Pure: the same bytes give the same text.

Resiliparse's time grows with the square of the nesting (1,000 deep: 30 ms; 10,000: 1.9 s; 100,000: not within minutes)
and cannot be interrupted from Python, so deeper pages are refused before. Other pages that take the square of their
size (100,000 attributes, 50,000 options) are read in a process that may be ended: guard.py.
"""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from resiliparse.extract.html2text import extract_plain_text
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5
from resiliparse.parse.html import HTMLTree

MAX_DEPTH = 1000
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_HEADER_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)


class ExtractionError(Exception):
    """A page that cannot be read. Its text is the reason: `unknown_charset`, `too_deep`, `empty`, `unparsable`."""


@dataclass
class Extraction:
    title: str
    text: str


def extract(html: bytes, content_type: str | None = None) -> Extraction:
    """The title and the main text, paragraphs and list items on lines of their own. Raises ExtractionError."""
    markup = decode(html, content_type)
    try:
        tree = HTMLTree.parse(markup)
        if may_nest(html) and deeper_than(tree, MAX_DEPTH):
            raise ExtractionError("too_deep")
        title = " ".join((tree.title or "").split())
        text = extract_plain_text(tree, main_content=True, alt_texts=False, comments=False)
    except (ValueError, RuntimeError) as error:
        raise ExtractionError("unparsable") from error
    if not text.strip():
        raise ExtractionError("empty")
    return Extraction(title, text.strip())


def decode(html: bytes, content_type: str | None = None) -> str:
    """The page as text: UTF-8 if it is valid as that, else the declared charset if it decodes, else what the bytes look
    like. A declared charset that nobody knows is an error only where the bytes are not plainly UTF-8."""
    for mark, name in (
        (codecs.BOM_UTF8, "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16"),
    ):
        if html.startswith(mark):
            return html.decode(name, "replace")
    with suppress(UnicodeDecodeError):
        return html.decode("utf-8")
    declared = _HEADER_CHARSET.search(content_type or "")
    in_page = _META_CHARSET.search(html[:4096])
    names = [found for found in (declared and declared[1], in_page and in_page[1].decode("ascii", "replace")) if found]
    # By the WHATWG's labels, as browsers do: ISO-8859-1 is read as Windows-1252, and Python's own codecs (idna,
    # unicode_escape) are none.
    known = [charset for charset in (map_encoding_to_html5(name, False) for name in names) if charset]
    if in_page and b"\0" not in html[:100]:  # its <meta> could be read in single bytes
        known = [charset for charset in known if not charset.startswith("utf-16")] or (["utf-8"] if known else [])
    for charset in known:
        with suppress(UnicodeDecodeError):
            return html.decode(charset)
    # One broken sequence, as where a page was cut, does not make a page that is UTF-8 another charset's.
    text = html.decode("utf-8", "replace")
    if text.count("\ufffd") * 20 < np.count_nonzero(np.frombuffer(html, np.uint8) > 127):
        return text
    if names and not known:
        raise ExtractionError("unknown_charset")
    return html.decode(detect_encoding(html) or "utf-8", "replace")


def may_nest(html: bytes) -> bool:
    """Whether more elements are opened than closed, MAX_DEPTH or more at some point. One vectorised pass, 0.1 ms for a
    page of 50 KB; unclosed <br>, <li> and tags in scripts count, so that a page of which this is true may be flat."""
    data = np.frombuffer(html, np.uint8)
    at = np.flatnonzero(data[:-1] == ord("<"))
    if len(at) < MAX_DEPTH:
        return False
    first = data[at + 1]
    letter = first | 0x20
    opening = (letter >= ord("a")) & (letter <= ord("z"))
    return bool(np.cumsum(opening.astype(np.int32) - (first == ord("/"))).max() >= MAX_DEPTH)


def deeper_than(tree: HTMLTree, limit: int) -> bool:
    """Whether a node lies more than `limit` below the document."""
    node: Any = tree.document
    depth = 0
    while node is not None:
        if depth > limit:
            return True
        if node.first_child is not None:
            node, depth = node.first_child, depth + 1
            continue
        while node is not None and node.next is None:
            node, depth = node.parent, depth - 1
        node = node.next if node is not None else None
    return False
