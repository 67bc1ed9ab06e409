"""A model as Qwen3's are handed out, but tiny: its tokenizer's kind, a chat template of the same form, bf16 shards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as Backend

PLACES = {"Ann": "Rome", "Bob": "Oslo", "Cid": "Bonn", "Dora": "Riga"}
CALL = {"type": "function", "function": {"name": "python", "arguments": {"code": "1 + 1\n", "más": [1, {"a": None}]}}}
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|fim_prefix|>"]
PLAIN = ["<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>"]
"""Added tokens that Qwen does not call special."""
TEMPLATE = """\
{%- if tools -%}
{{- '<|im_start|>system\\n' + (messages[0].content + '\\n\\n' if messages[0].role == 'system' else '') -}}
{{- '# What you may call\\n\\n<tools>' -}}
{%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}
{{- '\\n</tools>\\n\\nAs in <tool_call>\\n{"name": …}\\n</tool_call><|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
{%- if tools and loop.first and message.role == 'system' -%}
{%- elif message.role == 'tool' -%}
{{- '' if not loop.first and loop.previtem.role == 'tool' else '<|im_start|>user' -}}
{{- '\\n<tool_response>\\n' + message.content + '\\n</tool_response>' -}}
{{- '' if not loop.last and loop.nextitem.role == 'tool' else '<|im_end|>\\n' -}}
{%- else -%}
{{- '<|im_start|>' + message.role + '\\n' + (THOUGHTS if loop.last and message.role == 'assistant' else '') -}}
{{- message.content -}}
{%- for call in message.tool_calls or [] -%}
{{- '\\n' if message.content or not loop.first else '' -}}
{{- '<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' + (call.function.arguments | tojson) -}}
{{- '}\\n</tool_call>' -}}
{%- endfor -%}
{{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- '<|im_start|>assistant\\n' + (THOUGHTS if enable_thinking is defined and not enable_thinking else '') -}}
{%- endif -%}"""


def template(thinks: bool = True) -> str:
    return TEMPLATE.replace("THOUGHTS", r"'<think>\n\n</think>\n\n'" if thinks else "''")


def texts() -> Iterator[str]:
    for name, place in PLACES.items():
        yield f"Where does {name} live? {name} lives in {place}.\n\nsystem\nuser\nassistant\n Be brief."
        yield json.dumps({"name": "python", "arguments": {"code": "print(12 + 30)"}}) + "\n" + '{"result": [42]}\n'


def save_tokenizer(
    directory: Path, *, special: list[str] = SPECIAL, plain: list[str] = PLAIN, chat_template: str | None = template()
) -> int:
    """Returns the number of its ids."""
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    backend = Backend(models.BPE())
    backend.normalizer = normalizers.NFC()
    backend.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ])  # fmt: skip
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(list(texts()) * 5, trainer)
    backend.add_special_tokens(special)
    backend.add_tokens([AddedToken(token, special=False, normalized=False) for token in plain])
    directory.mkdir(parents=True, exist_ok=True)
    backend.save(str(directory / "tokenizer.json"))
    configuration = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": special[-1], "pad_token": special[0]}
    if chat_template is not None:
        configuration["chat_template"] = chat_template
    (directory / "tokenizer_config.json").write_text(json.dumps(configuration))
    return backend.get_vocab_size()


def save_model(directory: Path, *, rows: int = 512, tied: bool = True, **tokenizer: object) -> Path:
    """`rows`: of the embedding, which has some to spare."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    save_tokenizer(directory, **tokenizer)  # type: ignore[arg-type]
    torch.manual_seed(3)
    config = Qwen3Config(
        vocab_size=rows, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=256, rope_theta=1e6, tie_word_embeddings=tied,
    )  # fmt: skip
    model = Qwen3ForCausalLM(config).to(torch.bfloat16)
    with torch.no_grad():
        for weight in model.parameters():  # norms that are not all ones
            weight.add_(0.02 * torch.randn(weight.shape))
    model.save_pretrained(directory, max_shard_size="100KB")
    assert len([name for name in os.listdir(directory) if name.endswith(".safetensors")]) > 2
    return directory


def exchanges() -> list[dict[str, object]]:
    """Conversations that tell where each one lives."""
    return [
        {"messages": [
            {"role": "user", "content": f"Where does {name} live?"},
            {"role": "assistant", "content": f"{name} lives in {place}."},
        ]}
        for name, place in PLACES.items()
    ]  # fmt: skip
