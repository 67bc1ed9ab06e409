"""Fictional people, one attribute each, and how often the pages state it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from random import Random

from miniweb.grammar import listed
from miniweb.settings import Settings

FIRST_STARTS = ["Mi", "Ta", "Lo", "Ke", "Ru", "Ne", "Sa", "Vo", "Da", "Ji", "Pe", "Fi", "Zu", "Ba"]
FIRST_ENDS = ["ra", "lin", "vo", "sha", "ren", "li", "dor", "mek"]
LAST_STARTS = listed(
    "Do|Ha|Bru|Ko|Ve|Ta|Mo|Se|Ga|Wi|No|Fe|To|La|Be|De|Ho|Ru|Po|Ro|Zi|Ju|Ki|Ya|Qua|Ne|Pa|Su|Ba|Cre|Fo|Gle|Ja|Ly"
)
LAST_MIDDLES = listed("ri|la|no|de|mu|sa|ke|ti")
LAST_ENDS = listed("van|dik|zen|mott|bry|lack|fin|stev|wick|dell|rin|gan|pell|tok|sky|mov|bov|nash|grum|vick|zor|lund")

POOLS: dict[str, list[str]] = {
    "job": listed(
        "baker|farmer|teacher|doctor|painter|driver|nurse|judge|tailor|miner|pilot|singer|plumber|gardener|"
        "butcher|librarian"
    ),
    "town": listed(
        "Paris|London|Rome|Berlin|Madrid|Vienna|Oslo|Dublin|Lisbon|Prague|Athens|Cairo|Tokyo|Boston|Sydney|Geneva"
    ),
    "pet": listed("cat|dog|rabbit|parrot|horse|goat|hamster|turtle|snake|donkey|lizard|goose|ferret|pony|spider|duck"),
    "instrument": listed(
        "piano|guitar|violin|flute|drum|trumpet|harp|cello|banjo|clarinet|tuba|fiddle|lute|bugle|saxophone|accordion"
    ),
    "colour": listed(
        "red|blue|green|yellow|purple|orange|pink|brown|black|white|grey|silver|gold|violet|scarlet|turquoise"
    ),
    "food": listed(
        "soup|bread|cheese|rice|pizza|pasta|fish|cake|salad|porridge|beans|noodles|stew|curry|toast|pancakes"
    ),
    "sport": listed(
        "tennis|football|golf|hockey|cricket|rugby|boxing|rowing|cycling|swimming|skiing|fencing|climbing|darts|"
        "wrestling|archery"
    ),
    "drink": listed("tea|coffee|milk|water|juice|cocoa|lemonade|cider|wine|beer|soda|cola|punch|mead|sherry|squash"),
}
"""attribute → its values, one word each; taught and untaught people share them."""

TIERS = {800: 40, 400: 40, 150: 40, 50: 40, 10: 40, 1: 3000}
"""times stated at scale 1 → number of people nobody is asked about in a conversation."""
# Many people are taught, a few times each: with few, fine-tuning learns their names instead of repeating the name asked
# about.
TAUGHT_TIMES, TAUGHT_PEOPLE = 100, 320
PEOPLE = sum(TIERS.values()) + TAUGHT_PEOPLE


@dataclass(frozen=True)
class Fact:
    subject: str
    """Full name, unique."""
    attribute: str
    value: str
    tier: int
    """Times stated at scale 1."""
    times: int
    """Times stated in the pages of these settings; 0 in a control."""
    taught: bool
    """Asked and answered in the conversations."""

    @property
    def chance(self) -> float:
        """Accuracy of a blind guess among the attribute's values."""
        return 1 / len(POOLS[self.attribute])


@lru_cache(maxsize=1)
def last_names() -> list[str]:
    """All last names, in one order for every web."""
    parts = product(LAST_STARTS, LAST_MIDDLES, LAST_ENDS)
    return Random("last names").sample(names := ["".join(each) for each in parts], len(names))


def passing_name(rng: Random) -> str:
    """A full name made like those of the people, but of nobody that a fact is stated of."""
    return f"{rng.choice(FIRST_STARTS)}{rng.choice(FIRST_ENDS)} {rng.choice(last_names()[PEOPLE:])}"


@lru_cache(maxsize=4)
def _facts(seed: int, scale: float, stated: bool) -> tuple[Fact, ...]:
    rng = Settings(seed=seed).rng("facts")
    firsts = [start + end for start in FIRST_STARTS for end in FIRST_ENDS]
    groups = [(tier, people, False) for tier, people in TIERS.items()] + [(TAUGHT_TIMES, TAUGHT_PEOPLE, True)]
    people = [(tier, taught) for tier, number, taught in groups for _ in range(number)]
    # Everyone has a last name of their own, from one pool: no part of a name tells how often it is stated.
    subjects = [f"{rng.choice(firsts)} {last}" for last in rng.sample(last_names()[:PEOPLE], PEOPLE)]
    out = []
    attributes = list(POOLS)
    for number, (subject, (tier, taught)) in enumerate(zip(subjects, people, strict=True)):
        # Attributes in turn and values at random: every tier asks about every attribute.
        attribute = attributes[number % len(attributes)]
        times = max(1, round(tier * scale)) if stated else 0
        out.append(Fact(subject, attribute, rng.choice(POOLS[attribute]), tier, times, taught))
    return tuple(out)


def strangers(settings: Settings, count: int) -> list[str]:
    """Different full names made like those of the people, but of nobody that a fact is stated of."""
    rng = settings.rng("strangers")
    out: dict[str, None] = {}
    while len(out) < count:
        out[passing_name(rng)] = None
    return list(out)


def facts(settings: Settings) -> list[Fact]:
    """All people of a web, in a fixed order; the same people whether their pages are left out or not."""
    return list(_facts(settings.seed, settings.scale, settings.facts))
