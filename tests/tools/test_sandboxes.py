"""Hostile programs against both backends. Real canaries tell whether one got out: a secret file, a variable of the
environment, a listening socket, a process, and the number of processes. A control shows that they tell."""

from __future__ import annotations

import os
import resource
import socket
import stat
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from hostile import PROGRAMS
from sandboxes import BACKENDS, section

from webtochat.tools import bubblewrap
from webtochat.tools.python import run

TOKEN = "canary-5f1d0c"
PLATFORM = Path(__file__).resolve().parents[2] / "platform"
RUNNER = bubblewrap.INSIDE.read_text()[:60]
SECONDS = 1.0
SLACK = 6.0
"""What starting and ending may add on a machine that is busy with other things."""


@dataclass
class Canaries:
    secret: Path
    marker: Path
    server: socket.socket
    abstract: socket.socket
    victim: subprocess.Popen[bytes]
    outside: int
    """Descriptor of a file that is open here, and inheritable."""

    @property
    def port(self) -> int:
        return self.server.getsockname()[1]

    def filled(self, program: str) -> str:
        for name, value in {
            "SECRET": self.secret, "MARKER": self.marker, "PORT": self.port, "VICTIM": self.victim.pid,
            "HOSTNAME": socket.gethostname(), "PACKAGES": sysconfig.get_path("purelib"),
        }.items():  # fmt: skip
            program = program.replace(f"@{name}@", str(value))
        return program

    def sang(self, output: str, error: str = "") -> list[str]:
        """Which of them tell that a program got out. (Errors quote the program, and so what it would have printed.)"""
        found = [TOKEN] * (TOKEN in output + error) + ["ESCAPED"] * ("ESCAPED" in output)
        if not self.secret.exists() or TOKEN not in self.secret.read_text():
            found.append("the secret was changed")
        elif stat.S_IMODE(self.secret.stat().st_mode) != 0o644:
            found.append("the secret's mode was changed")
        if self.marker.exists():
            found.append("a file was written")
        for server in (self.server, self.abstract):
            try:
                server.accept()[0].close()
                found.append("somebody connected")
            except BlockingIOError:
                continue
        if self.victim.poll() is not None:
            found.append("a process was killed")
        return found


@pytest.fixture(scope="module")
def canaries(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Canaries]:
    folder = tmp_path_factory.mktemp("canaries")
    secret = folder / "canary.txt"
    secret.write_text(TOKEN)
    secret.chmod(0o644)
    server = socket.create_server(("127.0.0.1", 0))
    abstract = socket.socket(socket.AF_UNIX)
    abstract.bind(f"\0webtochat-canary-{server.getsockname()[1]}")
    abstract.listen()
    for each in (server, abstract):
        each.setblocking(False)
    os.environ["WEBTOCHAT_CANARY"] = TOKEN
    outside = os.open(secret, os.O_RDWR)
    os.set_inheritable(outside, True)
    victim = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    yield Canaries(secret, folder / "marker", server, abstract, victim, outside)
    victim.kill()
    victim.wait()
    os.close(outside)
    del os.environ["WEBTOCHAT_CANARY"]
    server.close()
    abstract.close()


def survivors() -> list[str]:
    """Processes that hold a program in bubblewrap, whoever's children they are by now. The kernel may take a moment to
    end them."""
    deadline = time.monotonic() + 2
    while True:
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if any(RUNNER in argument for argument in process.cmdline()):
                    found.append(f"{process.pid} {process.name()}")
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", PROGRAMS)
def test_nothing_gets_out(canaries: Canaries, backend: str, name: str) -> None:
    settings = section(backend, seconds=SECONDS, memory_mb=96, output_characters=2000)
    began = time.monotonic()
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result = run(canaries.filled(PROGRAMS[name]), settings)
    took = time.monotonic() - began
    told = f"{result.output}\n{result.error}"
    assert canaries.sang(result.output, result.error or "") == [], told
    assert survivors() == [], told
    assert took < SECONDS + SLACK, (took, told)
    assert len(result.output) < 2100 and len(result.error or "") < 2100
    told.encode()
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - memory) / 1024
    assert grown < 300, f"this process grew by {grown:.0f} MB"


@pytest.mark.parametrize(
    ("name", "song"),
    [
        ("read", TOKEN), ("environment", TOKEN), ("connect", "somebody connected"), ("write", "a file was written"),
        ("abstract_socket", "somebody connected"), ("subclasses", TOKEN), ("inherited_descriptors", "ESCAPED"),
        ("system", "ESCAPED"), ("proc_environment", TOKEN), ("uname", "ESCAPED"), ("walk", "ESCAPED"),
    ],
)  # fmt: skip
def test_the_canaries_sing_where_nothing_holds_a_program(canaries: Canaries, name: str, song: str) -> None:
    program = canaries.filled(PROGRAMS[name]).replace("os.walk('/')", f"os.walk('{canaries.secret.parent}')")
    os.lseek(canaries.outside, 0, os.SEEK_SET)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, close_fds=False)
    assert song in canaries.sang(done.stdout), done.stderr
    canaries.marker.unlink(missing_ok=True)


def test_a_program_that_is_ended_while_it_starts_leaves_nothing() -> None:
    section("bubblewrap")
    for number in range(60):
        result = run("import time\ntime.sleep(3600)", section("bubblewrap", seconds=0.002 * (number + 1)))
        assert "stopped" in (result.error or "")
    assert survivors() == []


@pytest.mark.parametrize(("backend", "seconds"), [("bubblewrap", 600), ("monty", 5)])
def test_a_killed_caller_takes_its_programs_with_it(backend: str, seconds: int) -> None:
    """Monty's worker sees it when its own time is over."""
    section(backend)
    program = (
        "from webtochat.recipe_tools import PythonTool\nfrom webtochat.tools.python import run\n"
        "print('ready', flush=True)\n"
        f"run('import time\\nwhile True: time.sleep(0.001)', PythonTool(backend={backend!r}, seconds={seconds}))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(PLATFORM)}, stdout=subprocess.PIPE
    ) as caller:
        assert caller.stdout is not None and caller.stdout.readline() == b"ready\n"
        time.sleep(2)
        within = psutil.Process(caller.pid).children(recursive=True)
        assert within
        caller.kill()
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline and any(each.is_running() for each in within):
        time.sleep(0.05)
    assert [each for each in within if each.is_running()] == [] and survivors() == []


@pytest.mark.parametrize("backend", BACKENDS)
def test_programs_at_once_do_not_meet(backend: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    settings = section(backend, seconds=20)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda number: run(f"x = {number}\nprint(x * x)", settings), range(24)))
    assert [result.output for result in results] == [f"{number * number}\n" for number in range(24)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_program_leaves_anything_to_the_next(backend: str) -> None:
    settings = section(backend, seconds=20)
    run("import json\nleft = 1\njson.dumps = None\nopen('/tmp/left', 'w').write('x')", settings)
    assert "NameError" in (run("left", settings).error or "")
    assert run("import json\njson.dumps([1])", settings).output == "'[1]'\n"
    assert "Error" in (run("open('/tmp/left').read()", settings).error or "")
