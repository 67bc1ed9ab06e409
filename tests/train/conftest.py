"""A workspace with committed tokens, shared by the tests that only read it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Before torch is imported: spinning threads are slow beside other processes (see train/stage.py).
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from small_training import commit_tokens

from webtochat.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("train")
    commit_tokens(directory)
    return directory


@pytest.fixture(scope="session")
def tokenizer(workspace: Path) -> Tokenizer:
    return Tokenizer.load(str(workspace / "tiny" / "tokenizer"))
