"""Fetching over real sockets: a test server on loopback, reached by the one allowance that only tests have."""

from __future__ import annotations

import gzip
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import httpcore
import pytest

from webtochat.recipe_tools import Fetch
from webtochat.tools.addresses import is_public
from webtochat.tools.web import FetchError, Network, fetch

PAGE = "<html><head><title>A page</title></head><body><p>{}</p></body></html>"
WORDS = "Some words that make up a paragraph of a page, long enough to be its main content. " * 4
Handler = Callable[[BaseHTTPRequestHandler], None]


class Server:
    """A web server on loopback. `answers` maps a path to a function that answers."""

    def __init__(self, certificate: tuple[str, str] | None = None) -> None:
        self.answers: dict[str, Handler] = {}
        self.asked: list[dict[str, str]] = []
        self.names: list[str] = []
        outer = self

        class Answering(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.asked.append({name.lower(): value for name, value in self.headers.items()} | {"path": self.path})
                outer.answers[self.path](self)
                self.close_connection = True

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            context.sni_callback = lambda _, name, __: self.names.append(name)  # type: ignore[assignment,func-returns-value]
            self.http.socket = context.wrap_socket(self.http.socket, server_side=True)
        self.port: int = self.http.server_address[1]
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()

    def page(
        self, path: str, body: bytes, content_type: str | None = "text/html", status: int = 200, **more: str
    ) -> str:
        def answer(handler: BaseHTTPRequestHandler) -> None:
            handler.send_response(status)
            for name, value in more.items():
                handler.send_header(name.replace("_", "-"), value)
            if content_type is not None:
                handler.send_header("Content-Type", content_type)
            handler.send_header("Content-Length", str(len(body)))
            handler.end_headers()
            handler.wfile.write(body)

        self.answers[path] = answer
        return f"http://site.test:{self.port}{path}"


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.http.shutdown()
    made.http.server_close()


def section(server: Server, **settings: object) -> Fetch:
    return Fetch.model_validate({"ports": [server.port, 80, 443], "seconds": 5, **settings})


def here(_: IPv4Address | IPv6Address) -> bool:
    return True


HERE = Network(look_up=lambda host: ["127.0.0.1"], allowed=here)


def test_a_page(server: Server) -> None:
    url = server.page("/a?b=c", PAGE.format(WORDS).encode(), "text/html; charset=utf-8")
    page = fetch(url, section(server), HERE)
    assert (page.title, page.url, page.status, page.content_type) == ("A page", url, 200, "text/html")
    assert page.text == WORDS.strip()
    asked = server.asked[0]
    assert asked["host"] == f"site.test:{server.port}" and asked["path"] == "/a?b=c"
    assert not {"cookie", "authorization", "proxy-authorization", "referer"} & set(asked)


def test_loopback_is_refused_without_the_allowance(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("NO_PROXY", "")
    url = server.page("/", b"x", "text/plain")
    for network in (Network(), Network(look_up=lambda host: ["127.0.0.1"])):
        for address in (url, f"http://127.0.0.1:{server.port}/", f"http://localhost:{server.port}/"):
            with pytest.raises(FetchError):
                fetch(address, section(server), network)
    assert server.asked == []


def test_no_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    other = Server()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{other.port}")
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{other.port}")
    assert fetch(server.page("/", b"hello", "text/plain"), section(server), HERE).text == "hello"
    assert other.asked == []


def test_a_name_is_looked_up_once_and_the_checked_address_is_connected_to(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS rebinding: the first answer is public, every later one is loopback."""
    answers = [["93.184.215.14"], ["127.0.0.1"], ["127.0.0.1"]]
    connected: list[str] = []

    def connect(self: object, host: str, port: int, *_: object, **__: object) -> None:
        connected.append(host)
        raise httpcore.ConnectError("unreachable")

    monkeypatch.setattr("httpcore.SyncBackend.connect_tcp", connect)
    with pytest.raises(FetchError, match="cannot be read"):
        fetch(server.page("/", b"x", "text/plain"), section(server), Network(look_up=lambda host: answers.pop(0)))
    assert connected == ["93.184.215.14"] and len(answers) == 2


@pytest.mark.parametrize(
    "location",
    [
        "http://127.0.0.1/", "http://169.254.169.254/latest/meta-data/", "http://localhost/", "//127.0.0.1/", "http://[::1]/",
        "http://internal.test/", "file:///etc/passwd", "gopher://site.test/", "http://user@site.test/", "http://2130706433/",
        "javascript:alert(1)", "http://site.test:22/", "http://0x7f.1/", "data:text/plain,x", "\\\\127.0.0.1\\x",
        "http://site.test\\@127.0.0.1/", "http://127.1/", "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/",
        "http://[2002:7f00:1::]/", "http://127。0。0。1/", "http://localhost./", "http://[fe80::1%25eth0]/",
        "//site.test@127.0.0.1/", "///127.0.0.1/", "http:127.0.0.1", "http://017700000001/", "http://①②⑦.0.0.1/",
    ],
)  # fmt: skip
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_checked_as_the_first_address(server: Server, location: str, status: int) -> None:
    network = Network(
        look_up=lambda host: ["127.0.0.1"] if host == "site.test" else ["10.0.0.1"],
        allowed=lambda address: is_public(address) or (address == ip_address("127.0.0.1") and len(server.asked) == 0),
    )
    with pytest.raises(FetchError):
        fetch(server.page("/", b"", None, status, Location=location), section(server), network)
    assert len(server.asked) == 1


def test_redirects_are_followed_and_counted(server: Server) -> None:
    server.page("/3", b"there", "text/plain")
    for number in range(3):
        server.page(f"/{number}", b"", None, 302, Location=f"/{number + 1}", Set_Cookie="a=b")
    start = f"http://site.test:{server.port}/0"
    page = fetch(start, section(server), HERE)
    assert page.text == "there" and page.url.endswith("/3")
    assert not any("cookie" in asked for asked in server.asked)
    with pytest.raises(FetchError, match="more than 2 redirects"):
        fetch(start, section(server, max_redirects=2), HERE)
    server.page("/loop", b"", None, 302, Location="/loop")
    with pytest.raises(FetchError, match="more than 5 redirects"):
        fetch(f"http://site.test:{server.port}/loop", section(server), HERE)


def test_sizes_are_capped_as_sent_and_as_unpacked(server: Server) -> None:
    large = server.page("/large", b"x" * 300_000, "text/plain")
    bomb = server.page("/bomb", gzip.compress(b"x" * 50_000_000), "text/plain", Content_Encoding="gzip")
    for url in (large, bomb):
        with pytest.raises(FetchError, match="large"):
            fetch(url, section(server, max_bytes=200_000), HERE)
    packed = server.page("/packed", gzip.compress(b"hello"), "text/plain", Content_Encoding="gzip")
    assert fetch(packed, section(server), HERE).text == "hello"


def test_an_endless_answer_ends(server: Server) -> None:
    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", "text/plain")
        handler.end_headers()
        try:
            while True:
                handler.wfile.write(b"x" * 65536)
        except OSError:
            return

    server.answers["/"] = endless
    with pytest.raises(FetchError, match="larger than"):
        fetch(f"http://site.test:{server.port}/", section(server), HERE)


@pytest.mark.parametrize("part", ["headers", "body", "nothing", "redirects"])
def test_the_time_is_for_all_of_it_together(server: Server, part: str) -> None:
    """A byte at a time keeps every single read short."""

    def slow(handler: BaseHTTPRequestHandler) -> None:
        if part == "redirects":
            time.sleep(0.4)
            handler.send_response(302)
            handler.send_header("Location", "/")
            handler.send_header("Content-Length", "0")
            handler.end_headers()
            return
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000\r\n"
        text = {"headers": head + b"X: " + b"y" * 1000, "body": head + b"\r\n" + b"z" * 1000, "nothing": b""}[part]
        try:
            for number in range(0, len(text), 1):
                handler.wfile.write(text[number : number + 1])
                handler.wfile.flush()
                if number > len(head):
                    time.sleep(0.05)
            time.sleep(5)
        except OSError:
            return

    server.answers["/"] = slow
    began = time.monotonic()
    with pytest.raises(FetchError, match="longer than 1 s"):
        fetch(f"http://site.test:{server.port}/", section(server, seconds=1, max_redirects=50), HERE)
    assert time.monotonic() - began < 3


def test_a_slow_look_up_ends(server: Server) -> None:
    def slow(host: str) -> list[str]:
        time.sleep(5)
        return ["127.0.0.1"]

    began = time.monotonic()
    with pytest.raises(FetchError, match="longer than"):
        fetch(server.page("/", b"x", "text/plain"), section(server, seconds=0.5), Network(look_up=slow, allowed=here))
    assert time.monotonic() - began < 2


@pytest.mark.parametrize(
    ("content_type", "body", "text"),
    [
        ("text/plain; charset=iso-8859-1", "größe".encode("latin-1"), "größe"),
        ("application/json", b'{"a": 1}', '{"a": 1}'),
        ("TEXT/PLAIN", b"x", "x"),
        ("application/xhtml+xml", PAGE.format(WORDS).encode(), WORDS.strip()),
    ],
)
def test_types_that_are_read(server: Server, content_type: str, body: bytes, text: str) -> None:
    assert fetch(server.page("/", body, content_type), section(server), HERE).text == text


@pytest.mark.parametrize("content_type", ["application/pdf", "image/png", "application/octet-stream", None, ""])
def test_types_that_are_not(server: Server, content_type: str | None) -> None:
    with pytest.raises(FetchError, match="only text/html"):
        fetch(server.page("/", b"%PDF", content_type), section(server), HERE)


@pytest.mark.parametrize("status", [204, 400, 401, 403, 404, 500, 304])
def test_other_answers_are_said(server: Server, status: int) -> None:
    with pytest.raises(FetchError):
        fetch(server.page("/", b"", "text/html", status), section(server), HERE)


@pytest.mark.parametrize(
    "answer",
    [
        b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nContent-Type: text/plain\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 1_000_000 + b"\r\n\r\n", b"HTTP/9.9 999 X\r\n\r\n", b"\x16\x03\x01" * 50,
    ],
)  # fmt: skip
def test_nonsense_is_a_short_error(server: Server, answer: bytes) -> None:
    def broken(handler: BaseHTTPRequestHandler) -> None:
        handler.wfile.write(answer)
        handler.connection.close()

    server.answers["/"] = broken
    with pytest.raises(FetchError) as caught:
        fetch(f"http://site.test:{server.port}/", section(server), HERE)
    assert len(str(caught.value)) <= 200


def test_certificates_are_of_the_name(tmp_path: Path) -> None:
    """TLS by the name, to the address that was checked; a certificate of another name is refused."""
    names = certificate(tmp_path)
    server = Server(names)
    server.page("/", b"hello", "text/plain")
    network = Network(HERE.look_up, here, lambda: ssl.create_default_context(cafile=names[0]))
    assert fetch(f"https://site.test:{server.port}/", section(server), network).text == "hello"
    assert server.names == ["site.test"] and server.asked[0]["host"] == f"site.test:{server.port}"
    for url, other in ((f"https://other.test:{server.port}/", network), (f"https://site.test:{server.port}/", HERE)):
        with pytest.raises(FetchError, match="cannot be read"):
            fetch(url, section(server), other)


def certificate(folder: Path) -> tuple[str, str]:
    """Files of a certificate for site.test that signs itself, and of its key."""
    from datetime import UTC, datetime, timedelta

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "site.test")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(1).not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("site.test")]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem = serialization.Encoding.PEM
    (folder / "certificate.pem").write_bytes(made.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(private)
    return str(folder / "certificate.pem"), str(folder / "key.pem")
