"""A page's tree as a list of text blocks (paragraphs, headings, list items, table rows), each with where it stands:
under which tags and class names, in which elements, how much of it is link. One pass over the tree, 3 to 4 ms for a
page of 100 KB (lexbor's tree by selectolax: Resiliparse's costs 4 µs a node to walk from Python).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple

from selectolax.lexbor import LexborHTMLParser, LexborNode

SKIPPED = frozenset((
    "head", "script", "style", "noscript", "template", "svg", "math", "canvas", "iframe", "object", "embed", "audio",
    "video", "select", "datalist", "textarea", "map", "title", "meta", "link",
))  # fmt: skip
"""Elements without readable text."""
BLOCKS = frozenset((
    "html", "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "dialog", "dir", "div",
    "dl", "dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header",
    "hgroup", "hr", "legend", "li", "main", "menu", "nav", "ol", "option", "p", "pre", "search", "section", "summary",
    "table", "tbody", "tfoot", "thead", "tr", "ul", "caption",
))  # fmt: skip
"""Elements that begin a line of their own."""
VOID = frozenset(("img", "input", "source", "track", "wbr", "col", "area", "base", "param"))
"""Elements that can hold nothing."""
ABOVE_TAGS = (
    "article", "main", "nav", "header", "footer", "aside", "form", "table", "ul", "ol", "blockquote", "figure",
    "section", "button", "a", "strong", "label", "details",
)  # fmt: skip
ABOVE_CLASSES = {
    "comment": r"comment|disqus|respond|repl(?:y|ies)",
    "side": r"side|widget|rail$|aside|sticky|secondary",
    "related": r"relat|recommend|similar|^more$|also|popular|trend|latest|upsell",
    "card": r"teaser|card|carousel|slid|grid|tile|listing|item",
    "navigation": r"nav|menu|breadcrumb|pagin|pager|^toc|^tabs?$|skip|sitemap",
    "foot": r"foot|copyright|legal|bottom",
    "head": r"^head|masthead|banner|topbar|logo|hero",
    "share": r"shar|social|follow|subscri|newsletter|signup|login|search",
    "advert": r"^ads?$|advert|sponsor|promo|cookie|consent|gdpr|modal|popup|overlay|^cta$",
    "meta": r"meta|byline|author|date|time|tags?$|categor|caption|credit|info|^bio$|label",
    "content": r"content|article|post|entry|story|text|body|main|page|detail|descr|markdown|prose|rich",
    "product": r"product|price|cart$|buy|shop|rating|review|spec",
    "forum": r"message|thread|topic|forum|quest|answer|user|quote",
    "hidden": r"hidden|^sr$|reader|collaps|accordion|toggle|faq",
}
"""What a word in an element's class or id says of it."""
ABOVE = (*ABOVE_TAGS, *ABOVE_CLASSES, "invisible")
"""The bits of `Block.above` and `Block.near`, lowest first."""
NEAR = 3
_TAG_BIT = {name: 1 << number for number, name in enumerate(ABOVE_TAGS)} | {"b": 1 << ABOVE_TAGS.index("strong")}
_CLASS_BITS = [(1 << ABOVE.index(name), re.compile(pattern)) for name, pattern in ABOVE_CLASSES.items()]
_INVISIBLE = 1 << ABOVE.index("invisible")
_INVISIBLE_STYLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_NAME = re.compile(r"[A-Z]?[a-z]+")
_NAMES = 300


@dataclass(slots=True)
class Block:
    text: str
    """White space collapsed, except in `pre`."""
    tag: str
    """Of the nearest block element."""
    above: int
    """What stands above it: bits of `ABOVE`."""
    near: int
    """Of these, what the nearest `NEAR` elements have."""
    link_characters: int
    element: int
    """Number of the block element that it stands in."""
    depth: int


@dataclass(slots=True)
class Page:
    title: str = ""
    blocks: list[Block] = field(default_factory=list)
    parents: list[int] = field(default_factory=lambda: [0])
    """Of each block element, numbered in document order, the one above; the document's own is 0, its parent itself."""


class _Element(NamedTuple):
    tag: str
    above: int
    near: tuple[int, ...]
    number: int
    block_tag: str
    skipped: bool
    preformatted: bool


def read(markup: str) -> Page:
    """The blocks of a page in document order."""
    tree = LexborHTMLParser(markup)
    page = Page()
    root = tree.root
    if root is None:
        return page
    open_ids = [root.mem_id]
    open_elements = [_Element("html", 0, (0,) * NEAR, 0, "html", False, False)]
    pieces: list[str] = []
    begun = open_elements[0]
    links = link_characters = depth = 0

    def flush() -> None:
        nonlocal link_characters
        text = "".join(pieces)
        text = text.strip("\n").rstrip() if begun.preformatted else " ".join(text.split())
        if text:
            near = 0
            for bits in begun.near:
                near |= bits
            size = min(link_characters, len(text))
            page.blocks.append(Block(text, begun.block_tag, begun.above, near, size, begun.number, depth))
        pieces.clear()
        link_characters = 0

    for node in root.traverse(include_text=True):
        text = node.text_content if node.is_text_node else None
        if text is None:
            if not node.is_element_node or node.mem_id == open_ids[0]:
                continue
        elif not pieces and (not text or text.isspace()):
            continue
        parent = node.parent.mem_id  # type: ignore[union-attr]  # only the root has none
        while open_ids[-1] != parent:
            open_ids.pop()
            ended = open_elements.pop().tag
            if pieces and ended in BLOCKS:
                flush()
            elif ended == "a":
                links -= 1
        inner = open_elements[-1]
        if text is not None:
            if not inner.skipped and (pieces or not text.isspace()):
                if not pieces:
                    begun, depth = inner, len(open_elements)
                pieces.append(text)
                link_characters += len(text.strip()) if links else 0
            continue
        tag = node.tag or ""
        if tag in VOID:
            continue
        if tag == "br":
            if pieces and pieces[-1] == "\n":  # two of them end a paragraph
                flush()
            elif pieces:
                pieces.append("\n")
            continue
        skipped = inner.skipped or tag in SKIPPED
        bits = 0 if skipped else _TAG_BIT.get(tag, 0) | _bits_of(node)
        number, block_tag = inner.number, inner.block_tag
        if tag in BLOCKS:
            if pieces:
                flush()
            page.parents.append(number)
            number, block_tag = len(page.parents) - 1, tag
        elif tag == "a":
            links += 1
        elif pieces and tag in ("td", "th"):
            pieces.append(" | ")
        open_ids.append(node.mem_id)
        open_elements.append(
            _Element(
                tag, inner.above | bits, (bits, *inner.near[:-1]), number, block_tag,
                skipped, inner.preformatted or tag == "pre",
            )
        )  # fmt: skip
    if pieces:
        flush()
    title = tree.css_first("title")
    page.title = " ".join((title.text() if title else "").split())
    return page


def _bits_of(node: LexborNode) -> int:
    """What an element's attributes say."""
    attributes = node.attributes
    if not attributes:
        return 0
    bits = 0
    for names in (attributes.get("class"), attributes.get("id")):
        if names:
            bits |= _bits_of_names(names[:_NAMES])
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return bits | _INVISIBLE
    style = attributes.get("style")
    return bits | _INVISIBLE if style and _INVISIBLE_STYLE.search(style) else bits


@lru_cache(maxsize=1 << 15)
def _bits_of_names(names: str) -> int:
    bits = 0
    for name in _NAME.findall(names):
        bits |= _bits_of_name(name)
    return bits


@lru_cache(maxsize=1 << 15)
def _bits_of_name(name: str) -> int:
    return sum(bit for bit, pattern in _CLASS_BITS if pattern.search(name.lower()))
