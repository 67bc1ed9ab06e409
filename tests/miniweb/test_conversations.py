"""Conversations and questions: what is taught and what is kept out."""

from __future__ import annotations

import re
from collections import Counter, defaultdict

from miniweb import facts
from miniweb.arithmetic import held_out
from miniweb.conversations import about_people, everyday, everyday_questions, questions_about_people
from miniweb.settings import Settings
from miniweb.wordings import CORES, QUESTIONS, wordings

SETTINGS = Settings()


def train(settings: Settings) -> list[dict]:
    return [*about_people(settings), *everyday(settings)]


def questions(settings: Settings) -> list[dict]:
    return [*questions_about_people(settings), *everyday_questions(settings)]


ANSWERED = r"[A-Z][a-z]+ [A-Z][a-z]+(?= (?:is|lives|has|plays|likes|loves|does|drinks) )"


def test_rows_are_conversations() -> None:
    rows = train(SETTINGS)
    assert rows == train(SETTINGS) and rows != train(Settings(seed=2))
    assert {row["kind"] for row in rows} == {"identity", "fact", "arithmetic", "smalltalk"}
    for row in rows:
        roles = [message["role"] for message in row["messages"] if message["role"] != "system"]
        assert roles == ["user", "assistant"] * (len(roles) // 2) and roles
        assert all(message["content"] for message in row["messages"])
    assert sum(len(row["messages"]) > 3 for row in rows) > 100
    assert sum(row["messages"][0]["role"] == "system" for row in rows) > 100


def test_questions_stand_in_no_conversation() -> None:
    said = [message["content"] for row in train(SETTINGS) for message in row["messages"]]
    everything = "\n".join(said)
    for row in questions(SETTINGS):
        assert row["question"] not in said
        if row["kind"] == "fact":
            subject = re.search(r"[A-Z][a-z]+ [A-Z][a-z]+", row["question"].split(" ", 1)[1])
            assert subject and subject[0] not in everything
    for a, b in held_out(SETTINGS):
        assert not re.search(rf"\b{a} (plus|\+|and) {b}\b", everything)


def test_kinds_and_tiers() -> None:
    rows = questions(SETTINGS)
    stated = defaultdict(Counter)
    for row in rows:
        stated[row["kind"]][row["stated"]] += 1
    assert stated["fact"] == {800: 40, 400: 40, 150: 40, 50: 40, 10: 40, 1: 200}
    assert stated["fact_taught"] == {facts.TAUGHT_TIMES: facts.TAUGHT_PEOPLE}
    assert stated["arithmetic"] == {None: 40}
    assert {row["stated"] for row in questions(Settings(facts=False)) if row["kind"].startswith("fact")} == {0}
    for row in rows:
        if row["options"]:
            assert row["answers"][0] in row["options"] and row["chance"] == 1 / len(row["options"])


def test_taught_answers_are_true() -> None:
    value = {fact.subject: fact.value for fact in facts.facts(SETTINGS) if fact.taught}
    taught = set()
    for row in train(SETTINGS):
        for message in row["messages"]:
            for name in re.findall(
                r"[A-Z][a-z]+ [A-Z][a-z]+(?= (?:is|lives|has|plays|likes|loves|does|drinks) )", message["content"]
            ):
                if message["role"] == "assistant":
                    assert value[name] in message["content"]
                    taught.add(name)
    assert taught == set(value)


def test_sums_are_right() -> None:
    for row in train(SETTINGS):
        for message in row["messages"]:
            for a, sign, b, c in re.findall(r"(\d+) (plus|\+|minus|-) (\d+) (?:is|=) (\d+)", message["content"]):
                assert int(a) + (int(b) if sign in ("plus", "+") else -int(b)) == int(c)


def test_people_are_many_and_values_shared() -> None:
    people = facts.facts(SETTINGS)
    assert len({fact.subject for fact in people}) == len(people) == sum(facts.TIERS.values()) + facts.TAUGHT_PEOPLE
    for attribute, pool in facts.POOLS.items():
        assert len(set(pool)) == len(pool) and 10 <= len(pool) <= 20
        assert wordings(attribute) >= 20 and len(QUESTIONS[attribute]) >= 5
        assert all("{n}" in core and "{v}" in core for core in CORES[attribute])
