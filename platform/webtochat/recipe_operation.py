"""The sections of a recipe about putting the model to work: running the server, and answering files of prompts."""

from __future__ import annotations

from pydantic import Field

from webtochat.recipe_file import Section


class Limits(Section):
    """Of the whole server. A key's own stand with the key."""

    requests: int = Field(256, ge=1)
    """Being answered at a time; beyond them 429."""
    body_bytes: int = Field(2_000_000, ge=1)
    body_seconds: float = Field(10.0, gt=0)
    """From the end of a request's headers to the end of its body."""
    request_seconds: float = Field(600.0, gt=0)
    """An answer that takes longer ends there with an error."""


class Operation(Section):
    """docs/operation.md."""

    keys: str | None = None
    """Where the hashes of the API keys stand: a file that jobs/keys.py writes, or env:NAME, a variable that holds the
    lines of one. None: no keys, and nobody from outside this machine is let in."""
    hosts: list[str] = []
    """Names by which this server is reached, beside loopback's. On loopback a request for another is refused (DNS
    rebinding); elsewhere it is where this list is not empty."""
    origins: list[str] = []
    """Such as https://chat.example: of whose pages scripts may call this server, beside its own."""
    limits: Limits = Limits()
    access_log: bool = True
    """A line of JSON for each request, in logs/access-….jsonl of the run."""
    access_log_mb: int = Field(100, ge=1)
    """Of a larger file another is begun, and one old one kept."""
    traces: bool = False
    """A trace in MLflow for each request, with its generations and calls of tools as spans."""
    log_text: bool = False
    """What was asked and answered stands in the access log and in traces."""
    newer_model_seconds: float | None = Field(None, gt=0)
    """How often jobs/serve.py looks whether a newer model was committed, to serve that one. None: it stays."""
    start_seconds: float = Field(1800.0, gt=0)
    """A newer model that is not up after so long is given up, and the old one stays."""
    drain_seconds: float = Field(60.0, gt=0)
    """What a replica that is replaced may take to end its answers."""


class Generate(Section):
    """Answering a file of prompts: jobs/generate.py."""

    max_new_tokens: int = Field(256, ge=1)
    temperature: float = Field(0.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int = 1
    part_rows: int = Field(256, ge=1)
    """Answered together and written together; a kill loses at most what is being answered."""
