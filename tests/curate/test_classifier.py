"""The quality classifier."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from webtochat.curate import classifier
from webtochat.errors import UserError
from webtochat.recipe_pages import Quality

SETTINGS = Quality(epochs=20, max_documents=200)


def texts(word: str, count: int = 300) -> list[str]:
    return [f"{word} number {number} tells of the {word}\nand of the sea" for number in range(count)]


def test_it_tells_what_it_was_shown(tmp_path: Path) -> None:
    path = str(tmp_path / "model.bin")
    classifier.train(texts("river"), texts("casino"), SETTINGS, path)
    assert classifier.score("The RIVER tells", path) > 0.9 > 0.1 > classifier.score("the casino tells", path) >= 0
    again = str(tmp_path / "again.bin")
    classifier.train(texts("river"), texts("casino"), SETTINGS, again)
    assert Path(path).read_bytes() == Path(again).read_bytes()


def test_a_table_whose_memory_would_not_be_set() -> None:
    with pytest.raises(ValueError, match="buckets × dimensions"):
        Quality(buckets=1000)


def test_drawn_texts_do_not_depend_on_the_order_of_the_files(tmp_path: Path) -> None:
    files = []
    for name in ("river", "casino"):
        files.append(str(tmp_path / f"{name}.jsonl"))
        Path(files[-1]).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts(name)))
    drawn = classifier.drawn(files, SETTINGS)
    assert drawn == classifier.drawn(files[::-1], SETTINGS)
    assert len(drawn.train) + len(drawn.held_out) == 200 and 8 <= len(drawn.held_out) <= 35
    assert not set(drawn.train) & set(drawn.held_out)


def test_ranking() -> None:
    assert classifier.ranking([0.9, 0.8], [0.1, 0.2]) == 1
    assert classifier.ranking([0.5], [0.5]) == 0.5 and classifier.ranking([0.1], [0.2, 0.0]) == 0.5


def test_no_model() -> None:
    with pytest.raises(UserError, match=r"jobs/quality\.py"):
        classifier.score("a", "/nowhere/model.bin")
