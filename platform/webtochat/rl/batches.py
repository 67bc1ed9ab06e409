"""A step's rollouts as tensors, shared out to ranks and cut into passes, so that no way of doing it changes the sum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields

import torch
from torch import Tensor

from webtochat.rl.rollouts import Row


@dataclass
class Micro:
    """What one pass takes: B answers, padded on the right. Position t predicts target t; what is told of a token stands
    where it is predicted."""

    tokens_BT: Tensor
    targets_BT: Tensor
    mask_BT: Tensor
    """float32; 1 where the model drew the target."""
    sampled_BT: Tensor
    places_B: Tensor
    """Of each answer in the step; -1 of padding that makes ranks equal."""
    rewards_B: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)
    """What is computed once a step: advantages, old log-probabilities and the like, each [B, T]."""

    def to(self, device: torch.device) -> Micro:
        moved = {each.name: getattr(self, each.name).to(device) for each in fields(self) if each.name != "extra"}
        return Micro(**moved)


def minibatches(
    rows: Sequence[Row], groups: Sequence[int], number: int, passes: int | None, rank: int, world: int, pad: int
) -> list[list[Micro]]:
    """This rank's passes of each of `number` minibatches. Groups stay together; which go where follows from their order
    alone. `passes`: most tokens of one; None: one pass.

    Answers are dealt to ranks by length, as many to each, and cut by the longest of each deal: so all ranks make the
    same number of passes, of about as many tokens.
    """
    known = list(dict.fromkeys(groups))
    part = {group: place * number // len(known) for place, group in enumerate(known)}
    made = []
    for wanted in range(min(number, len(known))):
        places = [place for place, group in enumerate(groups) if part[group] == wanted]
        places.sort(key=lambda place: (-len(rows[place]["ids"]), place))
        deals = [places[begin : begin + world] for begin in range(0, len(places), world)]
        made.append([
            _micro(rows, [(deal[rank], True) if rank < len(deal) else (deal[0], False) for deal in some], pad)
            for some in _cut(deals, [len(rows[deal[0]]["ids"]) for deal in deals], passes)
        ])  # fmt: skip
    return made


def _cut(deals: list[list[int]], lengths: list[int], passes: int | None) -> list[list[list[int]]]:
    """Lengths fall, so a pass is as long as its first deal."""
    found: list[list[list[int]]] = []
    longest = 0
    for deal, length in zip(deals, lengths, strict=True):
        if not found or (passes is not None and (len(found[-1]) + 1) * longest > passes):
            found.append([])
            longest = length
        found[-1].append(deal)
    return found


def _micro(rows: Sequence[Row], chosen: list[tuple[int, bool]], pad: int) -> Micro:
    """`chosen`: places in `rows`, and whether they are there as themselves or as padding."""
    shape = len(chosen), max(len(rows[place]["ids"]) for place, _ in chosen)
    tokens_BT = torch.full(shape, pad)
    own_BT, sampled_BT = torch.zeros(shape), torch.zeros(shape)
    for line, (place, real) in enumerate(chosen):
        row, end = rows[place], len(rows[place]["ids"])
        tokens_BT[line, :end] = torch.tensor(row["ids"])
        own_BT[line, :end] = torch.tensor(row["own"], dtype=torch.float32) * real
        sampled_BT[line, :end] = torch.tensor(row["logprobs"], dtype=torch.float32)
    return Micro(
        tokens_BT[:, :-1], tokens_BT[:, 1:], own_BT[:, 1:], sampled_BT[:, 1:],
        torch.tensor([place if real else -1 for place, real in chosen]),
        torch.tensor([float(rows[place]["reward"]) for place, _ in chosen]),
    )  # fmt: skip
