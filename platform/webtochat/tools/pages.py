"""The tool `open_page`: an address in, a window of the page's text out, or the places where words stand in it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import urldefrag

from webtochat.errors import UserError
from webtochat.recipe_tools import WebTool
from webtochat.tools.index import Document, SearchIndex
from webtochat.tools.tool import Source, ToolResult
from webtochat.tools.web import PUBLIC, FetchError, Network, fetch


class OpenPage:
    name = "open_page"
    description = (
        "Opens a page by its address. Shows its text, one part at a time (page 2 is the second part), or with find the "
        "places where those words stand."
    )

    def __init__(self, section: WebTool, index: SearchIndex | None = None, network: Network = PUBLIC):
        """Raises UserError where there is nothing that it could open."""
        if index is None and not section.live:
            raise UserError("open_page has no index and tools.web.live is false: run jobs/index.py, or set it")
        self.parameters: dict[str, Any] = {
            "type": "object",
            "properties": {
                "url": {"type": "string", "description": "The address, as search results give it."},
                "find": {"type": "string", "description": "Show only the places with these words."},
                "page": {"type": "integer", "minimum": 1, "description": "Which part of a long page; 1 by default."},
            },
            "required": ["url"],
            "additionalProperties": False,
        }
        self._section = section
        self._index = index
        self._network = network

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        url, find, number = arguments["url"], arguments.get("find", "").strip(), int(arguments.get("page", 1))
        try:
            page = self._page(url)
        except FetchError as error:
            return ToolResult("", f"{url} cannot be opened: {error}")
        head = f"{page.title}\n{page.url}\n" if page.title else f"{page.url}\n"
        if find:
            places = passages(page.text, find, self._section.find_results, self._section.page_characters)
            shown = "\n\n".join(places) or f"{find!r} does not stand in this page."
            return ToolResult(f"{head}\n{shown}", sources=(Source(page.title, page.url, shown),))
        parts = windows(page.text, self._section.page_characters)
        if number > len(parts):
            return ToolResult("", f"there is no page {number}: {page.url} has {len(parts)}")
        shown = parts[number - 1]
        text = f"{head}page {number} of {len(parts)}\n\n{shown}"
        return ToolResult(text, sources=(Source(page.title, page.url, shown),))

    def _page(self, url: str) -> Document:
        found = self._index and (self._index.page(url) or self._index.page(urldefrag(url).url))
        if found:
            return found
        if not self._section.live:
            raise FetchError("it is not in the index; open an address that web_search gave")
        page = fetch(url, self._section.fetch, self._network)
        return Document(page.title, page.url, page.text)


def windows(text: str, characters: int) -> list[str]:
    """Text in parts of at most so many characters, cut between lines or words where there are any."""
    parts = []
    while len(text) > characters:
        end = max(text.rfind(mark, characters // 2, characters) for mark in ("\n", " "))
        end = characters if end < 0 else end + 1
        parts.append(text[:end])
        text = text[end:]
    return [*parts, text] if text or not parts else parts


def passages(text: str, find: str, most: int, characters: int) -> list[str]:
    """The surroundings of the first places where the words stand one after the other, in all at most so many
    characters. Capitals and white space make no difference."""
    around = characters // most // 2
    wanted = re.compile(r"\s+".join(re.escape(word) for word in find.split()), re.IGNORECASE)
    shown: list[str] = []
    end = 0
    while len(shown) < most and (match := wanted.search(text, end)):
        start, end = max(end, match.start() - around), min(len(text), match.end() + around)
        shown.append("…" * (start > 0) + text[start:end].strip() + "…" * (end < len(text)))
    return shown
