"""Recipes: one YAML file with a section per stage; every threshold of a run stands in it.

A section is what changes the stage's result, and is its identity. What only changes where and how fast stands under
`cluster`. Unknown keys are refused with the nearest valid name; any key can be overridden as `section.key=value`.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from webtochat import recipe_file
from webtochat.errors import UserError
from webtochat.recipe_file import Section
from webtochat.recipe_knowledge import Interrogation
from webtochat.recipe_operation import Generate, Operation
from webtochat.recipe_pages import Crawl, Curate, Measure, Miniweb, Quality
from webtochat.recipe_rl import DPO, RL
from webtochat.recipe_tools import Index, Tools
from webtochat.recipe_training import DataSource, FineTune, FromPairs, Optimizer

# tokens --------------------------------------------------------------------------------------------------------------


class TokenizerSection(Section):
    vocabulary: int = Field(32_768, ge=512)
    """Total, with the 256 bytes and the nine special tokens."""
    pattern: str = (
        r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,2}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
    )
    """Split before merging (GPT-4's, with nanochat's {1,2} digits)."""
    max_characters: int = 2_000_000_000
    """Counted in all: of a larger corpus each file of kept documents gives the same share, from its start."""
    max_document_characters: int = 10_000
    start: str | None = None
    """One that is there already, instead of learning one: a directory, hf://owner/name, or an artifact's directory. By
    default pretrain.start's."""
    markers: dict[str, str | None] = {}
    """Its marker map (tokens/markers.py), as far as it does not follow from it; pretrain.start's too."""
    max_pieces: int = Field(8_000_000, ge=1)
    """Distinct pre-tokens to learn from; beyond them the rarest are dropped, and counted."""


class Tokens(Section):
    validation_percent: float = 1.0
    """Of documents, by hash of their id."""
    sequence_length: int = Field(2048, ge=1)
    packing: Literal["stream", "best-fit"] = "stream"
    """stream: documents end to end, cut wherever a window ends. best-fit: documents that fit into a window stay whole
    (Ding et al. 2024). benchmarks/packing.py compares what models learn from them."""


# model and training --------------------------------------------------------------------------------------------------


class Model(Section):
    """One dial, `depth`; what is None follows from it."""

    depth: int = Field(4, ge=1)
    width: int | None = None
    """64 × depth."""
    heads: int | None = None
    """width / head_size, at least 1."""
    kv_heads: int | None = None
    """heads."""
    head_size: int = 64
    mlp_width: int | None = None
    """8/3 × width, rounded up to 64."""
    max_positions: int = 2048
    rope_theta: float = 10_000.0
    norm_epsilon: float = 1e-6
    tie_embeddings: bool = True
    zero_residual: bool = False
    """What writes to the residual stream begins at zero, not at small random numbers."""
    seed: int = 1


class Pretrain(Optimizer):
    start: str | None = None
    """A Qwen3-architecture model to go on from, with its tokenizer: a directory, hf://owner/name, or an artifact's
    directory. What `model` says follows from it."""
    add_markers: bool = False
    """Give it the markers of chat and tools that its tokenizer lacks, with embeddings that are the mean of all."""
    tokens: int = Field(1_000_000, ge=0)
    """Budget: positions trained on, padding among them. 0: the model is imported as it is."""
    tokens_per_parameter: float | None = Field(None, gt=0)
    """Budget by the model's size, in place of `tokens`: positions for each parameter, embeddings included (Hoffmann et
    al. 2022: about 20)."""
    mixture: dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]] = {}
    """Weight of each corpus in the tokens trained on: `own` is the recipe's, any other a directory of a `tokens`
    artifact made with the same tokenizer. `{}`: own alone."""
    batch_tokens: int = 8192
    """Global, per step."""
    lr_width: int | None = Field(None, ge=1)
    """The width that `lr` is right for; a model of another width trains at lr × lr_width / width. None: at `lr`."""
    mask_documents: bool = True
    """Attention does not cross documents."""
    float8: bool = False
    """Multiply the blocks' matrices in float8, on GPUs that have it."""
    evaluate_every: int = 200
    validation_tokens: int = 1_000_000
    """Most held-out tokens read at each evaluation."""
    evaluate_tasks: int = Field(0, ge=0)
    """Rows of each of evaluate.tasks scored at each evaluation; 0: none."""
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    seed: int = 1

    @model_validator(mode="after")
    def something_is_made(self) -> Pretrain:
        if not self.tokens and self.start is None:
            raise ValueError("tokens=0 trains nothing: name a model to import as pretrain.start")
        return self


class Demonstrations(Section):
    """Conversations in which tools are called, to fine-tune on, and questions of the same kinds for the test. Every
    call is made with the recipe's own tools. All of none: no tools are taught."""

    documents: int = Field(0, ge=0)
    """Questions about what kept documents state, for web_search and open_page."""
    strangers: int = Field(0, ge=0)
    """About names that are in no document, where the answer is that nothing was found."""
    programs: dict[Literal["sums", "products", "chains", "letters", "days"], Annotated[int, Field(ge=0)]] = {}
    """How many of each kind, for python."""
    direct: list[DataSource] = []
    """Conversations that are told of the tools and call none."""
    questions: int = Field(200, ge=0)
    """Most of each kind that are held out for the test."""
    held_out_percent: float = Field(20.0, ge=0, le=100)
    """Of names, numbers and words, by hash: none of them is in a conversation."""
    pages: int = Field(20_000, ge=1)
    """Documents that are read for questions, drawn by hash."""
    seed: int = 1

    @property
    def wanted(self) -> bool:
        return bool(self.documents or self.strangers or any(self.programs.values()))


class SFT(FineTune):
    data: list[DataSource] = []


class Knowledge(FineTune, Interrogation):
    """Finding out what the chat model does not know, and teaching it to say so: docs/knowledge.md."""

    sft_share: float = Field(0.25, ge=0, le=1)
    """Of the conversations of sft.data, trained on beside what is taught, so that the rest is not forgotten."""


class Answers(Section):
    """Answers of the chat model, which a function compares in people's place."""

    prompts: list[DataSource]
    """To be answered: prompts, or conversations up to their last answer."""
    judge: str
    """`python:module:function`, called with the messages, an answer and the seed: the answer's score."""
    max_prompts: int = Field(2000, ge=1)
    """Different ones, drawn by seed."""
    samples: int = Field(4, ge=2)
    """Answers to each."""
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(48, ge=1)
    least_difference: float = Field(0.0, ge=0)
    """Between the scores of two answers that make a pair."""


class Reward(FromPairs):
    """Learning from pairs of answers which of two people want: docs/reward.md."""

    data: list[DataSource] = []
    """Rows of a prompt, a chosen and a rejected answer: tokens/preferences.py tells their forms."""
    answers: Answers | None = None
    margin: float = Field(1.0, ge=0)
    """Times the margin that a row names, in the loss. 0: none."""
    lr: float = 1e-5

    @model_validator(mode="after")
    def something_is_compared(self) -> Reward:
        if not self.data and self.answers is None:
            raise ValueError("there is nothing to learn from: give data, or answers to compare")
        return self


class Task(DataSource):
    """Rows of which a model is to find the right answer the likeliest; evals/tasks.py tells their forms. `weight` does
    not count."""

    name: str = ""
    """The file's or the function's by default."""
    few_shot: int = Field(0, ge=0)
    """Examples before each row, drawn by evaluate.seed from the others of the same source."""
    delimiter: str = " "
    """Between what is asked and its answer."""
    example_delimiter: str = "\n\n"
    normalise: Literal["tokens", "bytes", "none"] = "tokens"
    """By what a choice's log-likelihood is divided before choices are compared (DCLM: tokens)."""
    chance: float | None = Field(None, ge=0, lt=1)
    """Accuracy of a blind guess. None: one over the number of choices, 0 without choices."""

    @model_validator(mode="after")
    def named(self) -> Task:
        self.name = self.name or self.stem
        if not re.fullmatch(r"[\w.-]+", self.name):
            raise ValueError(f"{self.path} gives no plain name: set name= to letters, digits, _ . or -")
        return self


class Evaluate(Section):
    questions: list[DataSource] = []
    tasks: list[Task] = []
    max_task_rows: int = Field(10_000, ge=1)
    """Of each task, drawn by seed."""
    max_questions_per_kind: int = 400
    max_new_tokens: int = 48
    max_call_tokens: int = Field(256, ge=1)
    """Of each answer and each call where tools may be called."""
    temperature: float = 0.0
    sources: dict[str, str] = {}
    """name → glob on the host: held-out bits per byte are told by source."""
    baselines: bool = True
    """xz -9 and a 5-gram model on the same documents."""
    max_validation_documents: int = 2000
    ngram_tokens: int = 10_000_000
    """Of the training shards, for the 5-gram models (~1.2 s a million)."""
    seed: int = 1


class Serve(Operation):
    host: str = "127.0.0.1"
    port: int = 8000
    model_name: str | None = None
    """Name in the API; the recipe's name by default."""
    max_model_length: int | None = None
    temperature: float = 0.7
    system_prompt: str | None = None
    tools: bool = True
    """Run what `tools` names, as far as there is an index for it, for who asks for it: docs/serving.md."""
    cite_share: float = Field(0.5, gt=0, le=1)
    """Sources of an answer that names none: those whose shown text has such a share of its words."""


class Actors(Section):
    """What a class of measure.steps runs on."""

    number: int = 1
    cpus: float = 1.0
    gpus: float = 0.0
    batch: int = 32
    """Documents a call."""


class Cluster(Section):
    """Where and how fast; never part of an identity."""

    cpus: int | None = None
    """Logical CPUs of a Ray started here; by default the machine's, at least 4 (Serve's replica, engine and ingress
    need one each)."""
    measure_workers: int | None = None
    steps: dict[str, Actors] = {}
    """By name of a step that is a class."""
    train_workers: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=1)], Annotated[int, Field(ge=1)]] = 1
    """[fewest, most]: as many as the cluster has room for, again each time that training goes on after a loss."""
    train_cpus: int | None = None
    """Threads of each training worker; by default the machine's cores over the workers; half of them where rl samples
    meanwhile."""
    train_gpus: bool | None = None
    """None: a GPU each where the cluster has them."""
    shard: bool = False
    """Spread weights, gradients and moments over the training workers (FSDP2), instead of all on each (DDP)."""
    compile: bool = False
    """torch.compile on each block: faster steps, after a compilation of about a minute."""
    recompute: bool = False
    """Keep a block's input only and compute the block again in the backward pass: less memory, a third more work."""
    collective_seconds: int = Field(600, gt=0)
    """After so long without an answer from another worker, training goes on from its newest checkpoint."""
    notice_seconds: float = Field(5.0, gt=0)
    """How often training asks whether a machine is about to be taken away, to write a checkpoint in time."""
    train_retries: int = 3
    """How often training goes on from its newest checkpoint after a worker died."""
    device_batch_tokens: int | None = None
    """Per worker and forward pass; the rest of the batch is accumulated. None: the whole share."""
    tool_threads: int = Field(8, ge=1)
    """Calls of tools that run beside each other where many conversations are answered together."""
    tool_replicas: int = Field(1, ge=1)
    """Processes that run tools for the served model, each with so many calls at a time."""
    engines: Annotated[int, Field(ge=1)] | tuple[Annotated[int, Field(ge=0)], Annotated[int, Field(ge=1)]] = 1
    """Of the served model, for files of prompts, for rl. [fewest, most]: as many served as are asked, from 0 none while
    nobody asks; the most for files and rl."""
    engine_requests: int = Field(32, ge=1)
    """At a time: where an engine has more, another is started, up to the most."""
    engine_idle_seconds: float = Field(600.0, ge=0)
    """With fewer requests for so long, one goes."""
    engine_gpus: int | None = None
    engine_groups: int = Field(64, ge=1)
    """Most prompts of rl that an engine answers together, each as often as rl.samples says."""
    engine_retries: int = Field(3, ge=0)
    """How often a dead engine of rl is replaced, all of them together."""
    kv_cache_gib: float = 1.0
    """vLLM's cache on CPU."""
    metrics_port: int | None = None
    """Where a Ray started here serves its metrics and the server's for Prometheus; by default any free port."""
    endpoint_requests: int = Field(8, ge=1)
    """To knowledge.endpoint at once."""
    endpoint_seconds: float = Field(60.0, gt=0)
    """For one of them."""
    endpoint_retries: int = Field(4, ge=0)

    @property
    def workers(self) -> tuple[int, int]:
        """Fewest and most."""
        return _range(self.train_workers)

    @property
    def engine_range(self) -> tuple[int, int]:
        """Fewest and most."""
        return _range(self.engines)

    @field_validator("train_workers", "engines")
    @classmethod
    def in_order(cls, value: int | tuple[int, int]) -> int | tuple[int, int]:
        if isinstance(value, tuple) and value[0] > value[1]:
            raise ValueError("write [fewest, most]")
        return value


def _range(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else value


class Recipe(Section):
    name: str
    workspace: str = "runs"
    crawl: Crawl = Crawl()
    measure: Measure = Measure()
    curate: Curate = Curate()
    quality: Quality = Quality()
    index: Index = Index()
    tools: Tools = Tools()
    tokenizer: TokenizerSection = TokenizerSection()
    tokens: Tokens = Tokens()
    model: Model = Model()
    pretrain: Pretrain = Pretrain()
    demonstrations: Demonstrations = Demonstrations()
    sft: SFT = SFT()
    knowledge: Knowledge | None = None
    """None: no such stage."""
    reward: Reward | None = None
    """Likewise."""
    dpo: DPO | None = None
    """Likewise."""
    rl: RL | None = None
    """Likewise."""
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()
    generate: Generate = Generate()
    cluster: Cluster = Cluster()

    @field_validator("name")
    @classmethod
    def name_is_a_folder(cls, value: str) -> str:
        if not value or value in {".", ".."} or "/" in value:
            raise ValueError("must be a plain folder name")
        return value

    @property
    def miniweb(self) -> Miniweb | None:
        """The miniweb's settings where the crawl captures it."""
        return self.crawl.site.miniweb if self.crawl.source == "site" else None

    @property
    def chat(self) -> str:
        """The stage whose model's answers people, or what stands in for them, are shown."""
        return "sft" if self.knowledge is None else "knowledge"

    @property
    def tokenizer_start(self) -> str | None:
        """A model that is gone on with keeps its tokenizer."""
        return self.tokenizer.start or self.pretrain.start

    def identity(self, *sections: str) -> dict[str, Any]:
        """The literals of the named sections, as a stage's identity."""
        return self.model_dump(mode="json", include=set(sections))


def load(path: str, overrides: list[str] | None = None) -> Recipe:
    """Reads a recipe and applies `key.key=value` overrides (values are YAML). Raises UserError, one line."""
    try:
        return Recipe.model_validate(recipe_file.read(path, overrides or []))
    except ValidationError as error:
        told = [recipe_file.problem(each, Recipe) for each in error.errors()[:3]]
        raise UserError(f"{path}: " + "; ".join(told)) from error
