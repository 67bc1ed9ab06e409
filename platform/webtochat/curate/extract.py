"""HTML bytes to readable text: the blocks of the page (blocks.py) that are its main content (main_content.py). Pure:
the same bytes give the same text, in any process and any order.
"""

from __future__ import annotations

import codecs
import re
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from resiliparse.parse.encoding import detect_encoding, map_encoding_to_html5

from webtochat.curate.blocks import Block, read
from webtochat.curate.main_content import main_content

TOGETHER = frozenset(("li", "tr", "dt", "dd"))
"""Blocks that stand in lines below each other."""
_META_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)
_HEADER_CHARSET = re.compile(r"charset\s*=\s*[\"']?\s*([\w.:-]{1,40})", re.IGNORECASE)


class ExtractionError(Exception):
    """A page that cannot be read. Its text is the reason: `unknown_charset`, `empty`; from guard.py `timeout`,
    `crashed`."""


@dataclass
class Extraction:
    title: str
    text: str


def extract(html: bytes, content_type: str | None = None) -> Extraction:
    """The title and the main text: a blank line between paragraphs, list items and table rows on lines of their own,
    code as it stands. Raises ExtractionError."""
    page = read(decode(html, content_type))
    text = written(main_content(page))
    if not text:
        raise ExtractionError("empty")
    return Extraction(page.title, text)


def written(blocks: list[Block]) -> str:
    """Blocks as text. Items of a list are marked by "- ", cells of a table row parted by " | "."""
    parts: list[str] = []
    before = ""
    for block in blocks:
        if parts:
            parts.append("\n" if block.tag == before and block.tag in TOGETHER else "\n\n")
        parts.append(f"- {block.text}" if block.tag == "li" else block.text)
        before = block.tag
    return "".join(parts)


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
