"""The rules on imports (import-linter's contracts in pyproject.toml) hold, and would catch what breaks them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--config", "pyproject.toml"],
        cwd=folder, env=os.environ | {"PYTHONPATH": str(folder / "platform"), "NO_COLOR": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def test_the_contracts_hold() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("path", "line", "broken"),
    [
        ("curate/bad.py", "from webtochat.train import loop", "Imports point one way BROKEN"),
        ("storage.py", "def f() -> None:\n    from webtochat import artifact", "Imports point one way BROKEN"),
        ("curate/bad.py", "def f() -> None:\n    import ray", "Ray at the edges"),
        ("run.py", "import mlflow", "MLflow in tracking alone BROKEN"),
        ("crawl/bad.py", "import miniweb", "The library knows nothing of jobs, serving and recipes BROKEN"),
        ("tokens/bad.py", "from job import main", "The library knows nothing of jobs, serving and recipes BROKEN"),
    ],
)
def test_what_breaks_them_is_caught(tmp_path: Path, path: str, line: str, broken: str) -> None:
    shutil.copytree(ROOT / "platform", tmp_path / "platform", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    bad = tmp_path / "platform" / "webtochat" / path
    bad.write_text((bad.read_text() if bad.exists() else "") + f"\n{line}\n")
    done = lint(tmp_path)
    assert done.returncode == 1 and broken in done.stdout, done.stdout
