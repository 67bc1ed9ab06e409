"""Personal data: what is replaced, what only looks like it, and that no text takes long."""

from __future__ import annotations

import time

import pytest

from webtochat.curate.pii import replaced
from webtochat.recipe_pages import PII

ALL = PII(phone="+1 555 0100")


@pytest.mark.parametrize(("text", "kind", "clean"), [
    ("Write to ann.lee+x@mail.co.uk today.", "email", "Write to email@example.com today."),
    ("<bob_1@x-y.org>", "email", "<email@example.com>"),
    ("联系me@x.com谢谢", "email", "联系email@example.com谢谢"),
    ("'//ann@x.com'", "email", "'//email@example.com'"),
    ("from 8.8.8.8, port 53", "ipv4", "from 192.0.2.1, port 53"),
    ("at 2001:4860:4860::8888.", "ipv6", "at 2001:db8::1."),
    ("card 4111 1111 1111 1111 ok", "card", "card 0000 0000 0000 0000 ok"),
    ("card 5500-0000-0000-0004", "card", "card 0000 0000 0000 0000"),
    ("call +44 20 7946 0958 now", "phone", "call +1 555 0100 now"),
    ("call (212) 555-0199.", "phone", "call +1 555 0100."),
])  # fmt: skip
def test_it_is_replaced_and_counted(text: str, kind: str, clean: str) -> None:
    assert replaced(text, ALL) == (clean, {kind: 1})
    assert replaced(clean, ALL) == (clean, {})


@pytest.mark.parametrize("text", [
    "a @ b.com", "user@localhost", "192.168.0.1 and 127.0.0.1", "version 1.2.3.4.5", "999.1.1.1", "at 12:30:45 it was",
    "fe80::1", "4111 1111 1111 1112", "0000 0000 0000 0000", "in 1999-2004", "ISBN 978-3-16-148410-0", "pi 3.14159265",
    "scope::resolution", "price 12345678",
])  # fmt: skip
def test_what_only_looks_like_it_stays(text: str) -> None:
    assert replaced(text, ALL) == (text, {})


def test_the_recipe_chooses() -> None:
    text = "ann@mail.example.org at 8.8.8.8"
    assert replaced(text, PII(email=None, ipv4="<ip>"))[0] == "ann@mail.example.org at <ip>"
    assert replaced("call (212) 555-0199", PII()) == ("call (212) 555-0199", {})


@pytest.mark.parametrize("piece", ["a", "a.", "1", "1.", "1 ", "1:", "4-", "+", "+1", "(", "a@", "a@b.", "12-"])
def test_time_is_linear(piece: str) -> None:
    began = time.process_time()
    replaced(piece * (400_000 // len(piece)), ALL)
    assert time.process_time() - began < 2
