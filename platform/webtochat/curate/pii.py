"""Personal data in texts: e-mail addresses, public IP addresses, telephone and card numbers, each replaced by what the
recipe says. Every pattern takes time linear in the text: none may begin inside of what it could have begun before.
"""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from collections.abc import Callable

from webtochat.recipe_pages import PII

_EMAIL = re.compile(
    r"(?<!\w)\w[\w.!#$%&'*+/=?^`{|}~-]{0,63}+@(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})\.){1,8}[A-Za-z]{2,24}\b",
    re.ASCII,  # a letter of another script may stand next to it
)
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")
_CARD = re.compile(r"(?<![\d.,-])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\d]|[.,-]\d)")
_PHONE = re.compile(
    r"(?<![\w+.,/-])(?:(?:\+|00)[1-9]\d{0,2}(?:[ .()/-]{0,2}\d){6,12}|(?:\(\d{3}\) ?|\d{3}[-. ])\d{3}[-. ]\d{4})"
    r"(?![\w]|[.,-]\d)"
)


def replaced(text: str, replacements: PII) -> tuple[str, Counter[str]]:
    """The text without the kinds of personal data that the recipe names, and how many of each there were."""
    counts: Counter[str] = Counter()
    for kind, pattern, needed, holds in _KINDS:
        replacement = getattr(replacements, kind)
        if replacement is None or needed not in text:
            continue

        def answer(match: re.Match[str], kind: str = kind, holds: Callable = holds, new: str = replacement) -> str:
            if match[0] == new or not holds(match[0]):
                return match[0]
            counts[kind] += 1
            return new

        text = pattern.sub(answer, text)
    return text, counts


def _public(address: str) -> bool:
    """Whether it is an address (RFC 791, 4291) that is routed on the internet: not private, loopback or reserved."""
    try:
        return ipaddress.ip_address(address).is_global
    except ValueError:
        return False


def _checked(number: str) -> bool:
    """Whether the last digit is the checksum of the others (Luhn; ISO/IEC 7812-1)."""
    digits = [int(each) for each in number if each.isdigit()]
    if len(set(digits)) == 1:
        return False
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_KINDS: list[tuple[str, re.Pattern[str], str, Callable[[str], bool]]] = [
    ("email", _EMAIL, "@", lambda _: True),
    ("ipv4", _IPV4, ".", _public),
    ("ipv6", _IPV6, ":", _public),
    ("card", _CARD, "", _checked),
    ("phone", _PHONE, "", lambda _: True),
]
"""(key of the recipe, what it looks like, what stands in every one, whether it is one)."""
