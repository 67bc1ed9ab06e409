"""Who is let in and how much, on the middleware alone: no Ray, no model."""

from __future__ import annotations

import asyncio
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from serving import keys
from serving.budget import Budget
from serving.gate import Door, Gate, is_loopback
from serving.turn import Turn, called, watched
from starlette.responses import JSONResponse, StreamingResponse

from webtochat.errors import UserError
from webtochat.recipe_operation import Operation

ROOT = Path(__file__).resolve().parents[2]


class Told(list[Turn]):
    """An account."""

    def tell(self, turn: Turn) -> None:
        self.append(turn)


async def model(words: list[str], seconds: float = 0.0) -> Any:
    for word in words:
        await asyncio.sleep(seconds)
        yield {"choices": [{"index": 0, "text": word}]}
    yield {"choices": [], "usage": {"prompt_tokens": 7, "completion_tokens": len(words)}}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """An assistant of sorts."""
    body = (await receive()).get("body", b"") if scope["method"] == "POST" else b""
    asked = json.loads(body or b"{}")
    if asked.get("fail"):
        raise RuntimeError("broken")
    chunks = watched(model(["a", "b", "c"], asked.get("seconds", 0.0)), [1] * 7)
    if asked.get("tool"):
        called(asked["tool"], "ok", 1)
    if asked.get("stream"):
        lines = (f"data: {json.dumps(chunk)}\n\n" async for chunk in chunks)
        await StreamingResponse(lines, media_type="text/event-stream")(scope, receive, send)
        return
    text = "".join([choice["text"] async for chunk in chunks for choice in chunk["choices"]])
    await JSONResponse({"text": text, "size": len(body)})(scope, receive, send)


def served(door: Door, client: str = "127.0.0.1") -> httpx.AsyncClient:
    transport = httpx.ASGITransport(Gate(app, lambda: door), client=(client, 1), raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")


def ask(door: Door, *, client: str = "127.0.0.1", method: str = "POST", path: str = "/v1/x", **options: Any) -> Any:
    async def work() -> httpx.Response:
        async with served(door, client) as http:
            return await http.request(method, path, **options)

    return asyncio.run(work())


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


@pytest.fixture
def ann(tmp_path: Path) -> tuple[str, str]:
    """(where the keys stand, ann's)."""
    where = str(tmp_path / "keys.jsonl")
    text, key = keys.made("ann", 3, 1000)
    keys.write(where, [key, keys.made("bo")[1]])
    return where, text


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def test_without_keys_only_this_machine_is_answered() -> None:
    for client in ("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"):
        assert ask(Door(Operation(), True), client=client).status_code == 200
    for client in ("10.0.0.5", "192.168.1.1", "8.8.8.8", "fe80::1", "::ffff:10.0.0.5"):
        assert code(ask(Door(Operation(), False), client=client)) == (403, "loopback_only")
    assert not is_loopback("localhost.evil.test") and not is_loopback("")


def test_a_key_lets_in(ann: tuple[str, str]) -> None:
    where, text = ann
    told = Told()
    door = Door(Operation(keys=where), False, [told])
    assert ask(door, client="8.8.8.8", headers=bearer(text)).status_code == 200
    assert (told[0].key, told[0].client, told[0].status) == ("ann", "8.8.8.8", 200)
    for wrong in (
        {}, bearer(""), bearer("x"), bearer(text[:-1]), bearer(text + "x"), {"Authorization": text}, bearer("ann"),
        {"Authorization": f"Basic {text}"}, bearer(keys.hash_of(text)), {"X-API-Key": text}, bearer("\u00fc"),
    ):  # fmt: skip
        answer = ask(door, headers={name: value.encode() for name, value in wrong.items()})
        assert code(answer) == (401, "invalid_api_key") and answer.headers["www-authenticate"] == "Bearer"
    assert ask(door, path=f"/v1/x?api_key={text}").status_code == 401
    for path in ("/", "/healthz", "/livez"):
        assert ask(door, method="GET", path=path).status_code == 200
    assert ask(door, method="GET", path="/v1/models").status_code == 401


def test_what_is_kept_is_no_key(ann: tuple[str, str]) -> None:
    where, text = ann
    held = Path(where).read_text()
    assert text not in held and text.removeprefix(keys.PREFIX) not in held
    assert stat.S_IMODE(Path(where).stat().st_mode) == 0o600
    assert len({keys.made("x")[0] for _ in range(100)}) == 100 and len(text) == 4 + 43


def test_a_revoked_key_ends_and_a_new_one_begins(ann: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    where, text = ann
    door = Door(Operation(keys=where), False)
    monkeypatch.setattr("serving.gate.KEYS_SECONDS", 0.0)
    other, key = keys.made("cy")
    assert ask(door, headers=bearer(text)).status_code == 200
    keys.write(where, [key])
    assert ask(door, headers=bearer(text)).status_code == 401
    assert ask(door, headers=bearer(other)).status_code == 200
    Path(where).write_text("nonsense")
    assert ask(door, headers=bearer(other)).status_code == 200  # the file cannot be read: those of before hold


def test_keys_in_a_variable(ann: tuple[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    where, text = ann
    monkeypatch.setenv("SOME_KEYS", Path(where).read_text())
    assert ask(Door(Operation(keys="env:SOME_KEYS"), False), headers=bearer(text)).status_code == 200
    with pytest.raises(UserError, match="no such variable"):
        keys.read("env:NO_SUCH_KEYS")


@pytest.mark.parametrize("line", ["x", "{}", '{"name": "a", "sha256": "00", "created": ""}', "[1]"])
def test_a_broken_file_is_one_line_that_quotes_nothing(tmp_path: Path, line: str) -> None:
    (tmp_path / "keys").write_text(line + "\n")
    with pytest.raises(UserError, match=r"keys, line 1, is no API key: let jobs/keys.py write it$"):
        keys.read(str(tmp_path / "keys"))


def test_a_key_s_requests_and_tokens_a_minute(ann: tuple[str, str]) -> None:
    where, text = ann
    door = Door(Operation(keys=where), False)
    assert [ask(door, headers=bearer(text)).status_code for _ in range(4)] == [200, 200, 200, 429]
    answer = ask(door, headers=bearer(text))
    assert code(answer) == (429, "rate_limit_exceeded") and 1 <= int(answer.headers["retry-after"]) <= 20
    assert ask(door, method="GET", path="/v1/models", headers=bearer(text)).status_code == 200
    small, key = keys.made("di", None, 15)
    keys.write(where, [key])
    door = Door(Operation(keys=where), False)
    assert [ask(door, headers=bearer(small)).status_code for _ in range(3)] == [200, 200, 429]  # 10 tokens each


def test_a_budget_fills_evenly() -> None:
    now = 0.0
    budget = Budget(60, lambda: now)
    assert budget.wait() == 0
    budget.spend(90)  # overdrawn by 30
    assert budget.wait() == pytest.approx(31)
    now = 31.0
    assert budget.wait() == 0
    now = 10_000.0
    budget.spend(0)
    assert budget.wait(60) == 0 and budget.wait(1000) == 0


@pytest.mark.parametrize(
    ("host", "loopback", "hosts", "allowed"),
    [
        ("127.0.0.1:8000", True, [], True), ("localhost:8000", True, [], True), ("[::1]:8000", True, [], True),
        ("LOCALHOST", True, [], True), ("evil.test", True, [], False), ("127.0.0.1.evil.test", True, [], False),
        ("evil.test:8000", True, [], False), ("", True, [], False), ("[::1", True, [], False),
        ("127.0.0.1@evil.test", True, [], False), ("chat.test", True, ["chat.test"], True),
        ("chat.test", False, [], True), ("evil.test", False, ["chat.test"], False),
    ],
)  # fmt: skip
def test_names_that_lead_here(host: str, loopback: bool, hosts: list[str], allowed: bool) -> None:
    """DNS rebinding: a page of evil.test, whose name suddenly leads to this machine."""
    answer = ask(Door(Operation(hosts=hosts), loopback), headers={"Host": host})
    assert answer.status_code == (200 if allowed else 421)


def test_scripts_of_other_pages_are_kept_out() -> None:
    door = Door(Operation(origins=["https://chat.test"]), True)
    own = ask(door, headers={"Origin": "http://127.0.0.1:8000"})
    assert own.status_code == 200 and "access-control-allow-origin" not in own.headers
    for origin in ("http://evil.test", "null", "http://127.0.0.1:8001", "https://chat.test.evil.test", "http://chat.test"):
        answer = ask(door, headers={"Origin": origin, "Content-Type": "text/plain"}, content=b"{}")
        assert code(answer) == (403, "origin_not_allowed") and "access-control-allow-origin" not in answer.headers
        assert ask(door, method="OPTIONS", headers={"Origin": origin}).status_code == 403
    allowed = ask(door, headers={"Origin": "https://chat.test"})
    assert allowed.headers["access-control-allow-origin"] == "https://chat.test" and allowed.headers["vary"] == "Origin"
    before = ask(door, method="OPTIONS", headers={"Origin": "https://chat.test"})
    assert before.status_code == 204 and before.headers["access-control-allow-headers"] == "authorization, content-type"


def test_large_and_slow_bodies() -> None:
    door = Door(Operation.model_validate({"limits": {"body_bytes": 100, "body_seconds": 0.2}}), True)
    assert ask(door, content=b" " * 98 + b"{}").json() == {"text": "abc", "size": 100}
    assert code(ask(door, content=b" " * 101)) == (413, "body_too_large")

    async def pieces(count: int, seconds: float) -> Any:
        for _ in range(count):
            await asyncio.sleep(seconds)
            yield b" " * 50

    async def slowly(count: int, seconds: float) -> httpx.Response:
        async with served(door) as http:
            return await http.post("/v1/x", content=pieces(count, seconds))

    assert code(asyncio.run(slowly(3, 0.0))) == (413, "body_too_large")  # that did not say how large
    assert code(asyncio.run(slowly(2, 0.3))) == (408, "body_too_slow")
    assert door._turns == {}


def test_a_full_server_says_when_to_come_again() -> None:
    queue: list[tuple[int, int]] = []
    section = Operation.model_validate({"limits": {"requests": 2}})
    door = Door(section, True, [], lambda running, waiting: queue.append((running, waiting)))

    async def work() -> list[httpx.Response]:
        async with served(door) as http:
            asked = [http.post("/v1/x", json={"seconds": 0.1}) for _ in range(5)]
            first = await asyncio.gather(*asked)
            return [*first, await http.post("/v1/x", json={})]

    answers = asyncio.run(work())
    assert sorted(answer.status_code for answer in answers[:5]) == [200, 200, 429, 429, 429]
    full = next(answer for answer in answers if answer.status_code == 429)
    assert code(full) == (429, "server_full") and full.headers["retry-after"] == "1"
    assert answers[5].status_code == 200
    assert max(running for running, _ in queue) == 2 and queue[-1] == (0, 0) and {(2, 2), (2, 1), (2, 0)} <= set(queue)


def test_an_answer_has_its_time() -> None:
    told = Told()
    door = Door(Operation.model_validate({"limits": {"request_seconds": 0.2}}), True, [told])
    assert code(ask(door, json={"seconds": 1})) == (504, "timeout")
    stream = ask(door, json={"seconds": 0.15, "stream": True})
    *chunks, error, done = [line for line in stream.text.split("\n\n") if line]
    assert len(chunks) == 1 and json.loads(error.removeprefix("data: "))["error"]["code"] == "timeout"
    assert done == "data: [DONE]"
    assert [(turn.status, turn.completion_tokens) for turn in told] == [(504, 0), (200, 1)]
    assert {turn.refusal for turn in told} == {"timeout"}
    assert door._turns == {}


def test_what_is_told_of_a_turn() -> None:
    told = Told()
    ask(Door(Operation(), True, [told]), json={"tool": "python"})
    ask(Door(Operation(log_text=True), True, [told]), json={"tool": "python", "stream": True})
    ask(Door(Operation(), True, [told]), json={"fail": True})
    plain, kept, failed = (turn.line() for turn in told)
    assert (plain["prompt_tokens"], plain["completion_tokens"], plain["tools"]) == (7, 3, [["python", "ok"]])
    assert plain["seconds"] >= plain["first_token_seconds"] > 0 and "asked" not in plain
    assert json.loads(kept["asked"]) == {"tool": "python", "stream": True} and kept["answered"] == ["abc"]
    assert failed["status"] == 500
    whole, parts = told[1].whole(), told[1].spans
    assert (whole.kind, whole.answered, [part.kind for part in parts]) == ("AGENT", "abc", ["TOOL", "LLM"])


def job(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / "keys.py"), str(ROOT / "recipes" / "demo.yaml"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def test_the_job_makes_shows_and_revokes(tmp_path: Path) -> None:
    where = f"serve.keys={tmp_path}/keys.jsonl"
    made = job(where, "--name", "ann", "--requests-per-minute", "60")
    assert made.returncode == 0, made.stderr
    [held] = keys.read(str(tmp_path / "keys.jsonl"))
    assert keys.known([held], made.stdout.strip()) == held and held.requests_per_minute == 60
    again = job(where, "--name", "ann")
    assert again.returncode == 2 and "already" in again.stderr and again.stderr.count("\n") == 1
    listed = job(where).stdout
    assert '"name":"ann"' in listed and held.sha256 not in listed
    assert job(where, "--revoke", "ann").returncode == 0 and keys.read(str(tmp_path / "keys.jsonl")) == []
    told = job("--name", "x")
    assert told.returncode == 2 and told.stderr == (
        "error: where are the keys? set serve.keys to a file, in the recipe or on this line\n"
    )
