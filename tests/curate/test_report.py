"""A curation run as a page: what it says, that no text gets out of its place, and that it works in a browser."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import time
from collections.abc import Iterator
from fcntl import F_DUPFD, fcntl
from pathlib import Path
from typing import Any

import pytest

from webtochat.curate.report import CHARACTERS, Sample, Step, html

RUN = "document.title='run'"
ATTACK = f'</script><script>{RUN}</script><img src=x onerror="{RUN}"><!-- ' + "{{data}} \u2028"
LONG = "line\n" * 40 + "needle (a+b)"
STEPS = [
    Step("url", 5_021, {"blocked_domain": 224}, 0, 0.31),
    Step("read", 4_797, {"damaged": 9, "timeout": 3}, 12, None),
    Step("http", 4_785, {}, 0, None),
    Step("gopher_repetition", 4_785, {"max_top_2gram": 21, "max_duplicate_5grams": 238}, 0, 8.0),
    Step("duplicates", 4_526, {"near_duplicate": 127}, 0, 112.4),
]
SAMPLES = [
    *(Sample("gopher_repetition", "max_duplicate_5grams", f"https://{n}.example/", f"Five {n}", "so on", 0.23, 0.15)
      for n in range(70)),
    Sample("duplicates", "near_duplicate", "https://copy.example/", None, LONG, None, None, "kept: x"),
    Sample("url", "blocked_domain", "https://bad.example/" + ATTACK, ATTACK, ATTACK, None, None, ATTACK),
    Sample("url", "blocked_domain", None, "a\ud800b", "nul \0 esc \x1b right \u202e\u05d0\u05d1 left", 404, None),
]  # fmt: skip


def page(steps: list[Step] = STEPS, samples: list[Sample] = SAMPLES) -> str:
    return html("Curation of demo", "kept 4,399 of 5,021 pages", steps, samples)


def data(text: str) -> Any:
    return json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])


def test_numbers_add_up() -> None:
    assert [step.pages_out for step in STEPS] == [4_797, 4_785, 4_785, 4_526, 4_399]
    text = re.sub(r"<wbr>|<title>.*?</title>", "", page(), flags=re.DOTALL)
    table = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in text.split("<table>")[1].split("<tr")[2:]]
    rows = [[re.sub("<[^>]*>", "", cell) for cell in row] for row in table]
    assert rows[0] == ["url", "5,021", "4,797", "224", "4.5%", "0", "0.31", "0.062"]
    assert rows[2] == ["read", "4,797", "4,785", "12", "0.2%", "12", "–", "–"]
    assert [row[0] for row in rows[6:9]] == ["gopher_repetition", "max_duplicate_5grams", "max_top_2gram"]
    assert rows[-1][:6] == ["all", "5,021", "4,399", "622", "12.4%", "12"]
    assert "max_duplicate_5grams: 238\nmax_top_2gram: 21</title>" in page()


def bars(text: str) -> list[dict[str, float]]:
    """By row of the funnel: where each of its bars ends."""
    found = []
    for drawn in re.findall(r"<svg.*?</svg>", text, re.DOTALL):
        rects = re.findall(r'<rect class="(\w+)"(?: x="([\d.]+)")? width="([\d.]+)" height="20"', drawn)
        found.append({kind: float(x or 0) + float(width) for kind, x, width in rects})
    return found


@pytest.mark.parametrize("scale", [1, 200_000])
@pytest.mark.parametrize("count", [1, 3, 15])
def test_the_funnel_holds_its_bars(scale: int, count: int) -> None:
    steps = [Step(f"s{n}", (1_000 - n) * scale, {"r": scale}, 0, None) for n in range(count)]
    steps.append(Step("last", steps[-1].pages_out, {"few": 1}, 1, None))
    drawn = bars(page(steps, []))
    assert len(drawn) == count + 2  # and what is kept
    assert all(end <= 1_000 for row in drawn for end in row.values())
    assert all(row["kept"] < row["removed"] for row in drawn[:-1])
    assert drawn[0]["removed"] >= 999.9


def test_large_counts_are_short_and_shares_honest() -> None:
    text = page([Step("a", 10**9, {"r": 1}, 0, 1.0), Step("b", 10**9 - 1, {"r": 10**9 - 12_345_679}, 0, None)], [])
    assert "1.00B" in text and "12.3M" in text and "&lt;0.1%" in text and "&gt;99.9%" in text


@pytest.mark.parametrize("steps", [
    [], [Step("url", 0, {}, 0, None)], [Step("url", 0, {}, 0, 0.0), Step("c4", 0, {"x": 0}, 0, 1.0)],
    [Step("all", 7, {"gone": 7}, 7, 0.5), Step("none", 0, {}, 0, 0.0)],
])  # fmt: skip
def test_there_may_be_nothing(steps: list[Step]) -> None:
    text = page(steps, [])
    assert "<table>" in text and "nan" not in text.split("<script")[0]
    assert [group["samples"] for group in data(text)] == [[] for step in steps for _ in step.removed]


def test_no_text_leaves_its_place() -> None:
    steps = [Step(ATTACK, 3, {ATTACK + "\ud800\0": 2}, 0, None)]
    text = html(ATTACK, ATTACK, steps, [*SAMPLES, Sample(ATTACK, "r", None, None, ATTACK, float("nan"), 1.0)])
    text.encode()
    assert text.count("<script") == text.count("</script") == 2
    assert "<img" not in text and "\0" not in text and "\u2028" not in text.split("<script", 1)[1]
    assert 'http-equiv="Content-Security-Policy" content="default-src \'none\';' in text
    bad = next(group for group in data(text) if group["reason"] == "blocked_domain")["samples"]
    assert (bad[0]["url"], bad[0]["title"], bad[0]["note"]) == ("https://bad.example/" + ATTACK, ATTACK, ATTACK)
    assert bad[1]["title"] == "a\ufffdb" and bad[1]["text"].startswith("nul ␀ esc ␛ right \u202e")


def test_texts_are_cut() -> None:
    word = "x" * 10_000_000
    begun = time.perf_counter()
    text = page(STEPS, [Sample("c4", "own", word, word, word, 1e300, float("-inf"), word)])
    assert time.perf_counter() - begun < 1 and len(text) < 60_000
    group = data(text)[-1]
    assert (group["total"], len(group["samples"][0]["text"])) == (1, CHARACTERS)
    assert group["samples"][0]["broken"] == "value 1e+300 > threshold -inf"


def test_what_broke_the_rule_is_said_in_words() -> None:
    broken = [
        (0.23, 0.15), (12.0, 50.0), (100_001, 100_000), (404, None), (None, 0.65), (0.5, 0.5), (0.15003, 0.15),
        (10.76, 10),
    ]  # fmt: skip
    samples = [Sample("s", str(n), None, None, "", *pair) for n, pair in enumerate(broken)]
    said = [group["samples"][0]["broken"] for group in data(page([], samples))]
    assert said == [
        "value 0.23 > threshold 0.15", "value 12 < threshold 50", "value 100,001 > threshold 100,000", "value 404", "",
        "value 0.5 = threshold 0.5", "value 0.15003 > threshold 0.15", "value 10.76 > threshold 10",
    ]  # fmt: skip


def test_the_same_bytes_each_time() -> None:
    turned = [Step(s.name, s.pages_in, dict(reversed(s.removed.items())), s.errors, s.seconds) for s in STEPS]
    assert page() == page(turned)


class Browser:
    """Chromium, spoken to over two pipes, as its DevTools are."""

    def __init__(self, binary: str, profile: Path) -> None:
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # Out of the way of 3 and 4, where Chromium looks for them.
        theirs_in, theirs_out = fcntl(theirs_in, F_DUPFD, 20), fcntl(theirs_out, F_DUPFD, 20)
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage"]
        flags += ["--remote-debugging-pipe", f"--user-data-dir={profile}"]
        quiet = [(os.POSIX_SPAWN_OPEN, number, os.devnull, os.O_RDWR, 0) for number in (0, 1, 2)]
        pipes = [(os.POSIX_SPAWN_DUP2, theirs_in, 3), (os.POSIX_SPAWN_DUP2, theirs_out, 4)]
        self.process = os.posix_spawn(binary, [binary, *flags], os.environ, file_actions=[*quiet, *pipes])
        os.close(theirs_in)
        os.close(theirs_out)
        self.reading, self.writing, self.rest, self.asked = ours_in, ours_out, b"", 0
        self.session: str | None = None
        self.events: list[dict[str, Any]] = []
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self.session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log"):
            self(f"{part}.enable")

    def message(self) -> Any:
        while b"\0" not in self.rest:
            assert select.select([self.reading], [], [], 60)[0], "Chromium does not answer"
            self.rest += (got := os.read(self.reading, 1 << 20))
            assert got, "Chromium has gone"
        first, self.rest = self.rest.split(b"\0", 1)
        return json.loads(first)

    def __call__(self, method: str, **params: Any) -> Any:
        self.asked += 1
        session = {"sessionId": self.session} if self.session else {}
        asked = {"id": self.asked, "method": method, "params": params, **session}
        os.write(self.writing, json.dumps(asked).encode() + b"\0")
        while (answer := self.message()).get("id") != self.asked:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, address: str) -> None:
        self.events.clear()
        self("Page.navigate", url="about:blank")
        self("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        done = self("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in done, done
        return done["result"].get("value")

    def until(self, script: str) -> None:
        end = time.monotonic() + 20
        while not self.run(script):
            assert time.monotonic() < end, script
            time.sleep(0.02)

    def press(self, key: str) -> None:
        self("Input.dispatchKeyEvent", type="keyDown", key=key, text=key if len(key) == 1 else "")
        self("Input.dispatchKeyEvent", type="keyUp", key=key)

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        box = self.run(f"document.querySelector({selector!r}).getBoundingClientRect().toJSON()")
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        for kind in ("mousePressed", "mouseReleased"):
            self("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def complaints(self) -> list[Any]:
        """Errors, and what the page's policy refused."""
        self.run("new Promise(done => setTimeout(done, 100))")
        kinds = {"Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled"}
        return [event["params"] for event in self.events if event["method"] in kinds]

    def close(self) -> None:
        os.write(self.writing, b'{"id": 0, "method": "Browser.close"}\0')
        os.waitpid(self.process, 0)
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    binary = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
    if not binary:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("there is no Chromium")
    opened = Browser(str(binary), tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def test_in_a_browser(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(page().encode())
    browser.open(file.as_uri())
    status = "document.querySelector('#status').textContent"
    reasons = "[...new Set([...document.querySelectorAll('article .why')].map(each => each.textContent))]"
    articles = "document.querySelectorAll('article').length"
    assert browser.run(status) == "all reasons: 73 of 622 pages shown"

    browser.click(".reason a[href$='near_duplicate']")
    browser.until("location.hash === '#reason=duplicates.near_duplicate'")
    browser.until(f"{articles} === 1")
    assert browser.run(reasons) == ["duplicates › near_duplicate"]
    assert browser.run(status) == "duplicates.near_duplicate: 1 of 127 pages shown"
    height = "document.querySelector('article pre').clientHeight"
    cut = browser.run(height)
    browser.click("article button")
    assert browser.run(height) > 2 * cut
    assert browser.run("document.querySelector('article .url').closest('a')") is None

    browser.click("#reasons a[href$='max_duplicate_5grams']")
    browser.until(f"{articles} === 30")
    assert browser.run(reasons) == ["gopher_repetition › max_duplicate_5grams  ·  value 0.23 > threshold 0.15"]
    for _ in range(32):
        browser.press("j")
    browser.press("k")
    assert browser.run("document.activeElement.querySelector('h3').textContent") == "Five 30"
    browser.press("/")
    browser("Input.insertText", text="FIVE 6")
    browser.until(f"{status}.startsWith('gopher_repetition.max_duplicate_5grams: 11 found')")
    assert browser.run(articles) == 11

    browser.run("location.hash = '#reason='; search.value = '(A+B)'; search.dispatchEvent(new Event('input'))")
    browser.until(f"{articles} === 1")
    assert browser.run("[...CSS.highlights.get('found')].map(String)") == ["(a+b)"]
    assert not browser.run("document.querySelector('pre').classList.contains('cut')")  # it stood below the cut
    assert browser.complaints() == []


def test_without_a_script(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(page().encode())
    browser("Emulation.setScriptExecutionDisabled", value=True)
    try:
        browser.open(file.as_uri())
        height = "document.querySelector('{}').getBoundingClientRect().height"
        assert browser.run(height.format(".funnel")) > 150 and browser.run(height.format("table")) > 150
        assert browser.run(height.format("#browser")) == 0 and browser.run(height.format("noscript p")) > 0
    finally:
        browser("Emulation.setScriptExecutionDisabled", value=False)


def test_what_pages_hold_does_not_run(browser: Browser, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_bytes(html(ATTACK, ATTACK, [*STEPS, Step(ATTACK, 9, {ATTACK: 9}, 0, None)], SAMPLES).encode())
    browser.open(file.as_uri() + "#step=url")
    browser.until("document.querySelectorAll('article').length === 2")
    assert browser.run("document.querySelector('article pre').textContent") == ATTACK
    assert browser.run("document.images.length + document.scripts.length") == 2
    assert browser.run("document.title") != "run" and browser.complaints() == []
    # That the policy holds, and that a breach is seen here.
    with pytest.raises(AssertionError, match="TypeError"):
        browser.run("document.body.insertAdjacentHTML('beforeend', '<p>')")
    browser.run("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/'}))")
    assert "violates" in str(browser.complaints())
