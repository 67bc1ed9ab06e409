"""OpenAI's requests, errors and chunks: what is read and what is written."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, StrictBool, StrictInt, StrictStr, model_validator


class ApiError(Exception):
    """An answer of status 4xx or 5xx in OpenAI's shape."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None, kind: str | None = None
    ):
        super().__init__(message)
        self.status = status
        self.body = error_body(
            message, kind or ("invalid_request_error" if status < 500 else "server_error"), param, code
        )


def error_body(message: str, kind: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": param, "code": code}}


def _one_is_a_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class StreamOptions(BaseModel):
    include_usage: StrictBool = False


class Sampling(BaseModel):
    """What both kinds of completion take. Unknown keys are ignored; known ones that this server does not honour are
    refused by name, so that nobody takes an answer for what it is not."""

    model: StrictStr
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    frequency_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2)] | None = None
    n: Annotated[StrictInt, Field(ge=1, le=16)] | None = None
    stop: Annotated[list[Annotated[StrictStr, Field(min_length=1)]], BeforeValidator(_one_is_a_list),
                    Field(max_length=4)] | None = None  # fmt: skip
    seed: Annotated[StrictInt, Field(ge=-(2**63), lt=2**63)] | None = None
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: StrictStr | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None

    def rendered(self) -> dict[str, Any]:
        """As the renderer takes it: text alone."""
        content = self.content
        if isinstance(content, list):
            for part in content:
                if part.get("type") != "text" or not isinstance(part.get("text"), str):
                    raise ApiError(400, "only parts of type text are understood", param="messages")
            content = "".join(part["text"] for part in content)
        if content is None and not self.tool_calls:
            content = ""
        role = "system" if self.role == "developer" else self.role
        return {"role": role, "content": content} | ({"tool_calls": self.tool_calls} if self.tool_calls else {})


def _refuse(request: dict[str, Any], names: tuple[str, ...]) -> None:
    for name in names:
        if request.get(name):
            raise ApiError(400, f"{name} is not supported by this server", param=name, code="unsupported_parameter")


class ChatRequest(Sampling):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None

    @model_validator(mode="before")
    @classmethod
    def served(cls, request: Any) -> Any:
        if isinstance(request, dict):
            _refuse(request, ("tools", "functions", "logprobs", "top_logprobs", "logit_bias", "audio"))
            form = request.get("response_format")
            if isinstance(form, dict) and form.get("type") != "text":
                _refuse(request, ("response_format",))
        return request


Ids = Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(Sampling):
    prompt: StrictStr | Ids | Annotated[list[StrictStr] | list[Ids], Field(min_length=1, max_length=64)]

    @model_validator(mode="before")
    @classmethod
    def served(cls, request: Any) -> Any:
        if isinstance(request, dict):
            _refuse(request, ("echo", "logprobs", "logit_bias", "suffix"))
        return request


def chat_chunk(head: dict[str, Any], choice: dict[str, Any] | None, usage: dict[str, Any] | None) -> dict[str, Any]:
    choices = [] if choice is None else [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": None} | choice]
    return head | {"object": "chat.completion.chunk", "choices": choices} | ({"usage": usage} if usage else {})
