"""Which blocks of a page are its main content: a convolutional network of some 5,000 numbers over the blocks in order,
so that a block is judged with its neighbours and with the page. Trained by benchmarks/extract.py on pages whose main
content people marked; main_content.json holds its weights.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from webtochat.curate.blocks import ABOVE, Block, Page

TAGS = ("p", "h1", "h2", "h3", "h4", "li", "tr", "pre", "blockquote", "dd", "dt", "figcaption", "div")
LEVELS = 5
"""Elements above a block of which is told how much text they hold."""
LONG, SHOWN = 240, 100
"""Characters from which on words are estimated, and of which capitals and digits are counted: to look at all of
each would cost 1 ms a page."""
WEIGHTS = Path(__file__).with_suffix(".json")
_WORD = re.compile(r"\w+")
_UPPER = re.compile(r"[A-Z]")
_DIGIT = re.compile(r"[0-9]")
_ENDS = frozenset(".!?:;。！？”\"')")


def main_content(page: Page) -> list[Block]:
    """The blocks that are main content, in order; of a page with text at least one."""
    return chosen(page, _weights()) if page.blocks else []


def chosen(page: Page, weights: dict[str, np.ndarray]) -> list[Block]:
    """Blocks with a probability above one half; of a page that has none, those above half of the largest."""
    shares = probabilities(features(page), sizes(page), weights)
    least = min(0.5, shares.max() / 2)
    return [block for block, share in zip(page.blocks, shares, strict=True) if share > least]


def sizes(page: Page) -> np.ndarray:
    """Characters of each block (N,)."""
    return np.array([len(block.text) for block in page.blocks], np.float32)


def features(page: Page) -> np.ndarray:
    """What is known of each block (N, F), about 0 to 1 each."""
    blocks = page.blocks
    count = len(blocks)
    texts = [block.text for block in blocks]
    characters = sizes(page)
    linked = np.array([block.link_characters for block in blocks], np.float32)
    words = [_WORD.findall(text.lower()) if len(text) < LONG else () for text in texts]
    number = np.array([len(found) for found in words], np.float32) + (characters >= LONG) * characters / 6
    shown = np.minimum(characters, SHOWN)
    in_title = set(_WORD.findall(page.title.lower()))
    titled = [len(in_title.intersection(found)) / (len(found) + 1) for found in words]
    seen: dict[str, int] = {}
    for text in texts:
        seen[text] = seen.get(text, 0) + 1
    whole, end = max(1.0, characters.sum()), np.cumsum(characters)
    own = np.stack([
        np.log1p(characters) / 5, np.log1p(number) / 3, linked / characters,
        np.array([len(_UPPER.findall(text, 0, SHOWN)) for text in texts]) / shown,
        np.array([len(_DIGIT.findall(text, 0, SHOWN)) for text in texts]) / shown,
        np.array([text.count(",") + text.count(". ") for text in texts]) / (number + 1),
        np.array([text[-1] in _ENDS for text in texts]),
        np.array([min(5, text.count(" | ")) for text in texts]) / 5, np.array(titled),
        np.array([seen[text] > 1 for text in texts]), np.array(["©" in text for text in texts]),
        np.arange(count) / count, end / whole, (end - characters) / whole, characters / np.maximum(1, number) / 10,
        np.array([block.depth for block in blocks]) / 20, np.full(count, np.log1p(count) / 5),
        np.full(count, np.log1p(whole) / 8), np.full(count, linked.sum() / whole),
    ], axis=1)  # fmt: skip
    tag_numbers = {tag: place for place, tag in enumerate(TAGS)} | {"h5": TAGS.index("h4"), "h6": TAGS.index("h4")}
    tags = np.eye(len(TAGS) + 1)[[tag_numbers.get(block.tag, len(TAGS)) for block in blocks], :-1]
    bits = np.array([[block.above, block.near] for block in blocks], np.int64)
    above = (bits[:, :, None] >> np.arange(len(ABOVE)) & 1).reshape(count, -1)
    found = np.concatenate([own, tags, above, _elements(page, characters, linked, whole)], axis=1)
    return found.astype(np.float32)


def _elements(page: Page, characters: np.ndarray, linked: np.ndarray, whole: float) -> np.ndarray:
    """Of the `LEVELS` nearest elements above each block: how much text they hold in how many blocks, how much of it is
    link, and the part of the page's text that it is."""
    inside = np.array([block.element for block in page.blocks])
    ones = np.ones(len(inside))
    size = len(page.parents)
    held = np.stack([np.bincount(inside, weight, size) for weight in (characters, linked, ones)], axis=1)
    totals = held.tolist()
    for element in range(size - 1, 0, -1):  # an element's number is larger than that of those above it
        above, own = totals[page.parents[element]], totals[element]
        above[0] += own[0]
        above[1] += own[1]
        above[2] += own[2]
    text, link, number = np.array(totals).T
    text_1, number_1 = np.maximum(1, text), np.maximum(1, number)
    table = np.stack(
        [np.log1p(text) / 5, link / text_1, np.log1p(number) / 3, text / whole, text / number_1 / 200], axis=1
    )
    parents, at, found = np.array(page.parents), inside, []
    for _ in range(LEVELS):
        found.append(table[at])
        at = parents[at]
    return np.concatenate(found, axis=1)


def probabilities(features_NF: np.ndarray, sizes_N: np.ndarray, weights: dict[str, np.ndarray]) -> np.ndarray:
    """The network: a layer on each block, two convolutions over 5 blocks (the second 4 apart) with what went in added,
    and the page's mean by characters and its maximum added to every block."""
    hidden_NH = _relu((features_NF - weights["mean"]) / weights["deviation"] @ weights["in"] + weights["in_bias"])
    for name, apart in (("near", 1), ("far", 4)):
        kernel, reach = weights[name], 2 * apart  # (5, H, H)
        padded = np.pad(hidden_NH, ((reach, reach), (0, 0)))
        around = [padded[place * apart : place * apart + len(hidden_NH)] for place in range(5)]
        gathered = np.concatenate(around, axis=1) @ kernel.reshape(-1, kernel.shape[-1])
        hidden_NH = _relu(gathered + weights[f"{name}_bias"]) + hidden_NH
    share_N = sizes_N / sizes_N.sum()
    page = np.concatenate([share_N @ hidden_NH, hidden_NH.max(axis=0)])
    hidden_NH = _relu(hidden_NH + page @ weights["page"] + weights["page_bias"])
    return 1 / (1 + np.exp(-np.maximum(hidden_NH @ weights["out"] + weights["out_bias"], -80)))  # no overflow


def _relu(values: np.ndarray) -> np.ndarray:
    return np.maximum(values, 0)


@lru_cache(maxsize=1)
def _weights() -> dict[str, np.ndarray]:
    held: dict[str, Any] = json.loads(WEIGHTS.read_text())
    return {name: np.array(values, np.float32) for name, values in held.items()}
