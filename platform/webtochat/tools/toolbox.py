"""The tools that a recipe names, made once and used by whoever calls tools."""

from __future__ import annotations

from webtochat.recipe_tools import Tools
from webtochat.tools.index import SearchIndex
from webtochat.tools.pages import OpenPage
from webtochat.tools.python import Python
from webtochat.tools.search import WebSearch
from webtochat.tools.tool import Tool


def toolbox(section: Tools, index: str | None) -> list[Tool]:
    """`index`: a local directory of the stage `index` (`Artifact.local()`), or None. Raises UserError where a tool
    cannot work here: no key, no index, nothing that isolates programs."""
    opened = SearchIndex(index) if index is not None and set(section.names) & {"web_search", "open_page"} else None
    made: dict[str, Tool] = {}
    for name in section.names:
        if name == "python":
            made[name] = Python(section.python)
        elif name == "web_search":
            made[name] = WebSearch(section.web, opened)
        else:
            made[name] = OpenPage(section.web, opened)
    return list(made.values())
