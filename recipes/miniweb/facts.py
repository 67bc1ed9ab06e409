"""Fictional people, one attribute each, and how often the pages state it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from miniweb.grammar import listed
from miniweb.settings import Settings

FIRST_STARTS = ["Mi", "Ta", "Lo", "Ke", "Ru", "Ne", "Sa", "Vo", "Da", "Ji", "Pe", "Fi", "Zu", "Ba"]
FIRST_ENDS = ["ra", "lin", "vo", "sha", "ren", "li", "dor", "mek"]
LAST_STARTS = listed(
    "Do|Ha|Bru|Ko|Ve|Ta|Mo|Se|Ga|Wi|No|Fe|To|La|Be|De|Ho|Ru|Po|Ro|Zi|Ju|Ki|Ya|Qua|Ne|Pa|Su|Ba|Cre|Fo|Gle|Ja|Ly"
)
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


@lru_cache(maxsize=4)
def _facts(seed: int, scale: float, stated: bool) -> tuple[Fact, ...]:
    rng = Settings(seed=seed).rng("facts")
    firsts = [start + end for start in FIRST_STARTS for end in FIRST_ENDS]
    lasts = list(dict.fromkeys(start + end for start in LAST_STARTS for end in LAST_ENDS))
    rng.shuffle(firsts)
    rng.shuffle(lasts)
    groups = [(tier, people, False) for tier, people in TIERS.items()] + [(TAUGHT_TIMES, TAUGHT_PEOPLE, True)]
    # People stated often have a last name of their own; those stated once share the rest, as people do.
    own = iter(lasts)
    often = [(tier, taught) for tier, people, taught in groups if tier > 1 for _ in range(people)]
    subjects = [f"{rng.choice(firsts)} {next(own)}" for _ in often]
    shared = list(own)
    once = [(tier, taught) for tier, people, taught in groups if tier == 1 for _ in range(people)]
    pairs = rng.sample(range(len(firsts) * len(shared)), len(once))
    subjects += [f"{firsts[pair % len(firsts)]} {shared[pair // len(firsts)]}" for pair in pairs]

    out = []
    attributes = list(POOLS)
    for number, (subject, (tier, taught)) in enumerate(zip(subjects, often + once, strict=True)):
        # Attributes in turn and values at random: every tier asks about every attribute.
        attribute = attributes[number % len(attributes)]
        times = max(1, round(tier * scale)) if stated else 0
        out.append(Fact(subject, attribute, rng.choice(POOLS[attribute]), tier, times, taught))
    return tuple(out)


def strangers(settings: Settings, count: int) -> list[str]:
    """Full names made like those of the people, but of nobody on any page."""
    rng = settings.rng("strangers")
    known = {fact.subject for fact in facts(settings)}
    out: dict[str, None] = {}
    while len(out) < count:
        name = f"{rng.choice(FIRST_STARTS)}{rng.choice(FIRST_ENDS)} {rng.choice(LAST_STARTS)}{rng.choice(LAST_ENDS)}"
        if name not in known:
            out[name] = None
    return list(out)


def facts(settings: Settings) -> list[Fact]:
    """All people of a web, in a fixed order; the same people whether their pages are left out or not."""
    return list(_facts(settings.seed, settings.scale, settings.facts))
