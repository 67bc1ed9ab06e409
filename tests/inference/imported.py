"""A workspace with an imported model that was taught where each one lives, and its recipe."""

from __future__ import annotations

import json
from pathlib import Path

import yaml
from tests.inference import tiny
from tests.model import qwen

from webtochat.model import export
from webtochat.model.imported import Given
from webtochat.recipe import Recipe


def recipe(root: Path, **sections: object) -> Path:
    """Writes a model like Qwen3's, questions, conversations and a recipe that starts from it; returns the recipe's
    path."""
    qwen.save_model(root / "qwen", tied=False)
    rows = qwen.exchanges()
    (root / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    asked = [
        {"kind": "fact", "question": question["content"], "answers": [answer["content"]]}
        for question, answer in (row["messages"] for row in rows)  # type: ignore[misc]
    ]
    (root / "questions.jsonl").write_text("\n".join(map(json.dumps, asked)))
    written = {
        "name": "x", "workspace": str(root), "pretrain": {"start": str(root / "qwen"), "tokens": 0},
        "tokens": {"sequence_length": 64}, "cluster": {"kv_cache_gib": 0.25}, "serve": {"temperature": 0.0},
        "evaluate": {"questions": [{"path": str(root / "questions.jsonl")}], "max_new_tokens": 24, "baselines": False},
    } | sections  # fmt: skip
    path = root / "x.yaml"
    path.write_text(yaml.safe_dump(written))
    return path


def workspace(root: Path) -> Path:
    """The same with `pretrain` and `sft` as their stages would have left them."""
    path = recipe(root)
    given = Given.of(Recipe.model_validate(yaml.safe_load(path.read_text())))
    assert given is not None
    model, words = given.loaded()
    export.export(model, words, str(root / "x" / "pretrain" / "model"))
    base = tiny.commit(root / "x" / "pretrain", "pretrain", [])
    pairs = [tuple(message["content"] for message in row["messages"]) for row in qwen.exchanges()]  # type: ignore
    export.export(tiny.taught(model, words, pairs), words, str(root / "x" / "sft" / "model"))  # type: ignore[arg-type]
    tiny.commit(root / "x" / "sft", "sft", [base])
    return path
