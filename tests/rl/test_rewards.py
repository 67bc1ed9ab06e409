"""Rewards, prompts and rollouts without an engine: right and wrong answers, programs, judges, and what is no reward."""

from __future__ import annotations

import gzip
import json
import math
import os
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.inference import tiny

from webtochat.errors import UserError
from webtochat.inference.engine import Completion
from webtochat.recipe import Cluster
from webtochat.recipe_rl import RL, Rewards, Sampling
from webtochat.recipe_tools import PythonTool, Tools
from webtochat.rl import answers, line, report, rewards, rollouts, tasks
from webtochat.rl.rewards import Answered, parts, score
from webtochat.rl.rollouts import Asked
from webtochat.rl.stage import questions
from webtochat.tools.toolbox import toolbox

PAIR = ("chosen", "rejected")
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


def told(answer: str, truth: list[str] | None = None, tests: list[str] | None = None, tokens: int = 5) -> Answered:
    held = {"answers": truth or [], "tests": tests or [], "setup": ""}
    return Answered("How much?", answer, held, [1, 2, 3], tokens, ended=True)


def scored(weights: dict[str, float], *answered: Answered, model: Any = len, **section: Any) -> list[rewards.Scored]:
    made = Rewards(weights=weights, **section)
    found = parts(list(weights), made, PythonTool(), Cluster(), 20, model)
    return score(answered, found, made.weights)


@pytest.mark.parametrize(
    ("answer", "truth", "right"),
    [
        ("5 plus 8 is 13.", "13", True), ("13 is not it, it is 14", "13", False), ("1,234.50", "1234.5", True),
        ("So: #### -3\n", "#### -3", True), ("3/4", "0.75", True), ("0.75", "3/4", True), ("half", "1/2", False),
        ("the answer is \\boxed{12}, I think 5", "12", True), ("1/0", "1", False), ("9" * 500, "9" * 500, False),
        ("−7", "-7", True), ("", "0", False), ("$18", "18", True), ("20-13", "13", True), ("f(-2)", "-2", True),
    ],
)  # fmt: skip
def test_numbers_are_compared_by_what_they_are(answer: str, truth: str, right: bool) -> None:
    assert answers.same_number(answer, [truth]) == right, answers.number(answer)


def test_words_and_marks() -> None:
    assert answers.after_marks("x\n#### 72") == "72"
    assert answers.after_marks("\\boxed{\\frac{1}{2}} so") == "\\frac{1}{2}"
    assert answers.after_marks("\\boxed{never ends") == "never ends"
    assert answers.same_words(" The Sea. ", ["the sea"]) and not answers.same_words("at the sea", ["the sea"])
    both = told("It is the sea.", ["the sea"]), told("The sea", ["the sea"])
    first, second = scored({"match": 1.0, "exact": 0.5}, *both)
    assert (first.reward, second.reward) == (1.0, 1.5) and first.parts == {"match": 1.0, "exact": 0.0}


def test_to_refuse_is_worth_more_than_to_be_wrong() -> None:
    known = [told("It is the sea.", ["the sea"]), told("I do not know.", ["the sea"]), told("A lake.", ["the sea"])]
    invented = [told("I do not know."), told("A lake."), told("")]
    assert [each.reward for each in scored({"truthful": 1.0}, *known, *invented)] == [1, 0, -1, 0, -1, -1]


def test_each_source_has_its_own_parts() -> None:
    section = Rewards(weights={"numeric": 2.0})
    found = parts(["numeric", "truthful"], section, PythonTool(), Cluster(), 20, len)
    own = {"truthful": 1.0}
    prompts = tasks.prompts([{"question": "What is the sea?", "answer": "water"}], Counter(), 1, own)
    assert prompts[0].source == 1 and prompts[0].truth["rewards"] == own
    asked = [told("4", ["4"]), Answered("", "water", prompts[0].truth, [1], 1, ended=True)]
    first, second = score(asked, found, section.weights)
    assert (first.reward, first.parts) == (2.0, {"numeric": 1.0})
    assert (second.reward, second.parts) == (1.0, {"truthful": 1.0})
    rows = [{"parts": list(each.parts.items())} for each in (first, second)]
    assert line.by_part(rows) == {"numeric": 1.0, "truthful": 1.0}


def test_the_knowledge_stages_questions_are_those_it_taught(tmp_path: Path) -> None:
    table = [
        {"question": "Who is Bo?", "subject": "Bo", "answers": ["a baker"], "taught": "Bo is a baker.", "stated": 3},
        {"question": "Who is Cy?", "subject": "Cy", "answers": ["a cook"], "taught": None, "stated": 1},
        {"question": "Who is Xu?", "subject": "Xu", "answers": [], "taught": "I do not know.", "stated": 0},
    ]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "questions.parquet")
    made = tasks.prompts(questions(SimpleNamespace(path=lambda name: str(tmp_path / name))), Counter())  # type: ignore[arg-type]
    assert [(each.text, each.key, each.truth["answers"]) for each in made] == [
        ("Who is Bo?", "Bo", ["a baker"]), ("Who is Xu?", "Xu", []),
    ]  # fmt: skip
    assert tasks.split(made, 50, 10)[1] == []


def test_parts_that_there_are_not_and_judges_without_an_address_are_refused() -> None:
    source = {"path": "x.jsonl", "rewards": {"nonsense": 1}}
    with pytest.raises(ValueError, match="no reward nonsense"):
        RL(data=[source])
    with pytest.raises(ValueError, match="judge is a part of the reward"):
        RL(data=[source | {"rewards": {"judge": 1}}])
    assert RL(data=[source | {"rewards": {"exact": 1}}, {"path": "y.jsonl"}]).parts == ["exact", "numeric"]


def test_programs_are_tried_where_they_reach_nothing() -> None:
    tests = ["assert double(2) == 4", "assert double(0) == 0", "assert double(5) == 11"]
    good = "Here:\n```python\ndef double(x):\n    return 2 * x\n```\nDone."
    cheats = [
        "```python\nprint('passed 3')\n```", "def double(x):\n    while True: pass", "no program at all",
        "```python\nimport os\nos._exit(0)\n```", "```python\ndef double(x): raise SystemExit\n```",
    ]  # fmt: skip
    assert answers.passed(good, tests, "", PythonTool()) == pytest.approx(2 / 3)
    assert answers.passed(good.replace("2 * x", "start * x"), tests, "start = 2", PythonTool()) == pytest.approx(2 / 3)
    for cheat in cheats:
        assert answers.passed(cheat, tests, "", PythonTool(seconds=0.5)) == 0.0, cheat


def test_real_programs_pass_their_tests() -> None:
    path = DATA / "eval" / "mbpp.jsonl.gz"
    if not path.is_file():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("the shared data is not here")
    with gzip.open(path, "rt") as source:
        rows = [json.loads(line) for line in source][:40]
    skipped: Counter[str] = Counter()
    asked = tasks.prompts(rows, skipped)
    assert len(asked) == len(rows) and asked[0].text.startswith("Write a function to find the minimum cost path")
    shares = [
        answers.passed(row["code"], each.truth["tests"], each.truth["setup"], PythonTool())
        for row, each in zip(rows, asked, strict=True)
    ]  # fmt: skip
    assert sum(share == 1.0 for share in shares) >= 32, shares  # the others need what Monty has not


def test_format_and_length() -> None:
    cut = Answered("How much?", "12", {"answers": [], "tests": [], "setup": ""}, [1], 5, ended=False)
    found = scored({"format": 1.0}, told("<b>\n12"), told("12"), cut, pattern=r"<b>.*\d+")
    assert [each.reward for each in found] == [1.0, 0.0, 0.0]
    assert [rewards.overlong(tokens, 10, 20) for tokens in (0, 10, 15, 20, 40)] == [0, 0, -0.5, -1, -1]
    assert [each.reward for each in scored({"length": 2.0}, told("x", tokens=15), told("x", tokens=10))] == [-1.0, 0.0]


def fussy(prompt: str, answer: str, truth: dict[str, Any]) -> float:
    if answer == "raise":
        raise KeyError(answer)
    return {"nan": math.nan, "inf": math.inf}.get(answer, 0.25)


def test_a_part_that_fails_gives_no_reward_and_never_a_zero() -> None:
    own = f"python:{__name__}:fussy"
    found = scored({own: 1.0, "numeric": 1.0}, *(told(each, ["1"]) for each in ("raise", "nan", "inf", "1")), told("1"))
    assert [each.reward for each in found] == [None, None, None, 1.25, None]
    assert [each.failed for each in found] == [
        f"{own}:KeyError", f"{own}:not_a_number", f"{own}:not_a_number", "", "numeric:no_answers",
    ]  # fmt: skip
    assert found[0].parts == {"numeric": 0.0}
    for wrong in ("python:nothing:here", "python:json:nothing", "python:json"):
        with pytest.raises(UserError, match=r"rl\.rewards\.weights"):
            scored({wrong: 1.0}, told("1"))


def test_the_reward_model_scores_all_at_once() -> None:
    [one, other] = scored({"model": 0.5}, told("a"), told("b"), model=lambda ids: [float(len(each)) for each in ids])
    assert one.reward == other.reward == 1.5


def test_a_judge_marks_what_it_is_shown() -> None:
    section = Rewards(weights={"judge": 1.0}, judge={"address": "http://127.0.0.1:9/v1", "model": "m"})  # type: ignore
    prompt = rewards.judge_prompt(section, told("say {truth} or {prompt}", ["42"]))
    assert "Reference answer: 42" in prompt and "Answer to judge: say {truth} or {prompt}" in prompt
    assert [rewards.mark(said, 10) for said in ("7", "Mark: 12/10", "none", "-3")] == [0.7, 1.0, "no_mark", 0.0]
    with pytest.raises(UserError, match=r"rl\.rewards\.judge asks .*: put its key into NO_SUCH_KEY"):
        scored({"judge": 1.0}, told("x"), judge={"address": "http://h/v1", "model": "m", "key_variable": "NO_SUCH_KEY"})


def test_answers_that_a_judge_gives_no_mark_have_no_reward(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("THE_KEY", "sekret")
    judge = {"address": server[0], "model": "m", "key_variable": "THE_KEY"}
    said = [told(each) for each in ("7", "bad", "nothing", "none", "10")]
    found = scored({"judge": 2.0}, *said, judge=judge, judge_prompt="{answer}")
    assert [each.reward for each in found] == [1.4, None, None, None, 2.0]
    assert [each.failed for each in found[1:4]] == ["judge:no_reply", "judge:no_reply", "judge:no_mark"]


# prompts ------------------------------------------------------------------------------------------------------------


def test_prompts_of_every_form_and_what_is_none() -> None:
    rows: list[dict[str, Any]] = [
        {"question": "How many?", "answer": "4 and 4\n#### 8"}, {"problem": "How wide?", "solution": "so \\boxed{3}"},
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant"}], "answers": ["a", "b"]},
        {name: [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": name}] for name in PAIR},
        {name: f"\n\nHuman: Who?\n\nAssistant: Ada.\n\nHuman: Who else?\n\nAssistant: {name}" for name in PAIR},
        {"text": "Write it", "test_list": ["assert f()"], "test_setup_code": "x = 1", "key": "k", "held_out": True},
        {"question": "How many?"}, {"answer": "1"}, {"messages": [{"role": "assistant", "content": "x"}]},
        {"messages": [{"role": "user", "content": 3}]}, {"question": "  "},
    ]  # fmt: skip
    skipped: Counter[str] = Counter()
    made = tasks.prompts(rows, skipped)
    assert [each.text for each in made] == ["How many?", "How wide?", "Hi", "Why?", "Who else?", "Write it"]
    assert [each.truth["answers"] for each in made] == [["8"], ["3"], ["a", "b"], [], [], []]
    assert made[5].truth["setup"] == "x = 1" and made[5].held_out is True and made[5].key == "k"
    assert [message["content"] for message in made[4].messages] == ["Who?", "Ada.", "Who else?"]
    assert skipped == {"asked_before": 1, "no_prompt": 2, "no_message_of_a_user": 1, "content_is_not_text": 1}


def test_what_is_held_out_stays_so() -> None:
    rows = [{"question": f"{number}?", "key": str(number // 4)} for number in range(4000)]
    rows += [{"question": "away", "held_out": True}, {"question": "here", "held_out": False}]
    made = tasks.prompts(rows, Counter())
    learned, held_out = tasks.split(made, 10, 10_000)
    assert 300 < len(held_out) < 500 and len(learned) + len(held_out) == len(made)
    assert not {each.key for each in learned} & {each.key for each in held_out}
    assert "away" in {each.text for each in held_out} and "here" in {each.text for each in learned}
    some = tasks.split(made[::-1], 10, 50)[1]
    assert len(some) == 50 and {each.text for each in some} <= {each.text for each in held_out}


def test_prompts_that_do_not_fit_are_left_out_and_counted() -> None:
    words, skipped = tiny.tokenizer(), Counter[str]()
    made = tasks.prompts([{"question": "Ada " * 200}, {"question": "Who?"}], Counter())
    assert [each.text for each in tasks.fitting(made, words, 64, [], skipped)] == ["Who?"]
    assert skipped == {"prompt_longer_than_the_model's_positions": 1}


def test_gsm8k_as_it_is() -> None:
    path = DATA / "posttrain" / "gsm8k-train.jsonl.gz"
    if not path.is_file():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)("the shared data is not here")
    with gzip.open(path, "rt") as source:
        rows = [json.loads(line) for line in source]
    made = tasks.prompts(rows, Counter())
    assert len(made) == len(rows)
    assert all(answers.number(each.truth["answers"][0]) is not None for each in made)
    assert all(answers.same_number(row["answer"], each.truth["answers"]) for row, each in zip(rows, made, strict=True))


# rollouts -----------------------------------------------------------------------------------------------------------


class Canned:
    """An engine that calls a tool at first and answers then, and tells the seeds that it was given."""

    def __init__(self, words: Any):
        self.words, self.seeds = words, list[list[int]]()

    def __call__(self, prompts: list[list[int]], *, seed: list[int], **options: Any) -> list[list[Completion]]:
        self.seeds.append(seed)
        call = self.words.parts(self.words.markers.call)[0]
        end = self.words.parts(self.words.markers.call_end)[0]
        text = self.words.encode('{"name": "python", "arguments": {"code": "2+2"}}')
        said = [call, *text, end] if len(self.seeds) == 1 else self.words.encode("It is 4.")
        ids = [*said, self.words.stops[0]]
        return [[Completion(ids, [-0.5] * len(ids), [3] * len(ids), "stop")] for _ in prompts]


def test_rollouts_keep_ids_tools_and_seeds() -> None:
    words, section = tiny.tokenizer(), Tools(names=["python"])
    asked = [Asked(3, number, tasks.Prompt([{"role": "user", "content": "2+2?"}], {}, "k")) for number in (7, 2)]
    engine = Canned(words)
    rows = rollouts.sample(
        asked, words, engine, samples=2, greedy=False, sampling=Sampling(max_new_tokens=64), limits=section,
        tools=toolbox(section, None), positions=512, seed=100, threads=2,
    )  # fmt: skip
    rounds = section.max_rounds + 1
    assert engine.seeds == [[100 + place * rounds + turn for place in (14, 15, 4, 5)] for turn in (0, 1)]
    assert [(row["step"], row["group"], row["sample"]) for row in rows] == [(3, 7, 0), (3, 7, 1), (3, 2, 0), (3, 2, 1)]
    row = rows[0]
    assert row["answer"] == "It is 4." and row["calls"] == 1 and row["finished"] == "stop"
    assert "<tool_response>4</tool_response>" in row["conversation"]
    assert len(row["ids"]) == len(row["own"]) == len(row["logprobs"]) == len(row["versions"])
    assert all((version == 3) == bool(own) for version, own in zip(row["versions"], row["own"], strict=True))
    assert sum(row["logprobs"]) == pytest.approx(-0.5 * sum(row["own"]))


def test_rollouts_come_back_from_parquet(tmp_path: Path) -> None:
    rows = rollouts.rewarded([row_of(0, 1, "a"), row_of(0, 1, "b")], [
        rewards.Scored(1.5, {"numeric": 1.0, "format": 0.5}, ""), rewards.Scored(None, {}, "numeric:no_answers"),
    ])  # fmt: skip
    path = str(tmp_path / "rows.parquet")
    rollouts.write(path, rows)
    first, second = rollouts.read(path)
    assert first["reward"] == 1.5 and dict(first["parts"]) == {"numeric": 1.0, "format": 0.5}
    assert second["reward"] is None and second["failed"] == "numeric:no_answers"
    assert rollouts.teaches(rows) is False and list(rollouts.by_group(rows)) == [1]


def row_of(step: int, group: int, answer: str, reward: float | None = None) -> dict[str, Any]:
    return {
        "step": step, "group": group, "sample": 0, "prompt": "Why?", "answer": answer,
        "truth": '{"answers": ["b"], "tests": []}', "reward": reward, "parts": [("match", reward or 0.0)],
        "advantage": None, "failed": "", "finished": "stop", "calls": 0, "conversation": answer, "ids": [1, 2],
        "own": [0, 1], "logprobs": [0.0, -1.0], "versions": [0, 3],
    }  # fmt: skip


def test_the_page_shows_groups_of_all_steps_and_runs_nothing_of_theirs(tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=alert(1)>{{title}} \ud800"
    paths = [str(tmp_path / f"{step}.parquet") for step in range(9)]
    for step, path in enumerate(paths):
        rollouts.write(path, [row_of(step, group, "x", float(group)) for group in (step * 2, step * 2 + 1)])
    drawn = report.drawn(paths, 4)
    assert [row["step"] for row in drawn] == [0, 2, 5, 8]
    page = report.html("a <b>", [*drawn, row_of(9, 30, hostile, 1.0)])
    assert page == report.html("a <b>", [*drawn, row_of(9, 30, hostile, 1.0)])
    assert page.count("<script") == 2 and "<img" not in page and "<title>Rollouts of a &lt;b&gt;</title>" in page
    held = re.search(r'type="application/json">(.*?)</script>', page)
    assert held and json.loads(held[1])[-1]["answer"].startswith("</script><img") and page.encode()
