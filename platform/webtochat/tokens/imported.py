"""A tokenizer from elsewhere, with its own chat template: which of its tokens are control is found here, and held
against the template, so that the renderer and the template agree on every text that holds no markers.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from itertools import zip_longest
from typing import Any, NamedTuple

from jinja2 import TemplateError
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models

from webtochat.errors import UserError
from webtochat.tokens import markers
from webtochat.tokens.chat import Definition, render
from webtochat.tokens.markers import DEFINITIONS, END_OF_TEXT, MESSAGE_END, MESSAGE_START, OURS, Markers
from webtochat.tokens.tokenizer import MARKERS, SPECIALS, TOLD_TOOLS, Tokenizer, backend_of, read_files

CHATML = Markers(
    pad=END_OF_TEXT, role_end="\n", after_message="\n", call="<tool_call>\n", call_end="\n</tool_call>",
    response="<tool_response>\n", response_end="\n</tool_response>", between="\n", response_role="user",
)  # fmt: skip
"""Qwen's form."""
MESSAGE_TOKENS = [MESSAGE_START, MESSAGE_END]
TOOL_TOKENS = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"]
TEMPLATE = "chat_template.jinja"

CHATML_TEMPLATE = (
    TOLD_TOOLS.replace("START", "'<|im_start|>system\\n'").replace("END", "'<|im_end|>\\n'")
    + "{%- for message in messages -%}"
    "{%- if message['role'] != 'tool' -%}{{- '<|im_start|>' + message['role'] + '\\n' + (message['content'] or '') -}}"
    "{%- if loop.first and told and message['role'] == 'system' -%}"
    "{{- ('\\n\\n' if message['content'] else '') + told -}}"
    "{%- endif -%}"
    "{%- elif loop.first or loop.previtem['role'] != 'tool' -%}{{- '<|im_start|>user\\n' -}}{%- else -%}{{- '\\n' -}}"
    "{%- endif -%}"
    "{%- if message['role'] == 'tool' -%}"
    "{{- '<tool_response>\\n' + message['content'] + '\\n</tool_response>' -}}"
    "{%- endif -%}"
    "{%- for call in message['tool_calls'] or [] -%}"
    "{%- if message['content'] or not loop.first -%}{{- '\\n' -}}{%- endif -%}"
    "{%- set function = call['function'] or call -%}{%- set arguments = function['arguments'] -%}"
    "{{- '<tool_call>\\n{\"name\": ' + (function['name'] | tojson) + ', \"arguments\": '"
    " + (arguments if arguments is string else (arguments or {}) | tojson) + '}\\n</tool_call>' -}}"
    "{%- endfor -%}"
    "{%- if message['role'] != 'tool' or loop.last or loop.nextitem['role'] != 'tool' -%}"
    "{{- '<|im_end|>\\n' -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}"
)
"""The same form as a template, for a tokenizer that comes without one or cannot say tool calls in its own."""

_CHAT: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief.\n\nSay (only) what was asked: \"yes\"."},
    {"role": "user", "content": "What is 12 plus 30?\nAnd in words?"},
    {"role": "assistant", "content": "42; forty-two."},
    {"role": "user", "content": "Ça va, 小明? 🙂 {x}"},
    {"role": "assistant", "content": "Très bien:\n\n```\nx = {'a': [1]}\n```"},
]  # fmt: skip
_CALL = {"type": "function", "function": {"name": "python", "arguments": {"code": "print(12 + 30)\n# é"}}}
_TOOLS: list[dict[str, Any]] = [
    _CHAT[1], {"role": "assistant", "content": "Let me see.", "tool_calls": [_CALL, _CALL]},
    {"role": "tool", "content": "42\n"}, {"role": "tool", "content": '{"result": [42]}'}, _CHAT[2], _CHAT[3],
    {"role": "assistant", "content": "", "tool_calls": [_CALL]}, {"role": "tool", "content": "bien"}, _CHAT[4],
]  # fmt: skip
CONVERSATIONS = {
    "a system message and a question": _CHAT[:2], "two turns": _CHAT, "two turns without a system message": _CHAT[1:],
    "a question after an answer": _CHAT[:4],
}  # fmt: skip
TOOL_CONVERSATIONS = {"tool calls and responses": _TOOLS, "a tool call": _TOOLS[:2], "tool responses": _TOOLS[:4]}
_DEFINITIONS: list[dict[str, Any]] = [
    {"type": "function", "function": {"name": name, "description": "It's \"é\" <1>", "parameters": {"type": "object"}}}
    for name in ("python", "web_search")
]


class Adopted(NamedTuple):
    tokenizer: Tokenizer
    notes: list[str]
    """Lines on what it lacks, for the screen."""
    added: list[int]
    """Ids that it did not have."""


def adopted(directory: str, by_hand: dict[str, Any], add: bool = False) -> Adopted:
    """A directory's tokenizer with its marker map.

    `by_hand`: markers that do not follow from the tokenizer; they are taken also where its template says otherwise.
    `add`: the tokens of CHATML that are missing are added, after all others. Raises UserError where the tokenizer is of
    another kind, or where the map that was found is not the chat template's.
    """
    files = read_files(directory)
    backend = backend_of(files, directory)
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    if not by_hand and (MARKERS in files or known >= set(SPECIALS)):
        return Adopted(Tokenizer.load(directory), [], [])
    if not (isinstance(backend.model, models.BPE) and isinstance(backend.decoder, decoders.ByteLevel)):
        raise UserError(f"the tokenizer in {directory} is not a byte-level BPE, and no other is understood")
    missing = [token for token in (END_OF_TEXT, *MESSAGE_TOKENS, *TOOL_TOKENS) if token not in known]
    added, lacking = (missing, set[str]()) if add else ([], set(missing))
    if added:
        files["tokenizer.json"] = _with_tokens(files["tokenizer.json"], added, max(backend.get_vocab().values()) + 1)
        backend = backend_of(files, directory)
        files[TEMPLATE] = CHATML_TEMPLATE.encode()
    base = OURS if known >= set(SPECIALS) else _without(CHATML, lacking)
    found = markers.read({"pad": by_hand.get("document", base.pad)} | by_hand, "tokenizer.markers", base)
    if END_OF_TEXT in lacking and "document" not in by_hand:
        raise UserError(
            f"the tokenizer in {directory} has no {END_OF_TEXT}: name the token that stands between documents as "
            "tokenizer.markers.document, or add what is missing by pretrain.add_markers=true"
        )
    notes = [f"added to the tokenizer, with a chat template that has them: {' '.join(added)}"] if added else []
    if not found.chats:
        notes.append("the tokenizer has no markers of messages: it cannot be fine-tuned or chat (pretrain.add_markers)")
    elif not found.calls:
        lacks = " ".join(token for token in TOOL_TOKENS if token in lacking)
        notes.append(f"the tokenizer has no {lacks}: it can chat, but not call tools (pretrain.add_markers)")
    if found.chats:
        theirs = _theirs(backend, found, files)
        if theirs.chat_template is None and not by_hand:
            files[TEMPLATE] = CHATML_TEMPLATE.encode()
            notes.append("the tokenizer has no chat template: one of its form goes with it")
            theirs = _theirs(backend, found, files)
        if theirs.chat_template is not None:
            if "thoughts" not in by_hand:
                found = replace(found, thoughts=_thoughts(theirs, found, known))
            differs = _difference(Tokenizer(backend, found), theirs)
            if differs and not by_hand:
                raise UserError(f"{differs}: give tokenizer.markers by hand for the tokenizer in {directory}")
            notes += [f"taken as given by hand, though {differs}"] if differs else []
            if found.calls and "tools" not in by_hand and not differs:
                told = replace(found, tools=_tools(theirs, found))
                differs = _difference(Tokenizer(backend, told), theirs, _DEFINITIONS)
                found = found if differs else told
                notes += [f"tools are told by their names alone, as {differs}"] if differs else []
    tokenizer = Tokenizer(backend, found, files | {MARKERS: found.write()})
    return Adopted(tokenizer, notes, [tokenizer.special(each) for each in added])


def _with_tokens(content: bytes, tokens: list[str], first: int) -> bytes:
    """tokenizer.json with more special tokens, numbered from `first`."""
    made = json.loads(content)
    plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
    for number, token in enumerate(tokens, first):
        made["added_tokens"].append({"id": number, "content": token, **plain, "special": True})
    return json.dumps(made, ensure_ascii=False, indent=2).encode()


def _without(form: Markers, missing: set[str]) -> Markers:
    """The form, less messages or tools where a token of theirs is missing."""
    none: dict[str, Any] = {}
    if missing & set(MESSAGE_TOKENS):
        none |= dict.fromkeys(("message_start", "message_end"))
    if missing & set(TOOL_TOKENS):
        none |= dict.fromkeys(("call", "call_end", "response", "response_end"))
    return replace(form, **none)


def _theirs(backend: Backend, found: Markers, files: dict[str, bytes]) -> Any:
    """The same files as transformers reads them."""
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory(prefix="webtochat-") as directory:
        Tokenizer(backend, found, files).save(directory)
        try:
            return AutoTokenizer.from_pretrained(directory)
        except (ValueError, OSError, KeyError, TypeError, ImportError) as error:
            raise UserError(
                f"transformers does not read this tokenizer ({' '.join(str(error).split())[:200]}): it needs a "
                "tokenizer_config.json that names its class"
            ) from error


def _thoughts(theirs: Any, found: Markers, known: set[str]) -> str:
    """What its template's prompt has after the assistant's opening, where thinking is off: nothing, or an empty block
    of thoughts."""
    try:
        prompt = _templated(theirs, _CHAT[:2], tokenize=False, add_generation_prompt=True)
    except TemplateError:
        return ""  # told by _difference
    rest = prompt.rpartition(f"{found.message_start}assistant{found.role_end}")[2]
    text = re.sub("|".join(map(re.escape, known)), "", rest)
    return rest if rest != prompt and not text.strip() else ""


def _tools(theirs: Any, found: Markers) -> str:
    """How its template tells of tools in a system message of nothing else, as a marker; as it is by default where it
    does not tell of them there."""
    try:
        alone, plain = (_templated(theirs, _CHAT[1:2], tokenize=False, tools=each) for each in (_DEFINITIONS, None))
    except TemplateError:
        return found.tools
    begin, end = f"{found.message_start}system{found.role_end}", f"{found.message_end}{found.after_message}{plain}"
    form = alone.removeprefix(begin).removesuffix(end)
    listed = "\n".join(json.dumps(each, ensure_ascii=False) for each in _DEFINITIONS)
    understood = alone == begin + form + end and listed in form
    return form.replace(listed, DEFINITIONS) if understood else found.tools


def _difference(tokenizer: Tokenizer, theirs: Any, tools: Sequence[Definition] = ()) -> str:
    """The first place where the template's ids are not the renderer's, in words; "" where there is none."""
    cases = CONVERSATIONS | (TOOL_CONVERSATIONS if tokenizer.markers.calls else {})
    if tools:
        cases = {f"{name}, told of tools": messages for name, messages in cases.items()}
    for name, messages in cases.items():
        asking = messages[-1]["role"] != "assistant"
        ours = render(tokenizer, messages, add_generation_prompt=asking, tools=tools).ids
        try:
            ids = _templated(
                theirs, messages, tokenize=True, add_generation_prompt=asking, tools=list(tools) or None
            )
        except TemplateError as error:
            return f"its chat template does not take {name} ({' '.join(str(error).split())[:100]})"
        place = next((n for n, pair in enumerate(zip_longest(ids, ours)) if pair[0] != pair[1]), None)
        if place is not None:
            told = [repr(tokenizer.decode(each[place : place + 4])) for each in (ids, ours)]
            return f"its chat template and its markers differ on {name}: {told[0]} for {told[1]} at token {place}"
    return ""


def _templated(theirs: Any, messages: list[dict[str, Any]], **options: Any) -> Any:
    return theirs.apply_chat_template(messages, return_dict=False, enable_thinking=False, **options)
