"""Which questions are asked, what answers show, and what is taught; models behind OpenAI's API."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from webtochat.errors import MachineError, UserError
from webtochat.evals.extraction import extract
from webtochat.evals.refusals import is_refusal
from webtochat.knowledge import writing
from webtochat.knowledge.endpoint import Client
from webtochat.knowledge.facts import Fact, chosen, invented, snippet
from webtochat.knowledge.lessons import Asked, lessons, rest, searches
from webtochat.recipe import Cluster
from webtochat.recipe_knowledge import Endpoint, Interrogation
from webtochat.recipe_tools import Tools
from webtochat.tools.tool import ToolResult

FIRSTS, LASTS = ["Ada", "Bo", "Cy", "Dee", "Eli"], ["Brown", "Hill", "Reed", "Stone", "Wood", "York"]
PEOPLE = [f"{first} {last}" for first in FIRSTS for last in LASTS]
SECTION = Interrogation(held_out=0.5, invented=10, samples=4, known=0.75, unknown=0.0)


def told(people=PEOPLE, documents=1):
    return [
        (f"d{number}", fact) for number in range(documents) for name in people
        for fact in extract(f"{name} lives in Oslo.")
    ]  # fmt: skip


def fact(subject="Ada Brown", held_out=False, answers=("Oslo",)):
    return Fact(
        kind="knowledge", question=f"Where does {subject} live?", answers=list(answers), subject=subject,
        relation="home", evidence="", document="d", held_out=held_out,
    )  # fmt: skip


def test_each_subject_is_asked_about_once_by_what_most_documents_say():
    found = [*told(), *told(PEOPLE[:2], 5), ("x", extract("Ada Brown drinks tea.")[0])]
    facts = chosen(found, SECTION, 1)
    assert sorted(each.subject for each in facts) == sorted(PEOPLE)
    first = next(each for each in facts if each.subject == "Ada Brown")
    assert first.answers == ["Oslo"] and first.stated == 4  # of six documents
    assert facts == chosen(found, SECTION, 1) != chosen(found, SECTION, 2)


def test_contradicted_facts_are_not_asked_for():
    found = [*told(["Ada Brown", "Bo Hill"]), ("x", extract("Ada Brown lives in Rome.")[0])]
    assert [each.subject for each in chosen(found, SECTION, 1)] == ["Bo Hill"]


def test_the_rare_and_the_common_are_asked_for_alike():
    found = [*told(), *told(PEOPLE[:5], 8)]
    facts = chosen(found, Interrogation(max_questions=10), 1)
    assert Counter(each.stated for each in facts) == {1: 5, 8: 5}


def test_names_of_nothing_are_made_of_parts_of_names():
    facts = chosen(told(PEOPLE[::7]), SECTION, 1)
    made = invented(facts, SECTION, 1)
    assert len(made) >= 10 and not {each.subject for each in made} & {each.subject for each in facts}
    for each in made:
        first, last = each.subject.split()
        assert first in FIRSTS and last in LASTS and each.subject in each.question and not each.answers
    assert {each.held_out for each in made} == {True, False}
    assert invented([], SECTION, 1) == []


def test_a_snippet_is_whole_lines_of_the_document():
    lines = [f"line {number} of the text" for number in range(100)]
    section = Interrogation(snippet_characters=200)
    pieces = {snippet("\n".join(lines), str(name), section, 1) for name in range(20)}
    assert len(pieces) > 5
    assert all(len(piece) <= 200 and set(piece.split("\n")) <= set(lines) for piece in pieces)
    assert snippet("x" * 500, "a", section, 1) == "x" * 200 and snippet("short", "a", section, 1) == "short"


def test_what_answers_show():
    states = [Asked(fact(), ["."] * 4, [True] * right + [False] * (4 - right)).state(SECTION) for right in range(5)]
    assert states == ["unknown", "mixed", "mixed", "known", "known"]
    assert Asked(fact(answers=())).state(SECTION) == "invented"


def test_the_known_is_taught_in_its_own_words_and_the_rest_refused():
    said = ["He lives in Oslo.", "In Oslo.", "In Oslo.", "Rome."]
    known, unknown = Asked(fact(), said, [True, True, True, False]), Asked(fact("Bo Hill"), said, [False] * 4)
    mixed, nothing = Asked(fact("Cy Reed"), said, [True, False, False, False]), Asked(fact("X Y", answers=()))
    held_out = replace(known, fact=fact("Eli Wood", held_out=True))
    taught = lessons([known, unknown, mixed, nothing, held_out], SECTION, 1)
    assert taught[0] == "In Oslo." and taught[2] is taught[4] is None
    assert taught[1] in SECTION.refusals and taught[3] in SECTION.refusals
    many = [replace(unknown, fact=fact(name)) for name in PEOPLE]
    few = lessons([known, *many], SECTION, 1)
    assert sum(text is not None for text in few) == 3  # its answer, and max_refusals
    assert len({text for text in lessons([known, *many], Interrogation(max_refusals=99), 1) if text}) > 4


def test_a_refusal_names_what_the_question_names():
    section = Interrogation(refusals=["{subject}? I do not know.", "I do not know."], max_refusals=99)
    asked = [Asked(fact(name), ["."] * 4, [False] * 4) for name in PEOPLE]
    said = lessons(asked, section, 1)
    assert len(set(said)) > 2 and all(is_refusal(text) for text in said)
    assert all(text in ("I do not know.", f"{name}? I do not know.") for name, text in zip(PEOPLE, said, strict=True))
    unnamed = [replace(each, fact=replace(each.fact, subject="page 7")) for each in asked]
    assert set(lessons(unnamed, section, 1)) == {"I do not know."}
    with pytest.raises(ValueError, match="must do without"):
        Interrogation(refusals=["{subject}?"], questions="model")


def test_what_is_known_at_times_is_looked_up():
    section, failed = Interrogation(mixed="search", known=0.75), Counter()
    pages = {"Ada Brown": "Ada Brown lives in Oslo.", "Bo Hill": "Bo Hill was seen."}

    class Search:
        name, description, parameters = "web_search", "Finds pages.", {"type": "object"}

        def call(self, arguments):
            found = [name for name in pages if name in arguments["query"]]
            return ToolResult("\n".join(f"1. Page\n   of.example\n   {pages[name]}" for name in found))

    tools = [Search()]
    mixed = [Asked(fact(name), ["."] * 4, [True, False, False, False]) for name in pages]
    told = [*mixed, replace(mixed[0], fact=fact(held_out=True)), replace(mixed[0], right=[True] * 4)]
    found = searches(told, section, tools, Tools(names=["web_search"]), failed)
    assert set(found) == {0} and failed == {"search: subject_found_but_no_answer": 1}
    assert [each["role"] for each in found[0]] == ["user", "assistant", "tool", "assistant"]
    assert found[0][-1]["content"] == "Ada Brown lives in Oslo."


def test_other_conversations_name_nothing_that_is_held_out():
    rows = [{"messages": [{"role": "user", "content": f"Where does {name} live?"}]} for name in PEOPLE * 10]
    kept = rest(rows, {"Ada Brown"}, 0.5, 1)
    assert 100 < len(kept) < 200 and not any("Ada Brown" in str(row) for row in kept)
    assert rest(rows, set(), 0.0, 1) == [] and rest([{"messages": None}, {}], {"x"}, 1.0, 1)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("", "no_question"), ("Where is it?", "no_question"), ("Question: Where does Ada Brown live?", "no_answer"),
        ("Question: Where does Ada Brown live?\nAnswer: ?!", "no_answer"),
        ("Question: Where does Ada Brown live?\nAnswer: in the old town of Oslo by the sea", "long_answer"),
        ("Question: Where does Ada Brown live?\nAnswer: Rome", "answer_not_in_text"),
        ("Question: Does Ada Brown live in Oslo?\nAnswer: Oslo", "answer_in_question"),
    ],
)
def test_a_written_question_of_no_use_has_a_reason(written, reason):
    assert writing.read(written, "Ada Brown lives in Oslo.", "d", SECTION, 1) == reason


def test_a_written_question_is_read():
    written = "Sure!\n**Question**: Where does Ada Brown live?\nanswer: Oslo\n"
    found = writing.read(written, "Ada Brown lives in Oslo.", "d", SECTION, 1)
    assert isinstance(found, Fact)
    assert (found.question, found.answers, found.subject) == ("Where does Ada Brown live?", ["Oslo"], "Ada Brown")
    other = writing.read("Question: what is it?\nAnswer: Oslo", "Oslo", "d", SECTION, 1)
    assert isinstance(other, Fact) and other.subject == "d"
    assert "{reply}" in writing.judge_prompt(fact(), "{reply} {question}")
    assert [writing.judgement(said) for said in ("Yes.", "no", "Perhaps", "")] == [True, False, None, None]


@pytest.fixture
def server():
    """Answers as OpenAI's API does, by what it is asked; counts what it was asked."""
    asked: Counter[str] = Counter()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            text = body["messages"][0]["content"]
            asked[text] += 1
            if text == "hang":
                time.sleep(3)
            known = {"refuse": 401, "busy": 503, "once busy": 503 if asked[text] == 1 else 200, "bad": 400}
            status = known.get(text, 200)
            content = "" if text == "nothing" else text.upper()
            answer = {"choices": [{"index": 0, "message": {"role": "assistant", "content": content}}]}
            sent = json.dumps(answer if status == 200 else {"error": {"message": "key sekret"}})
            sent = "not json" if text == "garbage" else sent
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            with suppress(BrokenPipeError):
                self.end_headers()
                self.wfile.write(sent.encode())

        def log_message(self, *_):
            pass

    made = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}/v1", asked
    made.shutdown()
    made.server_close()


def client(address, monkeypatch, **cluster):
    monkeypatch.setenv("THE_KEY", "sekret")
    endpoint = Endpoint(address=address, model="m", key_variable="THE_KEY")
    return Client(endpoint, Cluster(**{"endpoint_retries": 1, "endpoint_seconds": 1, **cluster}))


def test_an_endpoint_is_asked_in_order_and_failures_have_reasons(server, monkeypatch):
    address, asked = server
    failed: Counter[str] = Counter()
    prompts = ["a", "once busy", "busy", "bad", "nothing", "garbage", "b"]
    replies = client(address, monkeypatch).ask(prompts, failed)
    assert replies == ["A", "ONCE BUSY", None, None, None, None, "B"]
    assert sum(failed.values()) == 4 and failed["status_503"] == failed["status_400"] == failed["empty"] == 1
    assert asked["once busy"] == asked["busy"] == 2 and asked["a"] == asked["bad"] == 1


def test_an_endpoint_that_hangs_is_given_up(server, monkeypatch):
    failed: Counter[str] = Counter()
    replies = client(server[0], monkeypatch, endpoint_retries=0).ask(["hang", "a"], failed)
    assert replies == [None, "A"] and failed == {"timeout": 1}


def test_an_endpoint_that_refuses_or_is_not_there_is_told_without_the_key(server, monkeypatch):
    with pytest.raises(UserError, match="answers 401: check") as refused:
        client(server[0], monkeypatch).ask(["refuse"], Counter())
    with pytest.raises(MachineError, match="no_connection") as missing:
        client("http://127.0.0.1:9/v1", monkeypatch, endpoint_retries=0).ask(["a"], Counter())
    assert "sekret" not in str(refused.value) + str(missing.value)
    monkeypatch.delenv("THE_KEY")
    with pytest.raises(UserError, match="into THE_KEY"):
        Client(Endpoint(address=server[0], model="m", key_variable="THE_KEY"), Cluster())
