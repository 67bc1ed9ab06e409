"""MinHash signatures of texts (Broder 1997), in buckets (Leskovec, Rajaraman and Ullman 2020, section 3.4): two texts
whose sets of shingles have Jaccard similarity s share a bucket with probability 1 - (1 - s^rows)^buckets.

Pure and independent of the process: the same text has the same signature on any machine, in any run.
"""

from __future__ import annotations

import hashlib
import unicodedata
from functools import lru_cache
from itertools import chain

import numpy as np
import regex

from webtochat.memo import Memo
from webtochat.recipe_pages import NearDuplicates

# Scripts that are written without spaces: each character is a word.
_WORD = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]|[\p{L}\p{N}]+")
_MARKS = regex.compile(r"\p{M}+")
_DIGITS = regex.compile(r"\p{N}+")
_AT_ONCE = 256
"""Shingles that are permuted together: 112 permutations of so many take 230 KB, which a core's cache holds."""


def words_of(text: str) -> list[str]:
    """Words as they are compared: in lower case, without accents, numbers as 0, marks left out."""
    text = text.lower()
    if not text.isascii():
        text = _MARKS.sub("", unicodedata.normalize("NFD", text))
    return _WORD.findall(_DIGITS.sub("0", text))


def runs(text: str, size: int) -> np.ndarray:
    """A 64-bit number for each run of `size` words (R,); none for a shorter text."""
    numbers = _numbers_of(text)
    return _hashed(numbers, size) if len(numbers) >= size else np.empty(0, np.uint64)


def shingles(text: str, size: int) -> np.ndarray:
    """The same; one for the whole of a shorter text, none for an empty one."""
    numbers = _numbers_of(text)
    return _hashed(numbers, min(size, len(numbers))) if len(numbers) else numbers


def _numbers_of(text: str) -> np.ndarray:
    """Of each word; none reaches over a space."""
    return np.fromiter(chain.from_iterable(map(_NUMBERS.__getitem__, text.split())), np.uint64)


def _hashed(numbers: np.ndarray, size: int) -> np.ndarray:
    count = len(numbers) - size + 1
    hashed = np.zeros(count, np.uint64)
    for start in range(size):
        hashed = _mixed(hashed ^ numbers[start : start + count])
    return hashed


def buckets(text: str, settings: NearDuplicates) -> np.ndarray:
    """The number of the text's bucket in each of `settings.buckets` tables; of no two tables the same. (B,) uint64,
    (0,) for a text without words."""
    hashed = shingles(text, settings.shingle_words)
    if not len(hashed):
        return np.empty(0, np.uint64)
    factors, offsets = _permutations(settings.buckets * settings.rows, settings.seed)
    least = np.full(len(factors), np.iinfo(np.uint64).max, np.uint64)
    for start in range(0, len(hashed), _AT_ONCE):
        permuted = factors[:, None] * hashed[start : start + _AT_ONCE] + offsets[:, None]
        np.minimum(least, permuted.min(axis=1), out=least)
    found = np.arange(1, settings.buckets + 1, dtype=np.uint64)
    for row in least.reshape(settings.buckets, settings.rows).T:
        found = _mixed(found ^ row)
    return found


def _numbers(piece: str) -> tuple[int, ...]:
    words = [hashlib.blake2b(word.encode("utf-8", "replace"), digest_size=8) for word in words_of(piece)]
    return tuple(int.from_bytes(word.digest(), "little") for word in words)


_NUMBERS = Memo(_numbers)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """splitmix64 (Steele, Lea and Flood 2014): every bit of the input changes half of the output's."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))


@lru_cache(maxsize=4)
def _permutations(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """x → factor * x + offset modulo 2^64; an odd factor makes it a permutation."""
    raw = hashlib.shake_256(f"minhash {seed}".encode()).digest(16 * count)
    factors, offsets = np.frombuffer(raw, "<u8").astype(np.uint64).reshape(2, count)
    return factors | np.uint64(1), offsets
