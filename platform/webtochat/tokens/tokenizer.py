"""Byte-level BPE: the 256 bytes, then merges of frequent pairs, then nine special tokens; or one from elsewhere.

Contents are always encoded with the special tokens off, so text that looks like a marker stays text; markers are
placed by id (`special`). Text comes back byte for byte.

The file is Hugging Face's tokenizer.json; text is encoded by tiktoken from the same merges, several times as fast on a
core, with the same ids.
"""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import tiktoken
from tokenizers import Regex, decoders, models, pre_tokenizers
from tokenizers import Tokenizer as Backend

from webtochat.errors import UserError
from webtochat.memo import Memo
from webtochat.start import TOKENIZER_FILES
from webtochat.tokens import counts, markers, merges
from webtochat.tokens.markers import (
    END_OF_TEXT,
    MESSAGE_END,
    MESSAGE_START,
    OURS,
    PAD,
    ROLE_END,
    TOOL_CALL,
    TOOL_CALL_END,
    TOOL_RESPONSE,
    TOOL_RESPONSE_END,
    Markers,
)  # fmt: skip

SPECIALS = [
    END_OF_TEXT, PAD, MESSAGE_START, ROLE_END, MESSAGE_END,
    TOOL_CALL, TOOL_CALL_END, TOOL_RESPONSE, TOOL_RESPONSE_END,
]  # fmt: skip

TOLD_TOOLS = (
    "{%- set told = '' -%}{%- if tools -%}"
    "{%- set told = 'Tools: ' + (tools | map(attribute='function.name') | join(', ')) + '.' -%}"
    "{%- if messages[0]['role'] != 'system' -%}{{- START + told + END -}}{%- endif -%}{%- endif -%}"
)
"""How a template of ours tells tools by name. START and END are those of a system message. After what a system message
says, `told` is to come on a line of its own."""
CHAT_TEMPLATE = (
    TOLD_TOOLS.replace("START", "'<|im_start|>system<|im_sep|>'").replace("END", "'<|im_end|>'")
    + "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '<|im_sep|>' -}}"
    "{%- if message['role'] == 'tool' -%}{{- '<tool_response>' + message['content'] + '</tool_response>' -}}"
    "{%- else -%}{{- message['content'] or '' -}}{%- endif -%}"
    "{%- if loop.first and told and message['role'] == 'system' -%}"
    "{{- ('\\n\\n' if message['content'] else '') + told -}}"
    "{%- endif -%}"
    "{%- for call in message['tool_calls'] or [] -%}"
    "{%- set function = call['function'] or call -%}{%- set arguments = function['arguments'] -%}"
    "{{- '<tool_call>{\"name\": ' + (function['name'] | tojson) + ', \"arguments\": '"
    " + (arguments if arguments is string else (arguments or {}) | tojson) + '}</tool_call>' -}}"
    "{%- endfor -%}"
    "{{- '<|im_end|>' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|im_start|>assistant<|im_sep|>' -}}{%- endif -%}"
)
"""The renderer's form for outside users of an export; text that holds markers needs the renderer (tokens/chat.py)."""


MARKERS = "markers.json"


class Tokenizer:
    def __init__(self, backend: Backend, marked: Markers = OURS, files: dict[str, bytes] | None = None):
        """`backend`: all its added tokens are special. `files`: those of a tokenizer from elsewhere. Raises UserError
        where `marked` names a token that there is not."""
        self.backend = backend
        self.backend.encode_special_tokens = True  # markers in text are text
        self.markers = marked
        self.files = files
        self._specials = {token.content: number for number, token in backend.get_added_tokens_decoder().items()}
        self._parts = Memo(self._split)
        for name, form in marked.forms():
            parts = self.parts(form)
            held = [each for each in parts if isinstance(each, int)]
            text = "".join(each for each in parts if isinstance(each, str)).strip()
            if text:
                raise UserError(
                    f"this tokenizer has no {text} token: train one with jobs/tokenizer.py, or import it by "
                    "tokenizer.start or pretrain.start"
                )
            if (name in markers.ALONE and parts != held[:1]) or (name in markers.ONE and len(held) != 1):
                raise UserError(f"the marker {name} of a tokenizer must be one token, and {form!r} is not")

    @staticmethod
    def load(directory: str) -> Tokenizer:
        files = read_files(directory)
        if MARKERS not in files:
            return Tokenizer(backend_of(files, directory))
        path = os.path.join(directory, MARKERS)
        try:
            told = json.loads(files[MARKERS])
        except ValueError as error:
            raise UserError(f"{path} is not JSON: import the tokenizer again") from error
        return Tokenizer(backend_of(files, directory), markers.read(told, path), files)

    def save(self, directory: str) -> None:
        """tokenizer.json, its configuration and chat template, as transformers and vLLM read them."""
        os.makedirs(directory, exist_ok=True)
        if self.files is not None:
            for name, content in self.files.items():
                with open(os.path.join(directory, name), "wb") as kept:
                    kept.write(content)
            return
        # The flag is not stored: outside users get the library's usual behaviour, and we set it on load.
        self.backend.encode_special_tokens = False
        self.backend.save(os.path.join(directory, "tokenizer.json"))
        self.backend.encode_special_tokens = True
        configuration = {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": MESSAGE_END,
            "pad_token": PAD,
            "extra_special_tokens": [marker for marker in SPECIALS if marker not in (MESSAGE_END, PAD)],
            "clean_up_tokenization_spaces": False,
            "model_max_length": 1 << 30,
            "chat_template": CHAT_TEMPLATE,
        }
        with open(os.path.join(directory, "tokenizer_config.json"), "w", encoding="utf-8") as sink:
            json.dump(configuration, sink, indent=1)

    def save_ranks(self, path: str) -> None:
        """The tokens' bytes and ids as tiktoken.load.load_tiktoken_bpe reads them, without the special tokens. Its
        pat_str is the pattern of tokenizer.json (of a pattern that leaves something out, `counts.covering` of it)."""
        with open(path, "wb") as sink:
            for number in range(self.vocabulary):
                if number not in self.special_ids:
                    sink.write(base64.b64encode(self.bytes_of([number])) + b" %d\n" % number)

    @cached_property
    def vocabulary(self) -> int:
        """Number of ids, special tokens included. The model's embedding may have more rows."""
        return max(self._ids.values()) + 1

    def special(self, marker: str) -> int:
        return self._specials[marker]

    @property
    def separator(self) -> int:
        """Stands before each document."""
        return self.special(self.markers.document)

    @property
    def pad(self) -> int:
        return self.special(self.markers.pad)

    @property
    def stops(self) -> list[int]:
        """Where generation ends: first of all at an answer's own end."""
        ends = (self.markers.message_end, self.markers.document, self.markers.message_start)
        return [self.special(each) for each in ends if each is not None]

    def parts(self, form: str) -> list[int | str]:
        """A marker as it is placed: the ids of tokens, and the text between them."""
        return self._parts[form]

    def _split(self, form: str) -> list[int | str]:
        tokens = "|".join(map(re.escape, sorted(self._specials, key=len, reverse=True)))
        return [self._specials.get(piece, piece) for piece in re.split(f"({tokens})", form) if piece]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self._specials.values())

    def writes_as(self, other: Tokenizer) -> bool:
        """Whether both write every document as the same ids, the separator included."""
        mine, theirs = (json.loads(each.backend.to_str()) for each in (self, other))
        parts = ("normalizer", "pre_tokenizer", "model")
        return self.separator == other.separator and all(mine[part] == theirs[part] for part in parts)

    def encode(self, text: str) -> list[int]:
        """Raises ValueError for what UTF-8 cannot hold: a lone surrogate, as JSON may bring."""
        try:
            text.encode()
        except UnicodeEncodeError as error:  # tiktoken would put U+FFFD in its place
            raise ValueError("not UTF-8 text") from error
        if self.fast and not (len(text) > LONG_RUN and _LONG_RUN.search(text)):
            try:
                return self.fast.encode_ordinary(text)
            except BaseException as error:
                if type(error).__name__ != "PanicException":  # tiktoken's, where a pattern takes too many steps
                    raise
        return self.backend.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """On one core: a stage spreads texts over tasks of one core each."""
        return [self.encode(text) for text in texts]

    @cached_property
    def fast(self) -> tiktoken.Encoding | None:
        """The same in tiktoken; None for a tokenizer.json from elsewhere, unless it is just as `build` makes it.

        Hugging Face merges by the order of its pairs, tiktoken by the id of what a pair makes. That is the same if the
        merges are numbered in order and were learned from texts: then each token comes from one pair only.
        """
        made = json.loads(self.backend.to_str())
        try:
            vocabulary = made["model"]["vocab"]
            pairs = [(vocabulary[left], vocabulary[right]) for left, right in made["model"]["merges"]]
            pattern = made["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"]
            if json.loads(build(pairs, pattern).to_str()) != made:
                return None
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        ranks = {bytes(_BYTES[letter] for letter in name): number for name, number in vocabulary.items()}
        covering = counts.covering(pattern)
        return tiktoken.Encoding("webtochat", pat_str=covering, mergeable_ranks=ranks, special_tokens={})

    @cached_property
    def _ids(self) -> dict[str, int]:
        return self.backend.get_vocab()

    @cached_property
    def _ranks(self) -> dict[tuple[int, int], tuple[int, int]]:
        """Of each pair of ids that is merged: its rank, and the id that it makes."""
        ids, pairs = self._ids, json.loads(self.backend.to_str())["model"]["merges"]
        return {(ids[left], ids[right]): (rank, ids[left + right]) for rank, (left, right) in enumerate(pairs)}

    def merging(self, piece: str) -> list[tuple[int, int, int]]:
        """The merges that make a piece's tokens of its bytes, in order: rank, left id, right id."""
        ids, applied = [self._ids[_LETTERS[byte]] for byte in piece.encode()], []
        while found := [(self._ranks[pair], place) for place, pair in enumerate(pairwise(ids)) if pair in self._ranks]:
            (rank, token), place = min(found)
            applied.append((rank, ids[place], ids[place + 1]))
            ids[place : place + 2] = [token]
        return applied

    def pieces(self, text: str) -> list[str]:
        """What the text is cut into before merging, as the backend cuts it."""
        cut = self.backend.pre_tokenizer.pre_tokenize_str(text)
        return [text[start:end] for _, (start, end) in cut]

    def decode(self, ids: list[int]) -> str:
        """The text of the ids; special tokens are shown as their markers."""
        return self.backend.decode(ids, skip_special_tokens=False)

    def bytes_of(self, ids: list[int]) -> bytes:
        """The very bytes of the ids, where `decode` shows those that are not whole characters as U+FFFD. Special tokens
        are their markers."""
        parts = []
        for number in ids:
            name = self.backend.id_to_token(number)
            if name is None:
                raise ValueError(f"no token {number} in a vocabulary of {self.vocabulary}")
            parts.append(name.encode() if number in self.special_ids else bytes(_BYTES[letter] for letter in name))
        return b"".join(parts)


def read_files(directory: str) -> dict[str, bytes]:
    """A tokenizer's files by name. Raises UserError where there is none."""
    if not os.path.isfile(os.path.join(directory, "tokenizer.json")):
        raise UserError(f"no tokenizer.json in {directory}")
    paths = {name: os.path.join(directory, name) for name in TOKENIZER_FILES}
    return {name: Path(path).read_bytes() for name, path in paths.items() if os.path.isfile(path)}


def backend_of(files: dict[str, bytes], origin: str) -> Backend:
    """Every added token is made special (Qwen's `<tool_call>` is not), else text that looks like it would be it."""
    try:
        made = json.loads(files["tokenizer.json"])
        for token in made["added_tokens"]:
            token["special"] = True
        return Backend.from_str(json.dumps(made | {"truncation": None, "padding": None}))
    except Exception as error:  # the library raises no narrower one
        path = os.path.join(origin, "tokenizer.json")
        raise UserError(f"{path} is not a tokenizer: {' '.join(str(error).split())[:120]}") from error


def train(texts: Iterable[str], vocabulary: int, pattern: str) -> Tokenizer:
    """Learns `vocabulary` − 256 − 9 merges (fewer if the texts hold no more pairs) from texts split by `pattern`."""
    return learn(counts.count(texts, pattern).table, vocabulary, pattern)


def learn(counted: pa.Table, vocabulary: int, pattern: str) -> Tokenizer:
    """The same from pieces and their counts."""
    return Tokenizer(build(merges.learn(counted, _ids_of_bytes(), vocabulary - 256 - len(SPECIALS)), pattern))


def build(pairs: list[tuple[int, int]], pattern: str) -> Backend:
    """Ids: the bytes in the order of their letters, then what each pair of ids makes, then the special tokens."""
    names = _alphabet()
    for left, right in pairs:
        names.append(names[left] + names[right])
    vocabulary = {name: number for number, name in enumerate(names)}
    backend = Backend(models.BPE(vocabulary, [(names[left], names[right]) for left, right in pairs]))
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIALS))
    return backend


def _alphabet() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def _ids_of_bytes() -> np.ndarray:
    """[256]"""
    ids = np.zeros(256, np.int64)
    ids[[_BYTES[letter] for letter in _alphabet()]] = np.arange(256)
    return ids


LONG_RUN = 100_000
_LONG_RUN = re.compile(rf"\s{{{LONG_RUN}}}")
"""tiktoken's pattern engine overflows its stack on some 800,000 spaces on end, and says so on the screen."""

# Byte-level BPE writes each byte as one letter: itself where that is printable in Latin-1, else the next letter from
# U+0100 on (Radford et al. 2019).
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(0x100 + place): byte for place, byte in enumerate(sorted(set(range(256)) - set(_PRINTABLE)))
}
_LETTERS = {byte: letter for letter, byte in _BYTES.items()}
