"""The frame of a page: navigation, adverts and footers around the text."""

from __future__ import annotations

import random
from collections.abc import Sequence
from html import escape

from miniweb.grammar import listed

ADVERTS = listed(
    "Buy now! New shoes, half price|Win a free holiday|Fast loans, no questions|Cheap flights this week|"
    "Subscribe for 1 a month|Download our app|Try our new tea|Garden sale ends today"
)
MENU = ["Home", "About", "Contact", "Archive", "Help", "Login", "Search", "Shop", "Newsletter", "Forum"]
FOOTERS = [
    "Terms | Privacy | Cookies",
    "All rights reserved",
    "Powered by a small server",
    "Imprint | Accessibility | Sitemap",
]


def link(address: str, label: str) -> str:
    return f'<a href="{escape(address, quote=True)}">{escape(label)}</a>'


def frame(host: str, title: str, main: str, rng: random.Random, links: Sequence[tuple[str, str]] = ()) -> str:
    """A whole page; the layout goes by the host, adverts and related links by the page."""
    layout = sum(map(ord, host)) % 3
    menu = "".join(
        f"<li>{link('/' if item == 'Home' else f'/#{item.lower()}', item)}</li>" for item in MENU[layout : layout + 6]
    )
    adverts = "".join(
        f'<div class="ad-banner"><a href="/#offer" rel="sponsored">{escape(text)}</a></div>'
        for text in rng.sample(ADVERTS, 2)
    )
    related = "".join(f"<li>{link(address, label)}</li>" for address, label in links)
    aside = f'<aside class="sidebar"><h4>See also</h4><ul>{related}</ul>{adverts}</aside>'
    navigation = f'<nav class="main-nav" role="navigation"><ul class="menu">{menu}</ul></nav>'
    footer = f'<footer class="site-footer"><p>{escape(host)}. {rng.choice(FOOTERS)}</p></footer>'
    head = f'<meta charset="utf-8"><title>{escape(title)}</title><style>nav ul {{ margin: 0 }}</style>'
    if layout == 0:
        body = f"<header>{navigation}</header><main><article>{main}</article></main>{aside}{footer}"
    elif layout == 1:
        body = f'{navigation}<div class="layout">{aside}<div id="content" class="content">{main}</div></div>{footer}'
    else:
        head_and_text = f'<header class="header">{navigation}</header><article>{main}</article>'
        body = f'<div id="wrapper">{head_and_text}{aside}</div>{footer}'
    script = "<script>window.visits = (window.visits || 0) + 1;</script>"
    return f'<!DOCTYPE html>\n<html lang="en"><head>{head}</head><body>{body}{script}</body></html>\n'


def text(title: str, paragraphs: Sequence[str]) -> str:
    """The part of a page that is read; a line break in a paragraph stays one."""
    lines = [f"<h1>{escape(title)}</h1>"]
    lines += ["<p>" + escape(paragraph, quote=False).replace("\n", "<br>") + "</p>" for paragraph in paragraphs]
    return "\n".join(lines)


def listing(title: str, entries: Sequence[tuple[str, str]], older: str | None) -> str:
    """A list of links, and a link to the next part of the list."""
    items = "\n".join(f"<li>{link(address, label)}</li>" for address, label in entries)
    more = f'<p class="pagination">{link(older, "Older")}</p>' if older else ""
    return f"<h1>{escape(title)}</h1>\n<ul>\n{items}\n</ul>{more}"
