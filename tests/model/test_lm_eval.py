"""The evaluation harness reads an export as it is, and finds what our own logits say."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.inference import tiny

from webtochat.model import export

TASK = """\
task: colours
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: choices
doc_to_target: answer
metric_list: [{metric: acc, aggregation: mean, higher_is_better: true}]
"""


def test_it_finds_the_accuracy_that_our_logits_have(tmp_path: Path) -> None:
    if importlib.util.find_spec("lm_eval") is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("lm_eval is not installed: run make setup")
    words = tiny.tokenizer()
    # Taught that all like red, so that it is neither all right nor none.
    lesson = [(f"{name}:", f"{name} likes red.") for name in tiny.COLOURS]
    model = tiny.taught(tiny.transformer(words, 1), words, lesson).eval()
    export.export(model, words, str(tmp_path / "model"))
    colours = list(tiny.COLOURS.values())
    choices = [f"likes {each}." for each in colours]
    rows = [
        {"question": f"{verb} {name}", "choices": choices, "answer": colours.index(colour)}
        for verb in ("", "So", "Does") for name, colour in tiny.COLOURS.items()
    ]  # fmt: skip
    (tmp_path / "questions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "colours.yaml").write_text(TASK.replace("FILE", str(tmp_path / "questions.jsonl")))
    done = subprocess.run(
        [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={tmp_path}/model,dtype=float32",
         "--include_path", str(tmp_path / "tasks"), "--tasks", "colours", "--device", "cpu", "--log_samples",
         "--output_path", str(tmp_path / "told")],
        env=os.environ | {"HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=400,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    [results], [samples] = (list((tmp_path / "told").rglob(name)) for name in ("results_*.json", "samples_*.jsonl"))
    told = json.loads(results.read_text())["results"]["colours"]["acc,none"]

    @torch.no_grad()
    def nats(question: str, choice: str) -> float:
        begin, ids = len(words.encode(question)), words.encode(f"{question} {choice}")
        scores = model(torch.tensor([ids[:-1]])).log_softmax(-1)[0]
        return float(sum(scores[place - 1, ids[place]] for place in range(begin, len(ids))))

    ours = [[nats(row["question"], choice) for choice in row["choices"]] for row in rows]  # type: ignore[arg-type]
    right = [each.index(max(each)) == row["answer"] for each, row in zip(ours, rows, strict=True)]
    assert told == pytest.approx(sum(right) / len(right)) and 0 < told < 1
    theirs = {
        sample["doc_id"]: [float(answer[0][0]) for answer in sample["resps"]]
        for sample in map(json.loads, samples.read_text().splitlines())
    }
    for number, each in enumerate(ours):
        assert theirs[number] == pytest.approx(each, abs=1e-3)
