"""The part of a recipe that says how a model is taught by reward: how it is sampled, what is rewarded, what is learned
from that."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from webtochat.recipe_file import Section
from webtochat.recipe_knowledge import Endpoint
from webtochat.recipe_training import DataSource, FromPairs, LoRA, Optimizer

# What each paper does, as far as the recipe does not say otherwise (docs/rl.md has the table with the sources).
ALGORITHMS: dict[str, dict[str, Any]] = {
    "grpo": {"advantage": "group_std", "ratio": "token", "reduce": "sequence_means", "kl": 0.04},
    "dr_grpo": {"advantage": "group_mean", "ratio": "token", "reduce": "constant"},
    "dapo": {"advantage": "group_std", "ratio": "token", "reduce": "tokens", "clip_high": 0.28, "resample": True},
    "rloo": {"advantage": "leave_one_out", "ratio": "none", "reduce": "sequence_sums"},
    "reinforce": {"advantage": "batch_mean", "ratio": "none", "reduce": "sequence_sums"},
    "ppo": {"advantage": "gae", "ratio": "token", "reduce": "tokens"},
    "gspo": {"advantage": "group_std", "ratio": "sequence", "reduce": "sequence_means", "clip_low": 3e-4,
             "clip_high": 4e-4},
}  # fmt: skip


class Policy(Section):
    """The loss. What is not given follows from `algorithm`."""

    algorithm: Literal["grpo", "dr_grpo", "dapo", "rloo", "reinforce", "ppo", "gspo"] = "dapo"
    advantage: Literal["group_std", "group_mean", "leave_one_out", "batch_mean", "gae"] = "group_std"
    ratio: Literal["token", "sequence", "none"] = "token"
    """What of old and new probabilities is clipped; none: plain REINFORCE."""
    reduce: Literal["tokens", "sequence_means", "sequence_sums", "constant"] = "tokens"
    """What the sum of losses is divided by; constant: answers × max_new_tokens."""
    clip_low: float = Field(0.2, gt=0, lt=1)
    clip_high: float = Field(0.2, gt=0)
    resample: bool = False
    """Groups whose rewards are all equal teach nothing: others are sampled in their place."""
    resample_limit: float = Field(4.0, ge=1)
    """A step samples at most so many times `prompts_per_step` groups."""
    kl: float = Field(0.0, ge=0)
    """Weight of the divergence from the model that RL began with, by k3."""
    kl_in: Literal["loss", "reward"] = "loss"
    importance_cap: float = Field(2.0, gt=0)
    """Weights for the gap between sampler and trainer are cut off here."""
    discount: float = Field(1.0, gt=0, le=1)
    """PPO's γ; of what comes later."""
    gae_lambda: float = Field(0.95, ge=0, le=1)
    value_weight: float = Field(0.5, ge=0)
    value_clip: float = Field(0.2, gt=0)

    @model_validator(mode="before")
    @classmethod
    def of_the_algorithm(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        preset = ALGORITHMS.get(str(given.get("algorithm", "dapo")), {})
        return {key: value for key, value in preset.items() if given.get(key) is None} | given

    @model_validator(mode="after")
    def sensible(self) -> Policy:
        if (self.advantage == "gae") != (self.algorithm == "ppo"):
            raise ValueError("advantage=gae needs the value head of algorithm=ppo, and that needs gae")
        return self


class Rewards(Section):
    """Parts of the reward, and what each counts. A part is one of PARTS, or a function of your own as
    `python:module:function`: docs/rl.md."""

    weights: dict[str, float] = {"numeric": 1.0}
    pattern: str = r".*\S.*"
    """format: a regular expression for the whole answer (`.` is any character)."""
    soft_tokens: int | None = Field(None, ge=0)
    """length: 0 up to so many of the answer's tokens, then falling to -1 at max_new_tokens (DAPO's soft overlong
    punishment). None: half of max_new_tokens."""
    wrong: float = Field(-1.0, le=0)
    """truthful: of a wrong answer, where to refuse is 0 and a right one 1. At -1 it pays to refuse what is more often
    wrong than right, at -0.5 what is wrong twice as often."""
    judge: Endpoint | None = None
    judge_prompt: str = (
        "Question: {prompt}\nReference answer: {truth}\nAnswer to judge: {answer}\n"
        "Rate the answer from 0 (useless or wrong) to 10 (perfect). Reply with the number and nothing else."
    )
    judge_best: float = Field(10.0, gt=0)
    """The judge's best mark, which counts 1."""

    @model_validator(mode="after")
    def known(self) -> Rewards:
        checked(self.weights)
        return self


PARTS = ("exact", "match", "numeric", "truthful", "tests", "format", "length", "model", "judge")


def checked(weights: dict[str, float]) -> dict[str, float]:
    """Raises ValueError where they name a part that there is not, or none counts."""
    for name in weights:
        if name not in PARTS and not name.startswith("python:"):
            raise ValueError(f"no reward {name}; there are {', '.join(PARTS)} and python:module:function")
    if not any(weights.values()):
        raise ValueError("weights gives no part any weight")
    return weights


class PromptSource(DataSource):
    """`path` may also be `knowledge`: the questions whose answers the recipe's knowledge stage taught.
    `weight`: of how often its prompts are asked, beside the other sources'."""

    STAGES: ClassVar[tuple[str, ...]] = ("knowledge",)
    rewards: dict[str, float] | None = None
    """Parts that count for its prompts, in place of `rewards.weights`."""

    @field_validator("rewards")
    @classmethod
    def known(cls, value: dict[str, float] | None) -> dict[str, float] | None:
        return value if value is None else checked(value)


class Sampling(Section):
    """One step: so many prompts, so many answers to each, one or more optimizer steps on them."""

    steps: int = Field(200, ge=1)
    prompts_per_step: int = Field(16, ge=1)
    samples: int = Field(8, ge=1)
    """Answers to each prompt: a group."""
    minibatches: int = Field(1, ge=1)
    """Optimizer steps in which a step's answers are gone through."""
    passes: int = Field(1, ge=1)
    """How often they are gone through."""
    staleness: int = Field(0, ge=0)
    """How many steps older than the newest the weights may be that an answer is sampled with. 0: strictly on-policy,
    sampling and learning take turns; from 1 on they overlap."""
    update: Literal["drain", "interrupt"] = "drain"
    """What new weights mean for an engine that samples: it ends what it is at, or goes on with them at once."""
    temperature: float = Field(1.0, gt=0)
    max_new_tokens: int = Field(256, ge=1)
    """Of each completion."""
    tools: bool = False
    """Conversations are told of the recipe's tools, and may call them over several turns."""
    dead_steps: int = Field(20, ge=1)
    """After so many steps in a row in which all groups' rewards were equal, the run stops and says so."""
    held_out_percent: float = Field(5.0, ge=0, le=50)
    """Of prompts, by hash: never trained on, asked at each evaluation."""
    max_held_out: int = Field(200, ge=0)
    evaluate_every: int = Field(50, ge=0)
    """Steps between evaluations besides those at the beginning and the end; 0: those alone."""
    report_rollouts: int = Field(600, ge=0)
    """Shown in rollouts.html, drawn evenly over the steps."""


class PairSource(DataSource):
    """`path` may also be `reward`: the answers that the recipe's reward stage had judged."""

    STAGES: ClassVar[tuple[str, ...]] = ("reward",)


class DPO(FromPairs):
    """Learning from pairs of answers, without sampling any: docs/rl.md."""

    data: list[PairSource] = Field(min_length=1)
    """Rows of a prompt, a chosen and a rejected answer."""
    beta: float = Field(0.1, gt=0)
    """How dear it is to differ from the model that it began with."""
    lr: float = 1e-6


class RL(Optimizer, Policy, Sampling):
    """Teaching the chat model by reward: docs/rl.md."""

    lr: float = 1e-5
    weight_decay: float = 0.0
    decay_fraction: float = 0.0
    data: list[PromptSource] = []
    """Prompts, with what right answers are held against."""
    rewards: Rewards = Rewards()
    lora: LoRA | None = None
    """None: all weights are trained."""
    sequence_length: int | None = Field(None, ge=2)
    """Most positions of a conversation; the model's max_positions."""
    checkpoint_every: int = Field(20, ge=1)
    keep_checkpoints: int = 2
    seed: int = 1

    @property
    def parts(self) -> list[str]:
        """Of the reward, that count for any prompt."""
        return list(dict.fromkeys(name for source in self.data for name in source.rewards or self.rewards.weights))

    @model_validator(mode="after")
    def judged(self) -> RL:
        if "judge" in self.parts and self.rewards.judge is None:
            raise ValueError("judge is a part of the reward: give its address and model as rewards.judge")
        return self

    @model_validator(mode="after")
    def something_to_interrupt(self) -> RL:
        if self.update == "interrupt" and not self.staleness:
            raise ValueError("update=interrupt needs staleness of 1 or more: at 0 nothing is sampled when weights come")
        return self
