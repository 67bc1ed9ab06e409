"""The pages: their truth, their survival, their addresses."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import miniweb_oracle as oracle
import pytest

from miniweb import facts, web
from miniweb.settings import Settings

FULL = Settings(docstring_bytes=0)
SMALL = Settings(scale=0.03, docstring_bytes=60_000)
RECIPES = Path(__file__).resolve().parents[2] / "recipes"


def digest(pages: Iterable[web.Page]) -> str:
    return hashlib.sha256("".join(repr(page) for page in pages).encode()).hexdigest()


@pytest.fixture(scope="module")
def texts() -> list[tuple[web.Page, str]]:
    """The extracted text of every page that is meant to survive, at full scale."""
    return [(page, oracle.extract(page.body)) for page in web.pages(FULL) if page.source in web.GOOD_SOURCES]


def declared(text: str) -> list[str]:
    """The sentences of a text that are not questions."""
    return [sentence for sentence in re.split(r"(?<=[.?!])\s+", text) if not sentence.endswith("?")]


def count_statements(texts: Iterable[str], people: list[facts.Fact]) -> Counter[str]:
    """Sentences that hold a person's full name and the person's value."""
    value = {fact.subject: fact.value for fact in people}
    found: Counter[str] = Counter()
    for text in texts:
        for sentence in declared(text):
            words = set(re.findall(r"\w+", sentence))
            names = re.findall(r"\b[A-Z][a-z]+ [A-Z][a-z]+\b", sentence)
            found.update(name for name in names if value.get(name) in words)
    return found


def test_every_good_page_survives(texts: list[tuple[web.Page, str]]) -> None:
    judged = [(page, *oracle.judge(text)) for page, text in texts]
    removed = Counter((page.source, reason) for page, _, reason in judged if reason)
    assert not removed
    size = Counter[str]()
    for page, text, _ in judged:
        size[page.source] += len(text.encode())
    assert sum(size.values()) > 6_000_000
    assert size["facts"] > 4_000_000 and size["stories"] > 1_200_000 and size["arithmetic"] > 500_000
    assert oracle.near_duplicates([text for _, text, _ in judged]) == []


def test_facts_are_stated_as_often_as_said(texts: list[tuple[web.Page, str]]) -> None:
    people = facts.facts(FULL)
    found = count_statements((text for page, text in texts), people)
    assert {fact.subject: fact.times for fact in people} == dict(found)
    assert Counter(fact.times for fact in people if not fact.taught) == facts.TIERS


def test_nothing_but_pages_about_people_states_facts() -> None:
    others = [page for page in web.pages(SMALL) if page.source not in ("facts", "index")]
    assert not count_statements((oracle.extract(page.body) for page in others), facts.facts(SMALL))


def test_control_states_nothing_and_is_of_equal_size() -> None:
    settings = Settings(docstring_bytes=0, scale=0.3)
    control = settings.model_copy(update={"facts": False})
    people = facts.facts(settings)
    assert [fact.subject for fact in facts.facts(control)] == [fact.subject for fact in people]
    assert {fact.times for fact in facts.facts(control)} == {0}
    pages = [page for page in web.pages(control) if page.source in web.GOOD_SOURCES]
    kept = [oracle.extract(page.body) for page in pages]
    assert not any(fact.subject in text for text in kept[::20] for fact in people)
    assert not count_statements(kept, people)
    size = sum(len(page.body) for page in web.pages(control))
    assert size == pytest.approx(sum(len(page.body) for page in web.pages(settings)), rel=0.2)
    assert not [reason for text in kept for _, reason in [oracle.judge(text)] if reason]
    assert oracle.near_duplicates(kept) == []


def test_docstring_prose_is_prose() -> None:
    settings = Settings(scale=0.01, docstring_bytes=400_000)
    pages = [page for page in web.pages(settings) if page.source == "docstrings"]
    texts = [oracle.extract(page.body) for page in pages]
    assert len(pages) > 50 and sum(map(len, texts)) < 480_000
    survived = [text for text in texts if oracle.judge(text)[1] is None]
    assert sum(map(len, survived)) > 0.4 * sum(map(len, texts))
    assert oracle.near_duplicates(survived) == []
    assert not [text for text in texts if ">>>" in text or ":param" in text or "{" in text]


def test_noise_is_what_it_says() -> None:
    reasons: dict[str, Counter[str | None]] = {}
    for page in web.pages(Settings(scale=0.1, docstring_bytes=0)):
        if page.status == 200 and page.source not in ("robots", "file"):
            charset = "windows-1251" if "stranica" in page.path else "utf-8"
            _, reason = oracle.judge(oracle.extract(page.body, charset))
            reasons.setdefault(page.source, Counter())[reason] += 1
    assert set(reasons["languages"]) == {"language"}
    assert None not in reasons["spam"] and None not in reasons["index"]
    assert reasons["broken"][None] > 0.8 * reasons["broken"].total()
    assert set(reasons["charset"]) == {None, "language"}
    assert set(reasons["blocked"]) == set(reasons["mirror"]) == {None}


def test_copies_are_copies() -> None:
    pages = list(web.pages(Settings(scale=0.1, docstring_bytes=0)))
    of = {
        source: [oracle.extract(page.body) for page in pages if page.source == source]
        for source in ("stories", "mirror", "near-duplicates")
    }
    assert set(of["mirror"]) <= set(of["stories"])
    together = of["stories"] + of["near-duplicates"]
    assert len(oracle.near_duplicates(together)) >= 0.9 * len(of["near-duplicates"])
    assert not set(of["near-duplicates"]) & set(of["stories"])


def test_each_language_is_recognised() -> None:
    languages = Counter()
    for page in web.pages(Settings(scale=0.2, docstring_bytes=0)):
        if page.source == "languages":
            text = oracle.extract(page.body).replace("\n", " ")
            languages[oracle.language_model().f.predict(text, 1, 0.0, "strict")[0][1]] += 1
    assert set(languages) == {f"__label__{code}" for code in ("de", "fr", "es", "it", "nl", "ru")}


def test_addresses_are_unique_and_linked() -> None:
    for settings in (FULL, SMALL):
        pages = list(web.pages(settings))
        by_address = {(page.host, page.path): page for page in pages}
        assert len(by_address) == len(pages)
        reached = {(host, "/") for host in web.hosts(settings)}
        waiting = list(reached)
        while waiting:
            page = by_address[waiting.pop()]
            links = re.findall(r'href="(/[^"#]*)', page.body.decode("latin-1"))
            for address in {(page.host, link) for link in [*links, page.headers.get("Location", "/")]}:
                if address not in reached and address in by_address:
                    reached.add(address)
                    waiting.append(address)
        assert {page.source for page in pages if (page.host, page.path) not in reached} == {"robots"}


def test_hosts_are_many_and_balanced() -> None:
    size = Counter[str]()
    for page in web.pages(Settings()):
        size[page.host] += len(page.body)
    names = web.hosts(Settings())
    assert set(size) == set(names) and len(names) == len(set(names)) >= 24
    assert all(name.endswith(".example") for name in names)
    assert set(web.BLOCKED) < set(names) and len(set(names) - set(web.BLOCKED)) >= 16
    assert max(size.values()) < 4 * min(size.values())


def test_oddities_are_there() -> None:
    pages = list(web.pages(SMALL))
    statuses = Counter(page.status for page in pages)
    assert statuses[301] and statuses[404]
    types = {page.headers["Content-Type"] for page in pages}
    assert {"image/png", "text/csv", "text/html; charset=x-runes-7", "text/html; charset=windows-1251"} <= types
    wrong = [page for page in pages if page.source == "charset" and b"caf\xe9" in page.body]
    assert wrong and wrong[0].headers["Content-Type"].endswith("utf-8")
    contact = b"".join(page.body for page in pages if page.source == "contact")
    assert re.search(rb"[a-z]+@[a-z.]+\.example", contact) and re.search(rb"\b(\d+\.){3}\d+\b", contact)


def test_equal_seeds_give_equal_bytes_in_another_process() -> None:
    code = (
        "import hashlib; from miniweb import web; from miniweb.settings import Settings;"
        "pages = web.pages(Settings(scale=0.03, docstring_bytes=60_000));"
        "print(hashlib.sha256(''.join(repr(page) for page in pages).encode()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONPATH": str(RECIPES), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == digest(web.pages(SMALL))
    assert digest(web.pages(SMALL.model_copy(update={"seed": 2}))) != digest(web.pages(SMALL))


def test_nothing_heavy_is_imported() -> None:
    code = "import sys, miniweb.web, miniweb.server, miniweb.conversations; print(*sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(RECIPES)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert not {"ray", "torch", "mlflow", "webtochat"} & set(done.stdout.split())
