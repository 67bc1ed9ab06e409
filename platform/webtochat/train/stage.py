"""pretrain and sft on the cluster: Ray Train workers run a rank each (rank.py), the driver shows and tracks."""

from __future__ import annotations

import json
import math
import os
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Empty, Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from webtochat import storage
from webtochat.artifact import Artifact, open_artifact
from webtochat.errors import MachineError, UserError
from webtochat.evals import likelihood, tasks
from webtochat.model.config import ModelConfig
from webtochat.model.imported import Given
from webtochat.recipe import Cluster, FineTune, Recipe
from webtochat.run import Run, Stage
from webtochat.tokens import rows
from webtochat.tokens.conversations import CONVERSATIONS, chats
from webtochat.tokens.mixture import Corpus, Mixture
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.train.line import Line, amount
from webtochat.train.optimizer import at_width
from webtochat.train.packing import held_out, pack_rows
from webtochat.train.plan import budget
from webtochat.train.rank import (
    CURVE,
    Evaluation,
    FineTuneJob,
    Job,
    Note,
    PretrainJob,
    Windows,
    import_rank,
    pretrain_rank,
    sft_rank,
    write_windows,
)  # fmt: skip

RunRank = Callable[..., Any]
"""What each worker runs: (job, emit, threads, notice)."""
NOT_IDENTITY = {"checkpoint_every", "keep_checkpoints", "spike", "start", "add_markers"}
"""Keys of a training section that do not change its result, or are told by what they lead to."""
WORKER_ENVIRONMENT = {"GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT", "30000")}
"""How long OpenMP's threads spin while they wait for each other. With libgomp's own 300,000, two threads on two cores
lose most of their time as soon as another process is busy (2.2k tokens/s instead of 10.7k; so 2.9k); with none they
lose a third on a machine of their own (7.3k; so 10.1k)."""


def pretrain(run: Run) -> Artifact:
    """`model/`: a base model (Hugging Face files), and metrics.jsonl: its curve."""
    recipe, given = run.recipe, Given.of(run.recipe)
    if given is not None and not recipe.pretrain.tokens:
        return _imported(run, given)
    tokenizer, tokens = run.open("tokenizer"), run.open("tokens")
    mixture, most = corpora(recipe, tokens), recipe.pretrain.evaluate_tasks
    if most and not recipe.evaluate.tasks:
        raise UserError(f"pretrain.evaluate_tasks is {most}, but evaluate.tasks names none: docs/training.md tells how")
    stage = run.begin("pretrain", pretrain_identity(recipe, tokens, given), [tokenizer, tokens])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        learned = Tokenizer.load(tokenizer.local())
        if given is None:
            config = ModelConfig.of(recipe.model, learned.vocabulary)
        else:
            config, own = _described(stage, recipe, given)
            if not own.writes_as(learned):
                raise UserError(
                    f"the tokens are not of the tokenizer of {recipe.pretrain.start}, which the model keeps: let "
                    "tokenizer.start be the same, and run again with --rebuild tokenizer"
                )
        length = recipe.tokens.sequence_length
        if length > config.max_positions:
            raise UserError(
                f"tokens.sequence_length ({length}) is more than model.max_positions ({config.max_positions})"
            )
        for corpus in {tokens, *(each for each, _ in mixture.values())}:
            corpus.check()
        mixed = Mixture(
            tuple(Corpus(name, *_where(each), weight) for name, (each, weight) in mixture.items()), length,
            learned.vocabulary,
        )  # fmt: skip
        per_step, steps = budget(recipe, config)
        epochs = mixed.epochs(steps * per_step)
        of = (f" of {name}" if len(epochs) > 1 else "" for name in epochs)
        gone_through = ", ".join(f"{count:.2f} epochs{of_it}" for count, of_it in zip(epochs.values(), of, strict=True))
        stage.say(
            f"{amount(config.parameters)} parameters, {amount(steps * per_step * length)} tokens in {steps} steps "
            f"({gone_through})"
        )
        encoded = tasks.prepare(recipe.evaluate, most, recipe.miniweb, learned, length, stage.say) if most else []
        path = stage.scratch("tasks.npz") if encoded else ""
        if encoded:
            likelihood.write(path, encoded)
        job = PretrainJob(
            directory=storage.absolute(stage.directory), settings=at_width(recipe.pretrain, config.width),
            sequence_length=length, windows_per_step=per_step, steps=steps,
            mask_documents=recipe.pretrain.mask_documents, **_placing(recipe.cluster), model=recipe.model,
            given=given, tokenizer=_where(tokenizer), tokens=_where(tokens), mixture=mixed.corpora,
            tasks=storage.absolute(path) if path else "",
        )  # fmt: skip
        fit(stage, pretrain_rank, job, recipe.cluster)
        first, last = ends(stage, "validation_bpb")
        counts = {
            "parameters": config.parameters, "steps": steps, "tokens": steps * per_step * length,
            "epochs": {name: round(count, 4) for name, count in epochs.items()},
            "config": config.as_dict(), **_final(stage),
        }  # fmt: skip
        if encoded:
            counts["tasks_skipped"] = {each.name: each.skipped for each in encoded}
        gain = f"validation {first:.3f} → {last:.3f} bits per byte" if last is not None else ""
        made = f"{amount(config.parameters)} parameters on {amount(steps * per_step * length)} tokens"
        return stage.commit(counts=counts, summary=made, gain=gain)


def pretrain_identity(recipe: Recipe, tokens: Artifact, given: Given | None) -> dict[str, Any]:
    """Of a pretrain on the recipe's own `tokens` and what its mixture names. `given` is handed in, as finding it reads
    all its weights."""
    identity = recipe.identity("model") if given is None else {"given": given.identity}
    identity["pretrain"] = literals(recipe, "pretrain")
    identity["pretrain"]["mixture"] = {
        "own" if each is tokens else each.content_hash: weight for each, weight in corpora(recipe, tokens).values()
    }
    if recipe.pretrain.evaluate_tasks:
        known = tasks.identity(recipe.evaluate, recipe.miniweb)
        identity["pretrain"] |= {"tasks": known, "tasks_seed": recipe.evaluate.seed}
    return identity


def corpora(recipe: Recipe, own: Artifact) -> dict[str, tuple[Artifact, float]]:
    """The corpora to train on, with their weights, by the recipe's names for them; in the order of their hashes, as
    neither where they lie nor how they are listed changes the result. Raises UserError for what cannot be mixed."""
    weights = recipe.pretrain.mixture or {"own": 1.0}
    found = {
        name: (own if name == "own" else open_artifact(name, "tokens"), weight) for name, weight in weights.items()
    }
    for name, (corpus, _) in found.items():
        if corpus.stage != "tokens":
            raise UserError(f"pretrain.mixture: {name} is a {corpus.stage} artifact, not a tokens artifact")
        if corpus.manifest.inputs["tokenizer"] != own.manifest.inputs["tokenizer"]:
            raise UserError(f"pretrain.mixture: {name} was made with another tokenizer than this recipe's tokens")
    if len({corpus.content_hash for corpus, _ in found.values()}) < len(found):
        raise UserError(f"pretrain.mixture: two of {', '.join(found)} hold the same tokens: name them once")
    return dict(sorted(found.items(), key=lambda item: item[1][0].content_hash))


def _imported(run: Run, given: Given) -> Artifact:
    """The same of a model that is taken as it is."""
    stage = run.begin("pretrain", {"given": given.identity, "pretrain": {"tokens": 0}}, [])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        config, _ = _described(stage, run.recipe, given)
        ray.get(ray.remote(num_cpus=1)(import_rank).remote(storage.absolute(stage.directory), given))
        counts = {"parameters": config.parameters, "steps": 0, "tokens": 0, "config": config.as_dict()}
        return stage.commit(counts=counts, summary=f"{amount(config.parameters)} parameters, imported")


def _described(stage: Stage, recipe: Recipe, given: Given) -> tuple[ModelConfig, Tokenizer]:
    config, found = given.described()
    config.agrees(recipe.model)
    for note in found.notes:
        stage.say(note)
    return config, found.tokenizer


def sft(run: Run) -> Artifact:
    """`model/`: the pretrained model taught to answer, by the recipe's conversations; metrics.jsonl: its curve."""
    recipe, settings = run.recipe, run.recipe.sft
    base = run.open("pretrain")
    shown = [run.open("demonstrations")] if recipe.demonstrations.wanted else []
    sources, missing = rows.available(settings.data, recipe.miniweb)
    identity = {"sft": literals(recipe, "sft") | {"data": [rows.identity(each, recipe.miniweb) for each in sources]}}
    stage = run.begin("sft", identity, [base, *shown])
    if isinstance(stage, Artifact):
        return stage
    with stage:
        for source in missing:
            stage.say(f"skipped {source.path}: it needs the miniweb, which this crawl does not hold")
        tokenizer = Tokenizer.load(os.path.join(base.local(), "model"))
        if shown and tokenizer.markers.chats and not tokenizer.markers.calls:
            raise UserError(
                "the model's tokenizer has no markers of tool calls, which the recipe's demonstrations need: import it "
                "again with pretrain.add_markers=true, or do without them by demonstrations={}"
            )
        unread: Counter[str] = Counter()
        read = chats(recipe, [each.path(CONVERSATIONS) for each in shown], unread)
        counts, gain = fine_tune(stage, base, settings, read, recipe.cluster, unread)
        return stage.commit(counts=counts, summary=f"{counts['conversations']:,} conversations", gain=gain)


def fine_tune(
    stage: Stage, base: Artifact, settings: FineTune, read: list[rows.Row], cluster: Cluster, unread: Counter[str]
) -> tuple[dict[str, Any], str]:
    """Trains `base`'s model on conversations: writes `model/` and its curve; (the stage's counts, what it gained).
    `unread`: rows that were left out before."""
    tokenizer, length = prepared(stage, base, settings, 1)
    packed, validation, counts = pack_rows(tokenizer, read, length, settings.validation_percent, settings.seed)
    counts["skipped"] = dict(unread) | counts["skipped"]
    left_out(stage, counts["skipped"])
    if not len(packed):
        raise UserError("sft.data holds no conversation to train on: name JSONL, Parquet, hf:// or python: sources")
    made, prompt = f"{counts['conversations']:,} conversations", _prompt(read, settings.validation_percent)
    counts |= tune(stage, base, settings, sft_rank, packed, validation, made, cluster, prompt)
    first, last = ends(stage, "validation_loss")
    return counts, f"validation loss {first:.3f} → {last:.3f}" if last is not None else ""


def prepared(stage: Stage, base: Artifact, settings: FineTune, times: int) -> tuple[Tokenizer, int]:
    """The tokenizer of `base`'s chat model, and the length of a window: at most so many times the model's positions."""
    most = times * base.manifest.counts["config"]["max_positions"]
    length = settings.sequence_length or most
    if length > most:
        of = "the model's positions" if times == 1 else f"{times} times the model's positions"
        raise UserError(f"{stage.stage}.sequence_length ({length}) is more than {of} ({most})")
    tokenizer = Tokenizer.load(os.path.join(base.local(), "model"))
    if not tokenizer.markers.chats:
        raise UserError(
            "the model's tokenizer has no markers of messages to fine-tune it by: import it again with "
            "pretrain.add_markers=true"
        )
    return tokenizer, length


def left_out(stage: Stage, skipped: Mapping[str, int]) -> None:
    """Says which rows are not trained on."""
    for reason, number in skipped.items():
        stage.say(f"left out {number} rows: {reason.replace('_', ' ')}")


def tune(
    stage: Stage, base: Artifact, settings: FineTune, run_rank: RunRank, packed: Windows, validation: Windows,
    made: str, cluster: Cluster, prompt: tuple[dict[str, str], ...] = (),
) -> dict[str, Any]:  # fmt: skip
    """Trains `base`'s model on windows, which are `made` of rows. Returns what to add to the stage's counts."""
    path, length = stage.scratch("windows.npz"), packed.sequence_length
    write_windows(path, packed, validation)
    per_step = max(1, settings.batch_tokens // length)
    steps = max(1, math.ceil(settings.epochs * len(packed) / per_step))
    stage.say(f"{made} in {len(packed):,} windows, {steps} steps")
    job = FineTuneJob(
        directory=storage.absolute(stage.directory), settings=settings, sequence_length=length,
        windows_per_step=per_step, steps=steps, **_placing(cluster),
        base=_where(base), windows=storage.absolute(path), sample_prompt=prompt,
    )  # fmt: skip
    fit(stage, run_rank, job, cluster)
    return {"steps": steps, "config": base.manifest.counts["config"], **_final(stage)}


def fit(stage: Stage, run_rank: RunRank, job: Job, cluster: Cluster) -> None:
    """Runs the job's ranks under Ray Train until the model is made, showing lines and metrics as they come.

    A worker or node that dies is replaced `cluster.train_retries` times, from the newest checkpoint. Raises the
    UserError or MachineError that a rank raised.
    """
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    messages = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})  # not on a node that may be lost
    gpus = cluster.train_gpus
    fewest, most = cluster.workers
    if gpus is None:
        gpus = ray.cluster_resources().get("GPU", 0) >= fewest
    resources: dict[str, float] = {"CPU": cluster.train_cpus or 1, **({"GPU": 1} if gpus else {})}
    filesystem, inner = storage.resolve(stage.scratch("ray"))
    trainer = TorchTrainer(
        _rank,
        train_loop_config={
            "run_rank": run_rank, "job": job, "messages": messages, "threads": cluster.train_cpus
        },
        torch_config=TorchConfig(
            backend="nccl" if gpus else "gloo", timeout_s=cluster.collective_seconds
        ),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(fewest, most) if most > fewest else most,  # type: ignore[arg-type]  # as below
            use_gpu=gpus, resources_per_worker=resources,
            # Several CPU workers are for using several machines; GPU workers want to be near each other.
            placement_strategy="PACK" if gpus else "SPREAD",
        ),
        run_config=ray.train.RunConfig(
            name=stage.stage, storage_path=inner, storage_filesystem=filesystem,
            failure_config=ray.train.FailureConfig(max_failures=cluster.train_retries),
            worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},  # type: ignore[call-arg]  # mypy sees the older class
        ),
    )  # fmt: skip
    raised: list[BaseException] = []

    def fitting() -> None:
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001 (raised again below, in the thread that waits)
            raised.append(error)

    # In a thread of its own: this one shows the lines, and an interrupt reaches it at once.
    thread = threading.Thread(target=fitting, daemon=True)
    thread.start()
    failures: list[Exception] = []
    while thread.is_alive() or not messages.empty():
        try:
            message = messages.get(timeout=0.5)
        except Empty:
            continue
        if isinstance(message, UserError | MachineError):
            failures.append(message)
        else:
            show(stage, message)
    messages.shutdown()
    if failures:
        raise failures[0]
    if raised:
        traceback.print_exception(raised[0], file=sys.stderr)
        causes = getattr(raised[0], "worker_failures", {}) or {0: raised[0]}
        first = (str(next(iter(causes.values()))).strip().splitlines() or [""])[-1]
        raise MachineError(
            f"training failed {cluster.train_retries + 1} times ({first[:200]}): the same command goes on from the "
            "newest checkpoint"
        ) from raised[0]


def show(stage: Stage, message: Line | Evaluation | Note) -> None:
    """On the screen, and to MLflow. An ordinary line takes the last one's place; the one at an evaluation stays."""
    if isinstance(message, Line):
        stage.metrics(message.metrics(), message.step)
        if message.step == message.steps or message.step == 1:
            stage.say(message.text())
        else:
            stage.screen.progress(f"  {message.text()}")
    elif isinstance(message, Evaluation):
        stage.metrics(message.metrics, message.step)
        named = ((name if "/" in name else name.replace("_", " "), value) for name, value in message.metrics.items())
        told = " | ".join(f"{name} {value:.4f}" for name, value in named)
        if told:
            stage.say(f"step {message.step} | {told}")
        if message.sample:
            stage.say(f"  {message.sample[:150]}")
    else:
        stage.say(message.text)


def _rank(config: dict[str, Any]) -> None:
    """What each Ray Train worker runs."""
    run_rank, job, messages = config["run_rank"], config["job"], config["messages"]
    context = ray.train.get_context()
    threads = config["threads"] or max(1, len(os.sched_getaffinity(0)) // context.get_local_world_size())

    def emit(message: Line | Evaluation | Note) -> None:
        messages.put(message)

    def notice() -> bool:
        """Of any of the workers' nodes: Ray drains a node that its cloud is about to take back."""
        return ray.train.get_preemption_info() is not None

    try:
        run_rank(job, emit, threads, notice)
    except (UserError, MachineError) as error:
        # Every rank meets these alike, and trying again would meet them again: told to the driver, not to Ray Train.
        if context.get_world_rank() == 0:
            messages.put(error)


def literals(recipe: Recipe, section: str) -> dict[str, Any]:
    """What a training section adds to its stage's identity."""
    literals = recipe.identity(section)[section]
    return {key: value for key, value in literals.items() if key not in NOT_IDENTITY}


def _placing(cluster: Cluster) -> dict[str, Any]:
    """What a job is told of where it runs."""
    names = ("device_batch_tokens", "shard", "compile", "recompute", "notice_seconds")
    return {name: getattr(cluster, name) for name in names}


def _where(artifact: Artifact) -> tuple[str, str]:
    return storage.absolute(artifact.directory), artifact.content_hash


def _curve(stage: Stage) -> list[dict[str, float]]:
    return [json.loads(line) for line in storage.read_bytes(stage.path(CURVE)).decode().splitlines()]


def ends(stage: Stage, name: str) -> tuple[float, float] | tuple[None, None]:
    """A metric's first and last value."""
    values = [point[name] for point in _curve(stage) if name in point]
    return (values[0], values[-1]) if values else (None, None)


def _final(stage: Stage) -> dict[str, float]:
    """The last value of every metric of the curve."""
    last: dict[str, float] = {}
    for point in _curve(stage):
        last |= point
    del last["step"]
    return last


def _prompt(read: list[rows.Row], percent: float) -> tuple[dict[str, str], ...]:
    """What precedes the first answer of the first held-out conversation (of any, if none is held out)."""
    for row in [*(row for row in read if held_out(row, percent)), *read]:
        messages = row.get("messages")
        if not isinstance(messages, list):
            continue
        roles = [message.get("role") for message in messages]
        if "assistant" in roles[1:]:
            return tuple(messages[: roles.index("assistant")])
    return ()
