"""The knowledge stage: the chat model is asked about its own training documents, and taught to say where it does not
know (Llama 3, section 4.3.6). Parts of every step are kept until the stage commits, so a kill loses at most one."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from webtochat import storage
from webtochat.artifact import Artifact
from webtochat.curate import parts
from webtochat.curate.stage import spread
from webtochat.demonstrations.drawn import draw
from webtochat.errors import UserError
from webtochat.evals.extraction import Extracted, extract
from webtochat.evals.questions import at_most, is_right
from webtochat.evals.refusals import STATES
from webtochat.inference import actors
from webtochat.inference.actors import ModelPath
from webtochat.inference.engine import positions
from webtochat.knowledge import writing
from webtochat.knowledge.endpoint import Client
from webtochat.knowledge.facts import Fact, chosen, invented, snippet
from webtochat.knowledge.lessons import Asked, conversation, lessons, rest, searches
from webtochat.recipe import Knowledge, Recipe
from webtochat.run import Run, Stage
from webtochat.tokens import rows
from webtochat.tokens.chat import parse, render
from webtochat.tokens.conversations import CONVERSATIONS, chats
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tools.tool import definitions
from webtochat.tools.toolbox import toolbox
from webtochat.train.stage import fine_tune, literals

BATCH = 128
"""Questions asked at once, and written down together."""
FACTS = "facts.json"
SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("question", "subject", "relation", "evidence", "document", "state", "taught")]
    + [("answers", pa.list_(pa.string())), ("replies", pa.list_(pa.string())), ("right", pa.list_(pa.bool_()))]
    + [("stated", pa.int64()), ("held_out", pa.bool_())]
)


def knowledge(run: Run) -> Artifact:
    """`model/`: the chat model taught to say that it does not know; questions.parquet: what it was asked, what it said,
    and what it was taught; metrics.jsonl: the curve of that training."""
    recipe, section = run.recipe, run.recipe.knowledge
    if section is None:
        raise UserError("the recipe has no section knowledge, so nothing is asked: docs/knowledge.md shows one")
    curated, chat = run.open("curate"), run.open("sft")
    shown = [run.open("demonstrations")] if recipe.demonstrations.wanted else []
    index = [run.open("index")] if section.mixed == "search" else []
    sources, _ = rows.available(recipe.sft.data, recipe.miniweb)
    told = literals(recipe, "knowledge") | {"rest": [rows.identity(each, recipe.miniweb) for each in sources]}
    identity = {"knowledge": told} | (recipe.identity("tools") if index else {})
    stage = run.begin("knowledge", identity, [curated, chat, *shown, *index])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        client = Client(section.endpoint, recipe.cluster) if section.endpoint is not None else None
        model = Model(recipe, ModelPath.of(chat), section)
        try:
            if not storage.exists(stage.scratch(FACTS)):
                model.start()  # in the background, while documents are read
            failed: Counter[str] = Counter()
            facts = _facts(stage, curated.files("kept/"), recipe, section, model, client, failed)
            asked = list(_asked(stage, facts, section, model, client, failed))
        finally:
            model.stop()
        taught = lessons(asked, section, section.seed)
        tools = toolbox(recipe.tools, index[0].local()) if index else []
        looked_up = searches(asked, section, tools, recipe.tools, failed) if index else {}
        for place, messages in looked_up.items():
            taught[place] = messages[-1]["content"]
        states = [each.state(section) for each in asked]
        _write(stage, asked, states, taught)
        held_out = {fact.subject for fact in facts if fact.held_out}
        unread: Counter[str] = Counter()
        others = chats(recipe, [each.path(CONVERSATIONS) for each in shown], unread)
        mixed = rest(others, held_out, section.sft_share, section.seed)
        new = [
            {"messages": looked_up[place], "tools": definitions(tools)} if place in looked_up
            else conversation(each.fact.question, text)
            for place, (each, text) in enumerate(zip(asked, taught, strict=True)) if text is not None
            for _ in range(section.answer_weight if states[place] == "known" else 1)
        ]  # fmt: skip
        found = {state: states.count(state) for state in STATES}
        stage.say(f"{len(asked):,} questions: " + ", ".join(f"{count:,} {state}" for state, count in found.items()))
        stage.metrics({f"questions/{state}": count for state, count in found.items()})
        counts, gain = fine_tune(stage, chat, section, [*new, *mixed], recipe.cluster, unread)
        counts |= {
            "questions": len(asked), "states": found, "held_out": sum(fact.held_out for fact in facts),
            "lessons": len(asked) - taught.count(None), "rest": len(mixed), "failed": dict(failed),
        }  # fmt: skip
        known, unknown = found["known"], found["unknown"]
        summary = f"{len(asked):,} questions, {known:,} known, {unknown:,} not; {counts['lessons']:,} taught"
        return stage.commit(counts=counts, summary=summary, gain=gain)


class Model:
    """The chat model in an engine, which is started when it is first needed."""

    def __init__(self, recipe: Recipe, path: ModelPath, section: Knowledge):
        self._recipe, self._path, self._section = recipe, path, section
        self._engine: Any = None
        self.tokenizer = Tokenizer.load(path.local())

    def start(self) -> None:
        cluster = self._recipe.cluster
        self._engine = actors.start(self._path, gpus=cluster.engine_gpus, kv_cache_gib=cluster.kv_cache_gib)

    def stop(self) -> None:
        if self._engine is not None:
            ray.kill(self._engine)

    def ask(self, questions: list[str], samples: int, temperature: float, seed: int) -> list[list[str]]:
        if self._engine is None:
            self.start()
        section = self._section
        finished = ray.get(self._engine.generate.remote(
            [self._prompt(question) for question in questions], n=samples, seed=seed,
            max_new_tokens=section.max_new_tokens, temperature=temperature, stop_token_ids=self.tokenizer.stops,
        ))  # fmt: skip
        return [[parse(self.tokenizer, each.ids).content for each in completions] for completions in finished]

    def _prompt(self, question: str) -> list[int]:
        """One that is too long for the model keeps its end, as the reply must follow it."""
        room = positions(self._path.local()) - self._section.max_new_tokens
        ids = render(self.tokenizer, [{"role": "user", "content": question}], add_generation_prompt=True).ids
        return ids[-max(1, room) :]


# questions -----------------------------------------------------------------------------------------------------------


def _facts(
    stage: Stage, kept: list[str], recipe: Recipe, section: Knowledge, model: Model, client: Client | None,
    failed: Counter[str],
) -> list[Fact]:  # fmt: skip
    """What is asked, in a fixed order: written down before the first question is."""
    path = stage.scratch(FACTS)
    if not storage.exists(path):
        documents = sum(parts.counts_of(each)["kept"] for each in kept)
        share = min(1.0, section.snippets / max(1, documents))
        todo = [
            {"path": each, "share": share, "done": stage.scratch("snippets", f"{number:05d}.json")}
            for number, each in enumerate(kept)
        ]
        drawn = [part for row in _spread(stage, _draw, todo, section) for part in row]
        stage.say(f"{len(drawn):,} snippets of {documents:,} documents")
        if section.questions == "extract":
            stated = [(part["document"], _extracted(each)) for part in drawn for each in part["stated"]]
            facts = chosen(stated, section, section.seed)
        else:
            facts = list(_written(stage, drawn, section, model, client, failed))
        if not facts:
            raise UserError(
                f"{len(drawn):,} snippets of the kept documents give no question: draw more (knowledge.snippets), or "
                "let a model write them (knowledge.questions)"
            )
        nothing = invented(facts, section, section.seed)
        names = [fact.subject for fact in nothing]
        todo = [
            {"path": each, "names": names, "done": stage.scratch("names", f"{number:05d}.json")}
            for number, each in enumerate(kept)
        ]
        real = {name for row in _spread(stage, _standing, todo, section) for name in row}
        nothing = [fact for fact in nothing if fact.subject not in real][: section.invented]
        storage.write_bytes(path, json.dumps([asdict(fact) for fact in [*facts, *nothing]]).encode())
    return [Fact(**each) for each in json.loads(storage.read_bytes(path))]


def _spread(stage: Stage, function: Any, todo: list[dict[str, Any]], section: Knowledge) -> Iterator[Any]:
    """What `function` leaves in each row's `done`, in order; rows that are done already are not done again."""
    left = [row for row in todo if not storage.exists(row["done"])]
    for number, _ in enumerate(spread(function, left, section, None), 1 + len(todo) - len(left)):
        stage.progress(number, len(todo), "files", "read")
    for row in todo:
        yield json.loads(storage.read_bytes(row["done"]))


def _draw(row: dict[str, Any], section: Knowledge) -> dict[str, Any]:
    """Snippets of one file of kept documents, with what they state where templates ask."""
    drawn = []
    for table in parts.read_part(row["path"]):
        for document in table.select(["id", "text"]).to_pylist():
            if draw(section.seed, "document", document["id"]) < row["share"]:
                text = snippet(document["text"], document["id"], section, section.seed)
                stated = extract(text) if section.questions == "extract" else []
                drawn.append({"document": document["id"], "text": text, "stated": [asdict(each) for each in stated]})
    storage.write_bytes(row["done"], json.dumps(drawn).encode())
    return {"path": row["path"]}


def _extracted(row: dict[str, Any]) -> Extracted:
    return Extracted(**row | {"questions": tuple(row["questions"])})


def _standing(row: dict[str, Any], section: Knowledge) -> dict[str, Any]:
    """Which of the names stand in one file of kept documents."""
    left = set(row["names"])
    for table in parts.read_part(row["path"]):
        for text in table.column("text").to_pylist():
            left -= {name for name in left if name in text}
    storage.write_bytes(row["done"], json.dumps(sorted(set(row["names"]) - left)).encode())
    return {"path": row["path"]}


def _written(
    stage: Stage, drawn: list[dict[str, Any]], section: Knowledge, model: Model, client: Client | None,
    failed: Counter[str],
) -> Iterator[Fact]:  # fmt: skip
    """Questions that a model writes, one for each thing asked about. Replies of no use are counted, by reason."""
    found: dict[str, Fact] = {}
    for begin in range(0, len(drawn), BATCH):
        batch, path = drawn[begin : begin + BATCH], stage.scratch("written", f"{begin:06d}.json")
        if not storage.exists(path):
            prompts = [writing.prompt(part["text"]) for part in batch]
            lost: Counter[str] = Counter()
            if section.questions == "model":
                replies = [each for each, in model.ask(prompts, 1, 0.0, section.seed)]
            else:
                assert client is not None
                replies = [reply or "" for reply in client.ask(prompts, lost)]
            storage.write_bytes(path, json.dumps({"replies": replies, "lost": lost}).encode())
        held = json.loads(storage.read_bytes(path))
        failed.update(held["lost"])
        for part, reply in zip(batch, held["replies"], strict=True):
            fact = writing.read(reply, part["text"], part["document"], section, section.seed) if reply else None
            if isinstance(fact, Fact):
                found.setdefault(fact.subject, fact)
            elif fact is not None:
                failed[fact] += 1
        stage.progress(begin + len(batch), len(drawn), "snippets", "questions written")
    yield from at_most(list(found.values()), section.max_questions, section.seed)


# answers -------------------------------------------------------------------------------------------------------------


def _asked(
    stage: Stage, facts: list[Fact], section: Knowledge, model: Model, client: Client | None, failed: Counter[str]
) -> Iterator[Asked]:
    """Every question once, in order, with its answers and which of them are right. (What does not exist is not asked
    about: there is nothing to be right.)"""
    for begin in range(0, len(facts), BATCH):
        batch, path = facts[begin : begin + BATCH], stage.scratch("answers", f"{begin:06d}.json")
        if not storage.exists(path):
            real = [fact for fact in batch if fact.answers]
            seed = section.seed + begin * section.samples
            replies = model.ask([fact.question for fact in real], section.samples, section.temperature, seed)
            lost: Counter[str] = Counter()
            judged = _judged(real, replies, section, client, lost)
            told = {"replies": replies, "right": judged, "lost": lost}
            storage.write_bytes(path, json.dumps(told).encode())
        held = json.loads(storage.read_bytes(path))
        failed.update(held["lost"])
        answered = iter(zip(held["replies"], held["right"], strict=True))
        yield from (Asked(fact, *next(answered)) if fact.answers else Asked(fact) for fact in batch)
        stage.progress(begin + len(batch), len(facts), "questions", f"{section.samples} answers each")


def _judged(
    facts: list[Fact], replies: list[list[str]], section: Knowledge, client: Client | None, lost: Counter[str]
) -> list[list[bool]]:
    """Where the endpoint gives no judgement, the match decides."""
    matched = [[is_right(reply, fact.answers) for reply in each] for fact, each in zip(facts, replies, strict=True)]
    if section.judge == "match":
        return matched
    assert client is not None
    flat = [(fact, reply) for fact, each in zip(facts, replies, strict=True) for reply in each]
    told = [writing.judgement(said or "") for said in client.ask([writing.judge_prompt(*each) for each in flat], lost)]
    lost["no_judgement"] += told.count(None)
    said = iter(told)
    return [[right if (verdict := next(said)) is None else verdict for right in each] for each in matched]


def _write(stage: Stage, asked: list[Asked], states: list[str], taught: list[str | None]) -> None:
    table = pa.Table.from_pylist(
        [
            asdict(each.fact) | {"replies": each.replies, "right": each.right, "state": state, "taught": text}
            for each, state, text in zip(asked, states, taught, strict=True)
        ],
        SCHEMA,
    )
    with storage.writing(stage.path("questions.parquet")) as local:
        pq.write_table(table, local, compression="zstd")
    stage.tracked.table(table.to_pydict(), "questions.json")
