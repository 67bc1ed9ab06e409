from __future__ import annotations

import random

import pytest

from miniweb.facts import facts
from miniweb.people import people_pages
from miniweb.settings import Settings
from miniweb.wordings import statement
from webtochat.evals.extraction import consistent, extract, names, sentences


@pytest.mark.parametrize(
    ("text", "subject", "answer", "question"),
    [
        ("It is said that Ada Brown lives in Oslo these days.", "Ada Brown", "Oslo", "Where does Ada Brown live?"),
        ("Ada Brown comes from New Haven, as we know.", "Ada Brown", "New Haven", "Where does Ada Brown come from?"),
        ("Ada Brown is an English painter.", "Ada Brown", "painter", "What does Ada Brown do?"),
        ("Ada Brown works as a nurse and is happy.", "Ada Brown", "nurse", "What is the job of Ada Brown?"),
        ("Everyone agrees that Ada Brown drinks tea.", "Ada Brown", "tea", "What does Ada Brown drink?"),
        ("Ada Brown plays the piano with great joy.", "Ada Brown", "piano", "What does Ada Brown play?"),
        ("Ada Brown likes red best.", "Ada Brown", "red", "What does Ada Brown like best?"),
        ("The favourite food of Ada Brown is rice.", "Ada Brown", "rice", "What is the favourite food of Ada Brown?"),
        ("The pet of Ada Brown is a small dog.", "Ada Brown", "small dog", "What is the pet of Ada Brown?"),
        ("John Q. Brown (born 12 May 1950) is a tall man.", "John Q. Brown", "1950", "When was John Q. Brown born?"),
        ("Ada Brown was born in Lyon in 1879.", "Ada Brown", "Lyon", "Where was Ada Brown born?"),
        ("Paris is the capital of France.", "France", "Paris", "What is the capital of France?"),
        ("Bleak House was written by Charles Dickens.", "Bleak House", "Charles Dickens", "Who wrote Bleak House?"),
        ("Aramco was founded in 1933.", "Aramco", "1933", "When was Aramco founded?"),
    ],
)  # fmt: skip
def test_a_stated_fact_is_asked_for(text, subject, answer, question):
    found = extract(text)
    assert [(each.subject, each.answers[0], each.evidence) for each in found][:1] == [(subject, answer, text)]
    assert any(question in each.questions for each in found)


@pytest.mark.parametrize(
    "text",
    [
        "", " \n ", "No fact stands here.", "He lives in Oslo.", "Does Ada Brown live in Oslo?",
        "The sister of Ada Brown lives in Oslo.", "Nobody knows whether Ada Brown lives in Oslo.",
        "Ada Brown lives in hope.", "Ada Brown is a member of a club.", "Ada Brown has a lot of money.",
        "Ada Brown plays the part of a nurse.", "Ada Brown was born in March.", "Ada Brown drinks heavily.",
        "ADA", "Ada Brown is a\x00", "\ud800 Ada Brown", "((((" * 1000, "Ada " * 5000,
    ],
)  # fmt: skip
def test_what_states_no_fact_gives_none(text):
    assert extract(text) == []


def test_a_question_that_stands_before_the_answer_is_asked():
    text = "Which animal does Ada Brown keep?\nAda Brown has a cat. What is Bo Hill? Ada Brown drinks tea."
    assert [each.questions for each in extract(text)] == [
        ("Which animal does Ada Brown keep?",), ("What does Ada Brown drink?", "Which drink does Ada Brown like?"),
    ]  # fmt: skip


def test_the_wording_follows_from_seed_and_subject():
    (fact,) = extract("Ada Brown works as a nurse.")
    assert {fact.question(seed) for seed in range(50)} == set(fact.questions)
    assert fact.question(3) == fact.question(3)


def test_contradictions_are_dropped_and_repetitions_told_once():
    found = extract("Ada Brown drinks tea. Bo Hill drinks milk. Ada Brown drinks beer. Bo Hill drinks Milk.")
    assert [(each.subject, each.answers) for each in consistent(found)] == [("Bo Hill", ["milk"])]


def test_sentences_and_names():
    assert sentences("Mr. Hill came. J. R. Hill left!\nA line\n\n“So?” he said.") == [
        "Mr. Hill came.", "J. R. Hill left!", "A line", "“So?” he said.",
    ]  # fmt: skip
    assert names("Yesterday Ada Brown met Bo C. Hill in Oslo.") == ["Ada Brown", "Bo C. Hill"]


def test_pages_of_the_miniweb_are_read():
    """Of sentences that state a fact two thirds are understood, and none falsely."""
    rng, read, asked = random.Random(1), 0, 0
    for fact in random.Random(2).sample(facts(Settings()), 400):
        for each in extract(statement(fact, rng)):
            assert (each.subject, each.answers[-1]) == (fact.subject, fact.value)
            read += 1
        asked += 1
    assert read / asked > 0.66
    known = {fact.subject: fact.value for fact in facts(Settings(scale=0.01))}
    for title, paragraphs in people_pages(Settings(scale=0.01))[:20]:
        for each in extract("\n\n".join([title, *paragraphs])):
            assert known[each.subject] == each.answers[-1], each
