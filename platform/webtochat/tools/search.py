"""The tool `web_search`: a query in, numbered results out, from the index of the curated crawl or from a hosted engine.

The hosted ones answer in the forms that their documentation gives (SearXNG's JSON API, Brave Search API, Tavily). Their
keys come from the environment alone, so that none stands in a recipe.
"""

from __future__ import annotations

import html
import os
import re
from collections.abc import Callable
from typing import Any

import httpx

from webtochat.errors import UserError
from webtochat.recipe_tools import WebTool
from webtochat.tools.index import Found, SearchIndex
from webtochat.tools.tool import Source, ToolResult, shortened

BRAVE, TAVILY = "https://api.search.brave.com", "https://api.tavily.com"
TAG = re.compile(r"</?\w[^<>]*>")
Engine = Callable[[str], list[Found]]


class EngineError(Exception):
    """A hosted engine does not answer as it should."""


def searxng(section: WebTool, base: str | None = None) -> Engine:
    base = base or _variable("SEARXNG_URL", section)

    def search(query: str) -> list[Found]:
        answer = _asked(section, "GET", f"{base.rstrip('/')}/search", params={"q": query, "format": "json"})
        return _found(section, answer.get("results"), "content")

    return search


def brave(section: WebTool, base: str = BRAVE) -> Engine:
    key = _variable("BRAVE_API_KEY", section)

    def search(query: str) -> list[Found]:
        answer = _asked(
            section, "GET", f"{base}/res/v1/web/search", headers={"X-Subscription-Token": key},
            params={"q": query, "count": min(20, section.results), "text_decorations": "false"},
        )  # fmt: skip
        return _found(section, (answer.get("web") or {}).get("results"), "description")

    return search


def tavily(section: WebTool, base: str = TAVILY) -> Engine:
    key = _variable("TAVILY_API_KEY", section)

    def search(query: str) -> list[Found]:
        answer = _asked(
            section, "POST", f"{base}/search", headers={"Authorization": f"Bearer {key}"},
            json={"query": query, "max_results": min(20, section.results)},
        )  # fmt: skip
        return _found(section, answer.get("results"), "content")

    return search


HOSTED = {"searxng": searxng, "brave": brave, "tavily": tavily}


def _variable(name: str, section: WebTool) -> str:
    value = os.environ.get(name)
    if not value:
        raise UserError(f"tools.web.engine is {section.engine}, and {name} is not set: set it, or use engine=index")
    return value


def _asked(section: WebTool, method: str, url: str, **options: Any) -> dict[str, Any]:
    try:
        answer = httpx.request(method, url, timeout=section.engine_seconds, **options)
        content = answer.json() if answer.status_code == 200 else None
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise EngineError(f"the search engine cannot be reached: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise EngineError(f"the search engine answers {answer.status_code}")
    return content


def _found(section: WebTool, rows: Any, snippet: str) -> list[Found]:
    """Results in one form; what is no result is left out."""
    found = []
    for row in rows if isinstance(rows, list) else []:
        if isinstance(row, dict) and isinstance(row.get("url"), str):
            title, text = (_plain(str(row.get(name) or "")) for name in ("title", snippet))
            found.append(Found(title, row["url"], shortened(text, section.snippet_characters)))
    return found[: section.results]


def _plain(text: str) -> str:
    return " ".join(html.unescape(TAG.sub("", text)).split())


class WebSearch:
    name = "web_search"
    description = "Searches the web. Returns numbered results: title, address and a snippet. Open one with open_page."
    parameters: dict[str, Any]

    def __init__(self, section: WebTool, index: SearchIndex | None = None):
        """Raises UserError where the engine's key or the index is missing."""
        self.parameters = {
            "type": "object",
            "properties": {"query": {"type": "string", "description": "The words to look for."}},
            "required": ["query"],
            "additionalProperties": False,
        }
        if section.engine == "index":
            if index is None:
                raise UserError("tools.web.engine is index, and there is none: run jobs/index.py first")
            self._search: Engine = lambda query: index.search(query, section)
        else:
            self._search = HOSTED[section.engine](section)

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        try:
            found = self._search(arguments["query"])
        except EngineError as error:
            return ToolResult("", str(error))
        shown = [f"{number}. {each.title}\n   {each.url}\n   {each.snippet}" for number, each in enumerate(found, 1)]
        sources = tuple(Source(each.title, each.url, each.snippet) for each in found)
        return ToolResult("\n".join(shown) or "No results.", sources=sources)
