"""Measure and curate over the cluster. Measuring reads WARC files, one task and one Parquet part each; curating reads
only the parts, so that deciding again with other thresholds is cheap.

Curating takes three passes: every part is decided on its own, and signatures are written of what would stay; duplicates
are found among these (duplicates/stage.py); then runs of whole parts are packed into output files. Parts, and pages in
them, keep the order of (file_path, offset), so the bytes do not depend on how the work was spread.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import ray

from webtochat import artifact, storage
from webtochat.artifact import Artifact
from webtochat.crawl import documents
from webtochat.crawl.listing import read_listing
from webtochat.curate import actors, classifier, language, main_content, parts, report, samples, steps, tasks
from webtochat.curate.contamination import EvaluationSets
from webtochat.curate.report import Sample, Step
from webtochat.curate.urls import Blocklists
from webtochat.duplicates import signatures
from webtochat.duplicates import stage as duplicates
from webtochat.errors import UserError
from webtochat.recipe import Actors, Cluster
from webtochat.recipe_pages import Curate, Measure
from webtochat.run import Run, Stage

PAGE = "curation.html"
"""Beside the artifacts: it tells times, which differ from run to run."""


# measure -------------------------------------------------------------------------------------------------------------


def measure(run: Run) -> Artifact:
    """Every page of the crawl with its text, language and measurements."""
    if run.recipe.crawl.source == "documents":
        raise UserError("crawl.source is documents: clean text is not measured from WARC files; run jobs/curate.py")
    crawled = run.open("crawl")
    section = run.recipe.measure
    lists = Blocklists.of(section.urls)
    stage = run.begin("measure", measuring_identity(section, lists), [crawled])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        if run.recipe.crawl.source == "common-crawl" and run.recipe.crawl.crawl_id:
            section = section.model_copy(update={"dump": run.recipe.crawl.crawl_id})
        files = sorted(read_listing(crawled), key=lambda file: file.name)
        sources = [(file.name, file.path) for file in files]
        made = {name: stage.path(parts.part_name(name)) for name, _ in sources}
        _make_parts(stage, sources, made, tasks.measure_file, (section, lists), section, run.recipe.cluster)
        counts = _added([parts.counts_of(path) for path in made.values()])
        measured = counts["rows"] - sum(counts["stopped"].values())
        stage.metrics({"rows": counts["rows"], "measured": measured} | _named("stopped", counts["stopped"]))
        return stage.commit(
            counts=counts | {"seconds": _seconds(stage)},
            summary=f"{measured:,} of {counts['rows']:,} pages measured from {len(files)} WARC files",
            gain=f"{measured / max(1, counts['rows']):.0%} are {'/'.join(section.languages) or 'readable'} text",
        )  # fmt: skip


def _make_parts(
    stage: Stage, sources: list[tuple[str, str]], made: dict[str, str], function: Callable[..., dict[str, Any]],
    shared: Any, section: Measure, cluster: Cluster,
) -> None:  # fmt: skip
    """A measured part for each (name, file): `function`, then the user's steps that are classes, each a pass over all
    parts. After a kill a file goes on from the last pass that it came through."""
    classes = steps.classes(section)

    def after(number: int, name: str) -> str:
        return made[name] if number == len(classes) else stage.scratch(f"pass-{number}", parts.part_name(name))

    there = {entry.path for entry in storage.files_below(stage.directory)}
    for number in range(len(classes) + 1):
        todo = [
            {"name": name, "source": after(number - 1, name) if number else file, "part": after(number, name),
             "seconds": stage.scratch("seconds", f"{number}-{parts.part_name(name)}.json")}
            for name, file in sources
            if there.isdisjoint(after(later, name) for later in range(number, len(classes) + 1))
        ]  # fmt: skip
        note = f"{classes[number - 1].name} " if number else ""
        if number:
            step = classes[number - 1]
            finished = actors.judged(step, section, cluster.steps.get(step.name, Actors()), todo)
        else:
            finished = spread(function, todo, shared, cluster.measure_workers)
        for done, each in enumerate(finished, len(sources) - len(todo) + 1):
            stage.progress(done, len(sources), "files", note + each["name"])


def measuring_identity(section: Measure, lists: Blocklists | None) -> dict[str, Any]:
    """What measuring depends on. Files from outside count by their content, wherever they lie."""
    contents = {
        "urls": lists.fingerprint() if lists else None,
        "main_content": storage.sha256(str(main_content.WEIGHTS)),
        "language_model": storage.sha256(language.model_path(section.language_model)),
    }
    if section.quality_model is not None:
        if not storage.exists(section.quality_model):
            raise UserError(f"no file at measure.quality_model={section.quality_model}: jobs/quality.py makes one")
        contents["quality_model"] = storage.sha256(section.quality_model)
    own = [step.model_dump(mode="json") | {"code": steps.fingerprint(step)} for step in section.steps]
    return {"measure": section.model_dump(mode="json") | contents | {"steps": own}}


def spread(
    function: Callable[..., dict[str, Any]], rows: list[dict[str, Any]], shared: Any, workers: int | None
) -> Iterator[dict[str, Any]]:
    """`function(row, shared)` for every row with Ray Data, a task of one CPU each; results as they come."""
    if not rows:
        return
    ray.data.DataContext.get_current().enable_progress_bars = False
    held = ray.put(shared)
    data = ray.data.from_items(rows, override_num_blocks=len(rows))

    def task(row: dict[str, Any], held: list[ray.ObjectRef]) -> dict[str, Any]:
        return function(row, ray.get(held[0]))

    tasks = data.map(
        task,  # type: ignore[arg-type]  # mypy does not see fn_args
        fn_args=[[held]],
        num_cpus=1,
        compute=ray.data.TaskPoolStrategy(size=workers and min(workers, len(rows))),
    )
    yield from tasks.iter_rows()


# curate --------------------------------------------------------------------------------------------------------------


def curate(run: Run) -> Artifact:
    """The pages that stay and those that go, each with its reason."""
    section, own = run.recipe.curate, run.recipe.measure.steps
    from_documents = run.recipe.crawl.source == "documents"
    source = run.open("crawl" if from_documents else "measure")
    if section.min_quality is not None and run.recipe.measure.quality_model is None:
        raise UserError("curate.min_quality is a limit for measure.quality_model, and the recipe names none")
    identity = run.recipe.identity("curate")
    earlier = [artifact.open_artifact(directory, "curate") for directory in section.earlier]
    for made in earlier:
        if made.manifest.identity["curate"]["near_duplicates"] != identity["curate"]["near_duplicates"]:
            raise UserError(f"curate.earlier: {made.directory} was made with other settings of near_duplicates")
    sets = EvaluationSets.of(section)
    identity["curate"] |= {
        "earlier": [made.content_hash for made in earlier], "evaluation_sets": sets and sets.fingerprint(),
    }  # fmt: skip
    if from_documents:  # measured here, so what measuring depends on is part of the identity
        identity |= measuring_identity(run.recipe.measure, None)
    stage = run.begin("curate", identity, [source])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        workers = run.recipe.cluster.measure_workers
        measured = _measured_documents(stage, source, run) if from_documents else source.files()
        measured = sorted(measured, key=parts.file_of)
        measured_counts = _added([parts.counts_of(part) for part in measured])
        _all_measured(section, measured_counts["own"])
        signed = [stage.path("signatures", parts.part_name(parts.file_of(part))) for part in measured]
        runs = _sign(stage, measured, signed, (section, sets), workers)
        known = [path for made in earlier for path in made.files("signatures/")]
        stage.screen.progress("  curate: looking for duplicates")
        duplicates.find(
            [(path, number) for number, path in enumerate([*known, *signed])],
            [len(known) + first for first, _ in runs], stage.scratch("duplicates"),
            section.exact_duplicates, section.near_duplicates is not None,
        )  # fmt: skip
        rows: list[dict[str, Any]] = [
            {"number": number, "directory": stage.directory, "parts": measured[first:last],
             "signed": signed[first:last], "first": len(known) + first,
             "duplicates": duplicates.path_of(stage.scratch("duplicates"), number),
             "samples": stage.scratch("samples", f"{number}.json")}
            for number, (first, last) in enumerate(runs)
        ]  # fmt: skip
        removed: Counter[str] = Counter()
        replaced: Counter[str] = Counter()
        kept = kept_bytes = 0
        for number, each in enumerate(spread(tasks.write_documents, rows, section, workers), 1):
            counts = parts.counts_of(each["path"])
            kept, kept_bytes = kept + counts["kept"], kept_bytes + counts["bytes"]
            removed.update(counts["removed"])
            replaced.update(counts["pii"])
            stage.progress(number, len(rows), "files", "written")
        total = measured_counts["rows"]
        if kept + sum(removed.values()) != total:
            raise RuntimeError(f"{total} pages were measured, but {kept} kept and {sum(removed.values())} removed")
        numbers = {"measured": total, "kept": kept, "kept_bytes": kept_bytes}
        reasons, found = _ordered(removed), _ordered(replaced)
        seconds = Counter(source.manifest.counts.get("seconds", {})) + Counter(_seconds(stage))
        steps_shown = samples.funnel(total, reasons, [step.name for step in own], seconds)
        summary = f"kept {kept:,} of {total:,} pages, {kept_bytes / 1e6:.1f} MB"
        _show(stage, steps_shown, reasons, found)
        drawn = samples.together(json.loads(storage.read_bytes(row["samples"])) for row in rows)
        page = report.html(
            f"{run.recipe.name}: curation", summary, steps_shown, [_sample(row, measured, len(known)) for row in drawn]
        )
        stage.metrics(numbers | _named("removed", reasons) | _named("pii", found))
        stage.tracked.text(page, PAGE)
        storage.write_bytes(storage.join(run.directory, PAGE), page.encode())
        stage.say(f"pages that went, by reason: {storage.join(run.directory, PAGE)}")
        return stage.commit(
            counts=numbers | {"removed": reasons, "pii": found, "seconds": _seconds(stage)}, summary=summary,
            gain=f"{1 - kept / max(1, total):.0%} removed, by {len(reasons)} reasons",
        )  # fmt: skip


def _all_measured(section: Curate, measured: dict[str, int]) -> None:
    missing = [name for name in section.own if name not in measured]
    if missing:
        known = f"they measured {', '.join(measured)}" if measured else "the recipe has none, or they measured nothing"
        raise UserError(f"curate.own.{missing[0]}: none of measure.steps measured it; {known}")


def _sign(
    stage: Stage, measured: list[str], signed: list[str], shared: tuple[Curate, EvaluationSets | None],
    workers: int | None,
) -> list[tuple[int, int]]:  # fmt: skip
    """First pass over the parts. Returns the runs of them that become a file each."""
    todo = [
        {"part": part, "signed": path, "seconds": stage.scratch("seconds", parts.part_name(parts.file_of(part)))}
        for part, path in zip(measured, signed, strict=True)
    ]  # fmt: skip
    sizes: dict[str, int] = {}
    for each in spread(tasks.sign_part, todo, shared, workers):
        sizes[each["part"]] = each["bytes"]
        stage.progress(len(sizes), len(measured), "parts", "decided")
    return tasks.pack([sizes[part] for part in measured], shared[0].file_bytes)


def _show(stage: Stage, shown: list[Step], reasons: dict[str, int], found: dict[str, int]) -> None:
    """The funnel and the most frequent reasons, on the screen and in MLflow."""
    stage.say(f"{'step':<20}{'in':>13}{'out':>13}{'removed':>13}{'errors':>9}{'CPU s':>10}")
    for step in shown:
        spent = "" if step.seconds is None else f"{step.seconds:,.1f}"
        counts = f"{step.pages_in:>13,}{step.pages_out:>13,}{step.pages_removed:>13,}{step.errors:>9,}{spent:>10}"
        stage.say(f"{step.name:<20}{counts}")
        stage.metrics({f"{step.name}.in": step.pages_in, f"{step.name}.out": step.pages_out})
        stage.metrics({f"{step.name}.errors": step.errors, f"{step.name}.seconds": step.seconds or 0.0})
    for key, count in list(reasons.items())[:12]:
        stage.say(f"{count:>10,} {count / max(1, sum(reasons.values())):>6.1%}  {key}")
    if found:
        stage.say("replaced " + ", ".join(f"{count:,} {kind}" for kind, count in found.items()))


def _sample(row: dict[str, Any], measured: list[str], known: int) -> Sample:
    """A removed page as it is shown: a duplicate with the address of the page that stays."""
    note = ""
    if row["kept"] is not None:
        part, place = map(int, signatures.part_and_row(row["kept"]))
        if part < known:
            note = "kept in its place: a page of an earlier run"
        else:
            stays = parts.row_of_part(measured[part - known], place, ["url", "id"])
            note = f"kept in its place: {stays['url'] or stays['id']}"
    names = ("step", "reason", "url", "title", "text", "value", "threshold")
    return Sample(**{name: row[name] for name in names}, note=note)


def _measured_documents(stage: Stage, source: Artifact, run: Run) -> list[str]:
    """Clean text as measured parts, under the draft's scratch: from there on it goes the way of crawled pages."""
    section = run.recipe.measure
    sources = [(file.name, file.path) for file in read_listing(source)]
    made = {name: stage.scratch("measured", parts.part_name(name)) for name, _ in sources}
    _make_parts(stage, sources, made, tasks.measure_documents, section, section, run.recipe.cluster)
    return list(made.values())


# quality -------------------------------------------------------------------------------------------------------------


def quality(run: Run) -> Artifact:
    """A classifier of good texts against kept pages, for `measure.quality_model`. Of each kind, a hash holds some out:
    what it is worth is told on these."""
    section = run.recipe.quality
    curated = run.open("curate")
    found = [entry for pattern in section.good for entry in documents.expand(pattern)]
    if not found:
        raise UserError(f"quality.good: no file matches {', '.join(section.good) or '[]'}: name JSONL or Parquet files")
    identity = run.recipe.identity("quality")
    identity["quality"]["good"] = [[entry.path.rsplit("/", 1)[-1], entry.size, entry.etag] for entry in found]
    stage = run.begin("quality", identity, [curated])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        names = ("good", "other")
        texts = {}
        for name, files in zip(names, ([entry.path for entry in found], curated.files("kept/")), strict=True):
            texts[name] = classifier.drawn(files, section)
            stage.say(f"{len(texts[name].train):,} {name} texts to train on, {len(texts[name].held_out):,} held out")
        count = min(len(each.train) for each in texts.values())  # as many of each, so that 0.5 is no kind's favour
        path = stage.path("model.bin")
        with storage.writing(path) as local:
            classifier.train(texts["good"].train[:count], texts["other"].train[:count], section, local)
        scores = {name: [classifier.score(text, path) for text in texts[name].held_out] for name in names}
        area = classifier.ranking(scores["good"], scores["other"])
        right = sum(score >= 0.5 for score in scores["good"]) + sum(score < 0.5 for score in scores["other"])
        share = right / max(1, sum(map(len, scores.values())))
        counts = {name: {"trained": count, "held_out": len(each.held_out)} for name, each in texts.items()}
        stage.metrics({"area_under_roc": area, "accuracy": share})
        stage.say(f"ranks {area:.1%} of held-out pairs right; is right about {share:.1%} of held-out texts")
        stage.say(f"measure.quality_model={path} has each measured page scored; then limit it by curate.min_quality")
        return stage.commit(
            counts=counts | {"area_under_roc": area, "accuracy": share},
            summary=f"a classifier of {count:,} good texts against {count:,} kept pages",
            gain=f"ranks {area:.1%} of held-out pairs right",
        )


# counts --------------------------------------------------------------------------------------------------------------


def _added(counts: list[dict[str, Any]]) -> dict[str, Any]:
    stopped: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    own: Counter[str] = Counter()
    for each in counts:
        own.update(each["own"])
        stopped.update(each["stopped"])
        skipped.update(each["skipped"])
    rows = sum(each["rows"] for each in counts)
    return {
        "rows": rows, "stopped": _ordered(stopped), "records_skipped": _ordered(skipped), "own": _ordered(own),
    }  # fmt: skip


def _ordered(counter: Counter[str]) -> dict[str, int]:
    """The most frequent first; of equals by name."""
    return dict(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _named(prefix: str, counts: dict[str, int]) -> dict[str, float]:
    return {f"{prefix}.{key}": float(value) for key, value in counts.items()}


def _seconds(stage: Stage) -> dict[str, float]:
    """CPU seconds by step, of all attempts at this stage."""
    spent: Counter[str] = Counter()
    for entry in storage.files_below(stage.scratch("seconds")):
        spent.update(json.loads(storage.read_bytes(entry.path)))
    return {step: round(seconds, 3) for step, seconds in spent.items()}
