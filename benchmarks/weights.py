"""How long new weights take to reach an engine of rl, by the size of the model.

python benchmarks/weights.py --write

Models of random weights, each in an engine as the rl stage starts it. Timed is what a step waits for: the learner's
weights as arrays, into Ray's object store (`hand out`), and from there into the engine, in place (`take`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / folder) for folder in ("platform", "jobs")]
SIZES = {"4×160": (4, 160, 32), "8×512": (8, 512, 64), "12×1024": (12, 1024, 64)}
"""Depth, width, size of a head."""


def timed(size: tuple[int, int, int], times: int, folder: Path) -> tuple[int, list[float], list[float]]:
    """(parameters, seconds to hand them out, seconds to take them), of all but the first time."""
    import ray

    from webtochat.inference.actors import ModelPath
    from webtochat.model.config import ModelConfig
    from webtochat.model.export import export
    from webtochat.model.transformer import Transformer
    from webtochat.recipe import Model, Recipe, TokenizerSection
    from webtochat.rl import actors
    from webtochat.rl.policy import for_engines
    from webtochat.tokens import tokenizer as bpe

    depth, width, head = size
    tokenizer = bpe.train([path.read_text() for path in (ROOT / "docs").glob("*.md")], 4096, TokenizerSection().pattern)
    shape = Model(depth=depth, width=width, head_size=head, max_positions=512)
    model = Transformer(ModelConfig.of(shape, tokenizer.vocabulary), seed=1)
    export(model, tokenizer, str(folder / "model"))
    weights = for_engines(model)
    engine = actors.start(ModelPath(str(folder), folder.name), Recipe(name="weights", rl={}), None)
    ray.get(engine.ready.remote())
    out, taken = [], []
    for version in range(times + 1):
        began = time.perf_counter()
        held = ray.put(weights)
        handed = time.perf_counter()
        ray.get(engine.renew.remote(version, held))
        out.append(handed - began)
        taken.append(time.perf_counter() - handed)
        del held
    ray.kill(engine)
    return sum(each.numel() for each in model.parameters()), out[1:], taken[1:]


def main() -> None:
    import ray

    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--times", type=int, default=7)
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    options = arguments.parse_args()
    os.environ["PYTHONPATH"] = str(ROOT / "platform")
    ray.init(address="local", include_dashboard=False, logging_level="error")
    lines = ["| depth × width | parameters | hand out, s | take, s | MB/s |", "| --- | --- | --- | --- | --- |"]
    for name, size in SIZES.items():
        with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as folder:
            count, out, taken = timed(size, options.times, Path(folder))
        given, took = statistics.median(out), statistics.median(taken)
        rate = 4e-6 * count / (given + took)
        lines.append(f"| {name} | {count / 1e6:.1f} M | {given:.3f} | {took:.3f} | {rate:,.0f} |")
        print(lines[-1], flush=True)
    load = f"float32; medians of {options.times}. Load of the machine at the end: {os.getloadavg()[0]:.1f}."
    told = "\n".join([*lines, "", load])
    if options.write:
        from record import record

        record("New weights in the engines", "benchmarks/weights.py --write", told)


if __name__ == "__main__":
    main()
