"""The assistant: OpenAI's API over the model, and the chat page.

Conversations are rendered to token ids here, by the renderer that training used, and the model is asked by ids: a
marker in somebody's text is text. The tool loop will stand between `_generated` and the answers. (Serve packs the class
where it is defined, so what its methods call must stand above it or be imported.)
"""

from __future__ import annotations

import asyncio
import base64
import calendar
import hashlib
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from ray import serve
from ray.serve.handle import DeploymentHandle
from starlette.exceptions import HTTPException
from starlette.responses import Response

from serving.accounts import Place, door_of
from serving.gate import Gate
from serving.protocol import ApiError, ChatRequest, CompletionRequest, Sampling, chat_chunk, error_body
from serving.stream import collected, event_stream, started, usage_of
from serving.turn import watched
from webtochat.inference.actors import ModelPath
from webtochat.inference.engine import positions
from webtochat.tokens.chat import render
from webtochat.tokens.tokenizer import Tokenizer

PAGE = Path(__file__).with_name("page.html")
HEALTH_SECONDS = 2.0


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
    place: Place | None = None


api = FastAPI(title="webtochat", docs_url=None, redoc_url=None)
api.add_middleware(Gate, door=lambda: serve.get_replica_context().servable_object.door)


@api.exception_handler(ApiError)
async def refused(_: Request, error: ApiError) -> JSONResponse:
    return JSONResponse(error.body, error.status)


@api.exception_handler(HTTPException)
async def not_served(request: Request, error: HTTPException) -> JSONResponse:
    message = f"{error.detail}: {request.method} {request.url.path}"
    return JSONResponse(error_body(message, "invalid_request_error"), error.status_code, error.headers)


@api.exception_handler(RequestValidationError)
async def not_understood(_: Request, error: RequestValidationError) -> JSONResponse:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return JSONResponse(error_body("the body is not JSON", "invalid_request_error"), 400)
    where = [str(part) for part in first["loc"] if part != "body"]
    message = f"{'.'.join(where) or 'body'}: {first['msg']}"
    return JSONResponse(error_body(message, "invalid_request_error", where[0] if where else None), 400)


@api.exception_handler(Exception)
async def broken(_: Request, error: Exception) -> JSONResponse:
    return JSONResponse(error_body(f"the server failed: {type(error).__name__}", "server_error"), 500)


@serve.ingress(api)
class Assistant:
    def __init__(self, model: DeploymentHandle, path: ModelPath, settings: Settings):
        directory = path.local()
        self.door = door_of(settings.place)
        self._model = model.options(stream=True)
        self._settings = settings
        self._tokenizer = Tokenizer.load(directory)
        self._positions = settings.max_model_length or positions(directory)
        self._card = {
            "id": settings.name, "object": "model", "owned_by": "webtochat",
            "created": calendar.timegm(time.strptime(settings.created, "%Y-%m-%dT%H:%M:%SZ")),
            "max_model_len": self._positions, "stage": settings.stage,
        }  # fmt: skip
        self._page = PAGE.read_text(encoding="utf-8")
        self._page_headers = page_headers(self._page)

    @api.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page(self) -> HTMLResponse:
        return HTMLResponse(self._page, headers=self._page_headers)

    @api.get("/livez")
    async def livez(self) -> dict[str, str]:
        return {"status": "ok"}

    @api.get("/healthz")
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
        return {"object": "list", "data": [self._card]}

    @api.get("/v1/models/{name:path}")
    async def retrieve(self, name: str) -> dict[str, Any]:
        self._known(name)
        return self._card

    @api.post("/v1/chat/completions", response_model=None)
    async def chat(self, request: ChatRequest) -> Response:
        self._known(request.model)
        ids = self._prompt(request)
        limit = request.max_completion_tokens or request.max_tokens
        chunks = self._generated(request, ids, [len(ids)], limit)
        head = {"id": f"chatcmpl-{uuid.uuid4().hex}", "created": int(time.time()), "model": request.model}
        answer = await started(chunks)
        if request.stream:
            return event_stream(self._chat_events(head, answer, request))
        texts, reasons, usage = await collected(answer)
        choices = [
            {
                "index": index, "message": {"role": "assistant", "content": texts[index], "refusal": None},
                "logprobs": None, "finish_reason": reasons.get(index, "stop"),
            }
            for index in sorted(texts)
        ]  # fmt: skip
        return JSONResponse(head | {"object": "chat.completion", "choices": choices, "usage": usage})

    @api.post("/v1/completions", response_model=None)
    async def completions(self, request: CompletionRequest) -> Response:
        self._known(request.model)
        prompts = self._raw_prompts(request)
        limit = request.max_tokens or 16
        chunks = self._generated(request, prompts, [len(ids) for ids in prompts], limit)
        head = {
            "id": f"cmpl-{uuid.uuid4().hex}", "object": "text_completion", "created": int(time.time()),
            "model": request.model,
        }  # fmt: skip
        answer = await started(chunks)
        if request.stream:
            return event_stream(self._completion_events(head, answer, request))
        texts, reasons, usage = await collected(answer)
        choices = [
            {"index": index, "text": texts[index], "logprobs": None, "finish_reason": reasons.get(index, "stop")}
            for index in sorted(texts)
        ]
        return JSONResponse(head | {"choices": choices, "usage": usage})

    # prompts ---------------------------------------------------------------------------------------------------------

    def _known(self, name: str) -> None:
        if name != self._settings.name:
            raise ApiError(
                404, f"the model {name!r} does not exist; this server has {self._settings.name!r}",
                param="model", code="model_not_found",
            )  # fmt: skip

    def _prompt(self, request: ChatRequest) -> list[int]:
        messages = [message.rendered() for message in request.messages]
        if self._settings.system_prompt and messages[0]["role"] != "system":
            messages.insert(0, {"role": "system", "content": self._settings.system_prompt})
        try:
            return render(self._tokenizer, messages, add_generation_prompt=True).ids
        except ValueError as error:
            raise ApiError(400, f"messages: {error}", param="messages") from error

    def _raw_prompts(self, request: CompletionRequest) -> list[list[int]]:
        """Text begins a document, as in training; ids are taken as they are."""
        given = request.prompt
        many = given if isinstance(given, list) and not isinstance(given[0], int) else [given]
        begin = self._tokenizer.separator
        prompts = [[begin, *self._tokenizer.encode(each)] if isinstance(each, str) else each for each in many]
        highest = max(max(ids) for ids in prompts)
        if highest >= self._tokenizer.vocabulary:
            raise ApiError(400, f"token id {highest} is not below {self._tokenizer.vocabulary}", param="prompt")
        return prompts

    # generation ------------------------------------------------------------------------------------------------------

    def _generated(
        self, request: Sampling, prompt: list[int] | list[list[int]], lengths: list[int], limit: int | None
    ) -> AsyncIterator[dict[str, Any]]:
        """The model's chunks. Raises ApiError where a prompt leaves no room for one token; a longer `limit` than the
        room ends the answer by `length`."""
        room = self._positions - max(lengths)
        if room < 1:
            raise ApiError(
                400, f"this model's maximum context length is {self._positions} tokens; the prompt has {max(lengths)}, "
                f"{1 - room} too many", param="messages" if isinstance(request, ChatRequest) else "prompt",
                code="context_length_exceeded",
            )  # fmt: skip
        asked = {
            "model": self._settings.name, "prompt": prompt, "max_tokens": min(limit or room, room),
            "temperature": self._settings.temperature if request.temperature is None else request.temperature,
            "top_p": 1.0 if request.top_p is None else request.top_p, "n": request.n or 1, "seed": request.seed,
            "stop": request.stop or [], "stop_token_ids": self._tokenizer.stops,
            "frequency_penalty": request.frequency_penalty or 0.0, "presence_penalty": request.presence_penalty or 0.0,
        }  # fmt: skip
        if asked["temperature"] == 0 and (request.n or 1) > 1:
            raise ApiError(400, "n must be 1 where the temperature is 0: every answer would be the same", param="n")
        chunks: Any = self._model.complete.remote(asked)
        return watched(aiter(chunks), prompt)

    async def _chat_events(
        self, head: dict[str, Any], chunks: AsyncIterator[dict[str, Any]], request: ChatRequest
    ) -> AsyncIterator[dict[str, Any]]:
        for index in range(request.n or 1):
            yield chat_chunk(head, {"index": index, "delta": {"role": "assistant", "content": ""}}, None)
        async for chunk in chunks:
            if "error" in chunk:
                yield error_body(str(chunk["error"].get("message")), "server_error")
                return
            for choice in chunk["choices"]:
                if choice["text"]:
                    yield chat_chunk(head, {"index": choice["index"], "delta": {"content": choice["text"]}}, None)
                if choice["finish_reason"]:
                    ended = {"index": choice["index"], "finish_reason": choice["finish_reason"]}
                    yield chat_chunk(head, ended, None)
            if not chunk["choices"] and request.wants_usage:
                yield chat_chunk(head, None, usage_of(chunk))

    async def _completion_events(
        self, head: dict[str, Any], chunks: AsyncIterator[dict[str, Any]], request: CompletionRequest
    ) -> AsyncIterator[dict[str, Any]]:
        async for chunk in chunks:
            if "error" in chunk:
                yield error_body(str(chunk["error"].get("message")), "server_error")
                return
            for choice in chunk["choices"]:
                told = {"index": choice["index"], "text": choice["text"], "logprobs": None}
                yield head | {"choices": [told | {"finish_reason": choice["finish_reason"]}]}
            if not chunk["choices"] and request.wants_usage:
                yield head | {"choices": [], "usage": usage_of(chunk)}
