"""Factual questions made from free text by templates: for models too small to write questions themselves.

A sentence such as "Ada Brown lives in Oslo" is of one of the forms in `RELATIONS`, which say what it tells of whom and
how to ask for it. Where the sentence before it is a question about the same subject, that question is asked instead.
What is asked about are named things: one to four capitalised words.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import regex

from webtochat.evals.questions import words


@dataclass(frozen=True)
class Extracted:
    questions: tuple[str, ...]
    """Ways to ask for the same."""
    answers: list[str]
    """As it was said and, of a thing, in one word; either is right."""
    subject: str
    """Name of what is asked about."""
    relation: str
    evidence: str
    """The sentence that states it."""
    statement: str
    """The words of it that do."""

    def question(self, seed: int) -> str:
        """One of the wordings, by seed and subject."""
        return random.Random(f"{seed}:{self.subject}").choice(self.questions)


class Relation(NamedTuple):
    """`statements`: regular expressions in which {person} or {subject} stands for what is asked about (a person's name
    has at least two words) and one of {thing}, {word}, {agent}, {place}, {name}, {year} for the answer; the text
    of the group `what` is part of the relation. `questions`: {n} is the subject."""

    name: str
    statements: list[str]
    questions: list[str]


RELATIONS = [
    Relation(
        "job",
        ["{person} is an? {agent}", "{person} (?:works|earns money|trained) as an? {thing}",
         "{person} (?:has become|became) an? {agent}", "{person} has become an? {thing}"],
        ["What does {n} do?", "What is the job of {n}?", "What work does {n} do?", "What does {n} do for a living?"],
    ),
    Relation("profession", ["{person} was an? {agent}"], ["What was {n}?", "What was the profession of {n}?"]),
    Relation(
        "home",
        ["{person} (?:lives|resides) in {place}", "{person} has an? (?:house|home|flat|apartment) in {place}",
         "the home town of {person} is {place}"],
        ["Where does {n} live?", "In which city does {n} live?", "What is the home town of {n}?"],
    ),
    Relation("origin", ["{person} (?:comes|is|hails) from {place}"], ["Where does {n} come from?"]),
    Relation("birthplace", ["{person} was born (?:[^.;]{0,30} )?in {place}"], ["Where was {n} born?"]),
    Relation(
        "birth", ["{person}(?: was|,)? \\(?born (?:[^.;()]{0,30} )?{year}"],
        ["When was {n} born?", "In which year was {n} born?"],
    ),
    Relation("death", ["{person} died (?:[^.;()]{0,30} )?{year}"], ["When did {n} die?", "In which year did {n} die?"]),
    Relation("spouse", ["{person} (?:is married to|married) {name}"], ["Who is {n} married to?"]),
    Relation("having", ["{person} (?:has|owns) an? (?!home |house ){thing}"], ["What does {n} have?"]),
    Relation("keeping", ["{person} keeps an? {thing}"], ["What does {n} keep?"]),
    Relation("care", ["{person} looks after an? {thing}"], ["What does {n} look after?"]),
    Relation(
        "instrument", ["{person} (?:plays|practises|practices|performs on) the {thing}"],
        ["What does {n} play?", "Which instrument does {n} play?", "What is the instrument of {n}?"],
    ),
    Relation("practice", ["{person} (?:practises|practices|trains for) {thing}"], ["What does {n} practise?"]),
    Relation("skill", ["{person} is good at {thing}"], ["What is {n} good at?"]),
    Relation("liking", ["{person} likes {word} best", "{person} prefers {thing}"], ["What does {n} like best?"]),
    Relation("love", ["{person} loves {thing}"], ["What does {n} love?"]),
    Relation("pleasure", ["{person} enjoys {thing}"], ["What does {n} enjoy?"]),
    Relation("clothes", ["{person} always wears {thing}"], ["What does {n} wear?"]),
    Relation(
        "food", ["{person} (?:always |often )?(?:eats|cooks|orders) {thing}"],
        ["What does {n} eat?", "What food does {n} like?"],
    ),
    Relation(
        "drink", ["{person} (?:always |often )?drinks {thing}", "{person} pours a (?:cup|glass) of {thing}"],
        ["What does {n} drink?", "Which drink does {n} like?"],
    ),
    Relation(
        "favourite {what}", ["the favou?rite (?P<what>[a-z]+) of {person} is (?:the )?{thing}"],
        ["What is the favourite {what} of {n}?"],
    ),
    Relation(
        "{what}", ["the (?P<what>{attribute}) of {person} is (?:an? |the )?{thing}"], ["What is the {what} of {n}?"]
    ),
    Relation(
        "capital", ["{name} is the capital(?: city)? of {subject}", "the capital(?: city)? of {subject} is {name}"],
        ["What is the capital of {n}?", "Which city is the capital of {n}?"],
    ),
    Relation("place", ["{subject} (?:is|was) (?:located|situated) (?:in|on) {place}"], ["Where is {n}?"]),
    Relation("writer", ["{subject} was written by {name}"], ["Who wrote {n}?", "By whom was {n} written?"]),
    Relation("director", ["{subject} was directed by {name}"], ["Who directed {n}?"]),
    Relation("painter", ["{subject} was painted by {name}"], ["Who painted {n}?"]),
    Relation("inventor", ["{subject} was invented by {name}"], ["Who invented {n}?"]),
    Relation("discoverer", ["{subject} was discovered by {name}"], ["Who discovered {n}?"]),
    Relation("designer", ["{subject} was designed by {name}"], ["Who designed {n}?"]),
    Relation("founder", ["{subject} was (?:founded|established) by {name}"], ["Who founded {n}?"]),
    Relation(
        "foundation", ["{subject} was (?:founded|established) (?:[^.;()]{0,20} )?in {year}"],
        ["When was {n} founded?", "In which year was {n} founded?"],
    ),
    Relation("building", ["{subject} was (?:built|completed) in {year}"], ["When was {n} built?"]),
    Relation(
        "release", ["{subject} was (?:first )?(?:released|published) (?:on [^.;]{0,15} |in ){year}"],
        ["When did {n} come out?"],
    ),
]  # fmt: skip

# What a value is not made of, and what may follow one.
_FUNCTION_WORDS = (
    "a|an|the|of|in|on|at|to|for|by|with|from|as|and|or|but|if|than|then|that|this|these|those|it|its|his|her|"
    "their|our|your|my|he|she|they|we|you|him|them|us|me|who|whom|whose|which|what|when|where|why|how|is|was|are|"
    "were|be|been|being|am|has|have|had|having|do|does|did|will|would|can|could|may|might|must|shall|should|not|no|"
    "nor|so|too|very|much|more|most|many|few|some|any|all|both|each|every|own|other|another|such|only|just|also|"
    "even|still|yet|again|once|here|there|now|never|always|often|sometimes|up|down|out|off|over|under|about|after|"
    "before|between|into|through|during|until|while|because|since|along|against|around|without|within|among|one|"
    "something|anything|nothing|everything|today|itself|himself|herself|lot|kind|sort"
)
_NOT_A_NAME = (
    "The|A|An|He|She|It|They|We|You|I|This|That|These|Those|There|Here|Who|What|When|Where|Why|How|Which|Whose|In|"
    "On|At|By|If|As|But|And|Or|So|Then|Now|One|Some|Each|Every|Many|Most|Both|All|Of|For|To|From|With|After|Before|"
    "During|While|Because|Since|His|Her|Its|Their|Our|Your|My|No|Not|Nobody|Everybody|Everyone|Someone|Do|Does|Did|"
    "Is|Was|Are|Yes|Well|Also|However|Although|Though|Perhaps|Today|Yesterday|Later|Soon|Once|Only|Even|Another|"
    "Other|Such|Like|January|February|March|April|May|June|July|August|September|October|November|December|Monday|"
    "Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
)
_NOT_AN_AGENT = (
    "river|number|member|character|paper|newspaper|computer|chapter|order|corner|matter|daughter|sister|brother|"
    "mother|father|monster|tower|letter|poster|thriller|factor|sector|error|mirror|motor|list|winner|user|owner|"
    "teenager|foreigner|stranger|supporter|follower|believer|former|major|minor|manner|Christian|Canadian|Indian|"
    "Italian|Russian|resident|recipient|finalist|woman|man|human"
)

_LETTERS = r"[\p{L}’'-]*\p{L}"
_CAPITALISED = rf"(?!(?:{_NOT_A_NAME})\b)\p{{Lu}}{_LETTERS}"
_LOWER = rf"(?!(?:{_FUNCTION_WORDS})\b)\p{{L}}{_LETTERS}(?<!ly)"
_END = rf"(?=\s*(?:$|[.,;:!?()\"”—–])|\s+(?!of\b)(?:{_FUNCTION_WORDS})\b)"
_WHOLE = r"(?!['’-]?\p{L})(?! \p{Lu})"
_AGENT = rf"(?!(?:{_NOT_AN_AGENT}|{_FUNCTION_WORDS})\b)\p{{Ll}}+(?:er|or|ist|ian|man|woman|eer|ess|ant)"
# A name after these is not what the sentence is about: "the sister of Ada Brown lives in Oslo".
_SUBJECT = (
    r"(?<!\b(?:of|by|with|and|or|for|to|from|in|on|at|near|than|if|whether|not|like|as) )(?<!\p{Lu}\p{L}*[.’']? )"
)
_KINDS = {
    "attribute": r"(?!(?:end|side|part|rest|area|city|town|village|church|university|tomb|campus)\b)\p{Ll}{3,}",
    "thing": rf"(?P<value>{_LOWER}(?: {_LOWER}){{0,2}}){_END}",
    "word": rf"(?P<value>{_LOWER})",
    "agent": rf"(?:\p{{L}}{_LETTERS} ){{0,3}}?(?P<value>{_AGENT}){_END}",
    "place": rf"(?P<value>(?:the )?{_CAPITALISED}(?: {_CAPITALISED}){{0,2}}){_WHOLE}",
    "name": rf"(?P<value>{_CAPITALISED}(?: (?:\p{{Lu}}\.|{_CAPITALISED})){{0,3}}){_WHOLE}",
    "year": r"(?P<value>1\d{3}|20\d{2})(?![\d-]|s\b)",
}
_NAME = rf"(?P<subject>{_CAPITALISED}(?: (?:\p{{Lu}}\.|{_CAPITALISED})){{%d,3}})(?![\p{{L}}’'-])"
_ABBREVIATED = r"(?<!\b(?:\p{Lu}|Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Mt|No|vs|approx)\.)"
_SENTENCE_END = regex.compile(rf"\s*\n\s*|(?<=[.!?][\"”’']?){_ABBREVIATED}\s+(?=[\"“‘']?[\p{{Lu}}\d])")
_ASIDE = regex.compile(r"\s*\([^()]*\)")
_ASKS = regex.compile(r"\b(?:wh(?:at|o|om|ose|ere|en|ich)|how)\b.*\?$", regex.IGNORECASE)


def extract(text: str) -> list[Extracted]:
    """The facts that a text states in a known form, in its order; two that contradict each other both stand there."""
    found: list[Extracted] = []
    before = ""
    for sentence in sentences(text):
        if not sentence.endswith("?"):
            found += _stated(sentence, before)
        before = sentence
    return found


def consistent(found: Iterable[Extracted]) -> list[Extracted]:
    """Each fact once, in the order in which they came; those of which a text says one thing and another another are
    dropped."""
    values: defaultdict[tuple[str, str], set[tuple[str, ...]]] = defaultdict(set)
    first: dict[tuple[str, str], Extracted] = {}
    for each in found:
        key = (each.subject, each.relation)
        values[key].add(tuple(words(each.answers[-1])))
        first.setdefault(key, each)
    return [each for key, each in first.items() if len(values[key]) == 1]


def sentences(text: str) -> list[str]:
    """A sentence ends with its line at the latest."""
    return [each for each in _SENTENCE_END.split(text.strip()) if each]


def names(text: str) -> list[str]:
    """Capitalised names of two to four words, in their order."""
    return [match["subject"] for match in regex.finditer(_NAME % 1, text)]


@cache
def _patterns() -> list[tuple[Relation, str, regex.Pattern[str]]]:
    compiled = []
    for relation in RELATIONS:
        for statement in relation.statements:
            source = statement
            for mark, least in (("{person}", 1), ("{subject}", 0)):
                guard = _SUBJECT if source.startswith(mark) else ""
                source = source.replace(mark, guard + _NAME % least)
            for kind, form in _KINDS.items():
                source = source.replace(f"{{{kind}}}", form)
            if source.startswith("the "):
                source = "[Tt]" + source[1:]
            compiled.append((relation, statement, regex.compile(rf"(?<![\p{{L}}-]){source}")))
    return compiled


def _stated(sentence: str, before: str) -> Iterator[Extracted]:
    """What a sentence states; `before`: the sentence that precedes it."""
    plain = _ASIDE.sub("", sentence)
    for relation, statement, pattern in _patterns():
        match = pattern.search(sentence) or (pattern.search(plain) if plain != sentence else None)
        if match is None:
            continue
        said = match.groupdict()
        subject, value, what = said["subject"], said["value"], said.get("what", "")
        if value.split()[0] in subject.split():
            continue
        questions = (before,) if subject in before and _ASKS.search(before) else tuple(
            each.replace("{n}", subject).replace("{what}", what) for each in relation.questions
        )  # fmt: skip
        # Of a thing its head will do: "a cat" for "a small cat".
        heads = [value.split()[-1]] if "{thing}" in statement else []
        answers = list(dict.fromkeys([value, *heads]))
        yield Extracted(questions, answers, subject, relation.name.replace("{what}", what), sentence, match[0])
