"""The vLLM engine: token ids in, token ids and their log-probabilities out. No Ray, no text.

vLLM reads its environment when it is imported, so `Engine` sets that first; one engine per process.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from webtochat.errors import UserError

if TYPE_CHECKING:
    import torch

# In this process, not in a child: the weights are replaced in place, and a start costs seconds less.
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",  # tensors handed to `reload_weights` do not leave the process
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
}
CPU_ENVIRONMENT = {
    "TORCHDYNAMO_DISABLE": "1",  # the first call would compile for ~27 s
    # Of two logical processors vLLM takes one, as here; but it also binds its threads to theirs. On two cores, which
    # others use too, it answered 32 clients with 2,300 tokens a second at one time and with 260 at another.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": str(max(1, len(os.sched_getaffinity(0)) // 2)),
    # oneDNN keeps what it made for each size of a batch, 1,024 of them: 380 MB more within five minutes of 32 clients.
    # With 16 it is 45 MB, and as many answers.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16",
}


@dataclass(frozen=True)
class Completion:
    """`ids`: what was generated, with the stop token if one ended it. `logprobs`: of each id under the distribution it
    was drawn from, nats; empty unless asked for. `versions`: of the weights that each id was drawn with.
    `finish_reason`: `stop` or `length`."""

    ids: list[int]
    logprobs: list[float]
    versions: list[int]
    finish_reason: str


class Engine:
    """A model of a Hugging Face directory in vLLM.

    `max_model_length`: positions of prompt and completion together; the model's own by default.
    `dtype`: `float32` or `bfloat16`; by default float32 on CPU (bfloat16 is slower there) and bfloat16 on a GPU.
    `kv_cache_gib`: vLLM's cache on CPU. `gpus`: 0 is the CPU, n > 1 is tensor parallel.
    `logprobs`: whether completions carry log-probabilities (of the distribution after temperature and top-p).
    """

    def __init__(
        self,
        model_directory: str,
        *,
        max_model_length: int | None = None,
        dtype: str | None = None,
        kv_cache_gib: float = 1.0,
        gpus: int = 0,
        gpu_memory: float = 0.85,
        logprobs: bool = False,
        seed: int = 0,
    ):
        own = positions(model_directory)
        if max_model_length is not None and max_model_length > own:
            raise UserError(f"max_model_length={max_model_length}: {model_directory} has {own} positions")
        os.environ.update(ENVIRONMENT)
        if gpus == 0:
            os.environ.update(CPU_ENVIRONMENT)
        from vllm import LLM

        self.max_model_length = max_model_length or own
        self._logprobs = logprobs
        options: dict[str, Any] = {"dtype": dtype or ("bfloat16" if gpus else "float32")}
        options |= (
            # Whole prompts: after a part of one vLLM winds the request's generator back, which a CPU's cannot.
            {
                "enforce_eager": True, "enable_chunked_prefill": False,
                "kv_cache_memory_bytes": int(kv_cache_gib * 2**30),
            } if gpus == 0
            else {"tensor_parallel_size": gpus, "gpu_memory_utilization": gpu_memory}
        )  # fmt: skip
        self._llm = LLM(
            model=model_directory,
            skip_tokenizer_init=True,
            generation_config="vllm",  # the caller says where to stop and how to sample, not a file of the export
            max_model_len=self.max_model_length,
            logprobs_mode="processed_logprobs",
            max_logprobs=1,
            seed=seed,
            disable_log_stats=True,
            **options,
        )  # fmt: skip
        self._llm.update_weight_version("0")

    def generate(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_new_tokens: int | Sequence[int],
        temperature: float = 0.0,
        top_p: float = 1.0,
        n: int = 1,
        seed: int | Sequence[int] | None = None,
        stop_token_ids: Sequence[int] = (),
        between: Callable[[], None] = lambda: None,
    ) -> list[list[Completion]]:
        """`n` completions of each prompt, in order. The i-th completion of the p-th is drawn with
        `seed` + p·n + i, or, where each prompt has a seed, with its own + i; vLLM's last bits depend on the batch, so
        equal seeds give equal ids only for equal calls.

        A prompt that leaves no room for one new token raises ValueError; one that leaves less than `max_new_tokens`
        (of all prompts, or of each) is generated as far as the room goes. `between`: called before each step of all
        completions; it may replace the weights.
        """
        from vllm import SamplingParams

        requests: list[Any] = []
        parameters = []
        seeds = [seed + place * n for place in range(len(prompts))] if isinstance(seed, int) else seed
        limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else max_new_tokens
        for place, (prompt, limit) in enumerate(zip(prompts, limits, strict=True)):
            room = self.max_model_length - len(prompt)
            if not prompt or room < 1:
                raise ValueError(f"prompt {place} has {len(prompt)} tokens; 1 to {self.max_model_length - 1} fit")
            requests.append({"prompt_token_ids": list(prompt)})
            parameters.append(
                SamplingParams(
                    n=n, temperature=temperature, top_p=top_p, max_tokens=min(limit, room),
                    seed=None if seeds is None or temperature == 0 else seeds[place],
                    stop_token_ids=list(stop_token_ids), logprobs=0 if self._logprobs else None, detokenize=False,
                    ignore_eos=True,
                )
            )  # fmt: skip
        self._llm.enqueue(requests, parameters, use_tqdm=False)
        finished: list[Any] = []
        while self._llm.llm_engine.has_unfinished_requests():
            between()
            finished += [request for request in self._llm.llm_engine.step() if request.finished]
        finished.sort(key=lambda request: int(request.request_id))
        return [[_completion(output) for output in request.outputs] for request in finished]

    def replace_weights(self, weights: Iterable[tuple[str, torch.Tensor]], version: int = 0) -> None:
        """Puts new weights, under their names in the checkpoint, where the old ones are; the shapes must be the same.
        What was cached under the old weights is forgotten: completions that go on are stopped, and begun again at the
        ids that they have."""
        self._llm.collective_rpc(
            "reload_weights", kwargs={"weights_iterator": list(weights), "is_checkpoint_format": True}
        )
        self._llm.apply_model(_pack_tied_head)
        self._llm.reset_prefix_cache(reset_running_requests=True)
        self._llm.update_weight_version(str(version))


def _pack_tied_head(model: Any) -> None:
    """On CPU vLLM multiplies by a packed copy of the head's weights. A tied head is not among the weights that are
    reloaded, so its copy would be the old one."""
    if model.config.tie_word_embeddings:
        model.lm_head.quant_method.process_weights_after_loading(model.lm_head)


def _completion(output: Any) -> Completion:
    ids = list(output.token_ids)
    logprobs = [table[token].logprob for token, table in zip(ids, output.logprobs or [], strict=False)]
    versions = [int(span.version) for span in output.weight_versions for _ in range(span.start, span.end)]
    return Completion(ids, logprobs, versions, output.finish_reason)


def read_config(model_directory: str) -> dict[str, Any]:
    path = os.path.join(model_directory, "config.json")
    if not os.path.isfile(path):
        raise UserError(f"no model in {model_directory}: it has no config.json")
    with open(path, encoding="utf-8") as source:
        return json.load(source)


def positions(model_directory: str) -> int:
    """Positions that a model was made for."""
    return int(read_config(model_directory)["max_position_embeddings"])


def read_weights(model_directory: str) -> list[tuple[str, torch.Tensor]]:
    """The tensors of a directory's safetensors files, by name."""
    from safetensors.torch import load_file

    names = sorted(name for name in os.listdir(model_directory) if name.endswith(".safetensors"))
    if not names:
        raise UserError(f"no model in {model_directory}: it has no safetensors")
    return [pair for name in names for pair in load_file(os.path.join(model_directory, name)).items()]
