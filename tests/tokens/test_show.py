"""jobs/tokenizer.py --show: what the learned tokenizer makes of a text, on a terminal and in a file."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from webtochat import artifact
from webtochat.artifact import Draft
from webtochat.recipe import TokenizerSection
from webtochat.tokens import tokenizer as bpe

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("show")
    (folder / "small.yaml").write_text("name: small\n")
    draft = artifact.begin(str(folder / "small" / "tokenizer"), "tokenizer", {}, [])
    assert isinstance(draft, Draft)
    bpe.train(["the baker of the town"] * 3, 512, TokenizerSection().pattern).save(draft.directory)
    draft.commit(counts={}, summary="")
    return folder


def command(workspace: Path, text: str) -> list[str]:
    job = str(ROOT / "jobs" / "tokenizer.py")
    return [sys.executable, job, str(workspace / "small.yaml"), f"workspace={workspace}", "--show", text]


def test_bits_bytes_merges_and_tokens(workspace: Path) -> None:
    shown = subprocess.run(command(workspace, "the é\n"), capture_output=True, text=True, timeout=60)
    assert shown.returncode == 0 and not shown.stderr
    lines = [" ".join(line.split()) for line in shown.stdout.splitlines()]
    assert lines[0] == "6 characters, 7 bytes"
    assert "é U+00E9 c3 a9 11000011 10101001" in lines and r"\n U+000A 0a 00001010" in lines
    assert r"the| é|\n" in lines and r"the| |\xc3|\xa9|\n" in lines and "5 tokens, 1.40 bytes each" in lines
    merges = [line for line in lines if " + " in line]
    assert [line.split(maxsplit=1)[1] for line in merges] in (
        ["h + e = he", "t + he = the"],
        ["t + h = th", "th + e = the"],
    )
    assert int(merges[0].split()[0]) < int(merges[1].split()[0])
    assert "\x1b" not in shown.stdout


def test_tokens_are_coloured_on_a_terminal(workspace: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm-256color"}
    environment.pop("NO_COLOR", None)
    asked = command(workspace, "the \x1b[31mbaker")
    with subprocess.Popen(asked, stdout=theirs, stderr=subprocess.PIPE, env=environment) as job:
        os.close(theirs)
        shown = b""
        while True:
            try:
                shown += (chunk := os.read(ours, 4096))
            except OSError:  # as a terminal ends
                break
            if not chunk:
                break
        assert job.wait(60) == 0
    os.close(ours)
    assert b"\x1b[30;106mthe\x1b[0m\x1b[30;103m " in shown
    assert b"\x1b[31m" not in shown and rb"\x1b" in shown


def test_without_a_tokenizer_it_is_one_line(workspace: Path) -> None:
    asked = [*command(workspace, "x"), "name=other"]
    shown = subprocess.run(asked, capture_output=True, text=True, timeout=60)
    assert shown.returncode == 2 and "run jobs/tokenizer.py first" in shown.stderr
    assert shown.stderr.count("\n") == 1 and not shown.stdout
