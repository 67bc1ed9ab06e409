"""Run every stage of a recipe, reusing what is committed and going on where a kill left off.

python jobs/pipeline.py recipes/demo.yaml
python jobs/pipeline.py recipes/demo.yaml --until curate
python jobs/pipeline.py recipes/demo.yaml --rebuild pretrain pretrain.lr=2e-3
python jobs/pipeline.py recipes/demo.yaml --plan
"""

from __future__ import annotations

import importlib
import sys
import time
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from job import guarded, parser, placed, started
from webtochat import artifact, recipe, storage
from webtochat.artifact import Artifact
from webtochat.errors import UserError
from webtochat.recipe import Recipe
from webtochat.run import Run

STAGES = {
    "crawl": "crawl",
    "measure": "webtochat.curate.stage",
    "curate": "webtochat.curate.stage",
    "index": "webtochat.tools.stage",
    "demonstrations": "webtochat.demonstrations.stage",
    "tokenizer": "webtochat.tokens.stage",
    "tokens": "webtochat.tokens.stage",
    "pretrain": "webtochat.train.stage",
    "sft": "webtochat.train.stage",
    "knowledge": "webtochat.knowledge.stage",
    "reward": "webtochat.reward.stage",
    "dpo": "webtochat.rl.direct",
    "rl": "webtochat.rl.stage",
    "evaluate": "webtochat.evals.stage",
}
"""Stage → the module that holds the function of that name, imported when its turn comes: torch and Ray Train cost
seconds that a reused run need not."""


class Made(NamedTuple):
    artifact: Artifact
    seconds: float
    """Of this run; a reused artifact cost next to none."""


def stages_of(chosen: Recipe, until: str | None) -> list[str]:
    """What this recipe runs, in order: clean documents enter at curate, so nothing is measured from WARC files; for a
    model that is imported as it is, no page is read at all, unless it is shown how to find things in them or is asked
    what it knows of them."""
    skipped = ["measure"] if chosen.crawl.source == "documents" else []
    if not chosen.demonstrations.wanted:
        skipped.append("demonstrations")
    skipped += [name for name in ("knowledge", "reward", "dpo", "rl") if getattr(chosen, name) is None]
    if not chosen.pretrain.tokens:
        read = chosen.demonstrations.wanted or chosen.knowledge is not None
        before = list(STAGES)[: list(STAGES).index("pretrain")]
        skipped += ["tokenizer", "tokens"] if read else before
    stages = [stage for stage in STAGES if stage not in skipped]
    if until is None:
        return stages
    if until not in stages:
        raise UserError(f"--until {until}: this recipe's stages are {', '.join(stages)}")
    return stages[: stages.index(until) + 1]


def run_all(run: Run, stages: list[str], rebuild: str | None) -> list[Made]:
    """Runs the stages. After the one to rebuild, whatever rested on its old output is made anew as well."""
    made = []
    for stage in stages:
        if stage == rebuild:
            run.discard(stage)
            run.rebuild = True
        began = time.monotonic()
        function = getattr(importlib.import_module(STAGES[stage]), stage)
        made.append(Made(function(run), time.monotonic() - began))
    return made


def table(made: list[Made]) -> Table:
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("stage", "made", "seconds", "gained"):
        shown.add_column(column, justify="right" if column == "seconds" else "left", overflow="fold")
    for each, seconds in made:
        manifest = each.manifest
        reused = seconds < 1 <= manifest.wall_seconds
        took = f"{manifest.wall_seconds:,.0f}" + (" (reused)" if reused else "")
        shown.add_row(manifest.stage, manifest.summary, took, manifest.gain)
    return shown


def plan(chosen: Recipe, stages: list[str]) -> None:
    """What would run, and what would be reused if its settings are still the same."""
    for stage in stages:
        directory = storage.join(chosen.workspace, chosen.name, stage)
        found = artifact.find(directory)
        state = f"committed: {found.manifest.summary}" if found else "to do"
        print(f"{stage:<10} {state}  [{directory}]")


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--until", metavar="STAGE", help="stop after this stage")
    arguments.add_argument("--rebuild", metavar="STAGE", help="make this stage anew, and what rests on it")
    arguments.add_argument("--plan", action="store_true", help="say what would run, and run nothing")
    options = arguments.parse_intermixed_args()

    def work() -> None:
        chosen = placed(recipe.load(options.recipe, options.overrides), options.overrides)
        stages = stages_of(chosen, options.until)
        if options.rebuild and options.rebuild not in stages:
            raise UserError(f"--rebuild {options.rebuild}: this recipe's stages are {', '.join(stages)}")
        if options.plan:
            return plan(chosen, stages)
        began = time.monotonic()
        with started(options.recipe, options.overrides) as run:
            made = run_all(run, stages, options.rebuild)
            tracking = run.tracking.command()
            stream = run.screen.stream
            wide = None if stream.isatty() else 150
            Console(file=stream, width=wide).print("\n", table(made), sep="")
            run.screen.say(f"\n{time.monotonic() - began:,.0f} s in all. Artifacts: {run.directory}/")
            run.screen.say(f"look:  {tracking}")
            run.screen.say(f"chat:  {chat_command(options.recipe, options.overrides)}")

    guarded(work)


def chat_command(recipe_path: str, overrides: list[str]) -> str:
    if recipe_path == "recipes/demo.yaml" and not overrides:
        return "make chat"
    return " ".join([".venv/bin/python jobs/serve.py", recipe_path, *overrides])


if __name__ == "__main__":
    sys.exit(main())
