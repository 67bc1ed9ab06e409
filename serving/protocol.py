"""OpenAI's requests and errors: what is read, and what of it this server does not do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    model_validator,
)

MOST_ANSWERS = 16
"""Each is drawn with a seed of its own, the one after that of the one before."""
MOST_ITEMS = 4096
WEB = ("web_search", "open_page")
SERVER_TOOLS = {
    "web_search": WEB, "web_search_preview": WEB, "python": ("python",), "code_interpreter": ("python",),
}  # fmt: skip
"""The tools that a request switches on by a type, ours or OpenAI's."""


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


class Problem(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class Refusal(BaseModel):
    """As openapi.json tells of what is answered to a wrong request."""

    error: Problem


def _one_is_a_list(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class StreamOptions(BaseModel):
    include_usage: StrictBool = False


def _bounded(schema: dict[str, Any]) -> dict[str, Any]:
    """A grammar writes out each item of an array that there may be: a billion of them take all memory."""
    todo: list[Any] = [schema]
    while todo:
        part = todo.pop()
        if isinstance(part, dict):
            for name in ("minItems", "maxItems"):
                if isinstance(part.get(name), (int, float)) and part[name] > MOST_ITEMS:
                    raise ValueError(f"{name} may be at most {MOST_ITEMS}")
            todo += part.values()
        elif isinstance(part, list):
            todo += part
    return schema


Schema = Annotated[dict[str, Any], AfterValidator(_bounded)]


def grammar_of(schema: dict[str, Any]) -> dict[str, Any]:
    """Of vLLM's structured outputs. llguidance takes `oneOf`, as pydantic writes of unions, as `anyOf`."""
    return {"json": schema | {"x-guidance": {"coerce_one_of": True}}}


class Function(BaseModel):
    name: Annotated[StrictStr, Field(pattern=r"^[a-zA-Z0-9_-]{1,64}$")]
    description: StrictStr | None = None
    parameters: Schema | None = None
    """JSON schema of the arguments."""


class FunctionTool(BaseModel):
    type: Literal["function"]
    function: Function


class ServerTool(BaseModel):
    type: Literal["web_search", "web_search_preview", "python", "code_interpreter"]

    @property
    def names(self) -> tuple[str, ...]:
        return SERVER_TOOLS[self.type]


class Named(BaseModel):
    name: StrictStr


class FunctionChoice(BaseModel):
    type: Literal["function"]
    function: Named

    @property
    def names(self) -> tuple[str, ...]:
        return (self.function.name,)


class JsonSchema(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    name: StrictStr = "answer"
    form: Annotated[Schema, Field(alias="schema")]


class Form(BaseModel):
    """What the answer is held to."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @model_validator(mode="after")
    def whole(self) -> Form:
        if (self.type == "json_schema") != (self.json_schema is not None):
            raise ValueError("json_schema is given with type json_schema, and only then")
        return self

    @property
    def structured_outputs(self) -> dict[str, Any] | None:
        """Of vLLM's request."""
        if self.json_schema is not None:
            return grammar_of(self.json_schema.form)
        return {"json_object": True} if self.type == "json_object" else None


ChatTool = Annotated[FunctionTool | ServerTool, Field(discriminator="type")]
ChatToolChoice = Annotated[FunctionChoice | ServerTool, Field(discriminator="type")]
Choice = Literal["none", "auto", "required"]


class Sampling(BaseModel):
    """What all requests take. Unknown keys are ignored; known ones that this server does not honour are refused by
    name, so that nobody takes an answer for what it is not."""

    model: StrictStr
    temperature: Annotated[float, Field(ge=0, le=2, strict=True)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1, strict=True)] | None = None
    stream: StrictBool | None = None


class Penalties(Sampling):
    """What both kinds of completion take."""

    frequency_penalty: Annotated[float, Field(ge=-2, le=2, strict=True)] | None = None
    presence_penalty: Annotated[float, Field(ge=-2, le=2, strict=True)] | None = None
    n: Annotated[StrictInt, Field(ge=1, le=MOST_ANSWERS)] | None = None
    stop: Annotated[list[Annotated[StrictStr, Field(min_length=1)]], BeforeValidator(_one_is_a_list),
                    Field(max_length=4)] | None = None  # fmt: skip
    seed: Annotated[StrictInt, Field(ge=-(2**63), le=2**63 - MOST_ANSWERS)] | None = None
    max_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    stream_options: StreamOptions | None = None

    @property
    def wants_usage(self) -> bool:
        return bool(self.stream_options and self.stream_options.include_usage)


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: StrictStr | list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: StrictStr | None = None

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


def in_order_of_calls(messages: Sequence[Message], param: str) -> list[Message]:
    """The renderer knows calls and their results by their order alone. Raises ApiError for results of no call."""
    ordered: list[Message] = []
    called: list[Any] = []
    results: list[Message] = []
    for message in [*messages, None]:
        if message is not None and message.role == "tool":
            if not called or message.tool_call_id not in [*called, None]:
                reason = "a message of role tool must answer one of the tool_calls of the assistant's message before"
                raise ApiError(400, reason, param=param)
            results.append(message)
            continue
        if all(each.tool_call_id for each in results):
            results.sort(key=lambda each: called.index(each.tool_call_id))
        ordered += results
        results, called = [], []
        if message is not None:
            called = [call.get("id") for call in message.tool_calls or []]
            ordered.append(message)
    return ordered


def refuse(request: Any, names: tuple[str, ...]) -> Any:
    """Raises ApiError for what is asked and not done."""
    for name in names if isinstance(request, dict) else ():
        if request.get(name):
            raise ApiError(400, f"{name} is not supported by this server", param=name, code="unsupported_parameter")
    return request


class ChatRequest(Penalties):
    messages: Annotated[list[Message], Field(min_length=1)]
    max_completion_tokens: Annotated[StrictInt, Field(ge=1)] | None = None
    tools: list[ChatTool] = Field([], max_length=128)
    tool_choice: Choice | ChatToolChoice | None = None
    parallel_tool_calls: StrictBool | None = None
    response_format: Form | None = None
    logprobs: StrictBool | None = None
    top_logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None

    @model_validator(mode="before")
    @classmethod
    def served(cls, request: Any) -> Any:
        return refuse(request, ("functions", "function_call", "logit_bias", "audio"))

    @model_validator(mode="after")
    def whole(self) -> ChatRequest:
        if self.top_logprobs and not self.logprobs:
            raise ApiError(400, "top_logprobs needs logprobs: true", param="top_logprobs")
        return self

    @property
    def functions(self) -> list[Function]:
        return [tool.function for tool in self.tools if isinstance(tool, FunctionTool)]


Ids = Annotated[list[Annotated[StrictInt, Field(ge=0)]], Field(min_length=1)]


class CompletionRequest(Penalties):
    prompt: StrictStr | Ids | Annotated[list[StrictStr] | list[Ids], Field(min_length=1, max_length=64)]
    logprobs: Annotated[StrictInt, Field(ge=0, le=20)] | None = None

    @model_validator(mode="before")
    @classmethod
    def served(cls, request: Any) -> Any:
        return refuse(request, ("echo", "logit_bias", "suffix"))


def usage(prompt: int, completion: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion}
