"""Finds duplicates over the cluster. Documents meet in groups by a Ray Data shuffle; the clusters of near duplicates
are the components of the graph that the groups tie, found in rounds of shuffles (clusters.py): no machine holds all
edges. What fits into one task is done in one, by the same functions.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import ray

from webtochat import storage
from webtochat.duplicates import clusters, signatures

ALONE_ROWS = 4_000_000
"""Meetings that one task takes (100 MB, 270,000 documents): a shuffle costs seconds to start."""
PARTITION_ROWS = 2_000_000
FOUND = pa.schema([("part", pa.int64()), ("row", pa.int64()), ("kept", pa.int64()), ("exact", pa.bool_())])
"""A document that is not the first of its kind; the key of the one that is; whether their texts are the same."""


def find(
    files: list[tuple[str, int]], starts: list[int], directory: str, exact: bool, near: bool,
    alone_rows: int = ALONE_ROWS, partition_rows: int = PARTITION_ROWS,
) -> None:  # fmt: skip
    """Writes, for each run of parts, the documents in it that go: `directory`/00000.parquet … (`FOUND`); none for a run
    of which nothing goes. `files`: (signature file, number of its part); `starts`: the first part of each run. Parts
    below the first start are earlier artifacts', of which nothing goes."""
    if not files or not (exact or near):
        return
    rows: list[dict[str, Any]] = [{"path": path, "part": part} for path, part in files]
    met = sum(ray.get([_count.remote(path) for path, _ in files]))
    if met <= alone_rows:
        ray.get(_alone.remote(rows, starts, directory, exact, near))
    else:
        _spread(rows, starts, directory, exact, near, -(-met // partition_rows))


@ray.remote(num_cpus=1)
def _count(path: str) -> int:
    return signatures.meetings_in(path)


@ray.remote(num_cpus=1)
def _alone(rows: list[dict[str, Any]], starts: list[int], directory: str, exact: bool, near: bool) -> None:
    tied = _tied(pa.concat_tables([signatures.meetings(row["path"], row["part"], exact, near) for row in rows]))
    found = pa.concat_tables([_table(clusters.components(_pairs(tied))), _copies(tied)])
    _write(_with_run(found, starts), directory)


def _spread(
    rows: list[dict[str, Any]], starts: list[int], directory: str, exact: bool, near: bool, partitions: int
) -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.target_max_block_size = None  # else a partition may be cut, and a group with it
    listed: Any = ray.data.from_items(rows, override_num_blocks=len(rows))
    met = listed.map_batches(_meetings, batch_size=1, fn_kwargs={"exact": exact, "near": near})
    tied = _each(_by(met, "first", partitions), _tied).materialize()
    edges, before = tied, None
    while (now := _fingerprint(edges)) != before:
        before = now
        for large in (True, False):
            edges = _each(_by(_each(edges, _turned, large=large), "node", partitions), _star, large=large)
        edges = edges.materialize()
    found = _each(edges.union(_each(tied, _copies)), _with_run, starts=starts)
    _each(_by(found, "run", min(partitions, len(starts))), _write, directory=directory).materialize()


def _each(data: Any, function: Callable[..., pa.Table], **arguments: Any) -> Any:
    return data.map_batches(function, batch_size=None, batch_format="pyarrow", fn_kwargs=arguments)


def _by(data: Any, column: str, partitions: int) -> Any:
    return data.repartition(partitions, keys=[column])


def _meetings(batch: dict[str, np.ndarray], exact: bool, near: bool) -> pa.Table:
    return signatures.meetings(str(batch["path"][0]), int(batch["part"][0]), exact, near)


def _tied(met: pa.Table) -> pa.Table:
    """(node, other, exact): an edge from each document of a group to its first."""
    made = []
    for exact in (True, False):
        group = met.filter(pa.array(met["exact"].to_numpy(zero_copy_only=False) == exact))
        numbers = np.stack([group["first"].to_numpy(), group["second"].to_numpy()], axis=1)
        edges = clusters.edges_of_groups(numbers, group["document"].to_numpy())
        made.append(_table(edges, exact))
    return pa.concat_tables(made)


def _copies(tied: pa.Table) -> pa.Table:
    return tied.filter(tied["exact"])


def _turned(edges: pa.Table, large: bool) -> pa.Table:
    return _table(clusters.by_node(_pairs(edges), large))


def _star(edges: pa.Table, large: bool) -> pa.Table:
    return _table(clusters.star(_pairs(edges), large))


def _fingerprint(edges: Any) -> tuple[int, int]:
    parts = _each(edges, _fingerprint_of).take_all()
    return sum(part["count"] for part in parts), sum(int(part["total"]) for part in parts) % (1 << 64)


def _fingerprint_of(edges: pa.Table) -> pa.Table:
    count, total = clusters.fingerprint(_pairs(edges))
    return pa.table({"count": [count], "total": pa.array([total], pa.uint64())})


def _with_run(found: pa.Table, starts: list[int]) -> pa.Table:
    """Without the earlier artifacts' documents; with the run that each document's part is in."""
    parts = signatures.part_and_row(found["node"].to_numpy())[0]
    runs = np.searchsorted(starts, parts, side="right") - 1
    return found.append_column("run", pa.array(runs, pa.int64())).filter(pa.array(runs >= 0))


def _write(found: pa.Table, directory: str) -> pa.Table:
    """A file for each run. Of a document there is an edge of its cluster, and one more if it is an exact copy."""
    order = found.sort_by([("node", "ascending"), ("exact", "ascending")])
    nodes, exact = order["node"].to_numpy(), order["exact"].to_numpy(zero_copy_only=False)
    first = np.flatnonzero(~exact)
    copied = np.isin(nodes[first], nodes[exact])
    parts, rows = signatures.part_and_row(nodes[first])
    told = pa.table([parts, rows, order["other"].to_numpy()[first], copied], schema=FOUND)
    runs = order["run"].to_numpy()[first]
    for run in np.unique(runs):
        with storage.writing(path_of(directory, int(run))) as local:
            pq.write_table(told.filter(pa.array(runs == run)), local)
    return pa.table({"written": [len(told)]})


def path_of(directory: str, run: int) -> str:
    return storage.join(directory, f"{run:05d}.parquet")


def _pairs(edges: pa.Table) -> np.ndarray:
    return np.stack([edges["node"].to_numpy(), edges["other"].to_numpy()], axis=1)


def _table(edges: np.ndarray, exact: bool = False) -> pa.Table:
    return pa.table({"node": edges[:, 0], "other": edges[:, 1], "exact": np.full(len(edges), exact)})
