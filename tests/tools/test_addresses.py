"""Addresses that must not be read, however they are written; and those that may."""

from __future__ import annotations

import ipaddress

import pytest

from webtochat.recipe_tools import Fetch
from webtochat.tools.addresses import LONGEST, Refused, is_public, parsed
from webtochat.tools.web import FetchError, Network, fetch

PRIVATE = {
    "internal.site.test": "10.0.0.5", "metadata.site.test": "169.254.169.254", "127.0.0.1.nip.test": "127.0.0.1",
    "app.localtest.test": "127.0.0.1", "lvh.test": "::1", "mapped.site.test": "::ffff:127.0.0.1",
    "nat64.site.test": "64:ff9b::7f00:1", "sixtofour.site.test": "2002:7f00:1::", "teredo.site.test": "2001:0:7f00:1::",
    "compatible.site.test": "::127.0.0.1", "unique.site.test": "fd00::1", "link.site.test": "fe80::1%eth0",
    "multicast.site.test": "224.0.0.1", "multicast6.site.test": "ff02::1", "zero.site.test": "0.0.0.0",
    "shared.site.test": "100.64.0.1", "benchmark.site.test": "198.18.0.1", "azure.site.test": "168.63.129.16",
    "broadcast.site.test": "255.255.255.255", "reserved.site.test": "240.0.0.1", "docs.site.test": "192.0.2.1",
    "docs6.site.test": "2001:db8::1", "protocol.site.test": "192.0.0.192", "site-local.site.test": "fec0::1",
    "translated.site.test": "::ffff:0:7f00:1", "orchid.site.test": "2001:20::1",
    "mapped-private.site.test": "::ffff:a00:5", "nat64-metadata.site.test": "64:ff9b::a9fe:a9fe",
    "sixtofour-private.site.test": "2002:c0a8:101::1",
    "discard.site.test": "100::1", "relay.site.test": "192.88.99.1", "nat64-local.site.test": "64:ff9b:1::1",
}  # fmt: skip
"""What a hostile domain's own server of names may answer."""

HOSTILE = [
    # this machine and its networks
    "http://127.0.0.1/", "http://127.0.0.1:80/", "https://127.0.0.1/", "http://127.1.2.3/", "http://0.0.0.0/",
    "http://0.1.2.3/", "http://10.0.0.1/", "http://10.255.255.255/", "http://172.16.0.1/", "http://172.31.255.1/",
    "http://192.168.0.1/", "http://169.254.169.254/latest/meta-data/", "http://169.254.170.2/v2/credentials",
    "http://100.64.0.1/", "http://100.100.100.200/", "http://192.0.0.192/opc/v2/", "http://168.63.129.16/",
    "http://198.18.0.1/", "http://198.51.100.1/", "http://203.0.113.1/", "http://192.0.2.1/", "http://192.88.99.1/",
    "http://224.0.0.1/", "http://239.255.255.250/", "http://240.0.0.1/", "http://255.255.255.255/",
    # the same, written in other ways
    "http://127.1/", "http://127.0.1/", "http://0/", "http://2130706433/", "http://017700000001/", "http://0x7f000001/",
    "http://0x7f.0.0.1/", "http://0177.0.0.1/", "http://0x7f.1/", "http://127.0.0.01/", "http://127.0.0.1./",
    "http://00000127.0.0.1/", "http://0x7F.0X0.0x0.0x1/", "http://127.000.000.001/", "http://4294967295/",
    "http://3232235521/", "http://2852039166/", "http://0xa9fea9fe/", "http://0251.0376.0251.0376/",
    "http://134744072/", "http://8.8.8/", "http://256.256.256.256/", "http://1.2.3.4.5/", "http://127.0.0.1.5/",
    "http://１２７.0.0.1/", "http://127。0。0。1/", "http://127．0．0．1/", "http://127｡0｡0｡1/", "http://①②⑦.⓪.⓪.①/",
    "http://١٢٧.0.0.1/", "http://⑯⑨。②⑤④。⑯⑨｡②⑤④/", "http://%31%32%37.0.0.1/", "http://127%2e0%2e0%2e1/",
    "http://127.1.1/", "http://0x7f.0x1/", "http://0177.1/", "http://017700000001./", "http://0x7f000001./",
    "http://0x00000000a9fea9fe/", "http://0b1.0.0.1/", "http://127.0.0.0x1/", "http://127.0.0.1e0/", "http://1e9/",
    "http://+127.0.0.1/", "http://127.0.0.-1/", "http://127.0.0.1../", "http://.127.0.0.1/", "http://127..0.1/",
    "http://１６９．２５４．１６９．２５４/", "http://𝟏𝟐𝟕.𝟎.𝟎.𝟏/", "http://१२७.०.०.१/", "http://²130706433/", "http://127.0.0.1\u3002/",
    # IPv6
    "http://[::1]/", "http://[::]/", "http://[0:0:0:0:0:0:0:1]/", "http://[::ffff:127.0.0.1]/",
    "http://[::ffff:7f00:1]/", "http://[::ffff:8.8.8.8]/", "http://[::127.0.0.1]/", "http://[64:ff9b::7f00:1]/",
    "http://[64:ff9b::8.8.8.8]/", "http://[64:ff9b:1::1]/", "http://[2002:7f00:1::]/", "http://[2002:808:808::1]/",
    "http://[2001:0:7f00:1::]/", "http://[2001:db8::1]/", "http://[fc00::1]/", "http://[fd00:ec2::254]/",
    "http://[fe80::1]/", "http://[fe80::1%25eth0]/", "http://[fe80::1%eth0]/", "http://[2606:4700::1%25lo]/",
    "http://[fec0::1]/", "http://[ff02::1]/", "http://[100::1]/", "http://[3fff::1]/", "http://[5f00::1]/",
    "http://[::1", "http://::1/", "http://[v1.a]/", "http://[127.0.0.1]/", "http://[]/", "http://[::1]x/",
    "http://[::ffff:0:127.0.0.1]/", "http://[::ffff:0x7f000001]/", "http://[::ffff:169.254.169.254]/",
    "http://[::FFFF:A9FE:A9FE]/", "http://[0:0:0:0:0:ffff:127.0.0.1]/", "http://[::ffff:127.1]/", "http://[::1.]/",
    "http://[0000::0001]/", "http://[00000::1]/", "http://[::1]:80/", "http://[::1%25]/", "http://[fe80::1%251]/",
    "http://[64:ff9b::169.254.169.254]/", "http://[64:ff9b::a9fe:a9fe]/", "http://[64:ff9b:1:7f00:0:100::]/",
    "http://[2002:a9fe:a9fe::]/", "http://[2002:a00:1::1]/", "http://[2001:0:4136:e378:8000:63bf:3fff:fdd2]/",
    "http://[2001:20::1]/", "http://[2001:10::1]/", "http://[ff05::1:3]/", "http://[::١]/", "http://［::1］/",
    "http://%5b::1%5d/", "http://[[::1]]/", "http://[::1]@site.test/", "http://[::1].site.test/",
    # names of local networks
    "http://localhost/", "http://LOCALHOST/", "http://LocalHost:80/", "http://localhost./", "http://localhost.localdomain/",
    "http://a.localhost/", "http://printer.local/", "http://metadata.google.internal/", "http://metadata/",
    "http://intranet/", "http://router.lan/", "http://box.home.arpa/", "http://x.onion/", "http://ⓛocalhost/",
    "http://localhost../", "http://ｌｏｃａｌｈｏｓｔ/", "http://ℓocalhost/", "http://𝓁ocalhost/", "http://localhost。/",
    "http://localhost%2e/", "http://%6cocalhost/", "http://metadata.google.internal./", "http://kubernetes.default.svc/",
    "http://metadata.google.internal.:80/", "http://instance-data/", "http://ip6-localhost/",
    "http://loc\u00adalhost/", "http://local\u200bhost/", "http://LOCALHOST.LOCALDOMAIN/",
    # other schemes
    "file:///etc/passwd", "file://localhost/etc/passwd", "FILE:///etc/passwd", "gopher://site.test:70/_x",
    "dict://site.test:11211/stat", "ftp://site.test/", "ldap://site.test/", "data:text/html,hello",
    "javascript:alert(1)", "jar:http://site.test/x.jar!/y", "view-source:http://site.test/", "about:blank",
    "blob:http://site.test/x", "ws://site.test/", "//site.test/", "/etc/passwd", "site.test", "http:site.test",
    "http:/site.test", "http:///site.test", "http://", "https://", "", "http", ":", "://", "url:http://site.test/",
    "netdoc:///etc/passwd", "php://filter/x", "unix:/var/run/docker.sock", "http+unix://%2Fvar%2Frun%2Fdocker.sock/",
    # credentials, ports, and what two parsers read differently
    "http://user@site.test/", "http://user:password@site.test/", "http://site.test@127.0.0.1/", "http://@site.test/",
    "http://127.0.0.1@site.test/", "http://site.test#@127.0.0.1/@", "http://site.test:80@127.0.0.1/",
    "http://site.test\\@127.0.0.1/", "http:\\\\127.0.0.1\\", "http://127.0.0.1\\.site.test/", "http:/\\127.0.0.1/",
    "http://site.test:22/", "http://site.test:25/", "http://site.test:6379/", "http://site.test:0/",
    "http://site.test:65536/", "http://site.test:-1/", "http://site.test:8o/", "http://site.test:11211/",
    "http://site.test:80:80/", "http://site.test:٨٠/", "http://site.test: 80/", "http://site.test%00.x.test/",
    "http://127.0.0.1%00.site.test/", "http://site.test\x00.x.test/", "http://site.test/\r\nX: y", "http://site.test/\n",
    "http://site.test/a\tb", "http://site.test\t/", " http://site.test/", "http://site.test/ ", "http://site .test/",
    "\x01http://site.test/", "http://site.test/\x7f", "http://site.test/\x85", "http://site.test/a b",
    "http://site.test%0d%0aX:y/", "http://site..test/", "http://.site.test/", "http://-site.test/",
    "http://site-.test/", "http://si_te!.test/", "http://site.test,127.0.0.1/", "http://site.test;127.0.0.1/",
    "http://<site>.test/", "http://site。test/", "http://site．test/", "http://site.test／evil/", "http://ex＠site.test/",
    "http://site.test./", "http://" + "a" * 64 + ".test/", "http://" + "a." * 150 + "test/",
    "http://site.test/" + "a" * LONGEST, "http://xn--.test/", "http://[site.test]/", "http://site.test]/",
    # names that lead to such addresses
    *(f"http://{name}/" for name in PRIVATE),
    "http://both.site.test/", "http://nothing.site.test/",
]  # fmt: skip


class Connected(Exception):
    pass


def look_up(host: str) -> list[str]:
    if host == "both.site.test":
        return ["93.184.215.14", "10.0.0.1"]
    if host in ("site.test", "x.test", "evil.test"):
        return ["93.184.215.14"]
    if host in PRIVATE:
        return [PRIVATE[host]]
    raise OSError("unknown host")


def test_there_are_enough() -> None:
    assert len(set(HOSTILE)) >= 250


# What stands before a `#` is a host of its own: the rest of that address is no part of what is asked for.
@pytest.mark.parametrize("url", [url for url in HOSTILE if "#" not in url])
def test_hostile_addresses_are_refused(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def connected(*_: object) -> None:
        raise Connected

    monkeypatch.setattr("httpcore.SyncBackend.connect_tcp", connected)
    with pytest.raises(FetchError) as caught:
        fetch(url, network=Network(look_up=look_up))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("http://site.test", "http://site.test/"),
        ("HTTP://Site.TEST/A", "http://site.test/A"),
        ("https://site.test:443/x?y=z#there", "https://site.test/x?y=z"),
        ("http://site.test:443/", "http://site.test:443/"),
        ("http://8.8.8.8/", "http://8.8.8.8/"),
        ("http://[2606:4700:4700::1111]/", "http://[2606:4700:4700::1111]/"),
        ("https://münchen.test/straße?q=größe", "https://xn--mnchen-3ya.test/stra%C3%9Fe?q=gr%C3%B6%C3%9Fe"),
        ("http://a-b_c.site.test/%20x", "http://a-b_c.site.test/%20x"),
        ("http://site.test#@127.0.0.1/@", "http://site.test/"),
        ("http://site.test/a'b(c)~d,e;f", "http://site.test/a'b(c)~d,e;f"),
        ('http://site.test/"<>^`{|}', "http://site.test/%22%3C%3E%5E%60%7B%7C%7D"),
    ],
)
def test_plain_addresses_are_read_in_one_way(url: str, asked: str) -> None:
    assert parsed(url, [80, 443]).url == asked
    assert parsed(asked, [80, 443]).url == asked


def test_only_the_recipes_ports() -> None:
    assert parsed("http://site.test:8080/", [8080]).authority == "site.test:8080"
    with pytest.raises(Refused, match="port 80 "):
        parsed("http://site.test/", [8080])


@pytest.mark.parametrize("address", ["8.8.8.8", "93.184.215.14", "2606:4700:4700::1111", "2a00:1450:4001::1"])
def test_public_addresses_are(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_no_recipe_and_no_variable_leads_to_another_network() -> None:
    """The allowance that tests use is an argument of a Python function. What a recipe can say holds none."""
    words = str(Fetch.model_json_schema()).lower()
    assert not any(word in words for word in ("allow", "loopback", "private", "resolve", "network", "insecure"))
