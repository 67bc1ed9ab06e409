"""Which of a tokenizer's tokens are control. Our own form needs no map; an imported tokenizer keeps its own form, and
has its map beside it, in `markers.json` (imported.py finds it).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import Any

from webtochat.errors import UserError

END_OF_TEXT, PAD = "<|endoftext|>", "<|pad|>"
MESSAGE_START, ROLE_END, MESSAGE_END = "<|im_start|>", "<|im_sep|>", "<|im_end|>"
TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"
TOOL_RESPONSE, TOOL_RESPONSE_END = "<tool_response>", "</tool_response>"

ALONE = {"document", "pad", "message_start", "message_end"}
"""Fields that are a token and nothing else."""
ONE = {"call", "call_end", "response", "response_end"}
"""Fields that hold one token."""
OPTIONAL = ONE | {"message_start", "message_end"}
NAMES, DEFINITIONS = "{names}", "{definitions}"


@dataclass(frozen=True)
class Markers:
    """A map is written as text: in it, what the tokenizer knows as an added token stands for that token's id, and the
    rest may be white space only, which is encoded together with the contents beside it, as a template would have it.
    (`}` and a line end are one token of Qwen's.) None: the tokenizer has no such marker."""

    document: str = END_OF_TEXT
    """Before each document."""
    pad: str = PAD
    message_start: str | None = MESSAGE_START
    role_end: str = ROLE_END
    """Between a message's role and its content."""
    message_end: str | None = MESSAGE_END
    after_message: str = ""
    call: str | None = TOOL_CALL
    call_end: str | None = TOOL_CALL_END
    response: str | None = TOOL_RESPONSE
    response_end: str | None = TOOL_RESPONSE_END
    between: str = ""
    """Between an answer and its calls, between calls, and between the responses of one message."""
    response_role: str = "tool"
    """Under which tool responses are sent. Where it is another than `tool`, those in a row are one message."""
    tools: str = f"Tools: {NAMES}."
    """How a system message tells which tools there are, after what else it says: in place of `{names}` their names, of
    `{definitions}` their JSON, one a line. By name a small model can afford; what the names mean it learns by example.
    May hold any text."""
    thoughts: str = ""
    """An empty block of thoughts: before an answer that ends the conversation, and at the end of a prompt."""

    @property
    def chats(self) -> bool:
        """Whether it has what messages are made of."""
        return self.message_start is not None and self.message_end is not None

    @property
    def calls(self) -> bool:
        """Whether it has what tool calls and their responses are made of."""
        return None not in (self.call, self.call_end, self.response, self.response_end)

    def forms(self) -> list[tuple[str, str]]:
        """Field and text of each marker that there is, less those that may hold any text."""
        texts = ("response_role", "tools")
        return [(name, form) for name, form in asdict(self).items() if form is not None and name not in texts]

    def write(self) -> bytes:
        return json.dumps(asdict(self), indent=1, ensure_ascii=False).encode()


OURS = Markers()


def read(content: Any, origin: str, base: Markers = OURS) -> Markers:
    """`base` with the fields that are told. Raises UserError, one line, for what is no map, and fields that there are
    not."""
    if not isinstance(content, dict):
        raise UserError(f"{origin} is not a map of markers: import the tokenizer again")
    known = [each.name for each in fields(Markers)]
    for name, value in content.items():
        if name not in known:
            raise UserError(f"{origin}: no marker {name}; there are {', '.join(known)}")
        if not isinstance(value, str) and not (value is None and name in OPTIONAL):
            raise UserError(f"{origin}: {name} must be text")
    return Markers(**(asdict(base) | content))
