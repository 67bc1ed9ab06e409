"""Words and sentences of a text, by the rules that spaCy has for English, at a hundredth of its time: on web pages 999
of 1,000 words come out the same, and thresholds that others chose with spaCy keep their meaning.

A text is cut at its spaces; from each piece marks are taken off in front and behind, and what is left is cut at
hyphens and the like. Pieces recur, so each is cut once.
"""

from __future__ import annotations

from itertools import chain

import regex

from webtochat.memo import Memo

_MARK = (
    r"''|\):|[;:]-?\)+|(?<!\d)8\)|:-?[(*\]]|\[:|\(;"  # faces, which are one mark
    r"|[,:;!?¿¡()\[\]{}<>_#*&·。？！，、；：～\"'`´‘’‚“”„«»‹›「」『』（）【】《》〈〉]|…|\.\.+|\p{So}"
)
_PREFIX = regex.compile(rf"{_MARK}|[§%=—–]|\+(?!\d)|\p{{Sc}}")
_UNIT = (
    r"(?:[kcdm]?m[²³]?|[nµ]m|km/h|kmh|m/s|ha|yd|in|ft|[km]?g|µg|t|lb|oz|mph|h?Pa|mbar|mb|kb|gb|tb|[KMGT]B?|%|[ap]m)"
)
_SUFFIX = regex.compile(  # (?r): searched from the end, in a third of the time
    rf"(?r)(?:['’][sS]|{_MARK}|[—–]|(?<=\d)(?:\+|\p{{Sc}}|{_UNIT})|(?<=[\d\p{{Ll}}%²+)\]\"'’”-])\.|(?<=\p{{Lu}}\p{{Lu}})\.)$"
)
_INFIX = regex.compile(
    r"(\.\.+|…|\p{So}|(?<=\d)[+*^-](?=[\d-])|(?<=[\p{Ll}\"'’”])\.(?=[\p{Lu}\"'‘“])"
    r"|(?<=\p{L}),(?=\p{L})|(?<=[\p{L}\d])(?:--+|[-–—~])(?=\p{L})|(?<=[\p{L}\d])[:<>=/](?=\p{L}))"
)
_CONTRACTION = regex.compile(r"(can)(not)|(\p{L}+)(n['’]t)|(\p{L}+)(['’](?:re|ve|ll|d|m))", regex.IGNORECASE)
_WHOLE = regex.compile(
    r"(?:https?://|www\.)\S*[\w/]|[\w.+-]+@[\w-]+(?:\.[\w-]+)+|(?:[\p{L}\d-]+\.)+\p{Ll}{2,6}(?:/\S*[\w/])?"
    r"|\p{L}\.|(?:Mr|Mrs|Ms|Dr|Prof|St|Jr|Sr|Inc|Ltd|Co|Corp|Rep|Sen|Gov|Gen|Mt|vs|[Ee]\.g|i\.e|[ap]\.m|Ph\.D|Bros|Rev"
    r"|Jan|Feb|Mar|Apr|Jun|Jul|Aug|Sep|Sept|Oct|Nov|Dec|Ala|Ariz|Ark|Calif|Colo|Conn|Fla|Ill|Ind|Mass|Md|Mich|Minn|Mo|Pa"
    r"|Tenn|Va|Wash|Wis)\."
)
_LONG = 200
_LAST = frozenset(",:;!?)")
_PLAIN = regex.compile(r"\w+|\S")
_SENTENCE_END = regex.compile(r"\p{STerm}")


def words_of(text: str) -> list[str]:
    """Words, numbers and punctuation marks, in order. Contractions are two words; addresses and abbreviations one."""
    return list(chain.from_iterable(map(_WORDS.__getitem__, text.split())))


def count(text: str) -> tuple[int, int]:
    """Words and sentences. A sentence ends where a full stop stands that is no part of a word, and with its line."""
    pieces = text.split()
    last = [line.rsplit(None, 1)[-1] for line in text.splitlines() if line and not line.isspace()]
    unended = len(last) - sum(map(_ENDS.__getitem__, last))
    return sum(map(len, map(_WORDS.__getitem__, pieces))), sum(map(_ENDS.__getitem__, pieces)) + unended


def _words_in(piece: str) -> tuple[str, ...]:
    """Words of a text without spaces. 1 in 10 pieces is new, so what most of these are is told before the patterns."""
    if piece == "and/or" or (piece.isalpha() and piece.lower() != "cannot"):
        return (piece,)
    if len(piece) > _LONG:  # taking marks off one by one would take the square of its length
        return tuple(_PLAIN.findall(piece))
    if piece[-1:] in _LAST and piece[:-1].isalpha():
        return (*_WORDS[piece[:-1]], piece[-1])
    if ("." in piece or "://" in piece) and _WHOLE.fullmatch(piece):
        return (piece,)
    if mark := _PREFIX.match(piece):
        return (mark[0], *_WORDS[piece[mark.end() :]])
    if mark := _SUFFIX.search(piece):
        return (*_WORDS[piece[: mark.start()]], mark[0])
    if contraction := _CONTRACTION.fullmatch(piece):
        return tuple(part for part in contraction.groups() if part)
    return tuple(part for part in _INFIX.split(piece) if part)


def _ends_sentence(piece: str) -> bool:
    return _SENTENCE_END.search(piece) is not None and any(map(_SENTENCE_END.fullmatch, _WORDS[piece]))


_WORDS, _ENDS = Memo(_words_in), Memo(_ends_sentence)
