"""transformers' Trainer, TRL and nanochat on what webtochat wrote. Runs in the peers' environment
(requirements/peers.txt), and knows nothing of webtochat: a folder in, a JSON file out.

python benchmarks/training_peers.py trainer folder made.json 2 1
python benchmarks/training_peers.py trl folder made.json 2 packed 1
python benchmarks/training_peers.py grpo folder made.json 2
python benchmarks/training_peers.py nanochat folder made.json 2 ../nanochat
python benchmarks/training_peers.py nanochat-quality folder made.json 2 ../nanochat --depth=4 --num-iterations=100

The folder holds `windows.npy` (int32, windows in order × positions + 1), `model/` (Hugging Face) and `settings.json`;
for TRL `rows.json` and `base/model/`, or `grpo.json`.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch


def limit(threads: str) -> None:
    torch.set_num_threads(int(threads))
    torch.set_flush_denormal(True)


def read(folder: str, threads: str) -> tuple[dict[str, Any], torch.Tensor]:
    limit(threads)
    settings = json.loads(Path(folder, "settings.json").read_text())
    return settings, torch.from_numpy(np.load(Path(folder, "windows.npy")).astype(np.int64))


def write(made: str, ends: list[float], losses: list[torch.Tensor], version: str) -> None:
    seconds = [later - earlier for earlier, later in itertools.pairwise(ends)]
    told = {"seconds": seconds, "losses": [loss.item() for loss in losses], "version": version}
    Path(made).write_text(json.dumps(told))


def trainer(folder: str, made: str, threads: str, compiled: str) -> None:
    """With the recipe's AdamW, on whole windows, and nothing written or logged."""
    import transformers
    from transformers import Qwen3ForCausalLM, Trainer, TrainingArguments

    settings, windows = read(folder, threads)
    rows = [{"input_ids": row[:-1], "labels": row[1:], "shift_labels": row[1:]} for row in windows]
    model = Qwen3ForCausalLM.from_pretrained(f"{folder}/model", dtype=torch.float32, attn_implementation="sdpa")
    arguments = TrainingArguments(
        output_dir=f"{folder}/trainer", per_device_train_batch_size=settings["windows_per_step"],
        train_sampling_strategy="sequential", dataloader_pin_memory=False, **shared(settings, compiled),
    )  # fmt: skip
    timed(Trainer, made, transformers.__version__, model=model, args=arguments, train_dataset=rows)


def trl(folder: str, made: str, threads: str, rows: str, compiled: str) -> None:
    """With the same AdamW, its conversations `padded` or `packed` as it does."""
    import trl
    from datasets import Dataset
    from transformers import AutoTokenizer, Qwen3ForCausalLM
    from trl import SFTConfig, SFTTrainer

    limit(threads)
    told = json.loads(Path(folder, "rows.json").read_text())
    base = f"{folder}/base/model"
    model = Qwen3ForCausalLM.from_pretrained(base, dtype=torch.float32, attn_implementation="sdpa")
    packed = rows == "packed"
    arguments = SFTConfig(
        output_dir=f"{folder}/trl", packing=packed, max_length=told["length"], gradient_checkpointing=False, bf16=False,
        per_device_train_batch_size=told["windows_per_step" if packed else "rows_per_step"], dataloader_drop_last=True,
        dataloader_pin_memory=False, **shared(told, compiled),
    )  # fmt: skip
    data = Dataset.from_dict({name: told[name] for name in ("input_ids", "assistant_masks")})
    tokenizer = AutoTokenizer.from_pretrained(base)
    timed(
        SFTTrainer, made, trl.__version__, model=model, args=arguments, train_dataset=data, processing_class=tokenizer
    )


def grpo(folder: str, made: str, threads: str) -> None:
    """With vLLM in this process, all answers of a step in one pass."""
    told = json.loads(Path(folder, "grpo.json").read_text())
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(max(1, int(told["kv_cache_gib"])))
    import re

    import trl
    from datasets import Dataset
    from transformers import AutoTokenizer, Qwen3ForCausalLM
    from trl import GRPOConfig, GRPOTrainer
    from trl.generation.vllm_generation import VLLMGeneration

    limit(threads)
    rewards: list[float] = []

    def right(completions: list[Any], answers: list[list[str]], **_: Any) -> list[float]:
        numbers = [re.findall(r"\d+", completion[0]["content"]) for completion in completions]
        scores = [float(bool(said) and said[-1] in true) for said, true in zip(numbers, answers, strict=True)]
        rewards.append(sum(scores) / len(scores))
        return scores

    def sync(self: Any) -> None:
        named = {"weights_iterator": list(self._iter_named_params()), "is_checkpoint_format": True}
        self.llm.collective_rpc("reload_weights", kwargs=named)
        self.llm.reset_prefix_cache()

    VLLMGeneration.sync_weights = sync
    model = Qwen3ForCausalLM.from_pretrained(told["model"], dtype=torch.float32, attn_implementation="sdpa")
    arguments = GRPOConfig(
        output_dir=f"{folder}/grpo", use_vllm=True, vllm_mode="colocate", vllm_max_model_length=told["sequence_length"],
        vllm_gpu_memory_utilization=0.05, num_generations=told["samples"], max_steps=told["steps"],
        per_device_train_batch_size=told["prompts_per_step"] * told["samples"], loss_type="grpo",
        max_completion_length=told["max_new_tokens"], temperature=told["temperature"], beta=told["kl"],
        epsilon=told["clip_low"], gradient_checkpointing=False, bf16=False, dataloader_pin_memory=False,
        **shared(told, "0"),
    )  # fmt: skip
    timed(
        GRPOTrainer, made, trl.__version__, model=model, args=arguments, reward_funcs=right,
        train_dataset=Dataset.from_list(told["prompts"]), processing_class=AutoTokenizer.from_pretrained(told["model"]),
    )  # fmt: skip
    told = json.loads(Path(made).read_text()) | {"losses": rewards}
    Path(made).write_text(json.dumps(told))


def shared(settings: dict[str, Any], compiled: str) -> dict[str, Any]:
    """What both trainers get: the recipe's AdamW, and nothing written or logged."""
    return {
        "num_train_epochs": 1, "learning_rate": settings["lr"], "lr_scheduler_type": "constant",
        "optim": "adamw_torch_fused", "adam_beta1": settings["beta1"], "adam_beta2": settings["beta2"],
        "weight_decay": settings["weight_decay"], "max_grad_norm": settings["clip"], "torch_compile": compiled == "1",
        "use_cpu": True, "dataloader_num_workers": 0, "logging_strategy": "no", "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip


def timed(kind: Any, made: str, version: str, **given: Any) -> None:
    """Trains, and writes the seconds and the loss of each step."""
    from transformers import TrainerCallback

    ends: list[float] = []
    losses: list[torch.Tensor] = []

    class Watched(kind):
        def training_step(self, *arguments: Any, **named: Any) -> torch.Tensor:
            losses.append(super().training_step(*arguments, **named))
            return losses[-1]

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

        def on_step_end(self, *_: Any, **__: Any) -> None:
            ends.append(time.perf_counter())

    Watched(callbacks=[Clock()], **given).train()
    write(made, ends, losses, version)


def nanochat(folder: str, made: str, threads: str, checkout: str) -> None:
    """Its model at the same depth, width and heads, compiled as its script does, with its optimizer's own settings."""
    sys.path.insert(0, checkout)
    from nanochat.gpt import GPT, GPTConfig

    settings, windows = read(folder, threads)
    config = settings["config"]
    model = GPT(GPTConfig(
        sequence_len=windows.shape[1] - 1, vocab_size=config["vocabulary"], n_layer=config["depth"],
        n_head=config["heads"], n_kv_head=config["kv_heads"], n_embd=config["width"],
    ))  # fmt: skip
    model.init_weights()
    optimizer = model.setup_optimizer()
    compiled = torch.compile(model, dynamic=False)
    ends, losses = [time.perf_counter()], []
    for batch in windows.split(settings["windows_per_step"]):
        loss = compiled(batch[:, :-1].contiguous(), batch[:, 1:].contiguous())
        loss.backward()
        optimizer.step()
        model.zero_grad(set_to_none=True)
        losses.append(loss.detach())
        ends.append(time.perf_counter())
    write(made, ends, losses, "")


def nanochat_quality(folder: str, made: str, threads: str, checkout: str, *settings: str) -> None:
    """Its own script on `passages.json` (training, held_out, pattern) through the tokenizer in `tokenizer.tiktoken`,
    then the loss on the rows of `held-out.npy`: [N, positions + 1] ids, -1 where a passage has ended."""
    import base64

    import pyarrow as pa
    import pyarrow.parquet as pq
    import tiktoken

    home = Path(folder, "nanochat")
    shutil.rmtree(home, ignore_errors=True)
    os.environ |= {"NANOCHAT_BASE_DIR": str(home), "OMP_NUM_THREADS": threads}
    sys.path.insert(0, checkout)
    from nanochat.checkpoint_manager import build_model, find_last_step
    from nanochat.dataset import DATA_DIR
    from nanochat.tokenizer import SPECIAL_TOKENS, RustBPETokenizer

    read = json.loads(Path(folder, "passages.json").read_text())
    lines = [line.split() for line in Path(folder, "tokenizer.tiktoken").read_bytes().splitlines()]
    ranks = {base64.b64decode(token): int(number) for token, number in lines}
    special = {name: len(ranks) + number for number, name in enumerate(SPECIAL_TOKENS)}
    encoding = tiktoken.Encoding("given", pat_str=read["pattern"], mergeable_ranks=ranks, special_tokens=special)
    RustBPETokenizer(encoding, SPECIAL_TOKENS[0]).save(str(home / "tokenizer"))
    sizes = torch.tensor([*(len(token) for token in ranks), *(0 for _ in special)], dtype=torch.int32)
    torch.save(sizes, home / "tokenizer" / "token_bytes.pt")
    os.makedirs(DATA_DIR, exist_ok=True)
    for number, part in enumerate(("training", "held_out")):  # the last file is held out
        pq.write_table(pa.table({"text": read[part]}), f"{DATA_DIR}/shard_{number:05d}.parquet", row_group_size=1024)
    command = [sys.executable, "-W", "ignore", "-m", "scripts.base_train", *settings]
    command += ["--eval-every=-1", "--core-metric-every=-1", "--sample-every=-1", "--model-tag=given"]
    began = time.perf_counter()
    subprocess.run(command, check=True, cwd=checkout)
    seconds = time.perf_counter() - began
    checkpoints = str(home / "base_checkpoints" / "given")
    model, _, _ = build_model(checkpoints, find_last_step(checkpoints), torch.device("cpu"), "eval")
    rows = torch.from_numpy(np.load(Path(folder, "held-out.npy")).astype(np.int64))
    with torch.no_grad():
        nats = sum(
            model(part[:, :-1].clamp(min=0), part[:, 1:].contiguous(), loss_reduction="sum").item()
            for part in rows.split(16)
        )
    counts = model.num_scaling_params()
    figures = {"parameters": counts["total"], "multiplied": model.num_matmul_params(), "nats": nats, "seconds": seconds}
    Path(made).write_text(json.dumps(figures))


if __name__ == "__main__":
    known = {"trainer": trainer, "trl": trl, "grpo": grpo, "nanochat": nanochat, "nanochat-quality": nanochat_quality}
    known[sys.argv[1]](*sys.argv[2:])
