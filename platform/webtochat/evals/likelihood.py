"""Which rows of encoded tasks a model has right, by the likelihood of their options. Ranks share the work out."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional

from webtochat import storage
from webtochat.evals.bits import batches
from webtochat.evals.questions import rate
from webtochat.evals.tasks import Encoded

POSITIONS = 8192
"""Of one forward pass at most, or one sequence;"""
LOGITS = 1 << 27
"""and so many logits: 0.5 GB in float32, two or three times that while they are read."""
ARRAYS = ("tokens", "options", "rows")


@torch.no_grad()
def score(
    logits: Callable[[Tensor], Tensor], tasks: Sequence[Encoded], vocabulary: int, device: torch.device | str = "cpu"
) -> list[np.ndarray]:
    """Of each task, bool [rows]: what is right under a causal model (tokens_BT → logits_BTV).

    Batches are the same for any number of ranks, which take turns; so is the result. Every rank calls the model equally
    often: of a sharded model each call is everybody's. Options with the same tokens before their last (the letters of a
    multiple choice) are one sequence.
    """
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    options = [each for task in tasks for each in np.split(task.tokens, np.cumsum(task.options["length"])[:-1])]
    firsts = np.concatenate([task.options["first"] for task in tasks])
    same: dict[bytes, list[int]] = defaultdict(list)
    for number, tokens in enumerate(options):
        same[tokens[:-1].tobytes()].append(number)
    sequences = sorted(same.values(), key=lambda numbers: len(options[numbers[0]]))
    lengths = [len(options[numbers[0]]) - 1 for numbers in sequences]
    parts = batches(lengths, min(POSITIONS, LOGITS // vocabulary))
    told = torch.zeros(len(options), 2, dtype=torch.float64)
    # Blocks that were compiled for training run as they are: for each shape here they would be compiled again.
    with torch.compiler.set_stance("force_eager"):
        for turn in range(rank, -(-len(parts) // world) * world, world):
            part = sequences[parts[turn % len(parts)]]
            numbers, sums = _sums(logits, part, options, firsts, device)
            if turn < len(parts):
                told.index_add_(0, numbers, sums)
    if world > 1:
        gathered = told.to(device)
        dist.all_reduce(gathered)
        told = gathered.cpu()
    ends = np.cumsum([len(task.options) for task in tasks])[:-1]
    return [_right(task, *part.T) for task, part in zip(tasks, np.split(told.numpy(), ends), strict=True)]


def _sums(
    logits: Callable[[Tensor], Tensor], part: list[list[int]], options: list[np.ndarray], firsts: np.ndarray,
    device: torch.device | str,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """One forward pass over sequences, each given by the options that it serves: for every scored token the number of
    its option, and [log-likelihood, whether the model would have written another]."""
    width = max(len(options[numbers[0]]) - 1 for numbers in part)
    tokens = np.zeros((len(part), width), np.int64)  # padded at the end, where nothing is scored
    owners, lines, positions, targets = [], [], [], []
    for line, numbers in enumerate(part):
        inputs = options[numbers[0]][:-1]
        tokens[line, : len(inputs)] = inputs
        for number in numbers:
            scored = options[number][firsts[number] :]
            owners.append(np.full(len(scored), number))
            lines.append(np.full(len(scored), line))
            positions.append(np.arange(firsts[number] - 1, len(inputs)))
            targets.append(scored.astype(np.int64))
    at, where, wanted = (torch.from_numpy(np.concatenate(each)).to(device) for each in (lines, positions, targets))
    picked = logits(torch.from_numpy(tokens).to(device))[at, where].float()
    nats = functional.cross_entropy(picked, wanted, reduction="none")
    sums = torch.stack([-nats.double(), (picked.argmax(-1) != wanted).double()], 1)
    return torch.from_numpy(np.concatenate(owners)), sums.cpu()


def _right(task: Encoded, likelihood: np.ndarray, misses: np.ndarray) -> np.ndarray:
    """From each option's log-likelihood, and the number of its tokens that the model would have written otherwise."""
    likelihood = likelihood / task.options["divisor"]
    ends = np.cumsum(np.bincount(task.options["row"]))[:-1]
    parts = (np.split(each, ends) for each in (likelihood, misses, task.options["right"]))
    return np.array([
        (missed == 0).any() if greedy else right[likely.argmax()]
        for greedy, likely, missed, right in zip(task.rows["greedy"], *parts, strict=True)
    ])  # fmt: skip


def tell(tasks: Sequence[Encoded], right: Sequence[np.ndarray]) -> dict[str, Any]:
    """`core`, and `by_task`: the rate with its interval, centred too, and what was left out."""
    by_task = {}
    for task, flags in zip(tasks, right, strict=True):
        told = rate(flags.tolist(), task.rows["chance"].tolist())
        told["centred"] = (told["rate"] - told["chance"]) / (1 - told["chance"])
        by_task[task.name] = told | {"skipped": task.skipped, "shortened": task.shortened}
    return {"core": sum(told["centred"] for told in by_task.values()) / len(by_task), "by_task": by_task}


def metrics(tasks: Sequence[Encoded], right: Sequence[np.ndarray]) -> dict[str, float]:
    """`core`, and the accuracy `task/<name>` of each."""
    told = tell(tasks, right)
    return {"core": told["core"]} | {f"task/{name}": each["rate"] for name, each in told["by_task"].items()}


def write(path: str, tasks: Sequence[Encoded]) -> None:
    """For the ranks of a training run."""
    arrays = {f"{task.name}/{part}": getattr(task, part) for task in tasks for part in ARRAYS}
    with storage.writing(path) as local, open(local, "wb") as sink:
        np.savez(sink, **arrays)


def read(path: str) -> list[Encoded]:
    with np.load(io.BytesIO(storage.read_bytes(path))) as held:
        names = dict.fromkeys(key.rpartition("/")[0] for key in held.files)
        return [Encoded(name, *(held[f"{name}/{part}"] for part in ARRAYS)) for name in names]
