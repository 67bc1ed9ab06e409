"""A page's tree as a list of text blocks (paragraphs, headings, list items, table rows), each with where it stands:
under which tags and class names, in which elements, how much of it is link. One pass over the tree, 2 ms for a page
of 84 KB (lexbor's tree by selectolax: Resiliparse's costs 4 µs a node to walk from Python).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from selectolax.lexbor import LexborHTMLParser

from webtochat.memo import Memo

SKIPPED = [
    "head", "script", "style", "noscript", "template", "svg", "math", "canvas", "iframe", "object", "embed", "audio",
    "video", "select", "datalist", "textarea", "map", "title", "meta", "link",
]  # fmt: skip
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


# An open element: (id, tag, bits of all above and its own, its own, its parent's, its grandparent's, its number, the
# nearest block's tag, preformatted). A plain tuple: to make a named one takes 0.3 µs more.
_Element = tuple[int, str, int, int, int, int, int, str, bool]


def read(markup: str) -> Page:
    """The blocks of a page in document order."""
    tree = LexborHTMLParser(markup)
    page = Page()
    if title := tree.css_first("title"):
        page.title = " ".join(title.text().split())
    tree.strip_tags(SKIPPED)
    root = tree.root
    if root is None:
        return page
    inner: _Element = (root.mem_id, "html", 0, 0, 0, 0, 0, "html", False)
    above, begun = [inner], inner
    pieces: list[str] = []
    links = link_characters = depth = 0

    def flush() -> None:
        nonlocal link_characters
        _, _, bits_above, bits, bits_1, bits_2, number, tag, preformatted = begun
        text = "".join(pieces)
        text = text.strip("\n").rstrip() if preformatted else " ".join(text.split())
        if text:
            linked = min(link_characters, len(text))
            page.blocks.append(Block(text, tag, bits_above, bits | bits_1 | bits_2, linked, number, depth))
        pieces.clear()
        link_characters = 0

    for node in root.traverse(include_text=True):
        text = node.text_content if node.is_text_node else None
        if text is None:
            if not node.is_element_node or node.mem_id == above[0][0]:
                continue
        elif not pieces and (not text or text.isspace()):
            continue
        parent = node.parent.mem_id  # type: ignore[union-attr]  # only the root has none
        while inner[0] != parent:
            ended = inner[1]
            above.pop()
            inner = above[-1]
            if pieces and ended in BLOCKS:
                flush()
            elif ended == "a":
                links -= 1
        if text is not None:
            if pieces or not text.isspace():
                if not pieces:
                    begun, depth = inner, len(above)
                pieces.append(text)
                if links:
                    link_characters += len(text.strip())
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
        attributes = node.attributes
        bits = _bits_of(attributes) if attributes else 0
        if tag in _TAG_BIT:
            bits |= _TAG_BIT[tag]
        _, _, bits_above, bits_1, bits_2, _, number, block_tag, preformatted = inner
        if tag in BLOCKS:
            if pieces:
                flush()
            page.parents.append(number)
            number, block_tag = len(page.parents) - 1, tag
            preformatted = preformatted or tag == "pre"
        elif tag == "a":
            links += 1
        elif pieces and tag in ("td", "th"):
            pieces.append(" | ")
        inner = (node.mem_id, tag, bits_above | bits, bits, bits_1, bits_2, number, block_tag, preformatted)
        above.append(inner)
    if pieces:
        flush()
    return page


def _bits_of(attributes: dict[str, str | None]) -> int:
    """What an element's attributes say."""
    bits = 0
    if names := attributes.get("class"):
        bits = _NAMES_BITS[names[:_NAMES]]
    if names := attributes.get("id"):
        bits |= _NAMES_BITS[names[:_NAMES]]
    if "hidden" in attributes or attributes.get("aria-hidden") == "true":
        return bits | _INVISIBLE
    style = attributes.get("style")
    return bits | _INVISIBLE if style and _INVISIBLE_STYLE.search(style) else bits


def _bits_of_names(names: str) -> int:
    bits = 0
    for name in _NAME.findall(names):
        bits |= _NAME_BITS[name]
    return bits


_NAMES_BITS = Memo(_bits_of_names)
_NAME_BITS = Memo(lambda name: sum(bit for bit, pattern in _CLASS_BITS if pattern.search(name.lower())))
