"""Documents that share a run of words with an evaluation set."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from webtochat.curate.contamination import EvaluationSets
from webtochat.errors import UserError
from webtochat.recipe_pages import Curate

QUESTION = "If a train leaves the harbour at 9 and another one leaves the mill an hour later, when do they meet?"


def sets(folder: Path, **named: list[str]) -> EvaluationSets:
    for name, texts in named.items():
        with gzip.open(folder / f"{name}.jsonl.gz", "wt") as out:
            out.writelines(json.dumps({"deep": {"texts": [text]}, "number": 1}) + "\n" for text in texts)
    paths = {name: [str(folder / f"{name}.jsonl.gz")] for name in named}
    found = EvaluationSets.of(Curate(evaluation_sets=paths))
    assert found is not None
    return found


def test_a_run_of_13_words_is_enough_whatever_its_case_and_marks(tmp_path: Path) -> None:
    short = "a short question of no more than twelve words here"
    found = sets(tmp_path, trains=[QUESTION], short=[short, QUESTION + " b"])
    words = QUESTION.split()
    assert found.within("Before. " + QUESTION.upper().replace(",", " –") + " After.") == ("trains", len(words) - 12)
    assert found.within(" ".join(words[3:16]) + " elsewhere") == ("trains", 1)
    assert found.within(" ".join(words[3:15]) + " elsewhere") is None
    assert found.within(short) is None and found.within("") is None


def test_none_named() -> None:
    assert EvaluationSets.of(Curate()) is None


def test_what_cannot_be_a_set(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"evaluation_sets\.a: no file matches"):
        EvaluationSets.of(Curate(evaluation_sets={"a": [str(tmp_path / "no.jsonl")]}))
    with pytest.raises(UserError, match="no text there has 13 words"):
        sets(tmp_path, a=["too short"])


def test_ten_bytes_a_run(tmp_path: Path) -> None:
    found = sets(tmp_path, a=[" ".join(f"word{chr(97 + i % 26)}{chr(97 + i // 26 % 26)}" for i in range(500))])
    assert found.runs.nbytes + found.sets.nbytes == 10 * len(found.runs) == 10 * 488
