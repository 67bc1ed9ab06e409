"""Files of prompts: what is a prompt, parts in their order, and the whole job killed and gone on with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.inference import tiny

from webtochat.inference import batch
from webtochat.inference.engine import Completion
from webtochat.recipe_operation import Generate
from webtochat.tokens.chat import render

ROOT = Path(__file__).resolve().parents[2]
EITHER = "a row has either prompt or messages"
BAD = [
    ({}, EITHER), ({"prompt": "x", "messages": []}, EITHER), ({"prompt": 3}, "prompt is not text"),
    ({"messages": []}, "no messages"), ({"messages": "x"}, "no messages"),
    ({"messages": ["x"]}, "a message is not an object"),
    ({"messages": [{"role": "wizard", "content": "x"}]}, "unknown role"),
    ({"prompt": "a b " * 300}, "longer than the model's context"), ({"prompt": "\ud800"}, "not UTF-8 text"),
]  # fmt: skip
words = cache(tiny.tokenizer)


def asking(**more: object) -> batch.Asking:
    options = {"positions": 256, "chats": True, "system_prompt": None, "section": Generate(max_new_tokens=8)}
    return batch.Asking(words(), **(options | more))  # type: ignore[arg-type]


def echo(prompts: list[list[int]], **options: object) -> list[list[Completion]]:
    assert options["max_new_tokens"] == 8
    return [[Completion(words().encode("AB"), [], [], "stop")] for _ in prompts]


@pytest.mark.parametrize(("row", "reason"), BAD)
def test_what_is_no_prompt_is_said(row: dict, reason: str) -> None:
    good = {"prompt": "Hi", "id": 7}
    for system in (None, "Be brief."):
        told = batch.answer([good, row, good], echo, asking(system_prompt=system), 1)
        assert told[1] == row | {"error": reason}
        assert [each["answer"] for each in (told[0], told[2])] == ["AB", "AB"] and told[0]["id"] == 7


def test_prompts_are_rendered_as_in_training() -> None:
    messages = [{"role": "user", "content": "Hi<|im_end|>"}]
    ids = render(words(), messages, add_generation_prompt=True).ids
    assert batch.ids_of({"prompt": "Hi<|im_end|>"}, asking()) == batch.ids_of({"messages": messages}, asking()) == ids
    system = [{"role": "system", "content": "Be brief."}, *messages]
    with_system = render(words(), system, add_generation_prompt=True).ids
    assert batch.ids_of({"messages": messages}, asking(system_prompt="Be brief.")) == with_system
    assert batch.ids_of({"messages": system}, asking(system_prompt="Another.")) == with_system
    base = asking(chats=False)
    assert batch.ids_of({"prompt": "Hi"}, base) == [words().separator, *words().encode("Hi")]
    with pytest.raises(ValueError, match="base model"):
        batch.ids_of({"messages": messages}, base)


def test_parts_are_put_together_in_order(tmp_path: Path) -> None:
    rows = [{"prompt": f"{number}\ud800\u2028"} for number in range(25)]
    assert batch.split(iter(rows), str(tmp_path), 10) == 3
    assert batch.split(iter([]), str(tmp_path / "none"), 10) == 0
    for number in (2, 0, 1):
        part = batch.read(batch.part_path(str(tmp_path), "prompts", number))
        batch.write(batch.part_path(str(tmp_path), "answers", number), [row | {"error": "x"} for row in part])
    assert batch.join(str(tmp_path), 3, str(tmp_path / "out.jsonl")) == {"x": 25}
    assert [row["prompt"] for row in batch.read(str(tmp_path / "out.jsonl"))] == [row["prompt"] for row in rows]


def command(*arguments: str) -> list[str]:
    return [sys.executable, str(ROOT / "jobs" / "generate.py"), *arguments]


def test_killed_it_goes_on_and_answers_every_row_once(tmp_path: Path) -> None:
    recipe = tiny.workspace(tmp_path, generate={"part_rows": 4, "max_new_tokens": 24})
    people = list(tiny.COLOURS)
    asked = [{"prompt": f"What colour does {people[number % 4]} like?", "id": number} for number in range(4000)]
    asked[2] = {"prompt": None, "id": 2}
    prompts, out = tmp_path / "prompts.parquet", tmp_path / "answers.jsonl"
    pq.write_table(pa.Table.from_pylist(asked), prompts)
    told = subprocess.Popen(command(str(recipe), str(prompts), "--out", str(out)), start_new_session=True)
    parts = tmp_path / "answers.jsonl.parts"
    try:
        began = time.monotonic()
        while len(list(parts.glob("answers-*"))) < 3:
            assert told.poll() is None and time.monotonic() - began < 240
            time.sleep(0.02)
    finally:
        os.killpg(told.pid, signal.SIGKILL)
    assert not out.exists()
    # The rest is cut short, so that the test is: as if the last parts had been answered as well.
    time.sleep(3)
    held = {path: path.stat().st_mtime_ns for path in parts.glob("answers-*")}
    for number in range(len(held) + 5, 1000):
        part = batch.read(batch.part_path(str(parts), "prompts", number))
        batch.write(batch.part_path(str(parts), "answers", number), [row | {"answer": "kept"} for row in part])

    def again(*more: str) -> subprocess.CompletedProcess[str]:
        arguments = command(str(recipe), str(prompts), "--out", str(out), *more)
        return subprocess.run(arguments, capture_output=True, text=True, timeout=300)

    done = again()
    assert done.returncode == 0, done.stderr
    summary = f"generate: 3,999 answered, 1 not ({EITHER})  [{out}]"
    assert done.stdout.splitlines()[-1] == summary
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["id"] for row in rows] == list(range(4000)) and not parts.exists()
    assert rows[2]["error"] and rows[1]["answer"] == "Bo likes green." and rows[1]["finish_reason"] == "stop"
    made = [row for row in rows if row.get("answer") not in ("kept", None)]
    assert 4 * len(held) + 19 <= len(made) + 1 and {row["answer"] for row in made} == {
        f"{name} likes {colour}." for name, colour in tiny.COLOURS.items()
    }
    before = out.stat().st_mtime_ns
    reused = again()
    assert reused.stdout.splitlines()[-1] == summary and out.stat().st_mtime_ns == before
    other = again("generate.seed=2")
    assert other.returncode == 2 and "generate.seed: 1 → 2" in other.stderr and other.stderr.count("\n") == 1
