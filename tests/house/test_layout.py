"""How the house is laid out, and that its checkers are content with it."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOO_LONG = 500


@cache
def files() -> list[Path]:
    """What git holds, or would."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def texts() -> list[tuple[str, str]]:
    return [(str(path.relative_to(ROOT)), path.read_text()) for path in files() if path.suffix not in {".png", ".gz"}]


def test_platform_is_no_package() -> None:
    """Else it would stand before Python's own `platform`."""
    assert not (ROOT / "platform" / "__init__.py").exists()


def test_there_is_no_room_for_everything() -> None:
    names = {"utils", "util", "common", "helpers", "helper", "misc"}
    assert [str(path) for path in files() if path.stem in names or names & set(path.relative_to(ROOT).parts)] == []


def test_no_file_has_begun_to_do_a_second_thing() -> None:
    code = [(name, text) for name, text in texts() if name.endswith((".py", ".js", ".html", ".css"))]
    assert {name: lines for name, text in code if (lines := text.count("\n")) > TOO_LONG} == {}


def test_the_repository_names_no_machine_and_no_registry() -> None:
    ours = str(Path(__file__).relative_to(ROOT))
    pattern = re.compile(r"/wor[k]/|/roo[t]/|/Users/|pypi\.org|pythonhosted|index-url|npmjs")
    found = [f"{name}: {match.group()}" for name, text in texts() if name != ours for match in pattern.finditer(text)]
    assert found == []


def test_every_stage_has_its_job() -> None:
    import pipeline

    for stage in pipeline.STAGES:
        text = (ROOT / "jobs" / f"{stage}.py").read_text()
        assert f"jobs/{stage}.py recipes/" in text and f"main(__doc__, {stage})" in text, stage


def test_each_test_file_has_a_name_of_its_own() -> None:
    """pytest imports them by their bare names."""
    names = [path.name for path in files() if path.match("tests/*/test_*.py")]
    assert sorted({name for name in names if names.count(name) > 1}) == []


@pytest.mark.parametrize("command", [["-m", "ruff", "check", "."], ["-m", "mypy"]], ids=["ruff", "mypy"])
def test_the_checkers_are_content(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert done.returncode == 0, done.stdout
