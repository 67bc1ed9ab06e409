"""What the training tests stand on: a workspace whose tokenizer and tokens are committed, and a recipe of seconds."""

from __future__ import annotations

import io
import json
import os
import random
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch.distributed as dist
from torch import multiprocessing

from webtochat import artifact
from webtochat.artifact import Draft
from webtochat.recipe import Recipe
from webtochat.run import Run, Screen
from webtochat.tokens import tokenizer as bpe
from webtochat.tokens.mixture import Corpus
from webtochat.tokens.shards import Document, write_shard, write_windows
from webtochat.tokens.tokenizer import END_OF_TEXT
from webtochat.train.rank import Job, PretrainJob

NAMES, PLACES, THINGS = ["Ann", "Bob", "Cid", "Dora"], ["Rome", "Oslo", "Bonn"], ["a red hat", "two cats", "old maps"]
LENGTH = 32
ROOT = Path(__file__).resolve().parents[2]


def texts(count: int) -> list[str]:
    rng = random.Random(1)
    return [
        " ".join(
            f"{rng.choice(NAMES)} lives in {rng.choice(PLACES)} and has {rng.choice(THINGS)}." for _ in range(12)
        )
        for _ in range(count)
    ]  # fmt: skip


def commit_tokens(workspace: Path, name: str = "tiny", documents: int = 120, own: bool = True) -> None:
    """What the tokenizer and tokens stages would leave. `own`: False for other documents with the same tokenizer."""
    written = texts(documents)
    learned = bpe.train(written, 512, r"\s?\p{L}+|\s?[^\s\p{L}]+|\s+")
    draft = artifact.begin(str(workspace / name / "tokenizer"), "tokenizer", {"tokenizer": 1}, [])
    assert isinstance(draft, Draft)
    learned.save(draft.directory)
    made = draft.commit(counts={}, summary="a tokenizer")
    written = written if own else written[::-1]
    draft = artifact.begin(str(workspace / name / "tokens"), "tokens", {"tokens": 1}, [made])
    assert isinstance(draft, Draft)
    for split, part in (("train", written[10:]), ("validation", written[:10])):
        (Path(draft.directory) / split).mkdir()
        encoded = [
            Document(str(number), "a.example", np.asarray(learned.encode(text), np.uint32), len(text.encode()))
            for number, text in enumerate(part)
        ]
        stem = str(Path(draft.directory) / split / "shard-00000")
        write_shard(stem, encoded, learned.special(END_OF_TEXT), learned.vocabulary)
        write_windows(stem, encoded, "best-fit", LENGTH)
    draft.commit(counts={}, summary="tokens")


def tiny(workspace: Path, name: str = "tiny", **changes: object) -> Recipe:
    """A recipe of a few seconds. `changes`: dictionaries by section, over these."""
    sections: dict[str, dict[str, object]] = {
        "tokens": {"sequence_length": LENGTH},
        "model": {"depth": 2, "width": 32, "head_size": 16, "max_positions": 64},
        "pretrain": {
            "tokens": 60 * 256, "batch_tokens": 256, "lr": 1e-2, "evaluate_every": 20, "checkpoint_every": 10,
        },
        "sft": {"batch_tokens": 256, "sequence_length": 64, "epochs": 3, "lr": 5e-3, "checkpoint_every": 10},
        "cluster": {"cpus": 2},
    }  # fmt: skip
    for section, values in changes.items():
        assert isinstance(values, dict)
        sections[section] = sections.get(section, {}) | values
    return Recipe.model_validate({"name": name, "workspace": str(workspace), **sections})


def job_of(recipe: Recipe, directory: Path, **changes: object) -> PretrainJob:
    """The pretraining of a recipe whose tokens are committed, as its stage would start it."""
    home = Path(recipe.workspace) / recipe.name
    length = recipe.tokens.sequence_length
    per_step = recipe.pretrain.batch_tokens // length
    return PretrainJob(
        directory=str(directory), settings=recipe.pretrain, sequence_length=length, windows_per_step=per_step,
        steps=recipe.pretrain.tokens // (per_step * length), model=recipe.model,
        tokenizer=(str(home / "tokenizer"), "-"), tokens=(str(home / "tokens"), "-"),
        mixture=(Corpus("own", str(home / "tokens"), "-", 1.0),), **changes,  # type: ignore
    )  # fmt: skip


def run_of(recipe: Recipe) -> tuple[Run, io.StringIO]:
    shown = io.StringIO()
    return Run(recipe, Screen(shown)), shown


def read_curve(directory: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def spawn(run_rank: Callable[..., Any], job: Job) -> None:
    """The job by two workers, over gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_one_of_two, (port, run_rank, job), nprocs=2)


def _one_of_two(rank: int, port: int, run_rank: Callable[..., Any], job: Job) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo")
    run_rank(job, quiet, 1)
    dist.destroy_process_group()


def quiet(message: object) -> None:
    """Says nothing."""
