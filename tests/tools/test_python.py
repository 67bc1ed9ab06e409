"""What legitimate programs give, and how results are shown."""

from __future__ import annotations

import math
import shutil
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
from sandboxes import BACKENDS, section

from webtochat.errors import UserError
from webtochat.recipe_tools import PythonTool
from webtochat.tools import bubblewrap, monty, seccomp
from webtochat.tools.python import Python, run

PROGRAMS = [
    ("12345 * 6789", 12345 * 6789),
    ("2 ** 100", 2**100),
    ("sum(range(1, 101))", 5050),
    ("round(1234.5 * 1.19, 2)", round(1234.5 * 1.19, 2)),
    ("'strawberry'.count('r')", 3),
    ("from collections import Counter\nCounter('mississippi').most_common(1)", [("i", 4)]),
    ("from datetime import date\n(date(2024, 3, 1) - date(2023, 3, 1)).days", 366),
    ("from datetime import date, timedelta\nstr(date(2024, 2, 28) + timedelta(days=2))", "2024-03-01"),
    ("from datetime import datetime\ndatetime(2026, 1, 1).strftime('%A')", "Thursday"),
    ("sorted(['pear', 'fig', 'apple'], key=len)", ["fig", "pear", "apple"]),
    ("import math\nmath.comb(52, 5), math.gcd(84, 36)", (math.comb(52, 5), 12)),
    ("import json\njson.loads('{\"a\": [1, 2]}')['a']", [1, 2]),
    ("import re\nre.findall(r'\\d+', 'a1 b22 c333')", ["1", "22", "333"]),
    ("from decimal import Decimal\nstr(Decimal('0.1') + Decimal('0.2'))", "0.3"),
    ("import itertools\nlen(list(itertools.permutations(range(5))))", 120),
    ("def fib(n):\n    return n if n < 2 else fib(n - 1) + fib(n - 2)\nfib(15)", 610),
    ("[n for n in range(2, 30) if all(n % d for d in range(2, n))]", [2, 3, 5, 7, 11, 13, 17, 19, 23, 29]),
    ("' '.join(reversed('one two three'.split()))", "three two one"),
    ("bin(10), hex(255), int('777', 8)", ("0b1010", "0xff", 511)),
    ("x = {'b': 1, 'a': 2}\ndict(sorted(x.items()))", {"a": 2, "b": 1}),
]
CPYTHON_ONLY = [
    ("import statistics\nstatistics.median([3, 1, 2]), statistics.pstdev([1, 3])", (2, statistics.pstdev([1, 3]))),
    ("from fractions import Fraction\nFraction(1, 3) + Fraction(1, 6)", "Fraction(1, 2)"),
    ("def squares():\n    for n in range(3):\n        yield n * n\nlist(squares())", [0, 1, 4]),
    ("import heapq\nheapq.nsmallest(2, [3, 1, 2])", [1, 2]),
    ("import string\nstring.ascii_lowercase[:3]", "abc"),
    ("import calendar\ncalendar.isleap(2100)", False),
]
"""What Monty does not know; docs/tools.md names it."""


def shown(value: object) -> str:
    return f"{value if str(value).startswith('Fraction') else repr(value)}\n"


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("program", "value"), PROGRAMS)
def test_right_answers(backend: str, program: str, value: object) -> None:
    result = run(program, section(backend, seconds=20))
    assert (result.output, result.error) == (shown(value), None)


@pytest.mark.parametrize(("program", "value"), CPYTHON_ONLY)
def test_what_only_cpython_knows(program: str, value: object) -> None:
    result = run(program, section("bubblewrap", seconds=20))
    assert (result.output, result.error) == (shown(value), None)
    assert run(program, section("monty")).error is not None


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(
    ("program", "output"),
    [
        ("1 + 1", "2\n"),
        ("x = 5\nprint(x)\nx + 1", "5\n6\n"),
        ("x = 5", ""),
        ("None", ""),
        ("print('a')", "a\n"),
        ("x = 5; x", "5\n"),
        ("x = 5; x;", "5\n"),
        ("'text'", "'text'\n"),
        ("1, 2", "(1, 2)\n"),
        ("x = [\n  1,\n]\nx  # a comment", "[1]\n"),
        ('"""\ndoc\n"""', "'\\ndoc\\n'\n"),
        ("x = 1 \\\n  + 2\nx", "3\n"),
        ("for n in range(2): print(n)", "0\n1\n"),
        ("if False:\n    3", ""),
        ("if True:\n    3", ""),
        ("def f():\n    return 4\nf()", "4\n"),
        ("lambda_ = 3\nlambda_", "3\n"),
        ("if 1: 2; 3", ""),
        ("", ""),
        ("# nothing", ""),
        ("'a;b'", "'a;b'\n"),
        ("f'{1 + 1}'", "'2'\n"),
        ("import sys\nprint('to stderr', file=sys.stderr)", "to stderr\n"),
        ("raise SystemExit", ""),
    ],
)
def test_output_is_as_in_a_notebook(backend: str, program: str, output: str) -> None:
    result = run(program, section(backend, seconds=20))
    if backend == "monty" and program == "raise SystemExit":
        assert result.error is not None  # it has none
    else:
        assert (result.output, result.error) == (output, None)


@pytest.mark.parametrize("backend", BACKENDS)
def test_errors_show_the_lines_that_the_model_wrote(backend: str) -> None:
    settings = section(backend, seconds=20)
    result = run("def f(n):\n    return 1 / n\n\nprint('before')\nf(0)", settings)
    assert result.output == "before\n" and result.error is not None
    assert "ZeroDivisionError: division by zero" in result.error
    assert 'File "<python>", line 5' in result.error and 'File "<python>", line 2, in f' in result.error
    assert "return 1 / n" in result.error and "_ =" not in result.error
    for hidden in ("inside", "ast.py", "monty", "/usr", str(Path.cwd())):
        assert hidden not in result.error
    assert "SyntaxError" in (run("x = = 1", settings).error or "")
    assert "RecursionError" in (run("def f(): return f()\nf()", settings).error or "")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("last", ["eval('x = ')", "exec('def f(:')\n3", "x = 5; 1 / 0", "for n in [1]: 1 / 0"])
def test_a_program_that_fails_ran_once(backend: str, last: str) -> None:
    result = run(f"print('once')\n{last}", section(backend, seconds=20))
    assert result.output == "once\n" and "Error" in (result.error or "")


@pytest.mark.parametrize("backend", BACKENDS)
def test_long_output_shows_its_beginning_and_its_end(backend: str) -> None:
    result = run("for n in range(10000): print(n)", section(backend, seconds=20, output_characters=200))
    assert result.output.startswith("0\n1\n") and result.output.endswith("9998\n9999\n") and len(result.output) < 260
    assert f"[… {48890 - 200:,} characters cut …]" in result.output


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_was_printed_before_the_time_was_over_is_shown(backend: str) -> None:
    result = run("print('before')\nwhile True: pass", section(backend, seconds=2))
    assert result.output == "before\n" and result.error == "stopped: it ran longer than 2 s"


@pytest.mark.parametrize("backend", BACKENDS)
def test_memory_is_limited_and_said(backend: str) -> None:
    settings = section(backend, seconds=20, memory_mb=96)
    assert "MemoryError" in (run("x = 'x' * 200_000_000", settings).error or "")
    assert run("len('x' * 20_000_000)", settings).output == "20000000\n"


def test_a_long_program_is_not_run() -> None:
    result = run("x" * 101, PythonTool(code_characters=100))
    assert result.output == "" and "at most 100" in (result.error or "")


def test_the_tool_tells_what_it_is() -> None:
    tool = Python(PythonTool(seconds=3))
    assert tool.name == "python" and "3 seconds" in tool.description and tool.call({"code": "1"}).output == "1\n"


@pytest.mark.parametrize("code", ["((", "x)", "'", "  x\n y", "x = '''", "\\", "\t", "é = 1; é", "a\r\nb", "\f1"])
def test_any_text_is_taken_for_a_program(code: str) -> None:
    assert isinstance(monty.showing_last(code), str)
    run(code, PythonTool())


def without(bwrap: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    bubblewrap.probe.cache_clear()
    bubblewrap._sandbox.cache_clear()
    monkeypatch.setattr(shutil, "which", lambda name: bwrap)


@pytest.fixture
def fresh() -> object:
    yield
    bubblewrap.probe.cache_clear()
    bubblewrap._sandbox.cache_clear()


def test_without_bubblewrap_nothing_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None) -> None:
    without(None, monkeypatch)
    settings = PythonTool(backend="bubblewrap")
    for attempt in (lambda: run("1", settings), lambda: Python(settings)):
        with pytest.raises(UserError, match="install bubblewrap") as caught:
            attempt()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "script",
    [
        "echo 'bwrap: No permissions to create new namespace' >&2; exit 1",
        "exit 0",
        'while [ $# -gt 0 ] && [ "$1" != /usr/local/bin/python3 ]; do shift; done; shift; exec PYTHON "$@"',
    ],
    ids=["refused", "does nothing", "isolates nothing"],
)
def test_where_it_cannot_isolate_nothing_is_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fresh: None, script: str
) -> None:
    fake = tmp_path / "bwrap"
    fake.write_text("#!/bin/sh\n" + script.replace("PYTHON", sys.executable) + "\n")
    fake.chmod(0o755)
    without(str(fake), monkeypatch)
    marker = tmp_path / "marker"
    with pytest.raises(UserError, match="cannot isolate") as caught:
        run(f"open({str(marker)!r}, 'w')", PythonTool(backend="bubblewrap"))
    assert "\n" not in str(caught.value) and "monty" in str(caught.value) and not marker.exists()


def test_the_filter_is_the_kernels_form(monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    for machine in seccomp.ARCHITECTURES:
        monkeypatch.setattr(platform, "machine", lambda machine=machine: machine)
        program = seccomp.program()
        assert len(program) % 8 == 0 and len(program) // 8 < 256
    monkeypatch.setattr(platform, "machine", lambda: "mips")
    with pytest.raises(KeyError):
        seccomp.program()


def test_what_is_listed_is_what_this_machine_calls_so() -> None:
    """The numbers of the filter against those of the system's headers, where these are."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    import platform

    column = list(seccomp.ARCHITECTURES).index(platform.machine())
    lines = [f"#ifdef SYS_{name}\n{name} SYS_{name}\n#endif" for name in seccomp.REFUSED]
    source = "\n".join(["#include <sys/syscall.h>", *lines])
    done = subprocess.run([compiler, "-E", "-P", "-"], input=source, capture_output=True, text=True)
    told = dict(line.split() for line in done.stdout.splitlines() if len(line.split()) == 2)
    known = {name: int(number) for name, number in told.items() if number.isdigit()}
    assert len(known) > 20
    assert known == {name: seccomp.REFUSED[name][column] for name in known}
