"""What a sweep decides without training anything: which trials there are, which are stopped, what may be foretold."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from small_training import tiny

from webtochat import artifact
from webtochat.artifact import Artifact, Draft, FileHash
from webtochat.errors import UserError
from webtochat.run import Run, Screen


def reported(scheduler: Any, name: str, *values: tuple[int, float]) -> list[str]:
    """The scheduler's answers to a trial's evaluations at these percents, until it is stopped."""
    trial = SimpleNamespace(trial_id=f"id-{name}", config={"trial": {"recipe": {"name": name}}})
    scheduler.on_trial_add(None, trial)
    told: list[str] = []
    for percent, bits in values:
        told.append(scheduler.on_trial_result(None, trial, {"percent": percent, "validation_bpb": bits}))
        if told[-1] == "STOP":
            break
    return told


def test_a_trial_that_is_not_among_the_best_is_stopped_at_a_rung() -> None:
    from asha import Scheduler
    from trials import Halving

    stopped: list[str] = []
    scheduler = Scheduler(Halving(grace_period=25, reduction_factor=2), stopped.append)
    assert reported(scheduler, "good", (10, 3.0), (25, 2.0), (50, 1.5), (75, 1.3), (100, 1.2)) == ["CONTINUE"] * 5
    assert reported(scheduler, "poor", (10, 9.0), (25, 2.1)) == ["CONTINUE", "STOP"]  # not before the grace period
    assert reported(scheduler, "better", (10, 9.0), (25, 1.9), (50, 1.6)) == ["CONTINUE", "CONTINUE", "STOP"]
    # Between rungs nothing is decided; nor is a trial stopped that has trained to its end.
    assert reported(scheduler, "best", (25, 1.8), (30, 9.0), (50, 1.4), (75, 9.0)) == ["CONTINUE"] * 4
    reported(scheduler, "late", (100, 9.0))
    assert stopped == ["poor", "better"]


def test_what_earlier_attempts_reported_counts() -> None:
    from asha import Scheduler
    from trials import Halving

    stopped: list[str] = []
    scheduler = Scheduler(Halving(grace_period=25, reduction_factor=2), stopped.append)
    scheduler.remember("good", {100: 2.0, 200: 1.5, 400: 1.2}, 400)
    assert stopped == []
    assert reported(scheduler, "poor", (25, 2.1)) == ["STOP"]
    assert stopped == ["poor"]


def entry_of(home: Path, **changes: object) -> Any:
    from trials import Entry, named

    return Entry.of(named(("pretrain.lr=1e-2",)), tiny(home, "trial", **changes), 512)


def test_a_record_is_read_again(tmp_path: Path) -> None:
    from trials import Halving, Record

    entry = entry_of(tmp_path)
    entry.record.evaluations = {20: 1.5, 40: float("inf")}
    entry.record.stopped = Halving(grace_period=25, reduction_factor=4)
    entry.record.write(entry.directory)
    assert Record.read(entry.directory) == entry.record
    assert entry.ended == "stopped at step 40/60 with inf"


def tokens_of(held_out: int) -> Any:
    files = {"validation/shard-00000.bin": FileHash(size=held_out, sha256="")}
    return SimpleNamespace(manifest=SimpleNamespace(files=files))


@pytest.mark.parametrize(("held_out", "every", "told"), [
    (0, 20, "raise tokens.validation_percent"),
    (9, 60, "no evaluation between 50 % of its 60 steps and the end"),
    (9, 0, "no evaluation between"),
    (9, 25, None),
])  # fmt: skip
def test_trials_must_be_judged_before_they_end(tmp_path: Path, held_out: int, every: int, told: str | None) -> None:
    from trials import Halving, judged

    entry = entry_of(tmp_path, pretrain={"evaluate_every": every})
    rules = Halving(grace_period=50, reduction_factor=4)
    if told is None:
        return judged(tokens_of(held_out), [entry], rules)
    with pytest.raises(UserError, match=told):
        judged(tokens_of(held_out), [entry], rules)


@pytest.mark.parametrize(("swept", "given", "told"), [
    (["model.depth=[1,2,3]"], ["model.depth=2"], "is one of the sizes that are swept"),
    (["model.depth=[1,2,3]"], ["model.width=64"], r"each key that is swept \(model.depth\)"),
    (["model.depth=[1,2,3]", "pretrain.lr=[1,2]"], ["model.depth=4", "pretrain.lr=1"], r"all of them model\.\*"),
])  # fmt: skip
def test_only_another_size_is_foretold(swept: list[str], given: list[str], told: str) -> None:
    from trials import foreseen, trials_of

    _, trials = trials_of(swept)
    with pytest.raises(UserError, match=told):
        foreseen(given, trials)
    assert foreseen(["model.depth=6"], trials_of(["model.depth=[1,2]"])[1]).name == "model.depth=6"


def size(home: Path, depth: int, loss: float | None = None) -> Any:
    """A trial of the sweep, trained if it has a loss."""
    from trials import Entry, named

    changes = {"model": {"depth": depth}, "pretrain": {"tokens_per_parameter": 2}}
    entry = Entry.of(named((f"model.depth={depth}",)), tiny(home / "sweep", **changes), 512)
    return trained(entry, loss) if loss is not None else entry


def trained(entry: Any, loss: float) -> Any:
    draft = artifact.begin(f"{entry.directory}/pretrain", "pretrain", {}, [])
    assert isinstance(draft, Draft)
    entry.made = draft.commit(counts={"validation_loss": loss}, summary="")
    return entry


def test_a_prediction_stands_before_its_model(tmp_path: Path) -> None:
    from prediction import compare, foretell

    screen = open(tmp_path / "screen", "w+")  # noqa: SIM115 (until the end)
    run = Run(tiny(tmp_path), Screen(screen))
    kept: dict[str, str] = {}

    def keep(name: str, text: str) -> None:
        kept[name] = text
        path = tmp_path / "sweep" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    sizes = [size(tmp_path, depth, loss) for depth, loss in ((1, 5.0), (2, 4.4), (3, 4.1), (4, 3.9))]
    target = size(tmp_path, 8)
    assert target.flops > 2 * sizes[-1].flops
    told = foretell(run, sizes, target, keep)
    assert list(kept) == ["model.depth=8/prediction.json"] and 3 < told.target.loss < 3.9
    trained(target, 3.5)
    # Run again it is the same one; nothing is foretold anew of what is trained.
    assert foretell(run, sizes, target, keep) == told
    figures = compare(run, told, target, keep)
    assert figures["prediction_error_percent"] == pytest.approx(100 * (told.target.loss / 3.5 - 1))
    assert kept["model.depth=8/scaling.svg"].startswith("<?xml")
    with pytest.raises(UserError, match="was trained before it was foretold"):
        foretell(run, sizes[:3], target, keep)
    with pytest.raises(UserError, match="at least 3 that come to their end"):
        foretell(run, sizes[:2], size(tmp_path, 7), keep)
    screen.seek(0)
    assert "measured 3.5000" in screen.read()


def test_trained_a_little_is_trained(tmp_path: Path) -> None:
    from prediction import foretell

    sizes = [size(tmp_path, depth, loss) for depth, loss in ((1, 5.0), (2, 4.4), (3, 4.1))]
    target = size(tmp_path, 6)
    checkpoint = Path(target.directory) / "pretrain" / "_scratch" / "checkpoints" / "step-00000010"
    checkpoint.mkdir(parents=True)
    (checkpoint / "manifest.json").write_text("{}")
    with pytest.raises(UserError, match="was trained before"):
        foretell(Run(tiny(tmp_path), Screen()), sizes, target, lambda name, text: None)


def test_the_curve_of_a_trial_is_its_evaluations(tmp_path: Path) -> None:
    from trials import best_of, drawn

    one, other = entry_of(tmp_path), entry_of(tmp_path)
    draft = artifact.begin(f"{one.directory}/pretrain", "pretrain", {}, [])
    assert isinstance(draft, Draft)
    Path(draft.path("metrics.jsonl")).write_text(
        '{"step": 0, "validation_bpb": 9.0}\n{"step": 20, "loss": 2.0}\n{"step": 20, "validation_bpb": 1.5}\n'
    )
    made = draft.commit(counts={"validation_bpb": 1.5, "loss": 2.0}, summary="")
    assert isinstance(made, Artifact)
    one.made, other.record.evaluations = made, {20: 1.7}
    assert one.curve() == {20: 1.5} and other.curve() == {20: 1.7} and best_of([other, one]) is one
    assert "1.5000  pretrain.lr=1e-2 (best)" in drawn([one, other])
