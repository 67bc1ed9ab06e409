"""jobs/tokens.py --document, --window, --token: where tokens come from; and what a damaged shard says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from webtochat import artifact
from webtochat.artifact import Draft
from webtochat.recipe import TokenizerSection
from webtochat.tokens import tokenizer as bpe
from webtochat.tokens.shards import Document, write_shard, write_windows
from webtochat.tokens.tokenizer import END_OF_TEXT

ROOT = Path(__file__).resolve().parents[2]
TEXTS = [f"Baker {name} of the small town sells bread in {name}." for name in ("Ann", "Bob", "Cid", "Dora", "Eve")]
PER_SHARD = [2, 3]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What curate, tokenizer and tokens would leave, in two files."""
    folder = tmp_path_factory.mktemp("provenance")
    (folder / "small.yaml").write_text("name: small\ntokens: {sequence_length: 24}\n")
    home = folder / "small"
    curate = artifact.begin(str(home / "curate"), "curate", {}, [])
    learn = artifact.begin(str(home / "tokenizer"), "tokenizer", {}, [])
    assert isinstance(curate, Draft) and isinstance(learn, Draft)
    learned = bpe.train(TEXTS, 512, TokenizerSection().pattern)
    learned.save(learn.directory)
    (home / "curate" / "kept").mkdir()
    shards, number = [], 0
    for count in PER_SHARD:
        texts = dict(enumerate(TEXTS[number : number + count], number))
        rows = [
            {"id": f"<{place}>", "url": f"http://a.example/\x1b{place}", "text": text} for place, text in texts.items()
        ]
        pq.write_table(pa.Table.from_pylist(rows), home / "curate" / "kept" / f"part-{len(shards):05d}.parquet")
        shards.append([
            Document(f"<{place}>", "a.example", np.array(learned.encode(text)), len(text.encode()))
            for place, text in texts.items()
        ])  # fmt: skip
        number += count
    inputs = [curate.commit(counts={}, summary=""), learn.commit(counts={}, summary="")]
    draft = artifact.begin(str(home / "tokens"), "tokens", {}, inputs)
    assert isinstance(draft, Draft)
    (home / "tokens" / "train").mkdir()
    for place, documents in enumerate(shards):
        stem = str(home / "tokens" / "train" / f"shard-{place:05d}")
        write_shard(stem, documents, learned.special(END_OF_TEXT), learned.vocabulary)
        write_windows(stem, documents, "best-fit", 24)
    draft.commit(counts={}, summary="")
    return folder


def shown(folder: Path, *asked: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / "tokens.py"), str(folder / "small.yaml"), f"workspace={folder}"]
    return subprocess.run([*command, *asked], capture_output=True, text=True, timeout=120)


def lines(folder: Path, *asked: str) -> list[str]:
    done = shown(folder, *asked)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_document(made: Path) -> None:
    told = lines(made, "--document", "3")
    assert told[1].strip().startswith("5 documents, ") and "shard     shard-00001" in told
    assert "document  3  <3>" in told and r"from      http://a.example/\x1b3" in told
    assert f"text      ⟦{TEXTS[3]}⟧" in told


def test_a_token_of_the_second_shard(made: Path) -> None:
    folder = made / "small" / "tokens" / "train"
    sizes = [np.fromfile(folder / f"shard-0000{place}.bin", "<u2").size for place in (0, 1)]
    told = lines(made, "--token", str(sizes[0] + 1))
    assert "document  2  <2>" in told and told[-1].startswith("text      ⟦B") and told[-1].endswith(".")
    assert told[-1].replace("⟦", "").replace("⟧", "") == f"text      {TEXTS[2]}"
    last = lines(made, "--token", str(sum(sizes) - 1))
    assert "document  4  <4>" in last and last[-1].endswith("⟦.⟧")


def test_every_window(made: Path) -> None:
    """All together they show every document's text once, but for a shard's last token: it is a target only."""
    found: list[str] = []
    for number in range(100):
        done = shown(made, "--window", str(number))
        if done.returncode:
            assert f"--window {number}: " in done.stderr and f"has windows 0 to {number - 1}" in done.stderr
            break
        found += [line.split("⟦")[1].split("⟧")[0] for line in done.stdout.splitlines() if line.startswith("text")]
    assert number > 1 and sum(map(len, found)) == sum(map(len, TEXTS)) - len(PER_SHARD) * len(".")
    assert all(any(part in text for text in TEXTS) for part in found)


def test_without_the_curated_documents_the_host_is_told(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved" / "small" / "curate")
    assert "from      a.example" in lines(tmp_path / "moved", "--document", "0")


@pytest.mark.parametrize("damage", ["a flipped bit", "a cut file", "no windows", "no documents", "no tokens"])
def test_a_damaged_shard_is_one_line(made: Path, tmp_path: Path, damage: str) -> None:
    shutil.copytree(made, tmp_path / "damaged")
    stem = str(tmp_path / "damaged" / "small" / "tokens" / "train" / "shard-00001")
    kind = {"no windows": ".windows.arrow", "no documents": ".parquet"}.get(damage, ".bin")
    path = Path(stem + kind)
    if damage == "a flipped bit":
        content = bytearray(path.read_bytes())
        content[20] ^= 1
        path.write_bytes(content)
    elif damage == "a cut file":
        os.truncate(path, 30)
    else:
        path.unlink()
    done = shown(tmp_path / "damaged", "--document", "4")
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "Traceback" not in done.stderr
    assert str(path) in done.stderr and "--rebuild tokens" in done.stderr


def test_asking_two_things_at_once_is_refused(made: Path) -> None:
    assert "not allowed with argument" in shown(made, "--token", "1", "--window", "1").stderr
