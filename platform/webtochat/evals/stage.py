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
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from webtochat import artifact, storage
from webtochat.artifact import Artifact
from webtochat.errors import UserError
from webtochat.evals import baselines, bits, curve, likelihood, refusals, tasks
from webtochat.evals.questions import Question, Verdict, at_most, from_rows, judge, tally
from webtochat.evals.tasks import Encoded
from webtochat.inference import actors
from webtochat.inference.actors import ModelPath
from webtochat.inference.engine import positions
from webtochat.recipe import Evaluate, Recipe
from webtochat.run import Run, Stage
from webtochat.tokens import rows
from webtochat.tokens.chat import render
from webtochat.tokens.shards import Document, Split, dtype_of
from webtochat.tokens.tokenizer import Tokenizer

BATCH = 256
"""Prompts handed to the engine at once: enough to fill it, few enough to show progress."""
NGRAM_BYTES = 10_000_000
"""The 5-gram model over bytes is trained on at most so many: more of them no longer help it."""


def evaluate(run: Run) -> Artifact:
    made = {"base": run.open("pretrain"), "sft": run.open("sft")}
    if run.recipe.knowledge is not None:
        made["knowledge"] = run.open("knowledge")
    tokens = _tokens(run)
    section = run.recipe.evaluate
    sources, missing = rows.available(section.questions, run.recipe.miniweb)
    identity = run.recipe.identity("evaluate")
    identity["evaluate"]["questions"] = [rows.identity(source, run.recipe.miniweb) for source in sources]
    identity["evaluate"]["tasks"] = tasks.identity(section, run.recipe.miniweb)
    stage = run.begin("evaluate", identity, [*([tokens] if tokens is not None else []), *made.values()])
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
        probes = _probes(made["knowledge"]) if "knowledge" in made else []
        models = {name: ModelPath.of(each) for name, each in made.items()}
        tokenizer = Tokenizer.load(models["base"].local())
        length = run.recipe.tokens.sequence_length
        most = section.max_task_rows
        encoded = tasks.prepare(section, most, run.recipe.miniweb, tokenizer, length, stage.say)
        if tokens is None:
            stage.say("no held-out bits per byte: an imported model was trained on none of this recipe's tokens")
        scores = _start_scores(run.recipe, tokens, models, encoded)
        everything = [*asked, *probes]
        answered = _ask(stage, run.recipe, models, everything) if everything else {}
        result: dict[str, Any] = ray.get(scores)
        of_recipe = answered if asked else {}
        result["questions"] = {name: tally(asked, each[: len(asked)]) for name, each in of_recipe.items()}
        states = [probe.kind for probe in probes]
        result["knowledge"] = {
            name: refusals.tell(states, each[len(asked) :]) for name, each in answered.items() if probes
        }
        result["skipped_sources"] = [source.path for source in missing]
        return _commit(stage, result, everything, answered, skipped)


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


def _ask(stage: Stage, recipe: Recipe, models: dict[str, ModelPath], asked: list[Question]) -> dict[str, list[Verdict]]:
    """Every question put to every model, rendered as a chat: the base model too, to show what sft gained."""
    section, cluster = recipe.evaluate, recipe.cluster
    names = list(models)
    tokenizer = Tokenizer.load(models[names[0]].local())  # sft keeps it
    most = positions(models[names[0]].local())
    prompts = [prompt_ids(tokenizer, each.question, most - section.max_new_tokens) for each in asked]
    # No more than these take: the cache for all positions of a large model may not fit.
    length = min(most, max(map(len, prompts)) + section.max_new_tokens)
    engine = actors.start(
        models[names[0]], gpus=cluster.engine_gpus, kv_cache_gib=cluster.kv_cache_gib, max_model_length=length
    )
    verdicts: dict[str, list[Verdict]] = {}
    try:
        for place, name in enumerate(names):
            if place:
                ray.get(engine.load.remote(models[name]))
            replies: list[list[int]] = []
            for begin in range(0, len(prompts), BATCH):
                finished = ray.get(engine.generate.remote(
                    prompts[begin : begin + BATCH], max_new_tokens=section.max_new_tokens,
                    temperature=section.temperature, seed=section.seed + begin, stop_token_ids=tokenizer.stops,
                ))  # fmt: skip
                replies += [completions[0].ids for completions in finished]
                stage.progress(place * len(asked) + len(replies), len(names) * len(asked), "questions", name)
            verdicts[name] = [judge(tokenizer, each, ids) for each, ids in zip(asked, replies, strict=True)]
    finally:
        ray.kill(engine)
    return verdicts


def prompt_ids(tokenizer: Tokenizer, question: str, room: int) -> list[int]:
    """A question that is too long for the model keeps its end, as the reply must follow it."""
    ids = render(tokenizer, [{"role": "user", "content": question}], add_generation_prompt=True).ids
    return ids[-max(1, room) :]


# what is told --------------------------------------------------------------------------------------------------------


def _commit(
    stage: Stage, result: dict[str, Any], asked: list[Question], answered: dict[str, list[Verdict]],
    skipped: Counter[str],
) -> Artifact:  # fmt: skip
    storage.write_bytes(stage.path("evaluation.json"), json.dumps(result, indent=1).encode())
    with storage.writing(stage.path("answers.parquet")) as local:
        pq.write_table(_answers(asked, answered), local, compression="zstd")
    if any(told["by_stated"].get("fact") for told in result["questions"].values()):
        with storage.writing(stage.path("facts_curve.svg")) as local:
            curve.draw(result["questions"], local)
    stage.metrics(_metrics(result))
    for line in [*_task_lines(result["tasks"]), *refusals.lines(result["knowledge"])]:
        stage.say(line)
    counts = {"questions": len(asked), "rows_skipped": dict(skipped), "sources_skipped": result["skipped_sources"]}
    return stage.commit(counts=counts, summary=_summary(result), gain=_gain(result))


def _answers(asked: list[Question], answered: dict[str, list[Verdict]]) -> pa.Table:
    told = [
        {
            "model": name, "kind": question.kind, "question": question.question, "reply": verdict.reply,
            "answers": question.answers, "stated": question.stated, "correct": verdict.correct,
            "format_kept": verdict.format_kept, "refused": refusals.refused(verdict),
        }
        for name, verdicts in answered.items() for question, verdict in zip(asked, verdicts, strict=True)
    ]  # fmt: skip
    schema = pa.schema([
        ("model", pa.string()), ("kind", pa.string()), ("question", pa.string()), ("reply", pa.string()),
        ("answers", pa.list_(pa.string())), ("stated", pa.int64()), ("correct", pa.bool_()),
        ("format_kept", pa.bool_()), ("refused", pa.bool_()),
    ])  # fmt: skip
    return pa.Table.from_pylist(told, schema)


def _metrics(result: dict[str, Any]) -> dict[str, float]:
    held_out = result["bits_per_byte"]
    found = {f"bits_per_byte/{key}": held_out[key] for key in ("start", "xz") if key in held_out}
    for name, told in (held_out["models"] | held_out.get("by_source", {})).items():
        found |= {f"bits_per_byte/{name}/{source}": value for source, value in told.items()}
    for name, told in result["questions"].items():
        found |= {f"accuracy/{name}/{kind}": each["rate"] for kind, each in told["accuracy"].items()}
        found |= {
            f"accuracy/{name}/{kind}/stated_{stated}": each["rate"]
            for kind, by_stated in told["by_stated"].items() for stated, each in by_stated.items()
        }  # fmt: skip
        found[f"format/{name}"] = told["format"]["rate"]
    for name, told in result["knowledge"].items():
        for measure, by_state in told.items():
            found |= {f"{measure}/{name}/{state}": each["rate"] for state, each in by_state.items()}
    for name, told in result["tasks"].items():
        found[f"core/{name}"] = told["core"]
        found |= {f"task/{name}/{task}": each["rate"] for task, each in told["by_task"].items()}
    return found


def _task_lines(by_model: dict[str, Any]) -> list[str]:
    """A line for each task, with 95 % intervals, and one for CORE."""
    if not by_model:
        return []
    width = max(map(len, by_model["base"]["by_task"]))
    lines = []
    for task, on_base in by_model["base"]["by_task"].items():
        rates = []
        for name, told in by_model.items():
            rate, low, high = (100 * told["by_task"][task][key] for key in ("rate", "low", "high"))
            rates.append(f"{name} {rate:.1f} % ({low:.1f} to {high:.1f})")
        chance = 100 * on_base["chance"]
        lines.append(f"{task:{width}}  {', '.join(rates)}; chance {chance:.0f} %, {on_base['of']:,} rows")
    cores = ", ".join(f"{name} {told['core']:.4f}" for name, told in by_model.items())
    return [*lines, f"{'core':{width}}  {cores}"]


def _summary(result: dict[str, Any]) -> str:
    held_out = result["bits_per_byte"]
    bar = f" (xz {held_out['xz']:.2f}, 5-gram {held_out['5gram']:.2f})" if "xz" in held_out else ""
    parts = [f"bits/byte {held_out['models']['base']['total']:.2f}{bar}"] if held_out["models"] else []
    parts += [f"core {result['tasks']['base']['core']:.3f}"] if result["tasks"] else []
    accuracy = result["questions"]["sft"]["accuracy"] if result["questions"] else {}
    for kind in [each for each in ("fact", "arithmetic") if each in accuracy] or list(accuracy)[:1]:
        told = accuracy[kind]
        parts.append(f"{kind}s {100 * told['rate']:.0f} % (chance {100 * told['chance']:.0f} %)")
    if result["knowledge"]:
        parts.append(refusals.summary(result["knowledge"]))
    return "; ".join(parts).replace("arithmetics", "sums")


def _gain(result: dict[str, Any]) -> str:
    if not result["questions"]:
        return ""
    before, after = (result["questions"][name]["accuracy"] for name in ("base", "sft"))
    kind = "fact" if "fact" in after else next(iter(after))
    gained = after[kind]["rate"] - before[kind]["rate"]
    return f"{gained:+.2f} {kind}s, format {100 * result['questions']['sft']['format']['rate']:.1f} %"
