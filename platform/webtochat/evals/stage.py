"""The evaluate stage: what the base model and the chat models know, against what is easily had, and whether they say so
where they do not know.

Bits per byte, tasks and the baselines are scored in Ray tasks beside the engine. One engine serves all models: the
next one's weights take the place of the last one's.
"""

from __future__ import annotations

import json
import os
import random
from collections import Counter
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import ray

from webtochat import artifact, storage
from webtochat.agent import driver
from webtochat.agent.conversation import Conversation
from webtochat.artifact import Artifact
from webtochat.errors import UserError
from webtochat.evals import baselines, bits, curve, likelihood, refusals, results, tasks
from webtochat.evals.questions import QUESTIONS, Question, at_most, from_rows, tally, verdict
from webtochat.evals.results import Answered
from webtochat.evals.tasks import Encoded
from webtochat.inference import actors
from webtochat.inference.actors import ModelPath
from webtochat.inference.engine import Completion, positions
from webtochat.recipe import Evaluate, Recipe
from webtochat.recipe_tools import Tools
from webtochat.run import Run, Stage
from webtochat.tokens import rows
from webtochat.tokens.shards import Document, Split, dtype_of
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tools.tool import Tool
from webtochat.tools.toolbox import toolbox

BATCH = 256
"""Prompts handed to the engine at once: enough to fill it, few enough to show progress."""
NGRAM_BYTES = 10_000_000
"""The 5-gram model over bytes is trained on at most so many: more of them no longer help it."""


def evaluate(run: Run) -> Artifact:
    made = {"base": run.open("pretrain"), "sft": run.open("sft")}
    if run.recipe.knowledge is not None:
        made["knowledge"] = run.open("knowledge")
    if run.recipe.dpo is not None:
        made["dpo"] = run.open("dpo")
    if run.recipe.rl is not None:
        made["rl"] = run.open("rl")
    tokens = _tokens(run)
    shown = [run.open("demonstrations"), run.open("index")] if run.recipe.demonstrations.wanted else []
    section = run.recipe.evaluate
    sources, missing = rows.available(section.questions, run.recipe.miniweb)
    identity = run.recipe.identity("evaluate")
    identity["evaluate"]["questions"] = [rows.identity(source, run.recipe.miniweb) for source in sources]
    identity["evaluate"]["tasks"] = tasks.identity(section, run.recipe.miniweb)
    if shown:
        identity |= run.recipe.identity("tools")
    inputs = [*([tokens] if tokens is not None else []), *made.values(), *shown]
    stage = run.begin("evaluate", identity, inputs)
    if isinstance(stage, Artifact):
        return stage
    with stage:
        for source in missing:
            stage.say(f"skipped {source.path}: it asks about the miniweb, which this recipe does not crawl")
        skipped: Counter[str] = Counter()
        asked = [
            question for source in sources
            for question in from_rows(rows.read(source, run.recipe.miniweb, skipped), skipped)
        ]  # fmt: skip
        asked = at_most(asked, section.max_questions_per_kind, section.seed)
        held: list[Question] = []
        tools: list[Tool] = []
        if shown:
            written = rows.read(rows.DataSource(path=shown[0].path(QUESTIONS)), None, skipped)
            held = at_most(from_rows(written, skipped), section.max_questions_per_kind, section.seed)
            tools = toolbox(run.recipe.tools, shown[1].local())
        probes = _probes(made["knowledge"]) if "knowledge" in made else []
        models = {name: ModelPath.of(each) for name, each in made.items()}
        tokenizer = Tokenizer.load(models["base"].local())
        length = run.recipe.tokens.sequence_length
        most = section.max_task_rows
        encoded = tasks.prepare(section, most, run.recipe.miniweb, tokenizer, length, stage.say)
        if tokens is None:
            stage.say("no held-out bits per byte: an imported model was trained on none of this recipe's tokens")
        scores = _start_scores(run.recipe, tokens, models, encoded)
        closed = [_Turn(name, model, [*asked, *probes], []) for name, model in models.items()]
        newest, model = list(models.items())[-1]
        answered = _ask(stage, run.recipe, [*closed, *(_Turn(newest, model, held, each) for each in ([], tools))])
        result: dict[str, Any] = ray.get(scores)
        verdicts = {each.model: each.verdicts for each in answered[: len(models)]}
        states = [probe.kind for probe in probes]
        result["questions"] = {
            name: tally(asked, each[: len(asked)]) for name, each in verdicts.items() if asked
        }
        result["knowledge"] = {
            name: refusals.tell(states, each[len(asked) :]) for name, each in verdicts.items() if probes
        }
        told = [tally(each.questions, each.verdicts) for each in answered[len(models) :]]
        result["tools"] = dict(zip(("without", "with"), told, strict=True)) if held else {}
        result["skipped_sources"] = [source.path for source in missing]
        return _commit(stage, result, answered, skipped)


def _probes(taught: Artifact) -> list[Question]:
    """The held-out questions of the knowledge stage; their kind is what sft's model knew of them."""
    with storage.open_input_file(taught.path("questions.parquet")) as source:
        held_out = [row for row in pq.read_table(source).to_pylist() if row["held_out"]]
    return [Question(row["state"], row["question"], row["answers"], row["stated"]) for row in held_out]


def _tokens(run: Run) -> Artifact | None:
    """The held-out documents. With a model that was imported as it is there need be none."""
    if run.recipe.pretrain.tokens:
        return run.open("tokens")
    found = artifact.find(storage.join(run.directory, "tokens"))
    if found is not None:
        mine, learned = os.path.join(run.open("pretrain").local(), "model"), run.open("tokenizer").local()
        if not Tokenizer.load(mine).writes_as(Tokenizer.load(learned)):
            raise UserError(
                f"{found.directory} is not of the imported model's tokenizer: run again with --rebuild tokenizer, or "
                "remove it to do without held-out bits"
            )
    return found


# bits per byte, tasks ------------------------------------------------------------------------------------------------


def _start_scores(recipe: Recipe, tokens: Artifact | None, models: dict[str, ModelPath], encoded: list[Encoded]) -> Any:
    """Starts the Ray tasks; the reference is of the `bits_per_byte` and `tasks` parts of evaluation.json."""
    gpus = actors.gpus_per_engine(recipe.cluster.engine_gpus)
    place = (tokens.directory, tokens.content_hash) if tokens is not None else None
    score = ray.remote(_model_scores).options(num_cpus=1, num_gpus=min(gpus, 1))
    held = ray.put(encoded)
    told = {name: score.remote(model, place, recipe, held) for name, model in models.items()}
    bar: Any = ray.remote(_baseline_bits).options(num_cpus=1).remote(models["base"], place, recipe) if place else {}
    return ray.remote(_gathered).options(num_cpus=0).remote(bar, list(told), *told.values())


def _gathered(bar: dict[str, Any], names: list[str], *told: tuple[dict[str, float], dict[str, Any]]) -> dict[str, Any]:
    held_out, on_tasks = ({name: each[part] for name, each in zip(names, told, strict=True)} for part in (0, 1))
    measured = {name: each for name, each in held_out.items() if each}
    return {"bits_per_byte": {**bar, "models": measured}, "tasks": on_tasks if all(on_tasks.values()) else {}}


def _documents(place: tuple[str, str], recipe: Recipe, vocabulary: int) -> list[Document]:
    """The held-out documents that are scored: all, or a sample by seed, in their order."""
    directory = os.path.join(storage.local_copy(*place), "validation")
    split = Split(directory, recipe.tokens.sequence_length, vocabulary)
    count, most = sum(split.counts()), recipe.evaluate.max_validation_documents
    kept = set(random.Random(recipe.evaluate.seed).sample(range(count), min(most, count)))
    return [document for number, document in enumerate(split.documents()) if number in kept and document.bytes]


def _model_scores(
    model: ModelPath, place: tuple[str, str] | None, recipe: Recipe, encoded: list[Encoded]
) -> tuple[dict[str, float], dict[str, Any]]:
    """Bits per byte by source, and what `likelihood.tell` tells of the tasks."""
    import torch

    from webtochat.model.export import load

    tokenizer = Tokenizer.load(model.local())
    device = "cuda" if torch.cuda.is_available() else "cpu"
    transformer = load(model.local()).eval().to(device)
    held_out = {}
    if place is not None:
        documents = _documents(place, recipe, tokenizer.vocabulary)
        length = min(recipe.tokens.sequence_length, transformer.config.max_positions)
        paid = bits.document_bits(transformer, documents, tokenizer.separator, length, device)
        held_out = bits.by_source(paid, documents, recipe.evaluate.sources)
    if not encoded:
        return held_out, {}
    right = likelihood.score(transformer, encoded, tokenizer.vocabulary, device)
    return held_out, likelihood.tell(encoded, right)


def _baseline_bits(model: ModelPath, place: tuple[str, str], recipe: Recipe) -> dict[str, Any]:
    """What was scored, where an untrained model stands, and the baselines on the same documents."""
    tokenizer = Tokenizer.load(model.local())
    separator, symbols = tokenizer.separator, tokenizer.vocabulary
    documents = _documents(place, recipe, symbols)
    told: dict[str, Any] = {
        "documents": len(documents),
        "bytes": sum(document.bytes for document in documents),
        "start": bits.start_value(symbols, documents),
    }
    if not recipe.evaluate.baselines:
        return told
    texts = [tokenizer.decode(document.tokens.tolist()).encode() for document in documents]
    train = _train_stream(os.path.join(storage.local_copy(*place), "train"), symbols, recipe.evaluate)
    raw = _byte_stream(train, separator, tokenizer)
    of_tokens = baselines.ngram_bits(train, [document.tokens for document in documents], separator, symbols)
    of_bytes = baselines.ngram_bits(raw, [np.frombuffer(text, np.uint8) for text in texts], 256, 257)
    by_source = {
        name: bits.by_source(paid, documents, recipe.evaluate.sources)
        for name, paid in (("5gram", of_tokens), ("5gram_of_bytes", of_bytes))
    }
    return told | {
        "xz": baselines.xz_bits_per_byte(texts),
        **{name: values["total"] for name, values in by_source.items()},
        "by_source": by_source,
        "trained_on": {"5gram": f"{len(train)} tokens", "5gram_of_bytes": f"{len(raw)} bytes"},
    }


def _train_stream(directory: str, vocabulary: int, section: Evaluate) -> np.ndarray:
    """The first `ngram_tokens` of the training shards, separators included."""
    pieces, total = [], 0
    for name in sorted(os.listdir(directory)):
        if name.endswith(".bin") and total < section.ngram_tokens:
            shard = np.fromfile(os.path.join(directory, name), dtype_of(vocabulary), section.ngram_tokens - total)
            pieces.append(shard.astype(np.int64))
            total += len(shard)
    return np.concatenate(pieces) if pieces else np.zeros(0, np.int64)


def _byte_stream(stream: np.ndarray, separator: int, tokenizer: Tokenizer) -> np.ndarray:
    """The same text as bytes, with 256 for the separators; at most NGRAM_BYTES of it."""
    pieces, total = [], 0
    for document in np.split(stream, np.flatnonzero(stream == separator)):
        if total >= NGRAM_BYTES:
            break
        text = tokenizer.decode(document[document != separator].tolist()).encode()
        pieces.append(np.concatenate([[256], np.frombuffer(text, np.uint8)]))
        total += len(text)
    return np.concatenate(pieces)[:NGRAM_BYTES].astype(np.int64)


# questions -----------------------------------------------------------------------------------------------------------


def _ask(stage: Stage, recipe: Recipe, turns: list[_Turn]) -> list[Answered]:
    """What each model answers in its turns, rendered as a chat: the base model too, to show what sft gained."""
    section, cluster = recipe.evaluate, recipe.cluster
    first = turns[0].model
    tokenizer, most = Tokenizer.load(first.local()), positions(first.local())  # the others keep them
    begun = [turn.begun(tokenizer, recipe.tools, most) for turn in turns]
    prompts = [len(each.ids) for some in begun for each in some]
    if not prompts:
        return [turn.answered([]) for turn in turns]
    # No more than these take: the cache for all positions of a large model may not fit.
    calls = any(turn.tools for turn in turns)
    length = recipe.tools.max_tokens or most if calls else max(prompts) + section.max_new_tokens
    engine = actors.start(
        first, gpus=cluster.engine_gpus, kv_cache_gib=cluster.kv_cache_gib, max_model_length=min(most, length)
    )

    def generate(prompts: list[list[int]], **options: Any) -> list[list[Completion]]:
        return ray.get(engine.generate.remote(prompts, **options))

    done, loaded = 0, first
    try:
        for turn, conversations in zip(turns, begun, strict=True):
            if turn.model != loaded:
                ray.get(engine.load.remote(turn.model))
                loaded = turn.model
            for begin in range(0, len(conversations), BATCH):
                some = conversations[begin : begin + BATCH]
                driver.answer(
                    some, generate, max_new_tokens=section.max_call_tokens if turn.tools else section.max_new_tokens,
                    temperature=section.temperature, seed=section.seed + begin, section=recipe.tools,
                    threads=cluster.tool_threads,
                )  # fmt: skip
                done += len(some)
                stage.progress(done, len(prompts), "questions", turn.name)
    finally:
        ray.kill(engine)
    return [turn.answered(conversations) for turn, conversations in zip(turns, begun, strict=True)]


class _Turn(NamedTuple):
    """A model's turn at some questions."""

    name: str
    model: ModelPath
    questions: list[Question]
    tools: list[Tool]

    def begun(self, tokenizer: Tokenizer, section: Tools, most: int) -> list[Conversation]:
        return [
            Conversation(
                tokenizer, [{"role": "user", "content": each.question}], self.tools, positions=most, section=section
            )
            for each in self.questions
        ]  # fmt: skip

    def answered(self, conversations: list[Conversation]) -> Answered:
        pairs = zip(self.questions, conversations, strict=True)
        verdicts = [verdict(question, each.replies) for question, each in pairs]
        texts = [each.tokenizer.decode(each.ids) for each in conversations]
        return Answered(self.name, bool(self.tools), self.questions, verdicts, texts)


# what is told --------------------------------------------------------------------------------------------------------


def _commit(stage: Stage, result: dict[str, Any], answered: list[Answered], skipped: Counter[str]) -> Artifact:
    storage.write_bytes(stage.path("evaluation.json"), json.dumps(result, indent=1).encode())
    with storage.writing(stage.path("answers.parquet")) as local:
        pq.write_table(results.answers(answered), local, compression="zstd")
    if any(told["by_stated"].get("fact") for told in result["questions"].values()):
        with storage.writing(stage.path("facts_curve.svg")) as local:
            curve.draw(result["questions"], local)
    stage.metrics(results.metrics(result))
    for line in [
        *results.task_lines(result["tasks"]), *results.tool_lines(result["tools"]),
        *refusals.lines(result["knowledge"]),
    ]:  # fmt: skip
        stage.say(line)
    questions = sum(len(each.questions) for each in answered if each.model == "sft" and not each.tools)
    counts = {"questions": questions, "rows_skipped": dict(skipped), "sources_skipped": result["skipped_sources"]}
    return stage.commit(counts=counts, summary=results.summary(result), gain=results.gain(result))
