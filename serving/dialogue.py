"""One answer as it comes: the model is asked by ids, the tools that it calls are run, and it is asked again. What
happens is told in events, which chat.py and responses.py put into OpenAI's forms.
"""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, Literal, NamedTuple

from serving.protocol import ApiError, Function, grammar_of
from serving.wish import Wish
from webtochat.agent.conversation import Call, Conversation
from webtochat.tokens.chat import Reader, marker
from webtochat.tokens.tokenizer import Tokenizer
from webtochat.tools.tool import Source, ToolResult

CITED = re.compile(r"(\[\d{1,2}\])|https?://[^\s<>()\[\]]+")
Chunk = dict[str, Any]
Generate = Callable[[dict[str, Any]], AsyncIterator[Chunk]]
"""A request of vLLM's CompletionRequest to its chunks (`ModelServer.complete`)."""
RunTool = Callable[[str, dict[str, Any]], Awaitable[ToolResult]]


class Text(NamedTuple):
    """`logprobs`: of the tokens in it, in OpenAI's form, where they were asked for."""

    text: str
    logprobs: list[dict[str, Any]]


class Called(NamedTuple):
    """A tool of this server's, before it runs."""

    id: str
    name: str
    arguments: dict[str, Any]


class Returned(NamedTuple):
    called: Called
    result: ToolResult


class Asked(NamedTuple):
    """A function of the client's, for the client to run."""

    id: str
    name: str
    arguments: dict[str, Any]


class Citation(NamedTuple):
    """`start`, `end`: characters of all text of the answer."""

    source: Source
    start: int
    end: int


class Ended(NamedTuple):
    """`read`: tokens that tools' results added to the prompt. `generated`: tokens, of all rounds."""

    reason: Literal["stop", "length", "tool_calls"]
    citations: list[Citation]
    read: int
    generated: int


Event = Text | Called | Returned | Asked | Ended


class Dialogue:
    def __init__(self, conversation: Conversation, wish: Wish, generate: Generate, run_tool: RunTool):
        self._talk, self._wish = conversation, wish
        self._generate, self._run_tool = generate, run_tool
        self._begun, self._generated = len(conversation.ids), 0
        self._said = ""
        self._found: list[tuple[Source, ...]] = []

    async def events(self) -> AsyncIterator[Event]:
        """Ends with `Ended`. Raises ApiError where the engine refuses or fails.

        Where there are tools and a form, the model first writes freely, and unseen: if that calls nothing, it is asked
        again for the answer in the form, as a grammar of the form would have kept it from calling.
        """
        talk, wish, forced = self._talk, self._wish, self._wish.forced
        bound = wish.form is not None and not talk.tools
        while True:
            unseen = wish.form is not None and not bound and not forced
            completion = _Completion(talk.tokenizer, bool(talk.tools), wish)
            if self._room(forced) < 1:
                yield self._ended("length")
                return
            async for text in completion.read(self._generate(self._request(forced, bound)), forced):
                if not unseen:
                    self._said += text.text
                    yield text
            self._generated += completion.generated
            if unseen and not completion.reader.reply.tool_calls:
                bound = True
                continue
            forced = ()
            calls = talk.generated(completion.ids)
            if completion.cut:
                yield self._ended("stop")
                return
            if theirs := [call for call in calls if self._is_theirs(call)]:
                # What it called of ours beside them is left out: the client's next request could not tell of it.
                for call in theirs:
                    yield Asked(_new_id(), *call)
                yield self._ended("tool_calls")
                return
            if talk.finished:
                stopped = talk.finished == "stop" or (talk.finished == "length" and completion.reason == "stop")
                yield self._ended("stop" if stopped else "length")
                return
            called = [Called(_new_id(), *call) for call in calls]
            for each in called:
                yield each
            results = await asyncio.gather(*(self._run(each) for each in called))
            for each, result in zip(called, results, strict=True):
                yield Returned(each, result)
                if result.sources:
                    self._found.append(result.sources)
            # A result may be long, and its encoding would keep all other streams waiting.
            await asyncio.to_thread(talk.answered, [result.text for result in results])
            if talk.finished:
                yield self._ended("length")
                return

    def _room(self, forced: Sequence[Function]) -> int:
        room = self._talk.room - len(_opening(self._talk.tokenizer, forced))
        return room if self._wish.limit is None else min(room, self._wish.limit - self._generated)

    def _request(self, forced: Sequence[Function], bound: bool) -> dict[str, Any]:
        form = grammar_of(_call_schema(forced)) if forced else self._wish.form if bound else None
        return self._wish.sampling | {
            "prompt": [*self._talk.ids, *_opening(self._talk.tokenizer, forced)],
            "max_tokens": self._room(forced), "stop": [] if forced else list(self._wish.stop),
            "structured_outputs": form,
        }  # fmt: skip

    def _is_theirs(self, call: Call) -> bool:
        return call.name not in self._wish.ours and any(call.name == tool.name for tool in self._talk.tools)

    async def _run(self, called: Called) -> ToolResult:
        if called.name not in self._wish.ours:
            there = ", ".join(tool.name for tool in self._talk.tools)
            return ToolResult("", f"there is no tool {called.name!r}; there are {there}")
        return await self._run_tool(called.name, called.arguments)

    def _ended(self, reason: Literal["stop", "length", "tool_calls"]) -> Ended:
        last = self._talk.replies[-1].content if self._talk.replies else ""
        begin = max(0, len(self._said) - len(last))
        citations = cited(self._said, begin, self._found, self._wish.cite_share)
        read = len(self._talk.ids) - self._begun - sum(self._talk.own)
        return Ended(reason, citations, max(0, read), self._generated)


class _Completion:
    """Reads one completion. `ids`: what the conversation takes. `cut`: one of the client's stop strings came."""

    def __init__(self, tokenizer: Tokenizer, calls: bool, wish: Wish):
        self.reader = Reader(tokenizer, calls)
        self.ids: list[int] = []
        self.generated, self.reason, self.cut = 0, "length", False
        self._tokenizer, self._wish = tokenizer, wish

    async def read(self, chunks: AsyncIterator[Chunk], forced: Sequence[Function]) -> AsyncIterator[Text]:
        until = Until(self._wish.stop)
        opening = _opening(self._tokenizer, forced)
        self.reader.add(opening)
        async for chunk in chunks:
            if "error" in chunk:
                raise refused_by_engine(chunk["error"])
            for choice in chunk["choices"]:
                ids = choice["token_ids"] or []
                self.generated += len(ids)
                said, logprobs = "", []
                for place, token in enumerate(ids):
                    said += self.reader.add([token])
                    if choice["logprobs"] and not self.reader.calling and token not in self._tokenizer.special_ids:
                        logprobs.append(self._logprob(token, choice["logprobs"], place))
                self.ids += ids
                self.reason = choice["finish_reason"] or self.reason
                shown = until.add(said)
                if shown or logprobs:
                    yield Text(shown, logprobs)
        if rest := until.add(self.reader.close(), last=True):
            yield Text(rest, [])
        self.cut = until.found
        if forced:
            ended = self.ids[-1:] if self.ids and self.ids[-1] == self._tokenizer.stops[0] else []
            closing = marker(self._tokenizer, self._tokenizer.markers.call_end) if self.reason == "stop" else []
            self.ids = [*opening, *self.ids[: len(self.ids) - len(ended)], *closing, *ended]

    def _logprob(self, token: int, told: dict[str, Any], place: int) -> dict[str, Any]:
        tops = ((int(name.rpartition(":")[2]), value) for name, value in told["top_logprobs"][place].items())
        known = sorted((pair for pair in tops if pair[0] < self._tokenizer.vocabulary), key=lambda pair: -pair[1])
        best = [self._token(*pair) for pair in known[: self._wish.top_logprobs]]
        return self._token(token, told["token_logprobs"][place]) | {"top_logprobs": best}

    def _token(self, token: int, logprob: float) -> dict[str, Any]:
        written = self._tokenizer.bytes_of([token])
        return {"token": written.decode("utf-8", "replace"), "logprob": logprob, "bytes": list(written)}


class Until:
    """Text up to the first of some strings, whose pieces are held back."""

    def __init__(self, stops: Sequence[str]):
        self._stops, self._held, self.found = stops, "", False

    def add(self, text: str, last: bool = False) -> str:
        if self.found:
            return ""
        text = self._held + text
        if places := [place for stop in self._stops if (place := text.find(stop)) >= 0]:
            self.found = True
            return text[: min(places)]
        begun = (size for stop in self._stops for size in range(1, len(stop)) if text.endswith(stop[:size]))
        kept = len(text) - (0 if last else max(begun, default=0))
        self._held = text[kept:]
        return text[:kept]


def cited(text: str, begin: int, found: Sequence[tuple[Source, ...]], share: float) -> list[Citation]:
    """The sources that an answer, which begins at `begin`, rests on: those that it names, `[2]` by its number in the
    last results that have so many, or by address; where it names none, those that tell such a share of its words."""
    citations = []
    for match in CITED.finditer(text, begin):
        named = match[0] if match[1] else match[0].rstrip(".,;:!?'\"")
        numbered = ((number, each) for some in reversed(found) for number, each in enumerate(some, 1))
        source = next((each for number, each in numbered if named in (f"[{number}]", each.url)), None)
        if source:
            citations.append(Citation(source, match.start(), match.start() + len(named)))
    if citations or not (words := _words(text[begin:])):
        return citations
    shown = {each.url: each for some in found for each in some}
    telling = (each for each in shown.values() if len(words & _words(each.text)) >= share * len(words))
    return [Citation(each, begin, len(text)) for each in telling]


def _words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def refused_by_engine(told: dict[str, Any]) -> ApiError:
    status = told.get("code") if isinstance(told.get("code"), int) else 500
    return ApiError(status, str(told.get("message")), param=told.get("param"))


async def merged(answers: Sequence[AsyncIterator[Event]]) -> AsyncIterator[tuple[int, Event]]:
    """The events of several answers as they come, each with its answer's number."""
    if len(answers) == 1:
        async for event in answers[0]:
            yield 0, event
        return
    queue: asyncio.Queue[tuple[int, Event | Exception]] = asyncio.Queue()

    async def follow(number: int, events: AsyncIterator[Event]) -> None:
        try:
            async for event in events:
                queue.put_nowait((number, event))
        except Exception as error:  # noqa: BLE001 (raised below, where it is awaited)
            queue.put_nowait((number, error))

    followed = [asyncio.create_task(follow(number, events)) for number, events in enumerate(answers)]
    try:
        going = len(answers)
        while going:
            number, event = await queue.get()
            if isinstance(event, Exception):
                raise event
            going -= isinstance(event, Ended)
            yield number, event
    finally:
        for task in followed:
            task.cancel()


def _opening(tokenizer: Tokenizer, forced: Sequence[Function]) -> list[int]:
    """What is put into the model's mouth, so that a call must follow."""
    return marker(tokenizer, tokenizer.markers.call) if forced else []


def _call_schema(functions: Sequence[Function]) -> dict[str, Any]:
    """Of the JSON that calls one of these. Definitions that their schemas refer to are found at the root."""
    defined: dict[str, Any] = {}
    forms = []
    for each in functions:
        parameters = dict(each.parameters or {"type": "object"})
        for name, definition in parameters.pop("$defs", {}).items():
            if defined.setdefault(name, definition) != definition:
                raise ApiError(400, f"tools: two functions define $defs.{name} differently", param="tools")
        properties = {"name": {"type": "string", "enum": [each.name]}, "arguments": parameters}
        form = {"type": "object", "properties": properties, "required": ["name", "arguments"]}
        forms.append(form | {"additionalProperties": False})
    return (forms[0] if len(forms) == 1 else {"anyOf": forms}) | ({"$defs": defined} if defined else {})


def _new_id() -> str:
    return f"call_{uuid.uuid4().hex[:24]}"
