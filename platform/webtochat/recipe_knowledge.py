"""The part of a recipe that says how a chat model is asked for what it knows."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from webtochat.recipe_file import Section

SUBJECT = "{subject}"


class Endpoint(Section):
    """A model behind OpenAI's API. How it is asked (time, retries) stands under `cluster`."""

    address: str
    """Such as https://host/v1."""
    model: str
    key_variable: str = "OPENAI_API_KEY"
    """The variable of the environment that holds the key, which is written nowhere."""


class Interrogation(Section):
    """Questions from the training documents, put to the model without them (Llama 3, section 4.3.6)."""

    snippets: int = Field(4000, ge=1)
    """Kept documents drawn by seed, one snippet of each."""
    snippet_characters: int = Field(4000, ge=100)
    questions: Literal["extract", "model", "endpoint"] = "extract"
    """Who makes questions of snippets: templates (evals/extraction.py), the chat model itself, `endpoint`."""
    endpoint: Endpoint | None = None
    max_questions: int = Field(2000, ge=1)
    """One for each thing asked about, drawn evenly over how often the snippets tell of it."""
    max_answer_words: int = Field(6, ge=1)
    """A longer answer to a written question is none that a reply can be held against."""
    invented: int = Field(400, ge=0)
    """Questions about things that do not exist: parts of names put together anew, found in no kept document."""
    held_out: float = Field(0.3, ge=0, lt=1)
    """Share of the things asked about, invented ones too, kept from training: evaluate asks about these."""
    samples: int = Field(8, ge=1)
    """Answers to each question."""
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(48, ge=1)
    judge: Literal["match", "endpoint"] = "match"
    """match: the reference stands in the answer as whole words."""
    known: float = Field(0.9, gt=0, le=1)
    """From this share of right answers on the model knows: it is taught its own right answer."""
    unknown: float = Field(0.0, ge=0, lt=1)
    """Up to this share it does not: it is taught a refusal."""
    mixed: Literal["leave_out", "search"] = "leave_out"
    """What lies between. search: conversations in which it is looked up with the recipe's tools."""
    max_refusals: float = Field(2.0, gt=0)
    """For each known answer taught, of unknown and of invented things together."""
    answer_weight: int = Field(1, ge=1)
    """How often an answer is trained on for each time that a refusal is."""
    refusals: list[str] = Field(
        [
            "I do not know.", "I don't know that.", "I am not sure about that.", "Sorry, I do not know the answer.",
            "I have no information about that.", "I am afraid I cannot tell you that, as I do not know it.",
        ],
        min_length=1,
    )  # fmt: skip
    """Drawn by seed and question. `{subject}` stands for what is asked about; where a question does not name it, one
    without that is drawn."""

    @model_validator(mode="after")
    def sensible(self) -> Interrogation:
        if self.unknown >= self.known:
            raise ValueError("unknown must be less than known")
        if self.questions != "extract" and all(SUBJECT in each for each in self.refusals):
            raise ValueError(f"a written question may name no subject: one of refusals must do without {SUBJECT}")
        if self.endpoint is None and "endpoint" in (self.questions, self.judge):
            raise ValueError("questions or judge is endpoint: give its address and model as knowledge.endpoint")
        return self
