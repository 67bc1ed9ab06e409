"""One rank of the learner, which lives as long as the run: waits for a step's rollouts, learns from them, hands out the
new weights. Without Ray: `publish` and `emit` are its only way out, the file of a step its only way in. So a learner
that went back to its checkpoint reads again what it had read, and makes the same weights.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn

from webtochat import storage
from webtochat.errors import UserError
from webtochat.model.export import load
from webtochat.model.transformer import Transformer
from webtochat.recipe_rl import RL
from webtochat.rl import losses, rollouts
from webtochat.rl.batches import Micro, minibatches
from webtochat.rl.line import Learned
from webtochat.rl.policy import Policy, for_engines
from webtochat.rl.rollouts import Row
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.train import together
from webtochat.train.checkpoint import Checkpointer
from webtochat.train.loop import Diverged, State, take_step
from webtochat.train.lora import adapt, merge
from webtochat.train.optimizer import learning_rate, optimizers
from webtochat.train.rank import Note, Notice, hand_on, prepare

Publish = Callable[[int, dict[str, np.ndarray]], None]
"""Hands out weights, by the names of a checkpoint, under their version."""


@dataclass(frozen=True, kw_only=True)
class LearnerJob:
    """What every rank needs to know. Paths are absolute or remote."""

    directory: str
    """The stage's; checkpoints go to `_scratch/checkpoints/`, the result to `model/` and metrics.jsonl."""
    base: tuple[str, str]
    """(directory, content hash) of the artifact whose `model/` it begins with."""
    settings: RL
    device_batch_tokens: int | None = None
    shard: bool = False
    compile: bool = False
    recompute: bool = False


def learn_rank(
    job: LearnerJob, emit: Callable[[Any], None], publish: Publish, threads: int | None = None, notice: Notice = None
) -> State:
    """From the newest checkpoint, if there is one, to the exported model."""
    device, settings = prepare(threads), job.settings
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    torch.manual_seed(settings.seed + rank)
    learner = Learner(job, device, rank, world)
    state = learner.checkpointer.restore() or State()
    if rank == 0 and state.step:
        emit(Note(f"learning goes on from the checkpoint of step {state.step}/{settings.steps}"))

    def hand_out() -> None:
        weights = learner.weights()
        if rank == 0:
            publish(state.step, weights)

    if state.step:
        hand_out()
    while state.step < settings.steps:
        began = time.perf_counter()
        rows = waited_for(rollouts.step_path(job.directory, state.step))
        waited = time.perf_counter() - began
        told = learner.step(rows, state)
        state.step += 1
        state.windows += len(rows)
        state.tokens += int(told["tokens"])
        hand_out()
        spent = time.perf_counter() - began
        state.seconds += spent
        told |= {"learner_idle": waited / spent, "learner_seconds": spent - waited}
        timed = ("learner_idle", "learner_seconds")
        state.curve.append({"step": state.step} | {key: value for key, value in told.items() if key not in timed})
        if rank == 0:
            emit(Learned(state.step, told))
        noticed = notice is not None and learner.any(notice())
        if noticed or state.step == settings.steps or state.step % settings.checkpoint_every == 0:
            learner.checkpointer.save(state)
    learner.checkpointer.finish()
    whole = learner.whole()
    if rank == 0:
        hand_on(job.directory, whole.plain() if isinstance(whole, Policy) else whole, learner.tokenizer, state)
    if world > 1:
        dist.barrier()
    return state


def waited_for(path: str) -> list[Row]:
    """The rows of a file that the driver writes when the step is sampled. Looked for ever more seldom: what is looked
    for may lie far away."""
    began = time.perf_counter()
    while not storage.exists(path):
        time.sleep(min(1.0, max(0.005, 0.05 * (time.perf_counter() - began))))
    return rollouts.read(path)


class Learner:
    def __init__(self, job: LearnerJob, device: torch.device, rank: int, world: int):
        self.job, self.settings, self.device, self.rank, self.world = job, job.settings, device, rank, world
        settings = job.settings
        base = os.path.join(storage.local_copy(*job.base), "model")
        self.tokenizer, begun = Tokenizer.load(base), load(base)
        valued = settings.advantage == "gae"
        if job.shard and world > 1 and (valued or settings.optimizer == "muon"):
            raise UserError("rl with cluster.shard goes with neither algorithm=ppo nor optimizer=muon: set one of them")
        self.model = Policy.of(begun, valued)
        if settings.lora is not None:
            adapt(self.model, settings.lora, settings.seed)
            if valued:
                self.model.value_head.requires_grad_(True)
        self.reference = Policy.of(begun, False).to(device).eval() if settings.kl else None
        self.trained = together.spread(
            self.model.to(device), shard=job.shard, compile=job.compile, recompute=job.recompute
        )
        self.optimizers = optimizers(self.model, settings)
        checkpoints = storage.join(job.directory, "_scratch", "checkpoints")
        self.checkpointer = Checkpointer(checkpoints, self.model, self.optimizers, settings.keep_checkpoints)
        self.updates = settings.minibatches * settings.passes
        self.lr_at = learning_rate(settings, settings.steps * self.updates)

    # a step ----------------------------------------------------------------------------------------------------------

    def step(self, rows: Sequence[Row], state: State) -> dict[str, float]:
        """Learns from the rollouts that have a reward. Returns what it measured. Raises Diverged."""
        settings = self.settings
        kept = rollouts.lessons(rows, settings)
        groups = [row["group"] for row in kept]
        if not kept:
            return {"tokens": 0.0}
        parts = minibatches(
            kept, groups, settings.minibatches, self.job.device_batch_tokens, self.rank, self.world, self.tokenizer.pad
        )
        parts = [[micro.to(self.device) for micro in part] for part in parts]
        tally = Tally(self.device)
        self._prepare([micro for part in parts for micro in part], kept, groups, tally)
        self.trained.train()
        taken = []
        for number in range(settings.passes * len(parts)):
            lr = self.lr_at(state.step * self.updates + number)
            for optimizer in self.optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = lr * group.get("times", 1.0)
            loss = partial(self._loss, tally=tally)
            taken.append(take_step(
                self.trained, self.optimizers, parts[number % len(parts)], loss, settings.clip, self.world
            ))  # fmt: skip
        value, norm, _ = torch.stack(taken).mean(0).tolist()
        if not (np.isfinite(value) and np.isfinite(norm)):
            raise Diverged(state.step + 1, value, norm, None)
        tokens = float(sum(sum(row["own"]) for row in kept)) * settings.passes
        return {"loss": value, "norm": norm, "lr": lr, "tokens": tokens, **tally.means(self.world)}

    def _prepare(self, micros: list[Micro], rows: list[Row], groups: list[int], tally: Tally) -> None:
        """What is computed once, by the weights as they are before the step: old log-probabilities, where later ones
        are held against them or something follows from them; the reference's; advantages."""
        settings = self.settings
        in_reward = settings.kl > 0 and settings.kl_in == "reward"
        gae = settings.advantage == "gae"
        rewards_R = torch.tensor([float(row["reward"]) for row in rows], device=self.device)
        penalties_R = torch.zeros_like(rewards_R)
        with torch.no_grad():
            for micro in micros:
                if self.updates > 1 or in_reward or gae:
                    micro.extra["old"], _, micro.extra["values"] = self._told(self.trained, micro)
                if self.reference is not None:
                    micro.extra["reference"], _, _ = self._told(self.reference, micro)
                if in_reward:
                    micro.extra["kl"] = self._divergence(micro.extra["old"], micro) * micro.mask_BT
                    real = micro.places_B >= 0
                    penalties_R[micro.places_B[real]] = settings.kl * micro.extra["kl"].sum(1)[real]
            if gae:
                self._estimate(micros)
                return
            if self.world > 1:
                dist.all_reduce(penalties_R)
            found_R = losses.advantages(settings.advantage, rewards_R - penalties_R, groups)
            for micro in micros:
                micro.extra["advantages"] = found_R[micro.places_B.clamp(min=0)][:, None].expand_as(micro.mask_BT)

    def _estimate(self, micros: list[Micro]) -> None:
        """PPO's advantages, whitened over the step, and returns. The reward stands at the last token; a divergence in
        the reward at each."""
        settings, sums = self.settings, torch.zeros(3, dtype=torch.float64, device=self.device)
        for micro in micros:
            rewards_BT = -settings.kl * micro.extra["kl"] if "kl" in micro.extra else torch.zeros_like(micro.mask_BT)
            last_B = (micro.mask_BT * torch.arange(micro.mask_BT.shape[1], device=self.device)).argmax(1)
            rewards_BT[torch.arange(len(last_B)), last_B] += micro.rewards_B
            found_BT, micro.extra["returns"] = losses.gae(
                rewards_BT, micro.extra["values"], micro.mask_BT, settings.discount, settings.gae_lambda
            )
            micro.extra["advantages"] = found_BT
            own = found_BT[micro.mask_BT > 0].double()
            sums += torch.stack([own.sum(), (own**2).sum(), own.new_tensor(float(len(own)))])
        if self.world > 1:
            dist.all_reduce(sums)
        mean = sums[0] / sums[2]
        std = (sums[1] / sums[2] - mean**2).clamp(min=0).sqrt()
        for micro in micros:
            micro.extra["advantages"] = ((micro.extra["advantages"] - mean) / (std + losses.EPSILON)).float()

    def _told(self, model: nn.Module, micro: Micro) -> tuple[Tensor, Tensor, Tensor]:
        kind = self.device.type
        with torch.autocast(kind, torch.bfloat16) if kind == "cuda" else nullcontext():
            return model(micro.tokens_BT, micro.targets_BT, micro.mask_BT, self.settings.temperature)

    def _divergence(self, logprobs_BT: Tensor, micro: Micro) -> Tensor:
        return losses.divergence(logprobs_BT, micro.extra["reference"], micro.sampled_BT, self.settings.importance_cap)

    def _loss(self, model: nn.Module, micro: Micro, tally: Tally) -> tuple[Tensor, Tensor]:
        """(sum, weight) of one pass, as train/loop.py takes them."""
        settings, extra, mask_BT = self.settings, micro.extra, micro.mask_BT
        logprobs_BT, entropies_BT, values_BT = self._told(model, micro)
        advantages_BT = extra["advantages"]
        old_BT = extra.get("old", logprobs_BT.detach())
        measured = {"entropy": entropies_BT, "gap": (old_BT - micro.sampled_BT).abs()}
        if settings.ratio == "none":
            old_BT = logprobs_BT.detach()  # no ratio leads from the old ones to these: the weight does
            loss_BT = losses.reinforce(logprobs_BT, advantages_BT)
        else:
            by_token = settings.ratio == "token"
            ratio_BT = (
                losses.token_ratio(logprobs_BT, old_BT) if by_token
                else losses.sequence_ratio(logprobs_BT, old_BT, mask_BT)
            )  # fmt: skip
            loss_BT = losses.clipped(ratio_BT, advantages_BT, settings.clip_low, settings.clip_high)
            measured["clipped"] = losses.outside(ratio_BT, advantages_BT, settings.clip_low, settings.clip_high)
        loss_BT = loss_BT * losses.importance(old_BT, micro.sampled_BT, settings.importance_cap)
        if "reference" in extra:
            kl_BT = self._divergence(logprobs_BT, micro)
            loss_BT = loss_BT + settings.kl * kl_BT if settings.kl_in == "loss" else loss_BT
            measured["kl"] = kl_BT
        if "returns" in extra:
            off_BT = losses.value_loss(values_BT, extra["values"], extra["returns"], settings.value_clip)
            loss_BT = loss_BT + settings.value_weight * off_BT
            measured["value_loss"] = off_BT
        tally.add(mask_BT, measured)
        return losses.reduce(loss_BT, mask_BT, settings.reduce, settings.max_new_tokens)

    # the result ------------------------------------------------------------------------------------------------------

    def any(self, flag: bool) -> bool:
        """Whether it holds on any rank. Every rank calls it."""
        if self.world == 1:
            return flag
        flags = torch.tensor(float(flag), device=self.device)
        dist.all_reduce(flags)
        return bool(flags > 0)

    def whole(self) -> Transformer:
        """The model with what was learned in its weights, on rank 0. Every rank calls it."""
        model = cast(Transformer, together.gathered(self.model, self.settings.lora))
        if self.settings.lora is not None:
            model = copy.deepcopy(model)
            merge(model)
        return model

    def weights(self) -> dict[str, np.ndarray]:
        """What engines take, on rank 0. Every rank calls it."""
        return for_engines(self.whole())


class Tally:
    """Means over the model's own tokens, of all passes and ranks."""

    def __init__(self, device: torch.device):
        self.sums: dict[str, Tensor] = {}
        self.tokens = torch.zeros((), dtype=torch.float64, device=device)

    def add(self, mask_BT: Tensor, measured: dict[str, Tensor]) -> None:
        self.tokens += mask_BT.sum()
        for name, each_BT in measured.items():
            total = (each_BT.detach() * mask_BT).sum().double()
            self.sums[name] = self.sums.get(name, torch.zeros_like(self.tokens)) + total

    def means(self, world: int) -> dict[str, float]:
        both = torch.stack([*self.sums.values(), self.tokens])
        if world > 1:
            dist.all_reduce(both)
        return dict(zip(self.sums, (both[:-1] / both[-1].clamp(min=1)).tolist(), strict=True))
