"""Which addresses a model may have read: http(s), by a name or a public IP address, written in one plain way. Whatever
two programs could read differently (a backslash, an octal number, a dot of another script) is refused, not mended.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import quote, urlsplit

import idna

LONGEST = 2000
NOT_PLAIN = re.compile(r"[\s\x00-\x20\x7f-\xa0\\\u3002\uff0e\uff61]")
"""White space, control characters, backslashes, and the full stops of other scripts."""
LABEL = re.compile(r"[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?")
NUMBER = re.compile(r"\d+|0x[0-9a-f]*")
LOCAL_NAMES = ("localhost", "localdomain", "local", "internal", "home.arpa", "lan", "onion", "invalid")
PORTS = {"http": 80, "https": 443}
GLOBAL_V6 = ipaddress.ip_network("2000::/3")
REFUSED = [
    ipaddress.ip_network(network) for network in (
        "192.0.0.0/24", "192.88.99.0/24",  # protocol assignments, 6to4 relays
        "168.63.129.16/32",  # Azure's own services, at an address that looks public
        "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",  # Teredo and its like, documentation, 6to4
    )
]  # fmt: skip
"""What `ipaddress` calls global and is not, in one version of Python or another."""


class Refused(Exception):
    """Why an address is not read, in a few words for the model."""


@dataclass(frozen=True)
class Target:
    scheme: str
    host: str
    """In lower case and ASCII; an IPv6 address without brackets."""
    port: int
    path: str
    """With the query, as it is sent."""

    @property
    def authority(self) -> str:
        """As in the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.authority}{self.path}"


def is_public(address: IPv4Address | IPv6Address) -> bool:
    """Whether an address belongs to the public internet. Addresses of IPv6 that stand for one of IPv4 do not."""
    if not address.is_global or address.is_multicast or address.is_reserved:
        return False
    if isinstance(address, IPv6Address) and address not in GLOBAL_V6:
        return False
    return not any(address in network for network in REFUSED if network.version == address.version)


def parsed(url: str, ports: list[int]) -> Target:
    """The parts of an address. Raises Refused."""
    if len(url) > LONGEST:
        raise Refused("the address is too long")
    if NOT_PLAIN.search(url) or not url.isprintable():
        raise Refused("the address holds white space, a backslash or a control character")
    try:
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
    except ValueError as error:
        raise Refused(f"not an address: {error}") from error
    if parts.scheme not in PORTS or not url[len(parts.scheme) :].startswith("://"):
        raise Refused("only addresses that begin with http:// or https:// are read")
    if "@" in parts.netloc:
        raise Refused("the address holds a user name or a password")
    port = PORTS[parts.scheme] if port is None else port
    if port not in ports:
        raise Refused(f"port {port} is not read")
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~") + ("?" if parts.query else "")
    path += quote(parts.query, safe="/%:@!$&'()*+,;=~?")
    return Target(parts.scheme, _host(host, parts.netloc.startswith("[")), port, path)


def _host(host: str, bracketed: bool) -> str:
    if bracketed:
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError as error:
            raise Refused("not an IPv6 address") from error
        if address.scope_id is not None:
            raise Refused("an IPv6 address with a zone")
        return str(address)
    if not host.isascii():
        try:
            host = idna.encode(host).decode()
        except idna.IDNAError as error:
            raise Refused("not a host name") from error
    labels = host.split(".")
    if NUMBER.fullmatch(labels[-1]):
        try:
            return str(IPv4Address(host))
        except ValueError as error:
            raise Refused("an IP address is written as four decimal numbers") from error
    if len(host) > 253 or not all(LABEL.fullmatch(label) for label in labels):
        raise Refused("not a host name")
    if len(labels) < 2 or any(host == name or host.endswith(f".{name}") for name in LOCAL_NAMES):
        raise Refused(f"{host} is a name of a local network")
    return host

