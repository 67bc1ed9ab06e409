"""Programs in Monty, an interpreter of a large part of Python written in Rust. A program can name no file of the host,
no socket, process or variable of the environment, and what it cannot name it cannot reach. Each runs in a worker
process that runs no other after it.

The value of a program's last expression does not come back as an object: a small value can unfold to gigabytes (a list
of one string, a million times). The program prints it itself, under its own limits.
"""

from __future__ import annotations

import io
import os
import tokenize
from functools import lru_cache
from typing import Literal

from pydantic_monty import Monty, MontyCrashedError, MontyError, MontyRuntimeError, MontySession, MontySyntaxError

from webtochat.recipe_tools import PythonTool
from webtochat.tools.tool import Excerpt, ToolResult

GRACE = 1.0
"""Seconds that a worker has to see that its time is over, before it is killed."""
COMPOUND = ("if", "elif", "else", "for", "while", "with", "try", "except", "finally", "def", "class", "async")
"""What stands after a `;` on a line that begins so belongs to that statement."""
FRAMES = 4
"""Of a longer traceback so many of the outermost and of the innermost calls are told."""


def run(code: str, section: PythonTool) -> ToolResult:
    output = Excerpt(section.output_characters)

    def printed(_: Literal["stdout", "stderr"], text: str) -> None:
        output.add(text)

    error: str | None = None
    with _pool(os.getpid(), section.seconds).checkout(
        limits={"max_feed_duration_secs": section.seconds, "max_memory": section.memory_mb << 20},
        os_policy={"sleep": "zero"},
    ) as session:
        showing = showing_last(code)
        program = showing if _is_python(showing, session) else code
        try:
            session.feed_run(program + "\nNone", print_callback=printed)
        except MontyCrashedError:
            error = f"stopped: it ran longer than {section.seconds:g} s, or the interpreter crashed"
        except (MontyRuntimeError, MontySyntaxError) as problem:
            error = _limit(problem, section) or _told(problem, code)
        except MontyError as problem:
            error = str(problem)
    return ToolResult(str(output), error)


@lru_cache(maxsize=4)
def _pool(process: int, seconds: float) -> Monty:
    """The workers of this process (and not of the one that it was forked from)."""
    return Monty(
        request_timeout=seconds + 2 * GRACE, feed_duration_limit_grace=GRACE, max_checkouts_per_worker=1
    ).__enter__()


def _is_python(program: str, session: MontySession) -> bool:
    """Whether Monty can read a program, which it does before it runs the first line. That one ends it."""
    try:
        session.feed_run(f"raise ValueError\n{program}")
    except MontySyntaxError:
        return False
    except MontyError:
        return True
    return True


def showing_last(code: str) -> str:
    """The program with its last statement printed as if it were an expression. It may be none: then this is no Python.
    Found by tokens, as no parser of this process should read what a model wrote:
    CPython's own may take very long over a few hundred characters."""
    start, first, depth, level, inner, fresh = (0, 0), "", 0, 0, 0, True
    try:
        for token in tokenize.generate_tokens(io.StringIO(code).readline):
            if token.type in (tokenize.INDENT, tokenize.DEDENT):
                level += 1 if token.type == tokenize.INDENT else -1
            elif token.type == tokenize.NEWLINE:
                fresh, first = True, ""
            elif token.type not in (tokenize.COMMENT, tokenize.NL, tokenize.ENDMARKER):
                first = first or token.string
                if token.string == ";" and depth == 0 and first not in COMPOUND:
                    fresh = True
                elif fresh:
                    start, fresh, inner = token.start, False, level
                if token.type == tokenize.OP:
                    depth += (token.string in "([{") - (token.string in ")]}")
    except (tokenize.TokenError, IndentationError):
        return code
    if start == (0, 0) or inner:
        return code
    row, column = start
    lines = code.splitlines(keepends=True)
    before = "".join(lines[: row - 1]) + lines[row - 1][:column]
    last = (lines[row - 1][column:] + "".join(lines[row:])).rstrip().removesuffix(";")
    return f"{before}_ = ({last}\n)\nif _ is not None:\n    print(repr(_))"


def _limit(problem: MontyRuntimeError | MontySyntaxError, section: PythonTool) -> str | None:
    """What stopped the program where that was a limit, which has no traceback."""
    message = problem.display("type-msg")
    if message.startswith("TimeoutError: feed time limit exceeded"):
        return f"stopped: it ran longer than {section.seconds:g} s"
    if message.startswith("MemoryError"):
        return f"MemoryError: it took more than {section.memory_mb} MB"
    return None


def _told(problem: MontyRuntimeError | MontySyntaxError, code: str) -> str:
    """A traceback in Python's form, with the lines as the model wrote them."""
    lines = code.splitlines()
    frames = problem.traceback()
    told = ["Traceback (most recent call last):"]
    for number, frame in enumerate(frames):
        if FRAMES <= number < len(frames) - FRAMES:
            if number == FRAMES:
                told.append(f"  [{len(frames) - 2 * FRAMES} more calls]")
            continue
        told.append(f'  File "<python>", line {frame.line}, in {frame.function_name or "<module>"}')
        if frame.line <= len(lines):
            told.append(f"    {lines[frame.line - 1].strip()}")
    return "\n".join([*told, problem.display("type-msg")])
