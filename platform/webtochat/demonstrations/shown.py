"""How a question is answered with tools, shown by calling them: each call is made, and what it gave is what stands in
the conversation. What a result does not hold is not answered from it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from webtochat.evals.extraction import extract
from webtochat.evals.questions import words
from webtochat.recipe_tools import Tools
from webtochat.tokens.chat import Message
from webtochat.tools import tool
from webtochat.tools.tool import Tool, ToolResult

NOT_FOUND = "I did not find it."
FIRST_ADDRESS = re.compile(r"^1\. .*\n\s*(\S+)$", re.MULTILINE)
"""In what web_search gives."""


class NotShown(Exception):
    """Why a question makes no conversation, as a key to count by."""


class Shown:
    """A conversation while it is made."""

    def __init__(self, tools: Sequence[Tool], section: Tools, question: str):
        self._tools, self._section = tools, section
        self.messages: list[Message] = [{"role": "user", "content": question}]

    def call(self, name: str, **arguments: str) -> ToolResult:
        result = tool.call(self._tools, name, arguments, self._section)
        function = {"name": name, "arguments": arguments}
        self.messages += [
            {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": function}]},
            {"role": "tool", "content": result.text},
        ]
        return result

    def says(self, reply: str) -> list[Message]:
        return [*self.messages, {"role": "assistant", "content": reply}]


def program(tools: Sequence[Tool], section: Tools, spec: dict[str, Any]) -> tuple[str, list[Message]]:
    """(kind, messages) of an exercise (programs.py). Raises NotShown where the program does not give its answer."""
    made = Shown(tools, section, spec["question"])
    result = made.call("python", code=spec["program"])
    if result.error is not None:
        raise NotShown("python_failed")
    if result.text != spec["answer"]:
        raise NotShown("python_gave_another_answer")
    return spec["kind"], made.says(spec["reply"])


def search(tools: Sequence[Tool], section: Tools, spec: dict[str, Any]) -> tuple[str, list[Message]]:
    """(kind, messages) of a question about what a document states of a `subject` (`answers`), or about a name that
    stands in none (`answers` is empty): found by the first search, found in the page that it names first, or not found.
    Raises NotShown where a tool fails, or where the name is found but not that answer."""
    subject, answers = spec["subject"], spec["answers"]
    made = Shown(tools, section, spec["question"])
    # Not the bare name: what begins a JSON text is cut into other tokens than what stands in a question.
    result = made.call("web_search", query=f"about {subject}")
    if result.error is not None:
        raise NotShown("web_search_failed")
    if (read := _read(result.text, subject, answers)) is not None:
        return "found", made.says(read)
    address = FIRST_ADDRESS.search(result.text)
    if address is None or "open_page" not in section.names:
        return _not_found(made, subject)
    result = made.call("open_page", url=address[1], find=subject)
    if result.error is not None:
        raise NotShown("open_page_failed")
    if (read := _read(result.text, subject, answers)) is not None:
        return "found_in_page", made.says(read)
    return _not_found(made, subject)


def _not_found(made: Shown, subject: str) -> tuple[str, list[Message]]:
    """Only where no result that was read speaks of the subject: else it may be there, in words not understood here."""
    results = "\n".join(message["content"] for message in made.messages if message["role"] == "tool")
    results = results.replace(f"{subject!r} does not stand in this page.", "")
    if subject in results:
        raise NotShown("subject_found_but_no_answer")
    return "not_found", made.says(NOT_FOUND)


def _read(text: str, subject: str, answers: Sequence[str]) -> str | None:
    """The words of a text that state it, of this subject: to read them out is more to learn from than the one word that
    was asked for."""
    wanted = {tuple(words(answer)) for answer in answers}
    for each in extract(text):
        if each.subject == subject and wanted & {tuple(words(answer)) for answer in each.answers}:
            return f"{each.statement[:1].upper()}{each.statement[1:]}."
    return None
