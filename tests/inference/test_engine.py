"""vLLM in its actor against transformers on the same export, in float32; sampling; weights replaced in place."""

from __future__ import annotations

import itertools
import sys

import pytest
import ray
import torch
from tests.inference import tiny

from webtochat.errors import UserError
from webtochat.inference import actors
from webtochat.inference.actors import ModelPath
from webtochat.inference.engine import Engine, read_weights
from webtochat.model import export

LONG = [[number, *range(200, 300)] for number in range(40)]
"""More tokens than vLLM takes in one step."""
PROMPTS = [[300, 301, 302, number] for number in range(20)]


@pytest.fixture(scope="module")
def directories(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    words = tiny.tokenizer()
    for seed in (1, 2):
        model = tiny.transformer(words, seed)
        with torch.no_grad():
            for weight in model.parameters():  # far from uniform, so that a wrong weight shows
                if weight.ndim == 2:
                    weight.mul_(4)
        export.export(model, words, str(root / str(seed)))
    return root


class Interrupted(actors.EngineActor):
    def generate(self, prompts, *, renew=None, **options):
        """`renew`: (step before which, another model)."""
        steps = itertools.count()

        def between():
            if renew and next(steps) == renew[0]:
                self._engine.replace_weights(read_weights(renew[1].local()), version=1)

        return self._engine.generate(prompts, between=between, **options)


class Here:
    """The engine in its actor: vLLM changes the threads and the environment of the process it is in."""

    def __init__(self, root):
        self.root = root
        ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(actors, "EngineActor", Interrupted)
            self.actor = actors.start(
                self.model("1"), dtype="float32", kv_cache_gib=0.25, logprobs=True, max_model_length=128
            )

    def model(self, name):
        return ModelPath(str(self.root), "key", name)

    def generate(self, prompts, **options):
        return ray.get(self.actor.generate.remote(prompts, **options))

    def load(self, name):
        ray.get(self.actor.load.remote(self.model(name)))


@pytest.fixture(scope="module")
def engine(directories, ray_here):
    made = Here(directories)
    assert ray.get(made.actor.ready.remote()) == 128
    yield made
    ray.kill(made.actor)


def worst_difference(directory, prompts, answers, places=range(1000)):
    """Largest gap between vLLM's log-probabilities and transformers' of the same ids, in these places."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    worst = 0.0
    with torch.no_grad():
        for prompt, [completion] in zip(prompts, answers, strict=True):
            logprobs = model(torch.tensor([prompt + completion.ids])).logits[0].log_softmax(-1)
            for place, (token, logprob) in enumerate(zip(completion.ids, completion.logprobs, strict=True)):
                if place in places:
                    worst = max(worst, abs(logprobs[len(prompt) - 1 + place, token].item() - logprob))
    return worst


def test_log_probabilities_are_those_of_transformers(engine, directories):
    answers = engine.generate(PROMPTS, max_new_tokens=12)
    assert all(len(completion.ids) == 12 and completion.finish_reason == "length" for [completion] in answers)
    assert worst_difference(directories / "1", PROMPTS, answers) < 1e-3
    assert worst_difference(directories / "2", PROMPTS, answers) > 0.1


def test_sampling_follows_the_seed_and_differs_within_a_prompt(engine):
    def ids(seed):
        told = engine.generate(PROMPTS[:3], max_new_tokens=20, temperature=1.0, n=4, seed=seed)
        return [[completion.ids for completion in completions] for completions in told]

    first = ids(7)
    assert first == ids(7)
    alone = engine.generate(PROMPTS[:3], max_new_tokens=20, temperature=1.0, seed=7)
    assert engine.generate(PROMPTS[:3], max_new_tokens=20, temperature=1.0, seed=[7, 8, 9]) == alone
    assert first != ids(8)
    flat = [tuple(completion) for completions in first for completion in completions]
    assert len(set(flat)) == len(flat) == 12


def test_a_stop_token_ends_a_completion_and_stands_in_it(engine):
    [[whole]] = engine.generate(PROMPTS[:1], max_new_tokens=20, temperature=1.0, seed=3)
    stop = whole.ids[5]
    [[ended]] = engine.generate(PROMPTS[:1], max_new_tokens=20, temperature=1.0, seed=3, stop_token_ids=[stop])
    assert ended.ids == whole.ids[: whole.ids.index(stop) + 1]
    assert ended.finish_reason == "stop"


def test_a_completion_ends_where_the_model_does(engine):
    [[completion]] = engine.generate([[300] * 120], max_new_tokens=50)
    assert len(completion.ids) == 8
    assert completion.finish_reason == "length"
    with pytest.raises(ValueError, match="128 tokens; 1 to 127 fit"):
        engine.generate([[300] * 128], max_new_tokens=1)


def test_weights_that_come_between_two_tokens_are_those_of_the_next(engine, directories):
    """What was drawn is kept; what was computed of it is computed anew."""
    answers = engine.generate(PROMPTS, max_new_tokens=12, temperature=1.0, seed=5, renew=(5, engine.model("2")))
    assert {tuple(completion.versions) for [completion] in answers} == {(0,) * 5 + (1,) * 7}
    assert worst_difference(directories / "1", PROMPTS, answers, range(5)) < 1e-3
    assert worst_difference(directories / "2", PROMPTS, answers, range(5, 12)) < 1e-3
    assert len({tuple(completion.ids) for [completion] in answers}) == len(PROMPTS)
    engine.load("1")


def test_replaced_weights_are_those_of_the_other_model(engine, directories):
    engine.generate(PROMPTS, max_new_tokens=2)  # fills the prefix cache with the old model's keys and values
    engine.load("2")
    answers = engine.generate(PROMPTS, max_new_tokens=12)
    assert worst_difference(directories / "2", PROMPTS, answers) < 1e-3
    engine.load("1")
    answers = engine.generate(PROMPTS, max_new_tokens=12)
    assert worst_difference(directories / "1", PROMPTS, answers) < 1e-3


def test_what_cannot_be_loaded_is_one_line(directories, tmp_path):
    with pytest.raises(UserError, match=r"it has no config\.json"):
        Engine(str(tmp_path))
    with pytest.raises(UserError, match="has 256 positions"):
        Engine(str(directories / "1"), max_model_length=257)


def test_prompts_of_several_steps_are_drawn_from_by_seed(engine):
    """vLLM would cut the last prompt of a step, and wind back its generator, which a CPU's cannot."""
    drawn = engine.generate(LONG, max_new_tokens=4, temperature=1.0, n=2, seed=7)
    assert [[len(each.ids) for each in several] for several in drawn] == [[4, 4]] * len(LONG)
