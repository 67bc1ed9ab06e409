"""What a crawl finds besides good text: spam, contact pages, near copies, broken markup, wrong charsets."""

from __future__ import annotations

import random

from miniweb import html
from miniweb.grammar import deal, listed, paragraphs, sentence
from miniweb.plots import NAMES, WORDS

KEYWORDS = listed(
    "cheap watches|free download|casino bonus|weight loss|fast credit|best price|hot deals|discount pills|"
    "online poker|work from home|miracle cream|lucky numbers|gold coins|luxury bags|crypto profit"
)
SPAM_SENTENCES = [
    "buy {k} and {k} today because {k} is the best {k}",
    "{k} {k} {k} {k} click here for {k}",
    "our {k} is better than any other {k} in the world",
    "get {k} now and receive {k} for free",
]
MAILBOX = ["office", "hello", "orders", "info", "desk", "post", "letters", "help"]
CONTACTS = [
    "the {person} of the {place} can be reached at {mail}, best {time} and never when there is {weather}",
    "for questions about the {thing} write to {mail} and mention the {adjective} {person}",
    "the machine that keeps our list of {thing} makers answers at {ip}, unless {x} is busy with the {part}",
    "orders for {meal} go to {mail}, and {x} will answer as soon as the {animal} has been fed",
    "whoever wants to {job} with us should send a letter to {mail} and say why",
    "the old address {ip} is still written on the {part}, although the {person} moved to the {place}",
    "{x} reads every message sent to {mail} {slowly}, with {meal} on the table",
]
ABOUT = [
    "we are a group of {number} friends who {job} in the {place} near the {place}",
    "{x} began to collect every {thing} in the {place} when there was nothing but {weather}",
    "our house has a {colour} {part} and a {part} that is always open to a {adjective} {person}",
    "on some days we {job}, on others we meet the {person} in the {place} and talk about {virtue}",
    "visitors bring {meal} or a {thing}, and they are seldom {feeling} when they go home",
    "the {person} who founded the club believed in {virtue} and owned a {adjective} {animal}",
    "{time} the doors are closed, because then we {job} for the {relative} of {x}",
    "nobody has to pay anything, but it is nice to bring a {thing} for the {part}",
    "the {animal} on our sign was painted by {x} during the {weather} of that year",
    "in the {place} you can see how to {job} and why a {thing} is needed for it",
    "{x} and {x} keep the {part} clean and light the lamps {time}",
    "a book about the {treasure} lies in the {part}, and you may read it there",
]
SUFFIXES = [
    "This page was printed on a {weekday} in {month}.",
    "The {weekday} edition of {month} carried it first.",
    "Seen by {count} readers since {month}.",
]


def spam_page(rng: random.Random) -> tuple[str, list[str]]:
    """Keyword stuffing: a few phrases over and over."""
    phrases = rng.sample(KEYWORDS, 3)
    if rng.random() < 0.5:
        line = sentence(rng.choice(SPAM_SENTENCES), rng, {"k": phrases})
        return phrases[0].title(), [f"{line}!"] * rng.randint(10, 30)
    lines = [sentence(rng.choice(SPAM_SENTENCES), rng, {"k": phrases}) + "!" for _ in range(40)]
    return phrases[0].title(), [" ".join(lines)]


def contact_page(rng: random.Random, host: str) -> tuple[str, list[str]]:
    """About a club, with e-mail addresses and IPv4 addresses in the sentences; about 2 kB."""

    def slots() -> dict[str, str | list[str]]:
        # Addresses of public form: curation must find and replace them.
        address = ".".join(
            str(part) for part in (rng.choice([37, 51, 84, 93, 146, 185]), *rng.sample(range(1, 255), 3))
        )
        person = rng.choice(NAMES).lower()
        mail = f"{rng.choice([*MAILBOX, person])}@{rng.choice([host, 'post.example', 'mailbox.example'])}"
        return {**WORDS, "x": NAMES, "mail": mail, "ip": address}

    sentences = [sentence(template, rng, slots()) + "." for template in deal(CONTACTS, rng, 6) + deal(ABOUT, rng, 12)]
    rng.shuffle(sentences)
    title = sentence("the [club|friends|house|circle] of the {thing} in the {place}", rng, WORDS)
    return title, paragraphs(sentences, rng)


def near_copy(paragraphs_of: list[str], rng: random.Random) -> list[str]:
    """The same text with a line added and a word changed here and there."""
    words = {
        "weekday": ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday"],
        "month": ["January", "February", "March", "April", "May", "June"],
        "count": str(rng.randint(100, 9999)),
    }
    copy = list(paragraphs_of)
    place = rng.randrange(len(copy))
    copy[place] = copy[place].replace(" and ", " as well as ", 1)
    copy.append(sentence(rng.choice(SUFFIXES), rng, words))
    return copy


def broken(title: str, paragraphs_of: list[str], rng: random.Random) -> str:
    """Markup as people write it: unclosed tags, bad nesting, stray ends, no head."""
    kind = rng.randrange(4)
    lines = [html.escape(paragraph, quote=False) for paragraph in paragraphs_of]
    if kind == 0:
        return f"<html><body><h1>{title}<p>" + "\n<p>".join(lines)
    if kind == 1:
        inner = "".join(f"<div><p><b>{line}</div></p></b>\n" for line in lines)
        return f"<title>{title}<body></title><table><tr><td>{inner}</table></body></html></html>"
    if kind == 2:
        inner = "".join(
            f"<p class=text id='a{number}>b'>{line}</p></span></div>\n" for number, line in enumerate(lines)
        )
        return f"<!-- made by hand --><h1>{title}</h2>{inner}<!-- never closed"
    return f"<BODY bgcolor=white><CENTER><FONT size=5>{title}</FONT></CENTER>" + "".join(
        f"<P>{line}\n" for line in lines
    )
