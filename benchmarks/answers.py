"""How finished runs answer, with tools and without, and whether they say that they do not know: mean and spread.

    for seed in 1 2 3; do .venv/bin/python jobs/pipeline.py recipes/demo.yaml name=demo-$seed …seed=$seed; done
    .venv/bin/python benchmarks/answers.py runs/demo-1 runs/demo-2 runs/demo-3 --write
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from demo import table
from record import record

Cell = dict[str, Any] | None
SHOWN: list[tuple[str, Callable[[dict[str, Any]], Cell], str]] = [
    *[
        (f"{label}, {model}", lambda told, model=model, measure=measure, state=state:
            told["knowledge"].get(model, {}).get(measure, {}).get(state), target)
        for label, measure, state, targets in [
            ("unknown, answered wrongly", "hallucination", "unknown", {"knowledge": "at most half of sft's"}),
            ("invented, answered", "hallucination", "invented", {}),
            ("known, refused", "refusal", "known", {"knowledge": "≤ 10 %"}),
            ("known, right", "accuracy", "known", {}),
        ]
        for model, target in [("sft", ""), ("knowledge", targets.get("knowledge", "")), ("rl", "")]
    ],
    *[
        (f"{label}, {how} tools", lambda told, how=how, kind=kind: told["tools"][how]["accuracy"].get(kind), target)
        for label, kind, targets in [
            ("documents seen once", "seen_once", {"without": "≤ 20 %", "with": "≥ 70 %"}),
            ("sums of two 4-digit numbers", "sums", {"without": "≤ 20 %", "with": "≥ 90 %"}),
        ]
        for how, target in targets.items()
    ],
    ("chat format and calls valid, with tools", lambda told: told["tools"]["with"]["format"], "≥ 99 %"),
    ("chat format kept, without", lambda told: told["questions"]["sft"]["format"], "≥ 99 %"),
    *[
        (f"{kind.replace('_', ' ')}, {model}", lambda told, model=model, kind=kind:
            told["questions"].get(model, {}).get("accuracy", {}).get(kind), "")
        for kind in ("arithmetic", "fact", "fact_taught") for model in ("sft", "knowledge", "rl")
    ],
]  # fmt: skip
"""What is told, where it stands in evaluation.json, and what is aimed at."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", type=Path, help="finished runs that differ by their seeds")
    parser.add_argument("--note", default="", help="what a reader must know of the conditions")
    parser.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = parser.parse_args()
    found = []
    for run in options.runs:
        if not (run / "evaluate" / "evaluation.json").exists():
            parser.error(f"{run} is not finished: it has no evaluation")
        found.append(json.loads((run / "evaluate" / "evaluation.json").read_text()))
    rows = []
    for label, cell, target in SHOWN:
        cells = [each for each in map(cell, found) if each and each["of"]]
        if not cells:
            continue
        rates = [each["rate"] for each in cells]
        spread = f"{stdev(rates):.1%}" if len(rates) > 1 else "–"
        each = ", ".join(f"{one['rate']:.1%} [{one['low']:.0%}, {one['high']:.0%}] of {one['of']}" for one in cells)
        rows.append([label, target, f"{mean(rates):.1%}", spread, each])
    told = table(["", "aimed at", "mean", "standard deviation", "by run, with 95 % intervals"], rows)
    told = f"{options.note}\n\n{told}"
    print(told)
    if options.write:
        record("Answers, tools and refusals", f"benchmarks/answers.py {' '.join(map(str, options.runs))} --write", told)


if __name__ == "__main__":
    main()
