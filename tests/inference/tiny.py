"""A workspace with a tokenizer, token shards and two little models, as the stages before would have left it."""

from __future__ import annotations

import atexit
import json
import os
import random
import shutil
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from webtochat import artifact
from webtochat.artifact import Artifact, Draft
from webtochat.model import export
from webtochat.model.config import ModelConfig
from webtochat.model.transformer import Transformer
from webtochat.recipe import Model
from webtochat.tokens import tokenizer as bpe
from webtochat.tokens.chat import Rendered, render
from webtochat.tokens.shards import Document, write_shard
from webtochat.tokens.tokenizer import Tokenizer

ROOT = Path(__file__).resolve().parent.parent.parent
SHAPE = Model(depth=2, width=64, head_size=32, max_positions=256)
PATTERN = r"\p{N}| ?\p{L}+|[^\s\p{L}\p{N}]+|\s+"
COLOURS = {"Ada": "red", "Bo": "green", "Cy": "blue", "Di": "white"}


@pytest.fixture(scope="module")
def ray_here():
    import ray

    folders = os.pathsep.join(str(ROOT / name) for name in ("platform", "recipes"))
    ray.init(
        address="local", num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error",
        runtime_env={"env_vars": {"PYTHONPATH": folders}},
    )  # fmt: skip
    yield
    ray.shutdown()


def texts(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    names, colours = list(COLOURS), list(COLOURS.values())
    verbs, things = ["likes", "sees", "paints", "sells"], ["house", "boat", "garden", "coat", "door", "wall"]
    return [
        " ".join(
            f"{rng.choice(names)} {rng.choice(verbs)} the {rng.choice(colours)} {rng.choice(things)}."
            for _ in range(rng.randint(4, 30))
        )
        for _ in range(count)
    ]


def tokenizer() -> Tokenizer:
    return bpe.train([*texts(300), "systemuserassistanttool What colour does like? 0123456789"], 512, PATTERN)


def transformer(words: Tokenizer, seed: int) -> Transformer:
    return Transformer(ModelConfig.of(SHAPE, words.vocabulary), seed=seed).eval()


def taught(model: Transformer, words: Tokenizer, pairs: list[tuple[str, str]], steps: int = 40) -> Transformer:
    """The model after a few steps on these exchanges: it answers them by heart."""
    rows = [
        render(words, [{"role": "user", "content": question}, {"role": "assistant", "content": reply}])
        for question, reply in pairs
    ]
    return fitted(model, rows, steps)


def fitted(model: Transformer, rows: list[Rendered], steps: int) -> Transformer:
    length = max(len(row.ids) for row in rows)
    tokens = torch.tensor([row.ids + [0] * (length - len(row.ids)) for row in rows])
    mask = torch.tensor([row.loss_mask + [0] * (length - len(row.ids)) for row in rows])
    targets = torch.where(mask.bool(), tokens, -100)[:, 1:]
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # so little work is only slowed by a second thread
    for _ in range(steps):
        logits = model(tokens[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-100)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.set_num_threads(threads)
    return model


def questions() -> list[tuple[str, str]]:
    return [(f"What colour does {name} like?", f"{name} likes {colour}.") for name, colour in COLOURS.items()]


def commit(directory: Path, stage: str, inputs: list[Artifact]) -> Artifact:
    """Makes an artifact of the files that stand in a directory."""
    held = {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    for name in held:
        os.unlink(directory / name)
    draft = artifact.begin(str(directory), stage, {stage: {}}, inputs)
    assert isinstance(draft, Draft)
    for name, content in held.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    return draft.commit(counts={}, summary="tiny")


@cache
def committed() -> Path:
    """{tokenizer,tokens,pretrain,sft}, made once per test run."""
    words = tokenizer()
    home = Path(tempfile.mkdtemp(prefix="tiny-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    words.save(str(home / "tokenizer"))
    tokens = commit_tokens(home, words, commit(home / "tokenizer", "tokenizer", []))
    model = transformer(words, seed=1)
    export.export(model, words, str(home / "pretrain" / "model"))
    base = commit(home / "pretrain", "pretrain", [tokens])
    export.export(taught(model, words, questions()), words, str(home / "sft" / "model"))
    commit(home / "sft", "sft", [base])
    return home


def commit_tokens(home: Path, words: Tokenizer, learned: Artifact) -> Artifact:
    for split, count, seed in (("train", 200, 1), ("validation", 12, 2)):
        documents = [
            Document(
                f"{split}-{number}", f"{'abc'[number % 3]}.example", np.array(words.encode(text)), len(text.encode())
            )
            for number, text in enumerate(texts(count, seed))
        ]
        (home / "tokens" / split).mkdir(parents=True)
        write_shard(
            str(home / "tokens" / split / "shard-00000"), documents, words.separator, words.vocabulary
        )
    return commit(home / "tokens", "tokens", [learned])


def workspace(root: Path, name: str = "tiny", **sections: object) -> Path:
    """Writes `root`/runs/`name`/{tokenizer,tokens,pretrain,sft} and the recipe; returns the recipe's path."""
    shutil.copytree(committed(), root / "runs" / name)
    rows = [
        {"kind": "fact", "question": question, "answers": [COLOURS[name]], "stated": stated, "chance": 0.25,
         "options": list(COLOURS.values())}
        for stated, (name, (question, _)) in zip([1, 1, 10, 10], zip(COLOURS, questions(), strict=True), strict=True)
    ]  # fmt: skip
    (root / "questions.jsonl").write_text("\n".join([*map(json.dumps, rows), "not json", '{"kind": "fact"}']))
    recipe = {
        "name": name, "workspace": str(root / "runs"), "tokens": {"sequence_length": 64},
        "evaluate": {
            "questions": [
                {"path": str(root / "questions.jsonl")},
                {"path": "python:miniweb.conversations:questions_about_people", "needs": "miniweb"},
            ],
            "sources": {"first": "a.*", "second": "b.*"}, "max_new_tokens": 24,
        },
        "cluster": {"kv_cache_gib": 0.25},
    } | sections  # fmt: skip
    path = root / f"{name}.yaml"
    path.write_text(yaml.safe_dump(recipe))
    return path
