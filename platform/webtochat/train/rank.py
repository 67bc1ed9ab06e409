"""One rank of a training run, from a prepared `Job` to the exported model. Without Ray: a stage runs it in Ray Train's
workers, `torchrun` or a plain process may as well.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule

from webtochat import storage
from webtochat.errors import UserError
from webtochat.evals import likelihood
from webtochat.model.config import ModelConfig, device_peak
from webtochat.model.export import export, load
from webtochat.model.generate import generate
from webtochat.model.imported import Given
from webtochat.model.reward import RewardModel
from webtochat.model.transformer import Decoder, Transformer
from webtochat.recipe import FineTune, Model, Pretrain
from webtochat.tokens.batches import Batch, Order, share
from webtochat.tokens.chat import render
from webtochat.tokens.mixture import Corpus, Mixture
from webtochat.tokens.shards import Split
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tokens.windows import Window
from webtochat.train import float8, together
from webtochat.train.checkpoint import Checkpointer
from webtochat.train.line import Line
from webtochat.train.loop import Diverged, Loss, Plan, State, train
from webtochat.train.lora import adapt, merge
from webtochat.train.optimizer import learning_rate, optimizers
from webtochat.train.packing import Packed
from webtochat.train.pairs import PackedPairs, bradley_terry, held_out_metrics
from webtochat.train.validation import bits_per_byte, byte_counts, document_windows, target_bytes, totals

CURVE = "metrics.jsonl"
EVALUATED_ROWS = 16
SAMPLE_TOKENS = 32
Windows = TypeVar("Windows", Packed, PackedPairs)


@dataclass(frozen=True)
class Evaluation:
    step: int
    metrics: dict[str, float]
    sample: str


@dataclass(frozen=True)
class Note:
    """A line for the screen."""

    text: str


Emit = Callable[[Line | Evaluation | Note], None]
Notice = Callable[[], bool] | None
"""Whether a machine is about to be taken away: see `loop.train`."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every rank needs to know. Paths are absolute or remote."""

    directory: str
    """The stage's; checkpoints go to `_scratch/checkpoints/`, the result to `model/` and metrics.jsonl."""
    settings: Pretrain | FineTune
    sequence_length: int
    windows_per_step: int
    steps: int
    mask_documents: bool = True
    device_batch_tokens: int | None = None
    shard: bool = False
    compile: bool = False
    recompute: bool = False
    line_seconds: float = 5.0
    notice_seconds: float = 5.0


@dataclass(frozen=True, kw_only=True)
class PretrainJob(Job):
    model: Model
    given: Given | None = None
    """A model to go on from; `model` is then not looked at."""
    tokenizer: tuple[str, str]
    """(directory, content hash) of the artifact."""
    tokens: tuple[str, str]
    """Likewise; its validation documents are held out."""
    mixture: tuple[Corpus, ...]
    tasks: str = ""
    """Encoded tasks to score at each evaluation, written by `likelihood.write`."""


@dataclass(frozen=True, kw_only=True)
class FineTuneJob(Job):
    base: tuple[str, str]
    """(directory, content hash) of the artifact whose `model/` is trained on."""
    windows: str
    """The packed windows, written by `write_windows`."""
    sample_prompt: tuple[dict[str, str], ...] = ()
    """Continued at each evaluation; empty: nothing is."""


def cross_entropy(model: nn.Module, batch: Batch, mask_documents: bool = True) -> tuple[Tensor, Tensor]:
    """(summed loss in nats, number of targets that bear one): the loop divides by the global number."""
    learned_BT = batch.weights_BT > 0
    targets_BT = batch.targets_BT.masked_fill(~learned_BT, -100)
    device = targets_BT.device.type
    with torch.autocast(device, torch.bfloat16) if device == "cuda" else contextlib.nullcontext():
        total = model(batch.tokens_BT, batch.documents_BT if mask_documents else None, targets_BT)
    return total, learned_BT.sum()


def pretrain_rank(job: PretrainJob, emit: Emit, threads: int | None = None, notice: Notice = None) -> State:
    device = prepare(threads)
    assert isinstance(job.settings, Pretrain)
    tokenizer = Tokenizer.load(storage.local_copy(*job.tokenizer))
    tokens = storage.local_copy(*job.tokens)
    separator = tokenizer.separator
    mixture = Mixture(job.mixture, job.sequence_length, tokenizer.vocabulary)
    held_out = Split(os.path.join(tokens, "validation"), job.sequence_length, tokenizer.vocabulary)
    validation = document_windows(held_out, separator, tokenizer.pad, job.settings.validation_tokens)
    count_bytes = target_bytes(validation, byte_counts(tokenizer))
    tasks = likelihood.read(job.tasks) if job.tasks else []
    if job.given is None:
        config = ModelConfig.of(job.model, tokenizer.vocabulary)
        model = Transformer(config, job.model.seed, job.model.zero_residual)
    else:
        model, tokenizer = job.given.loaded()

    def evaluate() -> tuple[dict[str, float], str]:
        metrics, text = {}, ""
        if count_bytes:
            nats, _, targets = totals(model, validation, EVALUATED_ROWS, device, job.mask_documents)
            metrics = {"validation_bpb": bits_per_byte(nats, count_bytes), "validation_loss": nats / targets}
            text = sample(model, tokenizer, validation[0].tokens[:12].tolist(), frozenset({separator}))
        if tasks:
            metrics |= likelihood.metrics(tasks, likelihood.score(model, tasks, tokenizer.vocabulary, device))
        return metrics, text

    window, order = partial(mixture.window, separator=separator), mixture.order(job.settings.seed)
    return run(job, model, tokenizer, window, order, evaluate, emit, device, notice, mixture.sources)


def sft_rank(job: FineTuneJob, emit: Emit, threads: int | None = None, notice: Notice = None) -> State:
    device = prepare(threads)
    base = os.path.join(storage.local_copy(*job.base), "model")
    tokenizer, model = Tokenizer.load(base), load(base)
    training, validation = read_windows(job.windows, Packed)
    held_out = [validation.window(number) for number in range(len(validation))]
    prompt = render(tokenizer, list(job.sample_prompt), add_generation_prompt=True).ids if job.sample_prompt else []

    def evaluate() -> tuple[dict[str, float], str]:
        if not held_out:
            return {}, ""
        nats, right, targets = totals(model, held_out, EVALUATED_ROWS, device)
        metrics = {"validation_loss": nats / targets, "validation_accuracy": right / targets}
        stop = tokenizer.special_ids
        return metrics, sample(model, tokenizer, prompt, stop) if prompt else ""

    order = Order((len(training),), (1.0,), job.settings.seed)
    return run(job, model, tokenizer, training.window, order, evaluate, emit, device, notice)


def reward_rank(job: FineTuneJob, emit: Emit, threads: int | None = None, notice: Notice = None) -> State:
    """On `PackedPairs`: `base`'s model learns to score answers."""
    device = prepare(threads)
    base = os.path.join(storage.local_copy(*job.base), "model")
    tokenizer, model = Tokenizer.load(base), RewardModel.begun(base, job.settings.seed)
    training, validation = read_windows(job.windows, PackedPairs)
    held_out = [validation.window(number) for number in range(len(validation))]

    def evaluate() -> tuple[dict[str, float], str]:
        return held_out_metrics(model, held_out, EVALUATED_ROWS, device) if held_out else {}, ""

    order = Order((len(training),), (1.0,), job.settings.seed)
    return run(
        job, model, tokenizer, training.window, order, evaluate, emit, device, notice, loss=bradley_terry
    )  # fmt: skip


def prepare(threads: int | None) -> torch.device:
    """This rank's device. On the CPU: its threads, and denormal numbers as zero (they cost up to 100 times as much)."""
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", torch.cuda.current_device())))
        torch.cuda.set_device(device)
        torch.set_float32_matmul_precision("high")
        return device
    torch.set_flush_denormal(True)
    if threads:
        torch.set_num_threads(threads)
    return torch.device("cpu")


def run(
    job: Job,
    model: Decoder,
    tokenizer: Tokenizer,
    window: Callable[[int], Window],
    order: Order,
    evaluate: Callable[[], tuple[dict[str, float], str]],
    emit: Emit,
    device: torch.device,
    notice: Notice = None,
    sources: Callable[[int], dict[str, Any]] | None = None,
    loss: Loss | None = None,
) -> State:
    """Trains `model` on windows in permuted order, from the newest checkpoint if there is one, and exports it.
    `sources`: where a window comes from. `loss`: by default cross-entropy."""
    rank, world = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
    settings = job.settings
    torch.manual_seed(settings.seed + rank)
    lora = settings.lora if isinstance(settings, FineTune) else None
    if lora is not None:
        adapt(model, lora, settings.seed)
    if isinstance(settings, Pretrain) and settings.float8:
        float8.check(device)
        float8.convert(model)
    trained = together.spread(model.to(device), shard=job.shard, compile=job.compile, recompute=job.recompute)
    if job.shard and world > 1 and settings.optimizer == "muon":
        raise UserError("optimizer=muon needs whole matrices: set cluster.shard=false, or optimizer=adamw")
    chosen = optimizers(model, settings)
    checkpointer = Checkpointer(
        storage.join(job.directory, "_scratch", "checkpoints"), model, chosen, settings.keep_checkpoints
    )
    state = checkpointer.restore() or State()
    if rank == 0 and world > 1:
        emit(Note(f"training on {world} workers"))
    if rank == 0 and state.step:
        emit(Note(f"going on from the checkpoint of step {state.step}/{job.steps}"))
    peak = device_peak(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    plan = Plan(
        steps=job.steps, windows_per_step=job.windows_per_step,
        tokens_per_step=job.windows_per_step * job.sequence_length, clip=settings.clip, spike=settings.spike,
        evaluate_every=settings.evaluate_every, checkpoint_every=settings.checkpoint_every,
        line_seconds=job.line_seconds, notice_seconds=job.notice_seconds,
        flops_per_token=model.config.flops_per_token(job.sequence_length, model.outputs),
        peak_flops=peak * world if peak else None,
    )  # fmt: skip

    def batches(consumed: int) -> list[Batch]:
        whole = share(window, order, consumed, job.windows_per_step, rank, world)
        return cut(whole, job.device_batch_tokens, device)

    def evaluated(state: State) -> dict[str, float]:
        metrics, text = evaluate()
        if rank == 0:
            emit(Evaluation(state.step, metrics, text))
        return metrics

    def told() -> bool:
        going = notice is not None and notice()
        if going and rank == 0:
            emit(Note("a machine is about to be taken away: a checkpoint is written now"))
        return going

    try:
        state = train(
            model=trained, optimizers=chosen, lr_at=learning_rate(settings, job.steps), batches=batches,
            loss=loss or partial(cross_entropy, mask_documents=job.mask_documents), plan=plan, state=state,
            save=checkpointer.save, evaluate=evaluated, log=emit, notice=told if notice else None,
        )  # fmt: skip
    except Diverged as error:
        if rank == 0:
            numbers = order.windows((error.step - 1) * job.windows_per_step, job.windows_per_step)
            emit(Note(f"the windows of that step are told in {diverged(job.directory, error, numbers, sources)}"))
        raise
    checkpointer.finish()
    if rank == 0:
        spent = state.seconds + state.saving
        emit(Note(f"checkpoints held the steps up for {state.saving:.1f} s ({state.saving / spent:.1%} of the time)"))
    whole = together.gathered(model, lora)
    if lora is not None and rank == 0:
        merge(whole)
    if rank == 0:
        hand_on(job.directory, whole, tokenizer, state)
    if world > 1:
        dist.barrier()
    return state


def diverged(
    directory: str, error: Diverged, numbers: list[int], sources: Callable[[int], dict[str, Any]] | None
) -> str:
    """Writes which windows, and which documents, the step at fault was made of. From the newest checkpoint the same
    step comes again."""
    windows = [sources(number) if sources else {"window": number} for number in numbers]
    told = {"step": error.step, "loss": str(error.loss), "norm": str(error.norm), "windows": windows}
    path = storage.join(directory, "_scratch", "diverged.json")
    storage.write_bytes(path, json.dumps(told, indent=1).encode())
    return path


def cut(batch: Batch, device_batch_tokens: int | None, device: torch.device) -> list[Batch]:
    """A rank's share in parts of at most `device_batch_tokens` (at least one window), on the device."""
    rows, length = batch.tokens_BT.shape
    size = rows if device_batch_tokens is None else max(1, device_batch_tokens // length)
    pin = device.type == "cuda"

    def part(tensor: Tensor, start: int) -> Tensor:
        piece = tensor[start : start + size]
        return piece.pin_memory().to(device, non_blocking=True) if pin else piece

    tensors = (batch.tokens_BT, batch.targets_BT, batch.weights_BT, batch.documents_BT)
    return [Batch(*(part(each, start) for each in tensors)) for start in range(0, rows, size)]


def sample(model: Transformer, tokenizer: Tokenizer, prompt: list[int], stop: frozenset[int]) -> str:
    """Greedy, so that it shows the model and not the dice; on rank 0 only, the others' is not looked at, unless no rank
    has the whole model: then on all, for as many tokens, as each calls the others."""
    if isinstance(model, FSDPModule):
        new = generate(model, prompt, SAMPLE_TOKENS)
        new = new[: next((place + 1 for place, token in enumerate(new) if token in stop), None)]
    elif dist.is_initialized() and dist.get_rank() != 0:
        return ""
    else:
        new = generate(model, prompt, SAMPLE_TOKENS, stop)
    texts = [" ".join(tokenizer.decode(ids).split()) for ids in (prompt, new)]
    return " → ".join(texts)


def import_rank(directory: str, given: Given) -> None:
    """What is left of a run that trains nothing."""
    hand_on(directory, *given.loaded(), State())


def hand_on(directory: str, model: Decoder, tokenizer: Tokenizer, state: State) -> None:
    """Writes `model/` (Hugging Face) and the curve, each whole or not at all."""
    curve = "".join(json.dumps(point) + "\n" for point in state.curve)
    storage.write_bytes(storage.join(directory, CURVE), curve.encode())
    target = storage.join(directory, "model")
    if storage.is_remote(directory):
        with tempfile.TemporaryDirectory(prefix="webtochat-") as aside:
            export(model, tokenizer, aside)
            storage.upload_directory(aside, target)
        return
    aside = storage.join(directory, "_scratch", "model")
    with storage.machine_faults(target):
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(target, ignore_errors=True)
        export(model, tokenizer, aside)
        os.rename(aside, target)


def write_windows(path: str, training: Windows, validation: Windows) -> None:
    with storage.writing(path) as local, open(local, "wb") as sink:
        np.savez(sink, **{
            f"{name}_{part}": array
            for name, packed in (("training", training), ("validation", validation))
            for part, array in vars(packed).items()
        })  # fmt: skip


def read_windows(path: str, kind: type[Windows]) -> tuple[Windows, Windows]:
    with np.load(io.BytesIO(storage.read_bytes(path))) as held:
        training, validation = (
            kind(**{part.name: held[f"{name}_{part.name}"] for part in fields(kind)})
            for name in ("training", "validation")
        )
    return training, validation
