"""Byte-level BPE: the 256 bytes, then merges of frequent pairs, then nine special tokens.

Contents are always encoded with the special tokens off, so text that looks like a marker stays text; markers are
placed by id (`special`). Text comes back byte for byte.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from functools import cached_property

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

from webtochat.errors import UserError

END_OF_TEXT, PAD = "<|endoftext|>", "<|pad|>"
MESSAGE_START, ROLE_END, MESSAGE_END = "<|im_start|>", "<|im_sep|>", "<|im_end|>"
TOOL_CALL, TOOL_CALL_END = "<tool_call>", "</tool_call>"
TOOL_RESPONSE, TOOL_RESPONSE_END = "<tool_response>", "</tool_response>"
SPECIALS = [
    END_OF_TEXT, PAD, MESSAGE_START, ROLE_END, MESSAGE_END,
    TOOL_CALL, TOOL_CALL_END, TOOL_RESPONSE, TOOL_RESPONSE_END,
]  # fmt: skip

CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{{- '<|im_start|>' + message['role'] + '<|im_sep|>' -}}"
    "{%- if message['role'] == 'tool' -%}{{- '<tool_response>' + message['content'] + '</tool_response>' -}}"
    "{%- else -%}{{- message['content'] or '' -}}{%- endif -%}"
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


class Tokenizer:
    def __init__(self, backend: Backend):
        self.backend = backend
        self.backend.encode_special_tokens = True  # markers in text are text
        self._specials = {}
        for marker in SPECIALS:
            number = backend.token_to_id(marker)
            if number is None:
                raise UserError(f"this tokenizer has no {marker} token: train one with jobs/tokenizer.py")
            self._specials[marker] = number

    @staticmethod
    def load(directory: str) -> Tokenizer:
        path = os.path.join(directory, "tokenizer.json")
        if not os.path.isfile(path):
            raise UserError(f"no tokenizer.json in {directory}")
        try:
            backend = Backend.from_file(path)
        except Exception as error:  # the library raises no narrower one
            raise UserError(f"{path} is not a tokenizer: {' '.join(str(error).split())[:120]}") from error
        return Tokenizer(backend)

    def save(self, directory: str) -> None:
        """tokenizer.json, its configuration and chat template, as transformers and vLLM read them."""
        os.makedirs(directory, exist_ok=True)
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

    @property
    def vocabulary(self) -> int:
        """Number of ids, special tokens included."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    def special(self, marker: str) -> int:
        return self._specials[marker]

    @cached_property
    def special_ids(self) -> frozenset[int]:
        return frozenset(self._specials.values())

    def encode(self, text: str) -> list[int]:
        """Raises ValueError for what UTF-8 cannot hold: a lone surrogate, as JSON may bring."""
        try:
            return self.backend.encode(text, add_special_tokens=False).ids
        except TypeError as error:
            raise ValueError("not UTF-8 text") from error

    def encode_batch(self, texts: list[str]) -> list[list[int]]:
        """Uses every core that RAYON_NUM_THREADS allows."""
        return [encoding.ids for encoding in self.backend.encode_batch(texts, add_special_tokens=False)]

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


def train(texts: Iterable[str], vocabulary: int, pattern: str) -> Tokenizer:
    """Learns `vocabulary` − 256 − 9 merges (fewer if the texts hold no more pairs) from texts split by `pattern`."""
    backend = Backend(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(pattern), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary - len(SPECIALS), initial_alphabet=_alphabet(), show_progress=False, special_tokens=[]
    )
    backend.train_from_iterator(texts, trainer)
    backend.add_special_tokens(list(SPECIALS))
    return Tokenizer(backend)


def _alphabet() -> list[str]:
    return sorted(pre_tokenizers.ByteLevel.alphabet())


# Byte-level BPE writes each byte as one letter: itself where that is printable in Latin-1, else the next letter from
# U+0100 on (Radford et al. 2019).
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_BYTES = {chr(byte): byte for byte in _PRINTABLE} | {
    chr(0x100 + place): byte for place, byte in enumerate(sorted(set(range(256)) - set(_PRINTABLE)))
}
