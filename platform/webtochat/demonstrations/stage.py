"""The demonstrations stage: facts and words are read out of a sample of the kept documents, a task for each row group;
then questions about them are answered with the recipe's tools, a task for each few dozen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import pyarrow.parquet as pq

from webtochat import storage
from webtochat.artifact import Artifact
from webtochat.curate.stage import spread
from webtochat.demonstrations import drawn, shown
from webtochat.demonstrations.shown import NotShown
from webtochat.errors import UserError
from webtochat.evals.extraction import Extracted, extract
from webtochat.evals.questions import QUESTIONS
from webtochat.recipe import Demonstrations, Recipe
from webtochat.recipe_tools import Tools
from webtochat.run import Run, Stage
from webtochat.tokens import rows
from webtochat.tokens.conversations import CONVERSATIONS, conversations
from webtochat.tools.index import SearchIndex
from webtochat.tools.tool import definitions
from webtochat.tools.toolbox import toolbox

TOGETHER = 64
"""Questions that a task answers."""


def demonstrations(run: Run) -> Artifact:
    """`conversations.jsonl`: to fine-tune on. `questions.jsonl`: for the test, about nothing that stands there."""
    recipe, section = run.recipe, run.recipe.demonstrations
    if not section.wanted:
        raise UserError("the recipe wants no demonstrations: set demonstrations.documents, strangers or programs")
    curated, index = run.open("curate"), run.open("index")
    sources, missing = rows.available(section.direct, recipe.miniweb)
    identity = recipe.identity("demonstrations", "tools")
    identity["demonstrations"]["direct"] = [rows.identity(each, recipe.miniweb) for each in sources]
    stage = run.begin("demonstrations", identity, [curated, index])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        for source in missing:
            stage.say(f"skipped {source.path}: it needs the miniweb, which this crawl does not hold")
        told = definitions(toolbox(recipe.tools, index.local()))  # before anything else: it may not work here
        facts, words = _read(stage, curated, section)
        specs = [
            {"test": test} | spec
            for test in (False, True)
            for spec in [*drawn.document_specs(section, facts, test), *drawn.program_specs(section, words, test)]
        ]
        skipped: Counter[str] = Counter()
        made, asked = _shown(stage, specs, (recipe.tools, (index.directory, index.content_hash)), skipped)
        made += [row | {"kind": "direct"} for row in _direct(recipe, sources, skipped)]
        kept = drawn.first_of_each_kind(asked, section.questions)
        kinds, tests = (Counter(row["kind"] for row in each) for each in (made, kept))
        _write(stage.path(CONVERSATIONS), (row | {"tools": told} for row in made))
        _write(stage.path(QUESTIONS), kept)
        for kind, count in kinds.most_common():
            stage.say(f"{count:>8,}  {kind.replace('_', ' ')}")
        for reason, count in skipped.most_common():
            stage.say(f"left out {count:,} rows: {reason.replace('_', ' ')}")
        stage.metrics({f"conversations/{kind}": count for kind, count in kinds.items()})
        return stage.commit(
            counts={"conversations": dict(kinds), "questions": dict(tests), "skipped": dict(skipped)},
            summary=f"{len(made):,} conversations, {len(kept):,} held-out questions",
        )


def _read(stage: Stage, curated: Artifact, section: Demonstrations) -> tuple[list[Extracted], list[str]]:
    """What the sampled documents state, and words of theirs."""
    part = section.pages / max(1, curated.manifest.counts["kept"])
    todo: list[dict[str, Any]] = []
    for path in curated.files("kept/"):
        with storage.open_input_file(path) as source:
            groups = pq.ParquetFile(source).num_row_groups
        todo += [{"path": path, "group": group} for group in range(groups)]
    for number, row in enumerate(todo):
        row["done"] = stage.scratch("facts", f"{number:05d}.json")
    found = _units(stage, _read_group, todo, (section, part), "parts of documents read")
    facts = [Extracted(**each) for unit in found for each in unit["facts"]]
    words = {word: None for unit in found for word in unit["words"]}
    return facts, list(words)


def _read_group(row: dict[str, Any], shared: tuple[Demonstrations, float]) -> dict[str, Any]:
    section, part = shared
    with storage.open_input_file(row["path"]) as source:
        held = pq.ParquetFile(source).read_row_group(row["group"], ["id", "text"]).to_pylist()
    texts = [each["text"] for each in held if drawn.draw(section.seed, "document", each["id"]) < part]
    facts = [asdict(fact) for text in texts for fact in extract(text)]
    return _done(row, {"facts": facts, "words": drawn.words_of(texts, section.seed)})


def _shown(
    stage: Stage, specs: list[dict[str, Any]], shared: tuple[Tools, tuple[str, str]], skipped: Counter[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Conversations, and questions for the test, in the order of the specs."""
    todo = [
        {"specs": json.dumps(some), "done": stage.scratch("shown", f"{number:05d}.json")}
        for number, some in enumerate(specs[begin : begin + TOGETHER] for begin in range(0, len(specs), TOGETHER))
    ]
    found = _units(stage, _show, todo, shared, "questions answered", TOGETHER)
    for unit in found:
        skipped.update(unit["skipped"])
    return [row for unit in found for row in unit["made"]], [row for unit in found for row in unit["asked"]]


def _show(row: dict[str, Any], shared: tuple[Tools, tuple[str, str]]) -> dict[str, Any]:
    section, place = shared
    directory = storage.local_copy(*place)
    tools, index = toolbox(section, directory), SearchIndex(directory)
    made, asked, skipped = [], [], Counter[str]()
    for spec in json.loads(row["specs"]):
        try:
            if spec["test"]:
                asked.append(_question(spec, index))
            else:
                show = shown.program if "program" in spec else shown.search
                kind, messages = show(tools, section, spec)
                made.append({"messages": messages, "kind": kind})
        except NotShown as reason:
            skipped[str(reason)] += 1
    return _done(row, {"made": made, "asked": asked, "skipped": skipped})


def _question(spec: dict[str, Any], index: SearchIndex) -> dict[str, Any]:
    """As the evaluation reads them. Raises NotShown for a name that is not in one document alone, or, of a stranger,
    not in none."""
    question = {"kind": spec["kind"], "question": spec["question"]}
    if "program" in spec:
        return question | {"answers": [spec["answer"]]}
    stated = index.documents_with(spec["subject"], most=2)
    if stated != len(spec["answers"][:1]):
        raise NotShown("name_in_another_number_of_documents")
    return question | {"answers": spec["answers"] or [shown.NOT_FOUND], "stated": stated}


def _direct(recipe: Recipe, sources: list[rows.DataSource], skipped: Counter[str]) -> list[rows.Row]:
    seed = recipe.demonstrations.seed
    read = ((source, conversations(rows.read(source, recipe.miniweb, skipped), skipped)) for source in sources)
    return [row for source, found in read for row in rows.weighted(found, source.weight, seed)]


# units of work -------------------------------------------------------------------------------------------------------


def _units(
    stage: Stage, function: Any, todo: list[dict[str, Any]], shared: Any, told: str, each: int = 1
) -> list[dict[str, Any]]:
    """What the function found for each row, in their order; what an earlier attempt found is not looked for again."""
    there = {entry.path for entry in storage.files_below(stage.scratch())}
    left = [row for row in todo if row["done"] not in there]
    for done, _ in enumerate(spread(function, left, shared, None), len(todo) - len(left) + 1):
        stage.progress(each * done, each * len(todo), told)
    return [json.loads(storage.read_bytes(row["done"])) for row in todo]


def _done(row: dict[str, Any], found: dict[str, Any]) -> dict[str, Any]:
    storage.write_bytes(row["done"], json.dumps(found).encode())
    return {"path": row["done"]}


def _write(path: str, written: Iterable[dict[str, Any]]) -> None:
    storage.write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in written).encode())
