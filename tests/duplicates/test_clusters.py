"""Components by stars, against a plain union-find; the order of the edges and their spread change nothing."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from webtochat.duplicates import clusters


def union_find(edges: np.ndarray) -> dict[int, int]:
    """Node → smallest of its component, of those that are not it."""
    above: dict[int, int] = {}

    def top(node: int) -> int:
        while above.setdefault(node, node) != node:
            node = above[node]
        return node

    for one, other in edges.tolist():
        low, high = sorted((top(one), top(other)))
        above[high] = low
    return {node: top(node) for node in above if top(node) != node}


def as_dict(edges: np.ndarray) -> dict[int, int]:
    found = dict(edges.tolist())
    assert len(found) == len(edges)
    return found


edges = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=60).map(
    lambda pairs: np.array([pair for pair in pairs if pair[0] != pair[1]], np.int64).reshape(-1, 2)
)


@settings(max_examples=300, deadline=None)
@given(edges)
def test_components(pairs: np.ndarray) -> None:
    assert as_dict(clusters.components(pairs)) == union_find(pairs)


@settings(max_examples=100, deadline=None)
@given(edges, st.integers(1, 5))
def test_spread_by_node_they_are_the_same(pairs: np.ndarray, partitions: int) -> None:
    before = None
    spread = [pairs[number::partitions] for number in range(partitions)]
    for _ in range(20):
        for large in (True, False):
            turned = np.concatenate([clusters.by_node(part, large) for part in spread])
            spread = [clusters.star(turned[turned[:, 0] % partitions == p], large) for p in range(partitions)]
        prints = [clusters.fingerprint(part) for part in spread]
        now = (sum(count for count, _ in prints), sum(total for _, total in prints) % 2**64)
        if now == before:
            break
        before = now
    assert as_dict(np.concatenate(spread)) == union_find(pairs)


def test_a_long_chain_takes_few_rounds() -> None:
    chain = np.stack([np.arange(1, 100_000), np.arange(99_999)], axis=1)
    found = clusters.components(np.random.default_rng(1).permutation(chain))
    assert len(found) == 99_999 and (found[:, 1] == 0).all()


def test_groups_tie_their_members_to_the_first() -> None:
    groups = np.array([[5, 0], [7, 0], [5, 0], [5, 1], [7, 0], [7, 0]], np.uint64)
    members = np.array([30, 20, 10, 40, 21, 20])
    assert sorted(clusters.edges_of_groups(groups, members).tolist()) == [[21, 20], [30, 10]]
    assert clusters.edges_of_groups(np.empty((0, 2), np.uint64), np.empty(0, np.int64)).shape == (0, 2)
