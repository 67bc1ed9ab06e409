"""The assistant: OpenAI's API over the model and its tools, and the chat page.

Conversations are rendered to token ids here, by the renderer that training used, and the model is asked by ids: a
marker in somebody's text is text. What then happens is dialogue.py's. (Serve packs the class where it is defined, so
what its methods call must stand above it or be imported.)
"""

from __future__ import annotations

import asyncio
import base64
import calendar
import hashlib
import json
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from ray import serve
from ray.exceptions import RayActorError, RayError
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serving import chat, completions, responses
from serving.accounts import Place, door_of
from serving.dialogue import Chunk, Dialogue, Event, merged
from serving.gate import Gate
from serving.protocol import (
    ApiError,
    ChatRequest,
    CompletionRequest,
    Function,
    Penalties,
    Refusal,
    error_body,
    in_order_of_calls,
)  # fmt: skip
from serving.responses import ResponsesRequest
from serving.stream import event_stream, started
from serving.tools import McpResponse, mcp_server
from serving.turn import called, watched
from serving.wish import Wish
from webtochat.agent.conversation import Conversation
from webtochat.inference.actors import ModelPath
from webtochat.inference.engine import positions
from webtochat.recipe_tools import Tools
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tools.tool import ToolResult

PAGE = Path(__file__).with_name("page.html")
HEALTH_SECONDS = 2.0
LONG = 20_000
"""Characters of a conversation that are encoded beside the streams that go on, not between them."""


def page_headers(page: str) -> dict[str, str]:
    """Only the page's own script runs and its own style shows (by their hashes), and it talks to this server alone.
    (Sizes that the script sets on an element are not inline styles to a browser.)"""
    hashes = {}
    for tag in ("script", "style"):
        content = page.split(f"<{tag}>", 1)[1].split(f"</{tag}>", 1)[0]
        hashes[tag] = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    return {
        "Content-Security-Policy": f"default-src 'none'; script-src 'sha256-{hashes['script']}'; "
        f"style-src 'sha256-{hashes['style']}'; connect-src 'self'; img-src data:; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
    }


@dataclass(frozen=True)
class Settings:
    name: str
    created: str
    stage: str
    temperature: float
    system_prompt: str | None
    max_model_length: int | None
    limits: Tools
    tools: tuple[Function, ...] = ()
    """Those that are run here."""
    taught: bool = False
    """Whether the model learned to call them: the chat page then begins with them."""
    cite_share: float = 0.5
    place: Place | None = None

    @property
    def with_tools(self) -> str:
        """The name under which the model is asked with all of them."""
        return f"{self.name}-tools"


REFUSED: dict[int | str, dict[str, Any]] = {status: {"model": Refusal} for status in (400, 404, 500, 503)}
api = FastAPI(title="webtochat", docs_url=None, redoc_url=None, responses=REFUSED)
api.add_middleware(Gate, door=lambda: serve.get_replica_context().servable_object.door)


@api.exception_handler(ApiError)
async def refused(_: Request, error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status)


@api.exception_handler(HTTPException)
async def not_served(request: Request, error: HTTPException) -> JSONResponse:
    message = f"{error.detail}: {request.method} {request.url.path}"
    return JSONResponse(error_body(message, "invalid_request_error"), error.status_code, error.headers)


@api.exception_handler(RayActorError)
async def not_there(_: Request, error: RayActorError) -> JSONResponse:
    """The replica that was asked has died before it said anything."""
    message = f"the model cannot be reached: {type(error).__name__}; try again"
    body = error_body(message, "server_error", code="model_unreachable")
    return JSONResponse(body, 503, {"Retry-After": "1"})


@api.exception_handler(RequestValidationError)
async def not_understood(_: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return JSONResponse(error_body("the body is not JSON", "invalid_request_error"), 400)
    where = [str(part) for part in first["loc"] if part != "body"]
    message = f"{'.'.join(where) or 'body'}: {first['msg']}"
    return JSONResponse(error_body(message, "invalid_request_error", where[0] if where else None), 400)


@serve.ingress(api)
class Assistant:
    def __init__(self, model: DeploymentHandle, tools: DeploymentHandle | None, path: ModelPath, settings: Settings):
        """`tools`: who runs `settings.tools`; None where there are none."""
        directory = path.local()
        self.door = door_of(settings.place)
        self._model = model.options(stream=True)
        self._tools, self._settings = tools, settings
        self._tokenizer = Tokenizer.load(directory)
        self._positions = settings.max_model_length or positions(directory)
        self._longest = max(map(len, self._tokenizer.backend.get_vocab()))
        names = [settings.name, *([settings.with_tools] if settings.tools else [])]
        self._cards = {
            name: {
                "id": name, "object": "model", "owned_by": "webtochat",
                "created": calendar.timegm(time.strptime(settings.created, "%Y-%m-%dT%H:%M:%SZ")),
                "max_model_len": self._positions, "stage": settings.stage,
                "tools": [tool.name for tool in settings.tools] if name == settings.with_tools else [],
                "taught": name == settings.name or settings.taught,
            }
            for name in names
        }  # fmt: skip
        self._page = PAGE.read_text(encoding="utf-8")
        self._page_headers = page_headers(self._page)

    @api.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page(self) -> HTMLResponse:
        return HTMLResponse(self._page, headers=self._page_headers)

    @api.get("/livez")
    async def livez(self) -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/healthz", responses={503: {"description": "The model does not answer"}})
    async def healthz(self) -> JSONResponse:
        """Whether the model can be asked."""
        try:
            async with asyncio.timeout(HEALTH_SECONDS):
                await self._model.options(stream=False).check_health.remote()
        except Exception as error:  # noqa: BLE001 (whatever it is, the model does not answer)
            return JSONResponse({"status": "the model does not answer", "why": type(error).__name__}, 503)
        return JSONResponse({"status": "ok"})

    @api.get("/v1/models")
    async def models(self) -> dict[str, Any]:
        return {"object": "list", "data": list(self._cards.values())}

    @api.get("/v1/models/{name:path}")
    async def retrieve(self, name: str) -> dict[str, Any]:
        return self._card(name)

    @api.post("/v1/chat/completions", response_model=None)
    async def chat(self, request: ChatRequest) -> Response:
        prompt, events = await self._answers(request, "messages")
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": request.model}
        number = request.n or 1
        if request.stream:
            return event_stream(chat.chunks(head, events, number, prompt, request.wants_usage))
        return JSONResponse(await chat.whole(head, events, number, prompt))

    @api.post("/v1/responses", response_model=None)
    async def responses(self, request: ResponsesRequest) -> Response:
        prompt, events = await self._answers(request.chat(), "input")
        head = responses.head_of(request, int(time.time()), self._temperature(request.temperature))
        told = responses.events(head, events, prompt)
        if request.stream:
            return event_stream(told, named=True)
        *_, last = [event async for event in told]
        if error := last["response"]["error"]:
            raise ApiError(500, error["message"])
        return JSONResponse(last["response"])

    @api.post("/v1/completions", response_model=None)
    async def completions(self, request: CompletionRequest) -> Response:
        self._card(request.model)
        prompts = self._raw_prompts(request)
        room = self._room(max(map(len, prompts)), "prompt")
        asked = self._sampling(request) | {"prompt": prompts, "max_tokens": min(request.max_tokens or 16, room)}
        asked |= {"n": request.n or 1, "stop": request.stop or [], "logprobs": request.logprobs}
        head = {
            "id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()),
            "model": request.model,
        }  # fmt: skip
        if request.stream:
            return event_stream(await started(completions.chunks(head, self._generate(asked), request.wants_usage)))
        return JSONResponse(await completions.whole(head, self._generate(asked)))

    @api.post("/mcp", response_model=None, include_in_schema=False)
    async def mcp(self) -> Response:
        return McpResponse(await asyncio.to_thread(lambda: self._mcp))

    # what is asked ---------------------------------------------------------------------------------------------------

    def _card(self, name: str) -> dict[str, Any]:
        if name not in self._cards:
            raise ApiError(
                404, f"the model {name!r} does not exist; this server has {' and '.join(map(repr, self._cards))}",
                param="model", code="model_not_found",
            )  # fmt: skip
        return self._cards[name]

    async def _answers(self, request: ChatRequest, param: str) -> tuple[int, AsyncIterator[tuple[int, Event]]]:
        """The length of the prompt, and what happens in each of the answers, once the first of it has. `param`: where
        the conversation stands in the request."""
        self._card(request.model)
        settings, sampling = self._settings, self._sampling(request)
        every = request.model == settings.with_tools
        wish = Wish.of(request, settings.tools, every, sampling, self._tokenizer, settings.cite_share)
        messages = [message.rendered() for message in in_order_of_calls(request.messages, param)]
        if settings.system_prompt and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": settings.system_prompt})
        characters = sum(len(message["content"] or "") for message in messages)
        if characters > self._positions * self._longest:  # it need not be encoded to know that
            self._room(-(-characters // self._longest), param, "at least ")
        limits, number = settings.limits if wish.told else Tools(), request.n or 1

        def begun() -> list[Conversation]:
            told = {"positions": self._positions, "section": limits}
            return [Conversation(self._tokenizer, messages, wish.told, **told) for _ in range(number)]

        try:
            # A long one would keep all other streams waiting.
            conversations = await asyncio.to_thread(begun) if characters * number > LONG else begun()
        except ValueError as error:
            raise ApiError(400, f"{param}: {error}", param=param) from error
        tokens = len(conversations[0].ids)
        self._room(tokens, param)
        if conversations[0].room < 1:
            raise ApiError(
                400, f"with tools a conversation has at most {limits.max_tokens} tokens here; the prompt has "
                f"{tokens}", param=param, code="context_length_exceeded",
            )  # fmt: skip
        answers = []
        for place, conversation in enumerate(conversations):
            seed = None if request.seed is None else request.seed + place
            seeded = replace(wish, sampling=wish.sampling | {"seed": seed})
            answers.append(Dialogue(conversation, seeded, self._generate, self._run_tool).events())
        return tokens, await started(merged(answers))

    def _sampling(self, request: Penalties) -> dict[str, Any]:
        """Of vLLM's CompletionRequest."""
        temperature = self._temperature(request.temperature)
        if temperature == 0 and (request.n or 1) > 1:
            raise ApiError(400, "n must be 1 where the temperature is 0: every answer would be the same", param="n")
        return {
            "model": self._settings.name, "temperature": temperature, "seed": request.seed,
            "top_p": 1.0 if request.top_p is None else request.top_p, "stop_token_ids": self._tokenizer.stops,
            "frequency_penalty": request.frequency_penalty or 0.0, "presence_penalty": request.presence_penalty or 0.0,
        }  # fmt: skip

    def _temperature(self, asked: float | None) -> float:
        return self._settings.temperature if asked is None else asked

    def _raw_prompts(self, request: CompletionRequest) -> list[list[int]]:
        """Text begins a document, as in training; ids are taken as they are."""
        given = request.prompt
        many: Sequence[Any] = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        longest = max(len(each) for each in many if isinstance(each, str)) if isinstance(many[0], str) else 0
        if longest > self._positions * self._longest:
            self._room(-(-longest // self._longest), "prompt", "at least ")
        begin = self._tokenizer.separator
        prompts = [[begin, *self._tokenizer.encode(each)] if isinstance(each, str) else each for each in many]
        highest = max(max(ids) for ids in prompts)
        if highest >= self._tokenizer.vocabulary:
            raise ApiError(400, f"token id {highest} is not below {self._tokenizer.vocabulary}", param="prompt")
        return prompts

    def _room(self, tokens: int, param: str, about: str = "") -> int:
        """How many tokens may follow a prompt of so many. Raises ApiError where not one may."""
        room = self._positions - tokens
        if room < 1:
            raise ApiError(
                400, f"this model's maximum context length is {self._positions} tokens; the prompt has {about}{tokens},"
                f" {about}{1 - room} too many", param=param, code="context_length_exceeded",
            )  # fmt: skip
        return room

    # who answers -----------------------------------------------------------------------------------------------------

    def _generate(self, asked: dict[str, Any]) -> AsyncIterator[Chunk]:
        return watched(aiter(self._model.complete.remote(asked)), asked["prompt"])

    async def _run_tool(self, name: str, arguments: dict[str, Any]) -> ToolResult:
        """Whatever becomes of it, the conversation goes on."""
        if self._tools is None:
            return ToolResult("", f"there is no tool {name!r}")
        began = time.time_ns()
        try:
            result = await self._tools.call.remote(name, arguments)
        except RayError as error:
            result = ToolResult("", f"{name} cannot be reached: {type(error).__name__}")
        if name in (tool.name for tool in self._settings.tools):
            asked = json.dumps(arguments, ensure_ascii=False)
            called(name, "ok" if result.error is None else "error", began, asked, result.text)
        return result

    @cached_property
    def _mcp(self) -> Any:
        return mcp_server(self._settings.tools, self._run_tool)
