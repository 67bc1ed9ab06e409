"""The sections of a recipe that are about tools: the search index, and what the model may call."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from webtochat.recipe_file import Section


class Index(Section):
    """A full-text index of the kept documents, for tools.web."""

    stemmer: str | None = "english"
    """Words are compared by their stems in this language (Snowball's, by its English name); null: as they stand."""
    segment_mb: int = Field(64, ge=4, le=500)
    """Text that one segment holds; making it takes about twice as much memory, at most eight times."""


class PythonTool(Section):
    """Programs that the model writes: see docs/tools.md for what each backend keeps them from."""

    backend: Literal["monty", "bubblewrap"] = "monty"
    seconds: float = Field(5.0, gt=0)
    memory_mb: int = Field(256, ge=64)
    output_characters: int = Field(4000, ge=100)
    """Of more, the beginning and the end are shown."""
    code_characters: int = Field(20_000, ge=100)


class Fetch(Section):
    """Reading a page of the live web, from public addresses only."""

    seconds: float = Field(15.0, gt=0)
    """From the first look-up to the last byte, redirects included."""
    max_bytes: int = Field(5_000_000, gt=0)
    """Sent, and again decompressed."""
    max_redirects: int = Field(5, ge=0)
    ports: list[int] = [80, 443]
    content_types: list[str] = ["text/html", "application/xhtml+xml", "text/plain", "application/json"]


class WebTool(Section):
    engine: Literal["index", "searxng", "brave", "tavily"] = "index"
    """index: what the stage `index` made. The others are asked over the network: see docs/tools.md."""
    live: bool = False
    """Pages that the index does not hold are fetched from the web."""
    results: int = Field(5, ge=1)
    query_words: int = Field(32, ge=1)
    """Of a longer query the first are searched for."""
    title_weight: float = 2.0
    """How many times a word in a title counts."""
    phrase_weight: float = 2.0
    """How many times two words count that stand beside each other in the query and in the text."""
    snippet_characters: int = Field(200, ge=20)
    page_characters: int = Field(3000, ge=100)
    """Of a page in one answer."""
    find_results: int = Field(3, ge=1)
    engine_seconds: float = Field(15.0, gt=0)
    fetch: Fetch = Fetch()


class Tools(Section):
    """What the model may call, the same in training data, rollouts and serving."""

    names: list[Literal["python", "web_search", "open_page"]] = ["python", "web_search", "open_page"]
    python: PythonTool = PythonTool()
    web: WebTool = WebTool()
    call_seconds: float = Field(30.0, gt=0)
    """A call that takes longer is given up, whatever the tool's own limits are."""
    result_characters: int = Field(8000, ge=100)
    max_rounds: int = Field(8, ge=1)
    """How often a conversation calls tools, one or several at a time, before an answer of it must call none."""
    max_tokens: int | None = Field(None, ge=1)
    """Of a conversation, results included; by default as many as the model has positions."""
