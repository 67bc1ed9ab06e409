"""Checkpoints: what a killed run goes on from, and what is never loaded."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from small_training import ROOT, job_of, quiet, tiny

from webtochat.errors import MachineError, UserError
from webtochat.recipe import Optimizer
from webtochat.train import checkpoint
from webtochat.train.checkpoint import Checkpointer
from webtochat.train.loop import State
from webtochat.train.optimizer import adamw
from webtochat.train.rank import Note, pretrain_rank

TRAIN = """
import sys
sys.path[:0] = [{root!r} + "/platform", {root!r} + "/tests/train"]
from pathlib import Path
from small_training import job_of, quiet, tiny
from webtochat.train.rank import pretrain_rank
pretrain_rank(job_of(tiny(Path(sys.argv[1])), Path(sys.argv[2])), quiet, 1)
"""


def started(workspace: Path, directory: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", TRAIN.format(root=str(ROOT)), str(workspace), str(directory)])


def hashes(directory: Path) -> dict[str, str]:
    """Of what the stage hands on."""
    files = [directory / "metrics.jsonl", *sorted((directory / "model").iterdir())]
    return {str(file.relative_to(directory)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def test_killed_twice_it_makes_the_same_model(workspace: Path, tmp_path: Path) -> None:
    """SIGKILL of a real process after its first checkpoints, wherever it then is; no bit of the result differs."""
    pretrain_rank(job_of(tiny(workspace), tmp_path / "undisturbed"), quiet, 1)
    disturbed = tmp_path / "disturbed"
    checkpoints = disturbed / "_scratch" / "checkpoints"
    for wanted in ("step-00000010", "step-00000030"):
        process = started(workspace, disturbed)
        deadline = time.monotonic() + 120
        while not any(each.name >= wanted for each in checkpoints.glob("step-*")):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    told: list[object] = []
    pretrain_rank(job_of(tiny(workspace), disturbed), told.append, 1)
    notes = [each.text for each in told if isinstance(each, Note)]
    assert len(notes) == 2 and notes[0].startswith("going on from the checkpoint of step ")
    assert hashes(disturbed) == hashes(tmp_path / "undisturbed")


def small(width: int = 8) -> tuple[torch.nn.Module, list[torch.optim.Optimizer]]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, width), torch.nn.Linear(width, 1))
    return model, [adamw(dict(model.named_parameters()), Optimizer())]


def saved(directory: Path, steps: list[int], keep: int = 2) -> tuple[torch.nn.Module, list[torch.optim.Optimizer]]:
    """A model trained for a step before each checkpoint."""
    model, [optimizer] = small()
    for step in steps:
        model(torch.ones(2, 4)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        checkpointer = Checkpointer(str(directory), model, [optimizer], keep)
        checkpointer.save(State(step=step, windows=8 * step))
        checkpointer.finish()
    return model, [optimizer]


def test_everything_comes_back_and_old_ones_go(tmp_path: Path) -> None:
    model, optimizer = saved(tmp_path, [1, 2, 3])
    assert sorted(each.name for each in tmp_path.iterdir()) == ["step-00000002", "step-00000003"]
    drawn = torch.rand(3)
    saved_state = torch.get_rng_state()
    checkpointer = Checkpointer(str(tmp_path), model, optimizer)
    checkpointer.save(State(step=4, windows=32))
    checkpointer.finish()
    other, other_optimizer = small()
    torch.manual_seed(5)
    state = Checkpointer(str(tmp_path), other, other_optimizer).restore()
    assert state == State(step=4, windows=32)
    assert torch.equal(torch.get_rng_state(), saved_state) and not torch.equal(torch.rand(3), drawn)
    for mine, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        for key in ("exp_avg", "exp_avg_sq", "step"):
            assert torch.equal(optimizer[0].state[mine][key], other_optimizer[0].state[theirs][key])


def test_training_goes_on_while_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is what stood when it was saved."""
    model, [optimizer] = small()
    model(torch.ones(2, 4)).sum().backward()
    optimizer.step()
    weights = [each.detach().clone() for each in model.parameters()]
    moved, write = threading.Event(), checkpoint.dcp.save

    def late(*positional: Any, **named: Any) -> Any:
        assert moved.wait(10)
        return write(*positional, **named)

    monkeypatch.setattr(checkpoint.dcp, "save", late)
    checkpointer, state = Checkpointer(str(tmp_path), model, [optimizer]), State(step=1)
    checkpointer.save(state)
    optimizer.step()
    state.step = 2
    state.curve.append({"step": 2})
    moved.set()
    checkpointer.finish()
    other, others = small()
    assert Checkpointer(str(tmp_path), other, others).restore() == State(step=1)
    assert all(torch.equal(one, two) for one, two in zip(other.parameters(), weights, strict=True))


@pytest.mark.parametrize("damage", ["no manifest", "a file is missing", "a file is cut", "a flipped bit", "aside"])
def test_what_is_not_whole_is_passed_over(tmp_path: Path, damage: str) -> None:
    saved(tmp_path, [1, 2])
    newest = tmp_path / "step-00000002"
    data = next(newest.glob("*.distcp"))
    if damage == "no manifest":
        (newest / checkpoint.MANIFEST).unlink()
    elif damage == "a file is missing":
        data.unlink()
    elif damage == "a file is cut":
        os.truncate(data, data.stat().st_size // 2)
    elif damage == "a flipped bit":
        content = bytearray(data.read_bytes())
        content[len(content) // 2] ^= 1
        data.write_bytes(content)
    else:
        newest.rename(tmp_path / ".partial-step-00000002")
    model, optimizer = small()
    state = Checkpointer(str(tmp_path), model, optimizer).restore()
    assert state is not None and state.step == 1
    assert not (tmp_path / ".partial-step-00000002").exists()


def test_nothing_to_restore(tmp_path: Path) -> None:
    assert Checkpointer(str(tmp_path / "none"), *small()).restore() is None


def test_another_model_is_refused_in_one_line(tmp_path: Path) -> None:
    saved(tmp_path, [1])
    with pytest.raises(UserError, match=r"of another model: 0\.bias has shape \[8\] there and \[16\] here") as raised:
        Checkpointer(str(tmp_path), *small(16)).restore()
    assert "\n" not in str(raised.value)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    saved(tmp_path, [1])
    manifest = tmp_path / "step-00000001" / checkpoint.MANIFEST
    manifest.write_text(json.dumps({"format": 99, "something": "new"}))
    with pytest.raises(UserError, match="has format 99, and this version reads up to 1"):
        Checkpointer(str(tmp_path), *small()).restore()


def test_where_it_cannot_be_written_the_ones_before_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, optimizer = saved(tmp_path, [1])

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.dcp, "save", full)
    checkpointer = Checkpointer(str(tmp_path), model, optimizer)
    checkpointer.save(State(step=2))
    with pytest.raises(MachineError, match="no space left"):
        checkpointer.finish()
    monkeypatch.undo()
    state = Checkpointer(str(tmp_path), *small()).restore()
    assert state is not None and state.step == 1


def test_a_finished_run_hands_on_again_without_training(workspace: Path, tmp_path: Path) -> None:
    """Killed between the last checkpoint and the export: nothing but the export is done again."""
    recipe = tiny(workspace, pretrain={"tokens": 20 * 256})
    pretrain_rank(job_of(recipe, tmp_path), quiet, 1)
    before = hashes(tmp_path)
    shutil.rmtree(tmp_path / "model")
    told: list[object] = []
    pretrain_rank(job_of(recipe, tmp_path), told.append, 1)
    assert hashes(tmp_path) == before
    assert [each for each in told if not isinstance(each, Note)] == []
