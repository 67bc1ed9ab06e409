"""The door: ASGI middleware before the assistant. Who is let in (hosts, pages of others, keys), how much (a key's
limits, requests at a time), in which time, and that each request is told of when it has ended. It knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import ipaddress
import json
import math
import time
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from serving import keys as api_keys
from serving.budget import Budget
from serving.protocol import ApiError, error_body
from serving.turn import TURN, Turn
from webtochat.errors import UserError
from webtochat.recipe_operation import Operation

GONE = 499
"""nginx's status for a client that did not wait for the answer."""
CANCELLED = ("CancelledError", "RequestCancelledError")
"""What ends a generation whose client has gone: ours, or what Serve raises where it saw it first."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")
HEALTH = ("/livez", "/healthz")
"""Whoever watches over the server asks for these by its address."""
OPEN = ("/", *HEALTH)
"""Nobody needs a key for these: the page asks for one itself."""
DROPPED = 16
"""Times the largest body."""
KEYS_SECONDS = 2.0
"""How often the file of keys is read anew: so soon a revoked key ends."""


class Refusal(ApiError):
    """With the headers that belong to it."""

    def __init__(self, status: int, message: str, code: str, headers: dict[str, str] | None = None):
        super().__init__(status, message, code=code)
        self.code = code
        self.headers = headers or {}


def too_many(message: str, code: str, seconds: float) -> Refusal:
    """`seconds`: after which it is worth another try."""
    return Refusal(429, message, code, {"Retry-After": str(max(1, math.ceil(seconds)))})


class Account(Protocol):
    """Where a turn is told when it has ended."""

    def tell(self, turn: Turn) -> None: ...


class Budgets(NamedTuple):
    requests: Budget | None
    tokens: Budget | None


class Door:
    """What the gate of one replica knows. `loopback`: whether the server listens there alone."""

    def __init__(
        self, section: Operation, loopback: bool, accounts: Sequence[Account] = (),
        queue: Callable[[int, int], None] | None = None,
    ):  # fmt: skip
        """`queue` is told, at each change, how many requests are being answered and how many of them have no token yet.
        Raises UserError where the keys cannot be read."""
        self.section = section
        self.loopback = loopback
        self._accounts = accounts
        self._queue = queue or (lambda running, waiting: None)
        self._turns: dict[str, Turn] = {}
        self._budgets: dict[str, Budgets] = {}
        self._keys = api_keys.read(section.keys) if section.keys else []
        self._read = time.monotonic()

    # who is let in ---------------------------------------------------------------------------------------------------

    def host(self, headers: Headers) -> None:
        """Raises Refusal where a browser was led here by another's name."""
        names = [*LOOPBACK, *map(str.lower, self.section.hosts)]
        if (self.loopback or self.section.hosts) and name_of(headers.get("host", "")) not in names:
            raise Refusal(421, "this server is not reached by that name: add it to serve.hosts", "host_not_allowed")

    def origin(self, headers: Headers) -> str | None:
        """Of the page whose script asks, where it is another than ours. Raises Refusal where that is not allowed."""
        origin = headers.get("origin")
        if origin is None or origin.partition("://")[2] == headers.get("host", ""):
            return None
        if origin not in self.section.origins:
            raise Refusal(403, "pages from elsewhere may not call this server (serve.origins)", "origin_not_allowed")
        return origin

    async def key(self, headers: Headers, client: str | None) -> api_keys.Key | None:
        """Whose request it is. Without keys anybody on this machine may ask, and nobody else."""
        if self.section.keys is None:
            if client is not None and not is_loopback(client):
                raise Refusal(403, "without API keys this server answers its own machine alone", "loopback_only")
            return None
        scheme, _, text = headers.get("authorization", "").partition(" ")
        found = None
        if scheme.lower() == "bearer" and text.strip():
            found = api_keys.known(await self._fresh(self.section.keys), text.strip())
        if found is None:
            raise Refusal(
                401, "an API key of this server is needed: Authorization: Bearer …", "invalid_api_key",
                {"WWW-Authenticate": "Bearer"},
            )  # fmt: skip
        return found

    async def _fresh(self, where: str) -> list[api_keys.Key]:
        """The keys as they stand in the file. While it cannot be read those of before hold."""
        if time.monotonic() - self._read > KEYS_SECONDS:
            self._read = time.monotonic()
            try:
                self._keys = await asyncio.to_thread(api_keys.read, where)
            except (UserError, OSError) as error:
                print(f"the keys stay as they were: {error}", flush=True)
        return self._keys

    # how much --------------------------------------------------------------------------------------------------------

    def budgets(self, key: api_keys.Key) -> Budgets:
        place = f"{key.sha256} {key.requests_per_minute} {key.tokens_per_minute}"
        if place not in self._budgets:
            limits = (key.requests_per_minute, key.tokens_per_minute)
            self._budgets[place] = Budgets(*(Budget(limit) if limit else None for limit in limits))
        return self._budgets[place]

    def admit(self, key: api_keys.Key | None) -> None:
        """Raises Refusal where the key's budgets are spent, or where the server is full; else the request counts."""
        budgets = self.budgets(key) if key else Budgets(None, None)
        for budget, what in ((budgets.requests, "requests"), (budgets.tokens, "tokens")):
            if budget and (seconds := budget.wait()):
                raise too_many(f"this key has had its {what} of this minute", "rate_limit_exceeded", seconds)
        self._room()
        if budgets.requests:
            budgets.requests.spend(1)

    def _room(self) -> None:
        if len(self._turns) >= self.section.limits.requests:
            raise too_many("the server is full: try again soon", "server_full", 1)

    async def body(self, headers: Headers, receive: Receive) -> bytes:
        """All of it. Raises Refusal where it is too large or too slow. What is not far too large is read to its end and
        dropped: a client that is still writing would not see the answer."""
        limits = self.section.limits
        large = Refusal(413, f"the body is larger than {limits.body_bytes:,} bytes", "body_too_large")
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > DROPPED * limits.body_bytes:
            raise large
        held, read = bytearray(), 0
        try:
            async with asyncio.timeout(limits.body_seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise asyncio.CancelledError
                    piece = message.get("body", b"")
                    read += len(piece)
                    if read <= limits.body_bytes:
                        held += piece
                    elif read > DROPPED * limits.body_bytes:
                        raise large
                    if not message.get("more_body", False):
                        break
        except TimeoutError as error:
            raise Refusal(408, f"the body took longer than {limits.body_seconds:g} s", "body_too_slow") from error
        if read > limits.body_bytes:
            raise large
        return bytes(held)

    # what is told ----------------------------------------------------------------------------------------------------

    def begin(self, turn: Turn) -> None:
        """Raises Refusal where others took the room meanwhile."""
        self._room()
        self._turns[turn.id] = turn
        turn.began_to_answer = self._tell_queue
        self._tell_queue()

    def end(self, turn: Turn, key: api_keys.Key | None) -> None:
        turn.ended = time.time_ns()
        if self._turns.pop(turn.id, None):
            self._tell_queue()
        tokens = self.budgets(key).tokens if key else None
        if tokens:
            tokens.spend(turn.prompt_tokens + turn.completion_tokens)
        for account in self._accounts:
            account.tell(turn)

    def _tell_queue(self) -> None:
        self._queue(len(self._turns), sum(not turn.first_token for turn in self._turns.values()))


def name_of(host: str) -> str:
    """A Host header's name, without the port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def is_loopback(client: str) -> bool:
    try:
        address = ipaddress.ip_address(client)
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


class Gate:
    def __init__(self, app: ASGIApp, door: Callable[[], Door]):
        self.app = app
        self._door = door

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":  # the lifespan; Serve has no websockets for us
            await self.app(scope, receive, send)
            return
        await _Passage(self.app, self._door(), scope, receive, send).go()


class _Passage:
    """One request's way through."""

    def __init__(self, app: ASGIApp, door: Door, scope: Scope, receive: Receive, send: Send):
        self._app, self._door, self._scope, self._receive, self._send = app, door, scope, receive, send
        self._headers = Headers(scope=scope)
        client = scope.get("client")
        self._client = client[0] if client else None
        self._turn = Turn(scope["method"], scope["path"], self._client)
        self._origin: str | None = None
        self._stream = self._ended = False

    async def go(self) -> None:
        key = None
        try:
            if self._scope["path"] not in HEALTH:
                self._door.host(self._headers)
            self._origin = self._door.origin(self._headers)
            if self._origin and self._scope["method"] == "OPTIONS":
                await self._answer(204, None, {
                    "Access-Control-Allow-Methods": "GET, POST", "Access-Control-Max-Age": "600",
                    "Access-Control-Allow-Headers": "authorization, content-type",
                })  # fmt: skip
            elif self._scope["path"] in OPEN:
                await self._app(self._scope, self._receive, self._sent)
            else:
                key = await self._door.key(self._headers, self._client)
                self._turn.key = key.name if key else None
                await (self._post(key) if self._scope["method"] == "POST" else self._timed(self._receive))
        except Refusal as refusal:
            self._turn.refusal = refusal.code
            await self._answer(refusal.status, refusal.body, refusal.headers)
        except asyncio.CancelledError:
            self._turn.status = GONE
            raise
        except Exception as error:
            # Not by Starlette's own answer to it, which leaves the connection to be reset under the next request.
            traceback.print_exception(error)
            begun, self._turn.status = self._turn.status, 500
            if begun:
                raise
            await self._answer(500, error_body(f"the server failed: {type(error).__name__}", "server_error"), None)
        finally:
            if self._turn.failure in CANCELLED and not self._turn.refusal:
                self._turn.status = GONE
            self._door.end(self._turn, key)

    async def _post(self, key: api_keys.Key | None) -> None:
        self._door.admit(key)
        body = await self._door.body(self._headers, self._receive)
        if self._door.section.log_text:
            self._turn.asked = body.decode(errors="replace")
        read = False

        async def replay() -> Message:
            nonlocal read
            if read:
                return await self._receive()
            read = True
            return {"type": "http.request", "body": body, "more_body": False}

        self._door.begin(self._turn)
        TURN.set(self._turn)
        await self._timed(replay)

    async def _timed(self, receive: Receive) -> None:
        """The assistant's answer, within its time. A stream that has begun ends with an error in it."""
        seconds = self._door.section.limits.request_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._app(self._scope, receive, self._sent)
        except TimeoutError:
            body = error_body(f"the answer took longer than {seconds:g} s", "server_error", code="timeout")
            self._turn.refusal = "timeout"
            if not self._turn.status:
                await self._answer(504, body)
            elif not self._ended:
                last = f"data: {json.dumps(body)}\n\ndata: [DONE]\n\n" if self._stream else ""
                await self._send({"type": "http.response.body", "body": last.encode(), "more_body": False})

    async def _answer(self, status: int, body: dict[str, Any] | None, headers: dict[str, str] | None = None) -> None:
        content = b"" if body is None else json.dumps(body).encode()
        told = {"Content-Type": "application/json", "Content-Length": str(len(content))} if body else {}
        raw = MutableHeaders(told | (headers or {})).raw
        await self._sent({"type": "http.response.start", "status": status, "headers": raw})
        await self._sent({"type": "http.response.body", "body": content, "more_body": False})

    async def _sent(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._turn.status = message["status"]
            headers = MutableHeaders(scope=message)
            self._stream = headers.get("content-type", "").startswith("text/event-stream")
            headers["X-Request-Id"] = self._turn.id
            if self._origin:
                headers["Access-Control-Allow-Origin"] = self._origin
                headers.add_vary_header("Origin")
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self._ended = True
        await self._send(message)
