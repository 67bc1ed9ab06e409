"""Checkpoints to resume from: model, optimizer, trainer state and random states, by torch.distributed.checkpoint.

Training waits while everything is copied in memory; a thread writes the copy, its ranks talking over a process group of
their own. What that costs besides: the weights and moments once more, in the host's memory.

`step-00000400/` counts once `checkpoint.json` stands in it, which rank 0 writes last: with the size and hash of every
file, so that an interrupted or damaged checkpoint is passed over for the one before it. Locally the directory is
written aside and renamed; remotely each rank uploads its own files, then the manifest follows.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from pydantic import BaseModel, ValidationError
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.staging import DefaultStager, StagingOptions
from torch.distributed.checkpoint.state_dict import get_state_dict, set_state_dict

from webtochat import storage
from webtochat.artifact import FileHash, hash_of
from webtochat.errors import MachineError, UserError
from webtochat.train.loop import State

# torch says so of every save and load in one process, which is what is meant.
warnings.filterwarnings("ignore", "torch.distributed is disabled")

FORMAT = 1
MANIFEST = "checkpoint.json"


class Checkpoint(BaseModel):
    format: int = FORMAT
    world: int
    state: State
    parameters: dict[str, list[int]]
    """Shape of each, by name."""
    files: dict[str, FileHash]


class Checkpointer:
    """Saves into and restores from one directory, local or remote. `keep`: complete checkpoints that are not pruned."""

    def __init__(
        self, directory: str, model: nn.Module, optimizers: Sequence[torch.optim.Optimizer], keep: int = 2
    ):
        self.directory = directory
        self.model = model
        self.optimizers = list(optimizers)
        self.keep = max(1, keep)
        self.world = dist.get_world_size() if dist.is_initialized() else 1
        self.rank = dist.get_rank() if dist.is_initialized() else 0
        self._group = dist.new_group(backend="gloo") if self.world > 1 else None
        self._thread = ThreadPoolExecutor(1)
        self._writing: Future[None] | None = None

    def save(self, state: State) -> None:
        """Copies what belongs to the checkpoint of this step; it is written, and older ones are pruned, while training
        goes on. Every rank calls it, and `finish` at the end.

        Raises MachineError if the one before could not be written; those before it stand.
        """
        self.finish()
        # A stager of each save's own: one that is used again hands out its earlier copies.
        stager = DefaultStager(StagingOptions(False, False, False, False))
        content = stager.stage(self._content(self.world))
        assert isinstance(content, dict), "staged at once, as no option asks for a thread"
        self._writing = self._thread.submit(self._write, content, state.model_copy(deep=True), self._shapes())

    def finish(self) -> None:
        """Waits until what was saved stands. Raises as `save` does."""
        if self._writing is not None:
            pending, self._writing = self._writing, None
            pending.result()

    def _write(self, content: dict[str, Any], state: State, shapes: dict[str, list[int]]) -> None:
        name = f"step-{state.step:08d}"
        path, aside = storage.join(self.directory, name), self._aside(name)
        if self.rank == 0:
            shutil.rmtree(aside, ignore_errors=True)
        self._together()
        with _unwritable(path):
            os.makedirs(aside, exist_ok=True)
            dcp.save(content, checkpoint_id=aside, no_dist=self.world == 1, process_group=self._group)
            files = self._own_files(aside)
            if storage.is_remote(path):
                for each in files:
                    with storage.writing(storage.join(path, each)) as target:
                        shutil.copyfile(os.path.join(aside, each), target)
            gathered = self._gathered(files)
            if self.rank == 0:
                manifest = Checkpoint(world=self.world, state=state, parameters=shapes, files=gathered)
                written = manifest.model_dump_json().encode()
                if storage.is_remote(path):
                    storage.write_bytes(storage.join(path, MANIFEST), written)
                    shutil.rmtree(aside, ignore_errors=True)
                else:
                    storage.write_bytes(os.path.join(aside, MANIFEST), written)
                    shutil.rmtree(path, ignore_errors=True)
                    os.rename(aside, path)
                self._prune()
        self._together()

    def restore(self) -> State | None:
        """Loads the newest complete checkpoint in place. None: there is none.

        Raises UserError, in one line, for another model's checkpoint or one of a newer version.
        """
        if self.rank == 0:
            storage.delete_partial(self.directory)
        chosen = self._newest() if self.rank == 0 else None
        if self.world > 1:
            box = [chosen]
            dist.broadcast_object_list(box, src=0)
            chosen = box[0]
        if chosen is None:
            return None
        path, found = chosen
        self._same_shape(path, found)
        content = self._content(found.world)
        local = storage.local_copy(path, hash_of({name: file.sha256 for name, file in found.files.items()}))
        dcp.load(content, checkpoint_id=local, no_dist=self.world == 1)
        set_state_dict(
            self.model, self.optimizers,
            model_state_dict=content["model"], optim_state_dict=content["optimizer"],
        )  # fmt: skip
        if self.rank < found.world:
            _set_random(content["random"][str(self.rank)])
        return found.state

    def _content(self, saved_world: int) -> dict[str, Any]:
        model, optimizer = get_state_dict(self.model, self.optimizers)
        random = {str(self.rank): _random()} if self.rank < saved_world else {}
        return {"model": model, "optimizer": optimizer, "random": random}

    def _shapes(self) -> dict[str, list[int]]:
        inner = getattr(self.model, "module", self.model)
        return {name: list(each.shape) for name, each in inner.named_parameters()}

    def _same_shape(self, path: str, found: Checkpoint) -> None:
        mine = self._shapes()
        for name in sorted({*mine, *found.parameters}):
            if mine.get(name) != found.parameters.get(name):
                raise UserError(
                    f"the checkpoint {path} is of another model: {name} has shape {found.parameters.get(name)} there "
                    f"and {mine.get(name)} here; delete it or choose another workspace="
                )

    def _aside(self, name: str) -> str:
        if not storage.is_remote(self.directory):
            return os.path.join(os.path.abspath(self.directory), storage.PARTIAL + name)
        key = hashlib.sha256(self.directory.encode()).hexdigest()[:16]
        return os.path.join(tempfile.gettempdir(), f"webtochat-checkpoint-{key}", name)

    def _own_files(self, aside: str) -> dict[str, FileHash]:
        """What this rank wrote: `__<rank>_*`, and on rank 0 the index of the whole."""
        mine = [
            name for name in sorted(os.listdir(aside))
            if name.startswith(f"__{self.rank}_") or (self.rank == 0 and name == ".metadata")
        ]  # fmt: skip
        paths = [os.path.join(aside, name) for name in mine]
        return {
            name: FileHash(size=os.path.getsize(path), sha256=storage.sha256(path))
            for name, path in zip(mine, paths, strict=True)
        }

    def _gathered(self, files: dict[str, FileHash]) -> dict[str, FileHash]:
        if self.world == 1:
            return files
        boxes: list[Any] = [None] * self.world
        dist.all_gather_object(boxes, files, group=self._group)
        return {name: each for box in boxes for name, each in box.items()}

    def _together(self) -> None:
        if self.world > 1:
            dist.barrier(self._group)

    def _newest(self) -> tuple[str, Checkpoint] | None:
        for path in reversed(complete(self.directory)):
            found = read_manifest(path)
            if found is not None and whole(path, found):
                return path, found
        return None

    def _prune(self) -> None:
        kept = complete(self.directory)[-self.keep :]
        entries = storage.files_below(self.directory)
        found = {entry.path[len(self.directory) :].strip("/").split("/")[0] for entry in entries}
        for path in [storage.join(self.directory, name) for name in found]:
            if path not in kept:
                storage.delete(path)


def complete(directory: str) -> list[str]:
    """Directories of the checkpoints whose manifest stands, oldest first."""
    ending = f"/{MANIFEST}"
    found = [entry.path.removesuffix(ending) for entry in storage.files_below(directory) if entry.path.endswith(ending)]
    return [path for path in found if path.rsplit("/", 1)[-1].startswith("step-")]


def read_manifest(path: str) -> Checkpoint | None:
    """None where it is not readable as one. Raises UserError if a newer version wrote it."""
    content = storage.read_bytes(storage.join(path, MANIFEST))
    try:
        head = _Head.model_validate_json(content)
        if head.format > FORMAT:
            raise UserError(
                f"the checkpoint {path} has format {head.format}, and this version reads up to {FORMAT}: "
                "use the newer version, or delete it"
            )
        return Checkpoint.model_validate_json(content)
    except ValidationError:
        return None


class _Head(BaseModel):
    format: int


def whole(path: str, checkpoint: Checkpoint) -> bool:
    """Whether every file has the bytes that were written. Reads all of them."""
    sizes = {entry.path: entry.size for entry in storage.files_below(path)}
    return all(
        sizes.get(storage.join(path, name)) == known.size and storage.sha256(storage.join(path, name)) == known.sha256
        for name, known in checkpoint.files.items()
    )


def _random() -> dict[str, torch.Tensor]:
    states = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_random(states: dict[str, torch.Tensor]) -> None:
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


@contextmanager
def _unwritable(path: str) -> Iterator[None]:
    """torch reports any failure to write as a CheckpointException with the ranks' errors inside."""
    try:
        with storage.machine_faults(path):
            yield
    except CheckpointException as error:
        first = next(iter(error.failures.values()))[0]
        raise MachineError(
            f"the checkpoint {path} could not be written ({' '.join(str(first).split())[:200]}): free space and run "
            "the same command again, which goes on from the one before"
        ) from error
