"""The two ways to run a program, with what a test needs to know of whether they are there."""

from __future__ import annotations

import os
import shutil
from functools import cache

import pytest

from webtochat.errors import UserError
from webtochat.recipe_tools import PythonTool
from webtochat.tools import bubblewrap

BACKENDS = ("monty", "bubblewrap")


@cache
def missing() -> str | None:
    """Why bubblewrap cannot run here."""
    if shutil.which("bwrap") is None:
        return "bubblewrap is not installed"
    try:
        bubblewrap.probe()
    except UserError as error:
        return str(error)
    return None


def section(backend: str, **settings: object) -> PythonTool:
    """Settings for a backend. Skips the test where it is missing; under CI that is a failure."""
    if backend == "bubblewrap" and (reason := missing()):
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    return PythonTool.model_validate({"backend": backend, **settings})
