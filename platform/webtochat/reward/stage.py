"""The reward stage: which of two answers people chose, or a function in their place, becomes a model that scores
answers. Those that are sampled are written down batch by batch, so that a kill loses at most one and every prompt is
answered once."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import statistics
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import ray

from webtochat import storage
from webtochat.artifact import Artifact, hash_of
from webtochat.errors import UserError
from webtochat.evals.calibration import calibration
from webtochat.evals.questions import rate
from webtochat.inference import actors
from webtochat.inference.actors import ModelPath
from webtochat.inference.engine import positions
from webtochat.model.reward import SCORES, answered
from webtochat.recipe import DataSource, Recipe, Reward
from webtochat.reward.answers import Judged, Prompt, compared, drawn, headroom, judged
from webtochat.run import Run, Stage
from webtochat.tokens import rows
from webtochat.tokens.chat import parse
from webtochat.tokens.preferences import exchange_of, preferences
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.train.pairs import Pair, encoded, pack_pairs, split
from webtochat.train.rank import reward_rank
from webtochat.train.stage import ends, left_out, literals, prepared, tune

BATCH = 128
"""Prompts answered at once, and written down together."""
SCORED = 1024
"""Rows of a file that are scored at once."""
MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
PAIRS = pa.schema(
    [("prompt", MESSAGES), ("chosen", pa.string()), ("rejected", pa.string()), ("source", pa.string())]
    + [(name, pa.float64()) for name in ("margin", "chosen_score", "rejected_score")]
)
ANSWERS = pa.schema([("prompt", MESSAGES), ("answer", pa.string()), ("score", pa.float64())])


def reward(run: Run) -> Artifact:
    """`model/`: the newest chat model's body taught to score answers (transformers' Qwen3ForSequenceClassification);
    pairs.parquet: held-out pairs with its scores; answers.parquet: what was sampled, with the judge's; metrics.jsonl:
    the curve of the training."""
    recipe, section = run.recipe, run.recipe.reward
    if section is None:
        raise UserError("the recipe has no section reward, so no answers are compared: docs/reward.md shows one")
    chat = run.open(recipe.chat)
    sources, missing = rows.available(section.data, recipe.miniweb)
    asked, unasked = rows.available(section.answers.prompts if section.answers else [], recipe.miniweb)
    told = literals(recipe, "reward") | {"data": [rows.identity(each, recipe.miniweb) for each in sources]}
    if section.answers is not None:
        told["answers"] |= {
            "prompts": [rows.identity(each, recipe.miniweb) for each in asked],
            "judge_code": fingerprint(section.answers.judge),
        }
    stage = run.begin("reward", {"reward": told}, [chat])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        for source in [*missing, *unasked]:
            stage.say(f"skipped {source.path}: it needs the miniweb, which this crawl does not hold")
        tokenizer, length = prepared(stage, chat, section, 2)
        if tokenizer.pad == tokenizer.stops[0]:
            raise UserError("the tokenizer pads with the end of a message: name another token as markers.pad")
        skipped: Counter[str] = Counter()
        given = [
            preference for source in sources
            for preference in preferences(_rows(source, recipe, section, skipped), source.stem, skipped)
        ]  # fmt: skip
        most, counts = chat.manifest.counts["config"]["max_positions"], dict[str, Any]()
        if section.answers is not None:
            found = _answers(stage, recipe, section, asked, chat, tokenizer, most, skipped)
            given += [preference for each in found for preference in compared(each, section.answers)]
            counts["answers"] = {"prompts": len(found), **_told(stage, found)}
        pairs = encoded(tokenizer, given, most, length, skipped)
        left_out(stage, skipped)
        training, held_out = split(pairs, section.validation_percent)
        if not training:
            raise UserError("reward has no pair to train on: name other sources as data, or prompts as answers.prompts")
        packed, validation = (
            pack_pairs(each, length, section.margin, tokenizer.pad, section.seed) for each in (training, held_out)
        )
        counts |= {"pairs": len(training), "held_out_pairs": len(held_out), "skipped": dict(skipped)}
        made = f"{len(training):,} pairs"
        counts |= tune(stage, chat, section, reward_rank, packed, validation, made, recipe.cluster)
        counts |= _measured(stage, recipe, held_out)
        first, last = ends(stage, "validation_accuracy")
        gain = ""
        if first is not None and last is not None:
            gain = f"held-out accuracy {100 * first:.0f} → {100 * last:.0f} %"
        return stage.commit(counts=counts, summary=f"{made}, {counts['steps']} steps", gain=gain)


def fingerprint(judge: str) -> str:
    """Of the file that holds a function: another version of it is another judge."""
    code = getattr(rows.function_of(judge), "__code__", None)
    if code is None:
        raise UserError(f"reward.answers.judge: {judge} is no function written in Python: wrap it in one that is")
    return hashlib.sha256(Path(code.co_filename).read_bytes()).hexdigest()


def _rows(source: DataSource, recipe: Recipe, section: Reward, skipped: Counter[str]) -> Iterator[rows.Row]:
    return rows.weighted(rows.read(source, recipe.miniweb, skipped), source.weight, section.seed)


# answers -------------------------------------------------------------------------------------------------------------


def _answers(
    stage: Stage, recipe: Recipe, section: Reward, sources: list[DataSource], chat: Artifact, tokenizer: Tokenizer,
    most: int, skipped: Counter[str],
) -> list[Judged]:  # fmt: skip
    """The chat model's answers to the prompts, judged; answers that are no plain text are counted in `skipped`."""
    answers = section.answers
    assert answers is not None
    found = (row for source in sources for row in _rows(source, recipe, section, skipped))
    prompts = drawn(tokenizer, found, answers, most, section.seed, skipped)
    if not prompts:
        raise UserError("reward.answers.prompts give no prompt: name JSONL, Parquet, hf:// or python: sources")
    judge, done = rows.function_of(answers.judge), []
    for prompt, replies in zip(prompts, _sampled(stage, recipe, section, prompts, chat, tokenizer), strict=True):
        plain = [reply for reply in replies if reply is not None]
        if len(plain) < len(replies):
            skipped["answer_is_not_plain_text"] += len(replies) - len(plain)
        done.append(judged(prompt, plain, judge, answers, section.seed))
    return done


def _sampled(
    stage: Stage, recipe: Recipe, section: Reward, prompts: list[Prompt], chat: Artifact, tokenizer: Tokenizer
) -> Iterator[list[str | None]]:
    """`samples` answers to each prompt, in order; None where one is more than text. Each prompt is answered once,
    however often the stage is killed."""
    answers, cluster = section.answers, recipe.cluster
    assert answers is not None
    parts = {begin: stage.scratch("answers", f"{begin:06d}.json") for begin in range(0, len(prompts), BATCH)}
    left = {begin: path for begin, path in parts.items() if not storage.exists(path)}
    if left:
        engine = actors.start(ModelPath.of(chat), gpus=cluster.engine_gpus, kv_cache_gib=cluster.kv_cache_gib)
        try:
            for begin, path in left.items():
                done = ray.get(engine.generate.remote(
                    [prompt.ids for prompt in prompts[begin : begin + BATCH]], n=answers.samples,
                    seed=section.seed + begin * answers.samples, max_new_tokens=answers.max_new_tokens,
                    temperature=answers.temperature, stop_token_ids=tokenizer.stops,
                ))  # fmt: skip
                replies = [[parse(tokenizer, each.ids) for each in some] for some in done]
                texts = [[None if each.tool_calls or each.stray else each.content for each in some] for some in replies]
                storage.write_bytes(path, json.dumps(texts).encode())
                stage.progress(begin + len(texts), len(prompts), "prompts", f"{answers.samples} answers each")
        finally:
            ray.kill(engine)
    for path in parts.values():
        yield from json.loads(storage.read_bytes(path))


def _told(stage: Stage, found: list[Judged]) -> dict[str, float]:
    """Writes answers.parquet; says how much better than the mean the best answers are."""
    table = [
        {"prompt": each.messages, "answer": answer, "score": score}
        for each in found for answer, score in zip(each.answers, each.scores, strict=True)
    ]  # fmt: skip
    with storage.writing(stage.path("answers.parquet")) as local:
        pq.write_table(pa.Table.from_pylist(table, ANSWERS), local, compression="zstd")
    scores = headroom(found)
    told = ", ".join(f"{name} {score:.2f}" for name, score in scores.items())
    stage.say(f"{len(table):,} different answers to {len(found):,} prompts; the judge's scores: {told}")
    stage.metrics({f"answers/{name}": score for name, score in scores.items()})
    return {"different": len(table), **scores}


# what the model learned ----------------------------------------------------------------------------------------------


def _measured(stage: Stage, recipe: Recipe, held_out: list[Pair]) -> dict[str, Any]:
    """Scores the held-out pairs with the model that was made: writes them, and their mean and deviation beside its
    weights; the stage's counts."""
    if not held_out:
        stage.say("no pair is held out, so how often it is right is not known: raise reward.validation_percent")
        return {}
    key = hash_of({entry.path: storage.sha256(entry.path) for entry in storage.files_below(stage.path("model"))})
    scorer = actors.start_scorer(ModelPath(stage.directory, key), recipe.cluster.engine_gpus)
    try:
        flat = ray.get(scorer.scores_of.remote([ids for pair in held_out for ids in (pair.chosen, pair.rejected)]))
    finally:
        ray.kill(scorer)
    chosen, rejected = flat[::2], flat[1::2]
    scores = {"mean": statistics.fmean(flat), "std": statistics.pstdev(flat) or 1.0}
    storage.write_bytes(stage.path("model", SCORES), json.dumps(scores).encode())
    table = [
        vars(pair.preference) | {"chosen_score": better, "rejected_score": worse}
        for pair, better, worse in zip(held_out, chosen, rejected, strict=True)
    ]
    with storage.writing(stage.path("pairs.parquet")) as local:
        pq.write_table(pa.Table.from_pylist(table, PAIRS), local, compression="zstd")
    stage.tracked.table({name: [row[name] for row in table] for name in PAIRS.names}, "pairs.json")
    margins = [better - worse for better, worse in zip(chosen, rejected, strict=True)]
    told = calibration(margins)
    by_source: dict[str, list[bool]] = {}
    for pair, margin in zip(held_out, margins, strict=True):
        by_source.setdefault(pair.preference.source, []).append(margin > 0)
    cell = told["accuracy"]
    stage.say(
        f"held-out accuracy {100 * cell['rate']:.1f} % ({100 * cell['low']:.1f} to {100 * cell['high']:.1f}) of "
        f"{len(held_out):,} pairs, margin {statistics.fmean(margins):.2f}, Brier {told['brier']:.3f}, calibration "
        f"error {told['ece']:.3f}; scores {scores['mean']:.2f} ± {scores['std']:.2f}"
    )
    stage.metrics({"accuracy": cell["rate"], "brier": told["brier"], "ece": told["ece"]})
    accuracies = {source: rate(each) for source, each in by_source.items()}
    return {"scores": scores, "calibration": told, "accuracy_by_source": accuracies}


# a file of answers ---------------------------------------------------------------------------------------------------


def score(run: Run, path: str, out: str | None) -> str:
    """Scores the answers that stand in a file, by the recipe's reward model: rows of a prompt and an answer, JSONL or
    Parquet. Writes them with their `score` as JSONL, in their order, to `out` or beside the file; says how many rows
    were left out, by reason. Returns where."""
    made = run.open("reward")
    model = ModelPath.of(made)
    tokenizer, most = Tokenizer.load(model.local()), positions(model.local())
    if out is None:
        stem = re.fullmatch(r"([^*?\[]+?)\.(?:jsonl|parquet)(?:\.\w+)?", path)
        if stem is None or path.startswith("hf://"):
            raise UserError(f"--score {path}: say with --out where the scored rows are to stand")
        out = f"{stem[1]}.scored.jsonl"
    skipped: Counter[str] = Counter()
    scorer = actors.start_scorer(model, run.recipe.cluster.engine_gpus)
    number = 0
    try:
        with storage.writing(out) as local, open(local, "w", encoding="utf-8") as sink:
            answers = _scorable(rows.read(DataSource(path=path), None, skipped), tokenizer, most, skipped)
            while some := list(itertools.islice(answers, SCORED)):
                scores = ray.get(scorer.scores_of.remote([ids for _, ids in some]))
                for (row, _), value in zip(some, scores, strict=True):
                    sink.write(json.dumps(row | {"score": value}, default=str) + "\n")
                number += len(some)
                run.screen.progress(f"  {number:,} answers scored")
    finally:
        ray.kill(scorer)
    for reason, count in skipped.items():
        run.screen.say(f"  left out {count} rows: {reason.replace('_', ' ')}")
    known = made.manifest.counts.get("scores")
    usual = f"; answers it was tested on score {known['mean']:.2f} ± {known['std']:.2f}" if known else ""
    run.screen.say(f"{number:,} answers scored{usual}  [{out}]")
    return out


def _scorable(
    found: Iterator[rows.Row], tokenizer: Tokenizer, most: int, skipped: Counter[str]
) -> Iterator[tuple[rows.Row, list[int]]]:
    for row in found:
        try:
            ids = answered(tokenizer, *exchange_of(row))
        except ValueError as error:
            skipped[str(error).replace(" ", "_")] += 1
            continue
        if len(ids) > most:
            skipped["too_long"] += 1
        else:
            yield row, ids
