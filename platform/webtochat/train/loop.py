"""The one training loop: pretraining and fine-tuning differ by their batches and their loss, not by their loop.

It knows nothing of Ray or MLflow. It runs in one process, or on every rank of a process group that somebody else has
set up (torchrun, Ray Train), with the model wrapped in DistributedDataParallel or sharded by FSDP2.
"""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from pydantic import BaseModel
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from webtochat.errors import UserError
from webtochat.train.line import Line

USUAL_STEPS = 50
"""Steps whose median is the usual loss."""
Micro = TypeVar("Micro")
"""What one forward pass takes; only the batch source and the loss look inside."""


class State(BaseModel):
    """Where a run stands: with the model, the optimizer and the random states, all that a resumed run needs."""

    step: int = 0
    windows: int = 0
    """Consumed of the permuted order: the whole state of the data."""
    tokens: int = 0
    """Positions trained on."""
    seconds: float = 0.0
    """Spent in steps, over all attempts."""
    saving: float = 0.0
    """Seconds that training waited for checkpoints, over all attempts."""
    curve: list[dict[str, int | float]] = []
    """About 200 points of the training metrics, and every evaluation. Without times, so that it resumes exactly."""


@dataclass(frozen=True)
class Plan:
    """How long, and how often what."""

    steps: int
    windows_per_step: int
    """Global, over ranks and accumulated passes."""
    tokens_per_step: int
    clip: float
    evaluate_every: int
    checkpoint_every: int
    spike: float | None = None
    """Nats above the usual loss at which a run stops."""
    line_seconds: float = 5.0
    notice_seconds: float = 5.0
    """Between two calls of `notice`."""
    flops_per_token: float = 0.0
    peak_flops: float | None = None
    """Per second, of all devices together; None where the device is not known."""

    @property
    def curve_every(self) -> int:
        return max(1, self.steps // 200)

    def due(self, every: int, step: int) -> bool:
        return step == self.steps or (every > 0 and step % every == 0)


@dataclass
class Meter:
    """Speed since the last line, and the time left. Evaluations and checkpoints count in the time left only."""

    plan: Plan
    first_step: int
    started: float = field(default_factory=time.perf_counter)
    since: float = field(default_factory=time.perf_counter)
    steps: int = 0
    waited: float = 0.0
    aside: float = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.waited += time.perf_counter() - began

    @contextmanager
    def beside(self) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.aside += time.perf_counter() - began

    def due(self) -> bool:
        return time.perf_counter() - self.since >= self.plan.line_seconds

    def line(self, step: int, loss: float, norm: float, lr: float) -> Line:
        now = time.perf_counter()
        seconds = max(now - self.since - self.aside, 1e-9)
        rate = self.steps * self.plan.tokens_per_step / seconds
        peak = self.plan.peak_flops
        left = (self.plan.steps - step) * (now - self.started) / max(1, step - self.first_step)
        line = Line(
            step=step, steps=self.plan.steps, loss=loss, norm=norm, lr=lr,
            mfu=rate * self.plan.flops_per_token / peak if peak else None,
            tokens_per_second=rate, data=self.waited / seconds, eta_seconds=left,
        )  # fmt: skip
        self.since, self.steps, self.waited, self.aside = now, 0, 0.0, 0.0
        return line


class Diverged(UserError):
    """A step whose loss or gradient norm is no number, or whose loss jumped. Only the last checkpoint counts."""

    def __init__(self, step: int, loss: float, norm: float, usual: float | None):
        jumped = "" if usual is None else f", {usual:.4f} before"
        super().__init__(
            f"training diverged at step {step} (loss {loss:.4f}{jumped}, gradient norm {norm:.4f}): lower lr= or raise "
            "warmup_fraction=, and run again with --rebuild"
        )
        self.step, self.loss, self.norm, self.usual = step, loss, norm, usual

    def __reduce__(self) -> tuple[type[Diverged], tuple[Any, ...]]:
        """How it travels from a worker."""
        return Diverged, (self.step, self.loss, self.norm, self.usual)


Loss = Callable[[nn.Module, Any], tuple[Tensor, Tensor]]
"""(model, what one forward pass takes) → the summed loss, and the weight by which the global sum is divided."""


def train(
    *,
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    lr_at: Callable[[int], float],
    batches: Callable[[int], Sequence[Any]],
    loss: Loss,
    plan: Plan,
    state: State,
    save: Callable[[State], None],
    evaluate: Callable[[State], dict[str, float]],
    log: Callable[[Line], None],
    notice: Callable[[], bool] | None = None,
) -> State:
    """Trains from `state` to the end of the plan.

    `batches(consumed)` gives this rank's share of the step that begins after `consumed` windows, cut for one forward
    pass each. `save` and `evaluate` are called on every rank at the same steps, `evaluate` also before the first one.
    `log` is called for a line every few seconds, on rank 0 only. `notice` tells whether a machine is about to be taken
    away; it is called on every rank at the same steps, some seconds apart, and answered by a checkpoint, once.

    Raises Diverged when the loss or the gradient is no longer finite, or the loss jumps; nothing of that is saved.
    """
    world = dist.get_world_size() if dist.is_initialized() else 1
    first = world == 1 or dist.get_rank() == 0
    if state.step == 0:
        state.curve.append({"step": 0, **evaluate(state)})
    model.train()
    meter = Meter(plan, state.step)
    unread: list[tuple[int, Tensor]] = []
    usual: deque[float] = deque(maxlen=USUAL_STEPS)
    source = shares(batches, plan, state, ahead=next(model.parameters()).is_cuda)
    asked, noticed, before = time.perf_counter(), notice is None, None
    while state.step < plan.steps:
        began = time.perf_counter()
        with meter.waiting():
            share = next(source)
        lr = lr_at(state.step)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr * group.get("times", 1.0)
        ask = first and not noticed and time.perf_counter() - asked >= plan.notice_seconds
        asked = time.perf_counter() if ask else asked
        taken = take_step(model, optimizers, share, loss, plan.clip, world, ask)
        state.step += 1
        state.windows += plan.windows_per_step
        state.tokens += plan.tokens_per_step
        state.seconds += time.perf_counter() - began
        meter.steps += 1
        unread.append((state.step, taken))

        evaluating = plan.due(plan.evaluate_every, state.step)
        saving = plan.due(plan.checkpoint_every, state.step)
        # Rank 0's clock says when to ask; it is read a step late, so that no device waits for it.
        if not noticed and before is not None and before[2] > 0:
            assert notice is not None
            noticed = notice()
            saving = saving or noticed
        before = taken
        drawing = plan.due(plan.curve_every, state.step)
        # The same steps on every rank, so that all of them stop together.
        if drawing or evaluating or saving:
            sane(unread, usual, plan.spike)
            unread.clear()
        if drawing:
            value, norm, _ = taken.tolist()
            state.curve.append({"step": state.step, "loss": value, "norm": norm, "lr": lr})
        if first and (drawing or evaluating or meter.due()):
            value, norm, _ = taken.tolist()
            log(meter.line(state.step, value, norm, lr))
        if evaluating:
            with meter.beside():
                state.curve.append({"step": state.step, **evaluate(state)})
            model.train()
        if saving:
            began = time.perf_counter()
            with meter.beside():
                save(state)
            state.saving += time.perf_counter() - began
    return state


def shares(
    batches: Callable[[int], Sequence[Any]], plan: Plan, state: State, ahead: bool
) -> Iterator[Sequence[Any]]:
    """This rank's share of each step that is left. `ahead`: the next one is made in a thread meanwhile; not on the CPU,
    where torch in a second thread would start a second set of OpenMP threads for the same cores."""
    end = state.windows + (plan.steps - state.step) * plan.windows_per_step
    starts = range(state.windows, end, plan.windows_per_step)
    if not ahead:
        yield from map(batches, starts)
        return
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(batches, starts[0])
        for following in starts[1:]:
            share, coming = coming.result(), thread.submit(batches, following)
            yield share
        yield coming.result()


def take_step(
    model: nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    share: Sequence[Any],
    loss: Loss,
    clip: float,
    world: int,
    ask: bool = False,
) -> Tensor:
    """One optimizer step on the ranks' shares of a batch. Returns, on the device, [loss, gradient norm before clipping,
    number of ranks that `ask`].

    The gradient is that of the global sum of losses over the global sum of weights, whatever the number of ranks and
    passes: each pass adds the gradient of its sum, and the division is folded into the clipping.
    """
    sums: Tensor | None = None
    for number, micro in enumerate(share, 1):
        last = number == len(share)
        if isinstance(model, FSDPModule):
            model.set_requires_gradient_sync(last)
        with nullcontext() if last or not isinstance(model, DistributedDataParallel) else model.no_sync():
            total, weight = loss(model, micro)
            total.backward()
        both = torch.stack([total.detach().double(), weight.double()])
        sums = both if sums is None else sums + both
    assert sums is not None, "a batch has at least one pass"
    sums = torch.cat([sums, sums.new_full((1,), float(ask))])
    if world > 1:
        dist.all_reduce(sums)
    weights = torch.where(sums[1] > 0, sums[1], 1.0)
    gradients = [each.grad for each in model.parameters() if each.grad is not None]
    factor = (world / weights).float()  # the ranks' gradients were averaged
    norm = _whole(nn.utils.get_total_norm(gradients)) * factor
    shares = [each.to_local() if isinstance(each, DTensor) else each for each in gradients]
    torch._foreach_mul_(shares, factor * (clip / (norm + 1e-6)).clamp(max=1.0))
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return torch.stack([sums[0] / weights, norm.double(), sums[2]])


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if isinstance(value, DTensor) else value


def sane(unread: list[tuple[int, Tensor]], usual: deque[float], spike: float | None) -> None:
    """Raises Diverged at the first step whose loss or gradient norm is not a number, or whose loss lies `spike` nats
    above the median of the steps before it. `usual` holds those."""
    if not unread:
        return
    for (step, _), (value, norm, _) in zip(unread, torch.stack([each for _, each in unread]).tolist(), strict=True):
        if not (math.isfinite(value) and math.isfinite(norm)):
            raise Diverged(step, value, norm, None)
        if spike is not None and len(usual) == USUAL_STEPS and value > statistics.median(usual) + spike:
            raise Diverged(step, value, norm, statistics.median(usual))
        usual.append(value)
