"""The chat page in a browser: what tools did is shown, and text of theirs stays text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.curate.test_report import ATTACK, Browser, browser  # noqa: F401 (a fixture)
from tests.serving.fake import Served, served
from tests.serving.test_assistant import END, Search, call

from webtochat.tools.python import Python
from webtochat.tools.tool import Source, ToolResult


class Hostile(Search):
    def call(self, arguments: dict[str, Any]) -> ToolResult:
        sources = (Source(ATTACK, "javascript:document.title='run'"), Source("", "https://b.example/" + ATTACK))
        return ToolResult(ATTACK, sources=sources)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("fake"), [Python(), Hostile()]) as running:
        yield running


def said(browser: Browser, here: Served, question: str, *texts: str) -> None:  # noqa: F811
    here.engine.told(*texts)
    browser.run("document.querySelector('#text').focus()")
    browser("Input.insertText", text=question)
    browser.press("Enter")
    browser.until("document.querySelector('#send').textContent === 'Send' && !document.querySelector('.waiting')")


def test_what_tools_did_is_shown(browser: Browser, here: Served) -> None:  # noqa: F811
    browser.open(f"http://127.0.0.1:{here.port}/")
    browser.until("document.querySelector('#tools').getAttribute('aria-pressed') === 'true'")
    said(
        browser, here, "What is it?", "I **look**." + call("python", code="6 * 7") + END,
        call("web_search", query=ATTACK) + call("python", code="1 / 0") + END, "It is *42*. [2]" + END,
    )  # fmt: skip
    kinds = "[...document.querySelector('.assistant > div').children].map(each => each.className || each.tagName)"
    assert browser.run(kinds) == ["DIV", "tool", "tool", "tool", "DIV", "sources", "sources"]
    summaries = "[...document.querySelectorAll('summary')].map(each => each.textContent)"
    assert browser.run(summaries) == ["Ran a program", "Searched the web: " + ATTACK, "Ran a program (failed)"]
    assert browser.run("[...document.querySelectorAll('.tool pre')].map(each => each.textContent)") == [
        "6 * 7", "42\n", ATTACK, "1 / 0"
    ]  # fmt: skip
    assert "ZeroDivisionError" in browser.run("document.querySelector('.tool .wrong').textContent")
    assert browser.run("document.querySelector('.tool').open") is False
    browser.click(".tool summary")
    assert browser.run("document.querySelector('.tool').open") is True
    # An address that is none is text; the answer's source is the one that it names.
    assert browser.run("[...document.querySelectorAll('.tool li a')].map(each => each.protocol)") == [":", "https:"]
    named = "[...document.querySelectorAll('.sources + .sources a')].map(each => each.hostname)"
    assert browser.run(named) == ["b.example"]
    assert browser.run("document.querySelector('.sources + .sources li').value") == 2
    assert browser.run("document.title") == "webtochat" and browser.complaints() == []
    assert "tool" in here.engine.tokenizer.decode(here.engine.asked[1]["prompt"])


def test_tools_are_switched_off_and_the_conversation_goes_on(browser: Browser, here: Served) -> None:  # noqa: F811
    browser.open(f"http://127.0.0.1:{here.port}/")
    browser.until("!document.querySelector('#tools').hidden")
    browser.click("#tools")
    said(browser, here, "Who?", "Ada." + END)
    said(browser, here, "And?", "Bo." + END)
    prompt = here.engine.tokenizer.decode(here.engine.asked[0]["prompt"])
    assert "Tools" not in prompt and "Who?<|im_end|><|im_start|>assistant<|im_sep|>Ada.<|im_end|>" in prompt
    assert browser.run("document.querySelectorAll('.tool').length") == 0
