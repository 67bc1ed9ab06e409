"""What the RL tests stand on: a little model, and rollouts of it that are made without an engine."""

from __future__ import annotations

import hashlib
import os
import random
import socket
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from tests.inference import tiny
from torch import multiprocessing

from webtochat.model import export
from webtochat.recipe_rl import RL
from webtochat.rl import rollouts
from webtochat.rl.learner import LearnerJob, learn_rank
from webtochat.rl.policy import Policy
from webtochat.tokens.chat import render
from webtochat.tokens.tokenizer import Tokenizer

STEPS, GROUPS, SAMPLES = 4, 3, 4
WORDS = ["red", "green", "blue", "white", "house", "boat"]


def base(directory: Path) -> Path:
    """An artifact's directory with a model that answers a little."""
    words = tiny.tokenizer()
    model = tiny.taught(tiny.transformer(words, seed=1), words, tiny.questions(), steps=8)
    export.export(model, words, str(directory / "model"))
    return directory


def job_of(directory: Path, given: Path, **changes: Any) -> LearnerJob:
    """`changes`: of the section; `device_batch_tokens` and `shard` of the job."""
    placed = {name: changes.pop(name) for name in ("device_batch_tokens", "shard") if name in changes}
    section: dict[str, Any] = {"steps": STEPS, "lr": 3e-3, "max_new_tokens": 12, "checkpoint_every": 2} | changes
    return LearnerJob(directory=str(directory), base=(str(given), "-"), settings=RL(**section), **placed)


def write_rollouts(job: LearnerJob, given: Path, seed: int = 0, rewarded: Any = None) -> list[list[dict[str, Any]]]:
    """Answers of several lengths, told the log-probabilities that the model gave them; as the driver would write them.
    `rewarded`: what an answer gets; by default 1 where it holds red."""
    words = Tokenizer.load(str(given / "model"))
    policy = Policy.of(export.load(str(given / "model")), valued=False).eval()
    rng = random.Random(seed)
    written = []
    for step in range(job.settings.steps):
        rows = []
        for number in range(GROUPS):
            name = rng.choice(list(tiny.COLOURS))
            asked = [{"role": "user", "content": f"What colour does {name} like?"}]
            prompt = render(words, asked, add_generation_prompt=True).ids
            for sample in range(SAMPLES):
                colour = "red" if sample == 0 else rng.choice(WORDS)
                answer = " ".join([name, "likes", colour, *rng.choices(WORDS, k=rng.randint(0, 3))]) + "."
                ids = [*prompt, *words.encode(answer), words.stops[0]]
                own = [0] * len(prompt) + [1] * (len(ids) - len(prompt))
                reward = float("red" in answer) if rewarded is None else rewarded(answer, sample)
                rows.append({
                    "step": step, "group": step * GROUPS + number, "sample": sample, "prompt": asked[0]["content"],
                    "answer": answer, "truth": '{"answers": ["red"], "tests": []}', "reward": reward,
                    "parts": [("match", reward)] if reward is not None else [], "failed": "", "finished": "stop",
                    "calls": 0, "conversation": answer, "ids": ids, "own": own,
                    "logprobs": told(policy, ids, own), "versions": [0] * len(ids),
                })  # fmt: skip
        rollouts.write(rollouts.step_path(job.directory, step), rows)
        written.append(rows)
    return written


@torch.no_grad()
def told(policy: Policy, ids: list[int], own: list[int]) -> list[float]:
    tokens = torch.tensor([ids])
    mask = torch.tensor([own[1:]], dtype=torch.float32)
    return [0.0, *policy(tokens[:, :-1], tokens[:, 1:], mask, 1.0)[0][0].tolist()]


def learned(job: LearnerJob) -> dict[int, str]:
    """Runs the learner; version → hash of the weights handed out."""
    published: dict[int, str] = {}
    learn_rank(job, quiet, partial(note, published), 1)
    return published


def note(published: dict[int, str], version: int, weights: dict[str, np.ndarray]) -> None:
    digest = hashlib.sha256()
    for name in sorted(weights):
        digest.update(name.encode() + weights[name].tobytes())
    published[version] = digest.hexdigest()


def spawn(*jobs: LearnerJob) -> None:
    """The jobs, one after the other, by two workers, over gloo."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    multiprocessing.spawn(_one_of_two, (port, jobs), nprocs=2)


def _one_of_two(rank: int, port: int, jobs: tuple[LearnerJob, ...]) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE="2")
    dist.init_process_group("gloo")
    for job in jobs:
        learn_rank(job, quiet, quiet, 1)
    dist.destroy_process_group()


def quiet(*_: object) -> None:
    """Says nothing."""


def weights_of(directory: Path) -> dict[str, torch.Tensor]:
    return dict(export.load(str(directory / "model")).state_dict())


def apart(one: Path, other: Path) -> float:
    """The largest difference of any weight."""
    theirs = weights_of(other)
    return max(float((each - theirs[name]).abs().max()) for name, each in weights_of(one).items())
