"""Questions that a model writes about a snippet, and a model's judgement of answers: what it is told to do, and how its
replies are read."""

from __future__ import annotations

import re

from webtochat.evals.extraction import names
from webtochat.evals.questions import is_right, words
from webtochat.knowledge.facts import Fact, is_held_out
from webtochat.recipe_knowledge import Interrogation

WRITE = """Read the text between the lines, then write one question about a fact that it states, and the answer.
The question must name what it is about in full, so that it can be understood without the text.
The answer must be a few words that stand in the text.
Reply with two lines and nothing else:
Question: ...
Answer: ...
---
{snippet}
---"""
JUDGE = """Question: {question}
Reference answer: {reference}
Reply to judge: {reply}
Does the reply give the reference answer? Say yes or no, and nothing else."""


def prompt(snippet: str) -> str:
    return WRITE.replace("{snippet}", snippet)


def read(written: str, snippet: str, document: str, section: Interrogation, seed: int) -> Fact | str:
    """The fact of a reply, or in a word why there is none."""
    question = re.search(r"^\W*Question\W*:\s*(.+\?)\s*$", written, re.MULTILINE | re.IGNORECASE)
    answer = re.search(r"^\W*Answer\W*:\s*(.+?)\s*$", written, re.MULTILINE | re.IGNORECASE)
    if question is None:
        return "no_question"
    if answer is None or not words(answer[1]):
        return "no_answer"
    if len(words(answer[1])) > section.max_answer_words:
        return "long_answer"
    if not is_right(snippet, [answer[1]]):
        return "answer_not_in_text"
    if is_right(question[1], [answer[1]]):
        return "answer_in_question"
    subject = max(names(question[1]), key=len, default=document)
    return Fact(
        kind="knowledge", question=question[1], answers=[answer[1]], stated=1, subject=subject, relation="written",
        evidence=snippet, document=document, held_out=is_held_out(subject, section, seed),
    )  # fmt: skip


def judge_prompt(fact: Fact, reply: str) -> str:
    given = {"question": fact.question, "reference": fact.answers[0], "reply": reply}
    return re.sub(r"\{(\w+)\}", lambda mark: given[mark[1]], JUDGE)


def judgement(said: str) -> bool | None:
    """None: neither yes nor no."""
    first = words(said)[:1]
    return {"yes": True, "no": False}.get(first[0]) if first else None
