"""The tool `python`: a program in, what it printed out. As in a notebook, the value of the last expression is shown
too, where it is not None: models often end a program so, and print nothing.
"""

from __future__ import annotations

from typing import Any

from webtochat.recipe_tools import PythonTool
from webtochat.tools import bubblewrap, monty
from webtochat.tools.tool import ToolResult, shortened

BACKENDS = {"monty": monty.run, "bubblewrap": bubblewrap.run}
DIALECT = {
    "monty": "A subset of Python: no generators, and of the standard library only modules such as math, re, json, "
    "datetime, collections, itertools, functools, random and decimal.",
    "bubblewrap": "Python 3 with its standard library; one process, no threads.",
}


def run(code: str, section: PythonTool | None = None) -> ToolResult:
    """Runs a program where it can reach nothing. Raises UserError where the backend cannot isolate on this machine:
    there is no other way to run it."""
    section = section or PythonTool()
    if len(code) > section.code_characters:
        return ToolResult("", f"the program has {len(code):,} characters; at most {section.code_characters:,} are run")
    result = BACKENDS[section.backend](code.encode("utf-8", "replace").decode(), section)
    error = None if result.error is None else shortened(result.error.strip(), section.output_characters)
    return ToolResult(result.output, error)


class Python:
    name = "python"
    parameters: dict[str, Any] = {  # noqa: RUF012
        "type": "object",
        "properties": {"code": {"type": "string", "description": "The program."}},
        "required": ["code"],
        "additionalProperties": False,
    }

    def __init__(self, section: PythonTool | None = None):
        """Raises UserError where the backend cannot isolate, before any model is asked."""
        self._section = section or PythonTool()
        self.description = (
            "Runs a Python program and returns what it printed, and the value of its last expression. Each call starts "
            f"afresh, without files or network, for at most {self._section.seconds:g} seconds. "
            + DIALECT[self._section.backend]
        )
        if self._section.backend == "bubblewrap":
            bubblewrap.probe()

    def call(self, arguments: dict[str, Any]) -> ToolResult:
        return run(arguments["code"], self._section)
