"""URL lists: what a recipe may name, which addresses they mean, and what they cost."""

from __future__ import annotations

from pathlib import Path

import pytest

from webtochat.curate.urls import Blocklists
from webtochat.errors import UserError
from webtochat.recipe_pages import URLs


def lists(**named: list[str]) -> Blocklists:
    return Blocklists.of(URLs.model_validate(named))


def test_domains_and_the_hosts_below_them(tmp_path: Path) -> None:
    listed = tmp_path / "hosts.txt"
    listed.write_text("# comment\nSpam.Example  # why\n\nco.test\n")
    found = lists(domains=[str(listed), "One.example"])
    assert len(found.domains) == 3
    for url in ("http://spam.example/x", "https://www.SPAM.example:8080/", "http://a.b.co.test", "http://one.example."):
        assert found.reason(url) == "blocked_domain", url
    for url in ("http://notspam.example", "http://example", "http://test/one.example", "http://[broken", "nonsense"):
        assert found.reason(url) is None, url


def test_addresses_and_what_is_below_them() -> None:
    found = lists(addresses=["http://www.a.example/bad/", "https://b.example/x?id=1"])
    for url in (
        "https://a.example/bad",
        "http://www.a.example/bad/page.html",
        "http://A.example/BAD?x",
        "http://b.example/x?id=1",
    ):
        assert found.reason(url) == "blocked_address", url
    for url in ("http://a.example/", "http://a.example/badly", "http://b.example/x", "http://b.example/x?id=2"):
        assert found.reason(url) is None, url


def test_words() -> None:
    found = lists(words=["Casino"], soft_words=["free", "cams"], substrings=["xxporn"])
    assert found.reason("http://a.example/the-casino/x") == found.reason("http://casino.example/") == "blocked_word"
    assert found.reason("http://a.example/casinos") is None and found.reason("http://free.example/x") is None
    assert found.reason("http://free.example/cams?x") == "blocked_soft_words"
    assert found.reason("http://myxxporny.example/") == "blocked_substring"


def test_ut1_folders(tmp_path: Path) -> None:
    for category, (domains, urls) in {
        "games": ("g.example\n", "h.example/games\n"),
        "bank": ("k.example\n", ""),
    }.items():
        (tmp_path / "ut1" / category).mkdir(parents=True)
        (tmp_path / "ut1" / category / "domains").write_text(domains)
        (tmp_path / "ut1" / category / "urls").write_text(urls)
    whole, one = str(tmp_path / "ut1"), str(tmp_path / "ut1" / "games")
    assert lists(domains=[whole]).reason("http://k.example") == "blocked_domain"
    found = lists(domains=[one], addresses=[one])
    assert (
        found.reason("http://k.example") is None and found.reason("http://www.h.example/games/1") == "blocked_address"
    )


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for entry in ("none.txt", "empty"):
        with pytest.raises(UserError, match=r"measure\.urls\.domains"):
            lists(domains=[str(tmp_path / entry)])


def test_hundreds_of_thousands_cost_eight_bytes_each(tmp_path: Path) -> None:
    listed = tmp_path / "many.txt"
    listed.write_text("\n".join(f"host-{number}.example" for number in range(200_000)))
    found = lists(domains=[str(listed)])
    assert found.domains.nbytes == 8 * 200_000
    assert found.reason("http://www.host-199999.example/") == "blocked_domain"
    assert found.reason("http://www.host-200000.example/") is None
    assert found.fingerprint() == lists(domains=[str(listed)]).fingerprint() != lists().fingerprint()
