"""The dpo stage: what people like better, learned from pairs of answers without sampling any and without a reward model
(Rafailov et al. 2023)."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator

import numpy as np
import pyarrow.parquet as pq
import torch
from torch import Tensor, nn

from webtochat import storage
from webtochat.artifact import Artifact
from webtochat.errors import UserError
from webtochat.model.export import load
from webtochat.recipe import Recipe
from webtochat.recipe_rl import DPO
from webtochat.reward.answers import Judged, compared
from webtochat.rl.losses import dpo as loss_of
from webtochat.rl.policy import Policy
from webtochat.run import Run, Stage
from webtochat.tokens import rows
from webtochat.tokens.batches import Batch, Order
from webtochat.tokens.chat import render
from webtochat.tokens.preferences import Preference, preferences
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tokens.windows import Window
from webtochat.train.loop import Loss, State
from webtochat.train.packing import Packed, shuffled_bins
from webtochat.train.pairs import Pair, encoded, means, split
from webtochat.train.rank import EVALUATED_ROWS, Emit, FineTuneJob, Notice, prepare, read_windows, run
from webtochat.train.stage import ends, left_out, literals, prepared, tune
from webtochat.train.validation import sums


def dpo(run: Run) -> Artifact:
    """`model/`: the chat model that gives the chosen answers a larger share of what it gives either, against the model
    it was; metrics.jsonl: the curve."""
    recipe, section = run.recipe, run.recipe.dpo
    if section is None:
        raise UserError("the recipe has no section dpo, so no answers are preferred: docs/rl.md shows one")
    base = run.open(recipe.chat)
    sources, missing = rows.available(section.data, recipe.miniweb)
    own = any(each.of_stage for each in sources)
    if own and (recipe.reward is None or recipe.reward.answers is None):
        raise UserError("dpo.data names reward, and the recipe has no reward.answers that were judged")
    judged = [run.open("reward")] if own else []
    told = [each.weight if each.of_stage else rows.identity(each, recipe.miniweb) for each in sources]
    stage = run.begin("dpo", {"dpo": literals(recipe, "dpo") | {"data": told}}, [base, *judged])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        for source in missing:
            stage.say(f"skipped {source.path}: it needs the miniweb, which this crawl does not hold")
        tokenizer, length = prepared(stage, base, section, 2)
        skipped: Counter[str] = Counter()
        given: list[Preference] = []
        for source in sources:
            if source.of_stage:
                given += rows.weighted(_judged(judged[0], recipe), source.weight, section.seed)
                continue
            read = rows.weighted(rows.read(source, recipe.miniweb, skipped), source.weight, section.seed)
            given += preferences(read, source.stem, skipped)
        pairs = encoded(tokenizer, given, base.manifest.counts["config"]["max_positions"], length, skipped)
        left_out(stage, skipped)
        training, held_out = split(pairs, section.validation_percent)
        if not training:
            raise UserError("dpo.data holds no pair to train on: name rows of a prompt, a chosen and a rejected answer")
        packed, validation = (pack(each, tokenizer, length, section.seed) for each in (training, held_out))
        made = f"{len(training):,} pairs"
        counts = {"pairs": len(training), "held_out_pairs": len(held_out), "skipped": dict(skipped)}
        counts |= tune(stage, base, section, dpo_rank, packed, validation, made, recipe.cluster)
        return stage.commit(counts=counts, summary=f"{made}, {counts['steps']} steps", gain=_gain(stage))


def _judged(reward: Artifact, recipe: Recipe) -> Iterator[Preference]:
    """Pairs of the answers that the reward stage sampled."""
    assert recipe.reward is not None and recipe.reward.answers is not None
    with storage.open_input_file(reward.path("answers.parquet")) as source:
        table = pq.read_table(source).to_pylist()
    found: dict[str, Judged] = {}
    for row in table:
        one = found.setdefault(str(row["prompt"]), Judged(row["prompt"], [], []))
        one.answers.append(row["answer"])
        one.scores.append(row["score"])
    for each in found.values():
        yield from compared(each, recipe.reward.answers)


def _gain(stage: Stage) -> str:
    first, last = ends(stage, "validation_margin")
    return f"held-out margin {first:.2f} → {last:.2f} nats" if last is not None else ""


def pack(pairs: list[Pair], tokenizer: Tokenizer, sequence_length: int, seed: int) -> Packed:
    """Best fit of whole pairs into windows of T + 1 tokens, no attention from one answer to the other. Weights: 1 where
    the target is of a chosen answer, -1 where it is of a rejected one. Documents: 2p and 2p + 1 of the pair p."""
    size = sequence_length + 1
    bins = shuffled_bins([pair.length for pair in pairs], size, seed)
    packed = Packed(
        np.full((len(bins), size), tokenizer.pad, np.int32), np.zeros((len(bins), size), np.int32),
        np.zeros((len(bins), sequence_length), np.float32),
    )  # fmt: skip
    for window, members in enumerate(bins):
        begin = 0
        for place, number in enumerate(members):
            pair = pairs[number]
            asked = len(render(tokenizer, pair.preference.prompt, add_generation_prompt=True).ids)
            for side, ids in enumerate((pair.chosen, pair.rejected)):
                end = begin + len(ids)
                packed.tokens[window, begin:end] = ids
                packed.documents[window, begin:end] = 2 * place + side
                packed.weights[window, begin + asked - 1 : end - 1] = 1 - 2 * side
                begin = end
        packed.documents[window, begin:] = 2 * len(members)
    return packed


def likelihoods(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
    """Log-probabilities in nats of the chosen and of the rejected answers, each [B, P], of windows of `pack`; 0 where
    there is no pair."""
    device = batch.tokens_BT.device.type
    mask_BT = batch.weights_BT.abs()
    with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
        logprobs_BT, _, _ = model(batch.tokens_BT, batch.targets_BT, mask_BT, 1.0, batch.documents_BT)
    chosen_BP, rejected_BP = (by_pair(batch, logprobs_BT * (side * batch.weights_BT).clamp(min=0)) for side in (1, -1))
    return chosen_BP, rejected_BP


def by_pair(batch: Batch, values_BT: Tensor) -> Tensor:
    """Sums over each pair's tokens, [B, P]: P is T, as no window holds more pairs."""
    return torch.zeros_like(values_BT).scatter_add(1, batch.documents_BT.long() // 2, values_BT)


def preferred(model: nn.Module, reference: nn.Module, batch: Batch, beta: float) -> tuple[Tensor, ...]:
    """(losses in nats, how much likelier than to the reference the chosen answers are, and the rejected ones, whether
    there is a pair), each [B, P]."""
    chosen_BP, rejected_BP = likelihoods(model, batch)
    with torch.no_grad():
        was_chosen_BP, was_rejected_BP = likelihoods(reference, batch)
    losses_BP = loss_of(chosen_BP, rejected_BP, was_chosen_BP, was_rejected_BP, beta)
    there_BP = by_pair(batch, batch.weights_BT.abs()) > 0
    return losses_BP * there_BP, chosen_BP - was_chosen_BP, rejected_BP - was_rejected_BP, there_BP


def direct(reference: nn.Module, beta: float) -> Loss:
    """A loss for the loop: (summed loss in nats, number of pairs)."""

    def loss(model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        losses_BP, _, _, there_BP = preferred(model, reference, batch, beta)
        return losses_BP.sum(), there_BP.sum()

    return loss


def dpo_rank(job: FineTuneJob, emit: Emit, threads: int | None = None, notice: Notice = None) -> State:
    """Each rank holds the reference whole: one more forward pass of it for each of the model's."""
    device, settings = prepare(threads), job.settings
    assert isinstance(settings, DPO)
    base = os.path.join(storage.local_copy(*job.base), "model")
    tokenizer, model = Tokenizer.load(base), Policy.of(load(base), valued=False)
    reference = Policy.of(load(base), valued=False).to(device).eval().requires_grad_(False)
    training, validation = read_windows(job.windows, Packed)
    held_out = [validation.window(number) for number in range(len(validation))]

    def evaluate() -> tuple[dict[str, float], str]:
        return held_out_metrics(model, reference, settings.beta, held_out, device) if held_out else {}, ""

    order = Order((len(training),), (1.0,), settings.seed)
    loss = direct(reference, settings.beta)
    return run(job, model, tokenizer, training.window, order, evaluate, emit, device, notice, loss=loss)


def held_out_metrics(
    model: nn.Module, reference: nn.Module, beta: float, windows: list[Window], device: torch.device
) -> dict[str, float]:
    """Of held-out pairs: loss; how often the chosen answer gained more than the rejected one; what each gained, and the
    difference, in nats. Leaves the model in eval mode."""

    def columns(batch: Batch) -> list[Tensor]:
        losses_BP, chosen_BP, rejected_BP, there_BP = preferred(model, reference, batch, beta)
        return [losses_BP, (chosen_BP > rejected_BP) & there_BP, chosen_BP, rejected_BP, there_BP]

    return means(sums(model, windows, EVALUATED_ROWS, device, columns, 5))
