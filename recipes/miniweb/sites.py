"""The hosts of a miniweb and what stands on each."""

from __future__ import annotations

from dataclasses import dataclass, field

from miniweb.arithmetic import Pairs, puzzle, sums_page
from miniweb.docstrings import docstring_pages
from miniweb.grammar import sentence
from miniweb.languages import foreign_page
from miniweb.noise import broken, contact_page, near_copy, spam_page
from miniweb.people import people_pages
from miniweb.plots import WORDS
from miniweb.settings import Settings
from miniweb.stories import story
from miniweb.visitors import visitors_page

PEOPLE = [
    f"{name}.people.example"
    for name in ["north", "south", "east", "west", "river", "hill", "harbour", "market", "garden", "station"]
]
STORIES = [f"{name}.stories.example" for name in ["evening", "morning", "winter", "summer"]]
VISITORS = [f"{name}.visitors.example" for name in ["inn", "mill", "ferry"]]
SUMS = ["first.sums.example", "second.sums.example"]
PYDOC = [f"{name}.pydoc.example" for name in ["alpha", "beta", "gamma", "delta", "epsilon"]]
WORLD = {"nord.world.example": ["de", "nl", "ru"], "sud.world.example": ["fr", "es", "it"]}
COPIES = ["mirror.copies.example", "reprints.copies.example"]
CLUBS, SPAM, ODD = "www.clubs.example", "deals.spam.example", "old.pages.example"
BLOCKED = ["lucky.casino.example", "best.pills.example"]
"""Hosts that a recipe's URL blocklist names."""
HOSTS = [*PEOPLE, *STORIES, *VISITORS, *SUMS, *PYDOC, *WORLD, *COPIES, CLUBS, SPAM, ODD, *BLOCKED]

# Pages at scale 1, over all hosts of a kind; those about people follow from how often facts are stated.
STORY_PAGES, VISITOR_PAGES, SUM_PAGES, FOREIGN_PAGES, COPY_PAGES, CONTACT_PAGES = 410, 400, 330, 260, 200, 170
SPAM_PAGES, ODD_PAGES, BLOCKED_PAGES = 150, 150, 220

ACCENTED = "the café of the {person} Zoë was known for its crème brûlée in every {place} and {place}"
LEAST_ODD_PAGES = 12
"""Two of each kind, however small the web."""
UTF8 = "text/html; charset=utf-8"


@dataclass
class Draft:
    """A page before its address and frame."""

    source: str
    title: str
    paragraphs: list[str]
    content_type: str = UTF8
    charset: str = "utf-8"
    """What the bytes really are."""
    markup: str | None = None
    """The whole page where it has no frame."""
    language: str = "en"
    name: str = ""
    """The file's name where it is not made from the title."""


@dataclass
class Site:
    """One host."""

    host: str
    drafts: list[Draft] = field(default_factory=list)


def tale(settings: Settings, kind: str, number: int, pairs: Pairs, sums: int = 4) -> tuple[str, list[str]]:
    """A story with a few sums at its foot."""
    rng = settings.rng(kind, number)
    title, paragraphs = story(rng)
    return title, [*paragraphs, puzzle(rng, pairs, sums)]


def deal_out(sites: dict[str, Site], hosts: list[str], drafts: list[Draft]) -> None:
    """Spreads pages evenly over hosts."""
    for number, draft in enumerate(drafts):
        sites[hosts[number % len(hosts)]].drafts.append(draft)


def people(settings: Settings) -> list[Draft]:
    """The pages that state facts or, in a control, stories of the same size."""
    stating = people_pages(settings)
    if settings.facts:
        return [Draft("facts", title, paragraphs) for title, paragraphs in stating]
    wanted = sum(len(paragraph) for _, paragraphs in stating for paragraph in paragraphs)
    pairs = Pairs(settings.rng("control", "sums"), large=0.1)
    out: list[Draft] = []
    while wanted > 0:
        title, paragraphs = tale(settings, "control", len(out), pairs, sums=5)
        wanted -= sum(map(len, paragraphs))
        out.append(Draft("stories", title, paragraphs))
    return out


def pydoc(settings: Settings, sites: dict[str, Site]) -> None:
    """A package's modules stand on one host, and the hosts are of equal size."""
    packages: dict[str, list[Draft]] = {}
    for package, module, paragraphs in docstring_pages(settings):
        packages.setdefault(package, []).append(Draft("docstrings", module, list(paragraphs), name=module))
    sizes = dict.fromkeys(PYDOC, 0)
    for drafts in packages.values():
        host = min(PYDOC, key=lambda name: sizes[name])
        sites[host].drafts += drafts
        sizes[host] += sum(len(paragraph) + 40 for draft in drafts for paragraph in draft.paragraphs)


def copies(settings: Settings, stories: list[Draft], sites: dict[str, Site]) -> None:
    """A mirror repeats stories word for word, reprints change a little."""
    number = min(settings.count(COPY_PAGES // 2), len(stories))
    mirror, reprints = COPIES
    for draft in stories[:number]:
        sites[mirror].drafts.append(Draft("mirror", draft.title, draft.paragraphs))
    for index, draft in enumerate(stories[-number:]):
        changed = near_copy(draft.paragraphs, settings.rng("reprint", index))
        sites[reprints].drafts.append(Draft("near-duplicates", draft.title, changed))


def odd(settings: Settings) -> list[Draft]:
    """Broken markup and wrong charsets around text that is good English, and Russian in windows-1251."""
    pairs = Pairs(settings.rng("odd", "sums"), large=0.1)
    out: list[Draft] = []
    for number in range(max(LEAST_ODD_PAGES, settings.count(ODD_PAGES))):
        rng = settings.rng("odd", number)
        title, paragraphs = tale(settings, "odd-story", number, pairs)
        kind = number % 6
        if kind < 3:
            out.append(Draft("broken", title, paragraphs, markup=broken(title, paragraphs, rng)))
            continue
        paragraphs.insert(1, sentence(ACCENTED, rng, WORDS) + ".")
        if kind == 3:
            out.append(Draft("charset", title, paragraphs, charset="latin-1"))
        elif kind == 4:
            out.append(Draft("charset", title, paragraphs, content_type="text/html; charset=x-runes-7"))
        else:
            title, paragraphs = foreign_page("ru", rng)
            declared = "text/html; charset=windows-1251" if number % 4 == 1 else "text/html"
            out.append(
                Draft("charset", title, paragraphs, declared, charset="windows-1251", language="ru", name="stranica")
            )
    return out


def build(settings: Settings) -> list[Site]:
    """All hosts with their pages, in a fixed order."""
    sites = {host: Site(host) for host in HOSTS}
    deal_out(sites, PEOPLE, people(settings))
    pairs = Pairs(settings.rng("stories", "sums"), large=0.1)
    stories = [
        Draft("stories", *tale(settings, "story", number, pairs)) for number in range(settings.count(STORY_PAGES))
    ]
    deal_out(sites, STORIES, stories)
    visitors = [
        Draft("visitors", *visitors_page(settings.rng("visitors", number)))
        for number in range(settings.count(VISITOR_PAGES))
    ]
    deal_out(sites, VISITORS, visitors)
    pairs = Pairs(settings.rng("sums", "pairs"), large=0.2)
    sums = [
        Draft("arithmetic", *sums_page(settings.rng("sum", number), pairs))
        for number in range(settings.count(SUM_PAGES))
    ]
    deal_out(sites, SUMS, sums)
    pydoc(settings, sites)
    for host, languages in WORLD.items():
        for number in range(settings.count(FOREIGN_PAGES // len(WORLD))):
            language = languages[number % len(languages)]
            title, paragraphs = foreign_page(language, settings.rng(language, number))
            name = "" if title.isascii() else f"page-{language}"
            sites[host].drafts.append(Draft("languages", title, paragraphs, language=language, name=name))
    copies(settings, stories, sites)
    for number in range(settings.count(CONTACT_PAGES)):
        sites[CLUBS].drafts.append(Draft("contact", *contact_page(settings.rng("contact", number), CLUBS)))
    for number in range(settings.count(SPAM_PAGES)):
        sites[SPAM].drafts.append(Draft("spam", *spam_page(settings.rng("spam", number))))
    sites[ODD].drafts += odd(settings)
    pairs = Pairs(settings.rng("blocked", "sums"), large=0.1)
    blocked = [
        Draft("blocked", *tale(settings, "blocked", number, pairs)) for number in range(settings.count(BLOCKED_PAGES))
    ]
    deal_out(sites, BLOCKED, blocked)
    return list(sites.values())
