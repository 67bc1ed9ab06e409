"""Programs in CPython inside bubblewrap: Linux namespaces hold nothing but the interpreter and its standard library
(read-only), /dev/null and a small /tmp; no network, no /proc, no variable of the environment, no capability. A seccomp
filter leaves one process and one thread; resource limits bound its memory, CPU time and files; a clock ends the whole.
"""

from __future__ import annotations

import codecs
import glob
import math
import os
import re
import selectors
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO

import psutil

from webtochat.errors import UserError
from webtochat.recipe_tools import PythonTool
from webtochat.tools import seccomp
from webtochat.tools.tool import Excerpt, ToolResult

INSIDE = Path(__file__).with_name("inside.py")
PYTHON = "/usr/local/bin/python3"
PIECE = 1 << 16
SHUT = "True ['dev', 'lib', 'tmp', 'usr'] ['LD_LIBRARY_PATH', 'PWD']"
"""What the probe prints where nothing else is in reach."""
PROBE = """
import os
def refused(attempt, *arguments):
    try:
        attempt(*arguments)
    except OSError:
        return True
shut = refused(os.listdir, "/proc") and bool(os.statvfs("/").f_flag & os.ST_RDONLY) and refused(os.fork)
print(shut, sorted(set(os.listdir("/")) - {"lib64"}), sorted(os.environ))
"""


def run(code: str, section: PythonTool) -> ToolResult:
    """Raises UserError where this machine cannot isolate."""
    probe()
    return _run(code, section)


@cache
def probe() -> None:
    """Tries once what keeps programs in. Raises UserError, one line."""
    way_out = "use tools.python.backend=monty"
    if shutil.which("bwrap") is None:
        raise UserError(f"tools.python.backend is bubblewrap, and there is no bwrap: install bubblewrap, or {way_out}")
    try:
        tried = _run(PROBE, PythonTool(seconds=20))
    except KeyError as error:
        raise UserError(f"bubblewrap: no system calls are known of the architecture {error}: {way_out}") from error
    if tried.error is not None or tried.output.strip() != SHUT:
        told = " ".join((tried.error or tried.output).split())[-200:]
        raise UserError(f"bubblewrap cannot isolate a program here ({told}): allow user namespaces, or {way_out}")


def _run(code: str, section: PythonTool) -> ToolResult:
    memory = section.memory_mb << 20
    source, rules = _file(code.encode()), _file(seccomp.program())
    with source, rules:
        process = subprocess.Popen(
            [
                *_sandbox(), "--size", str(memory), "--tmpfs", "/tmp", "--chdir", "/tmp", "--remount-ro", "/",
                "--seccomp", str(rules.fileno()),
                PYTHON, "-I", "-S", "-c", INSIDE.read_text(), str(math.ceil(section.seconds) + 1), str(memory),
            ],
            stdin=source, stdout=subprocess.PIPE, stderr=subprocess.PIPE, pass_fds=[rules.fileno()],
            env={"LD_LIBRARY_PATH": "/lib"},
        )  # fmt: skip
    try:
        output, errors, ended = _read(process, section)
    finally:
        _end(process)
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            stream.close()
    if not ended:
        return ToolResult(output, f"stopped: it ran longer than {section.seconds:g} s")
    if process.returncode == 0:
        return ToolResult(output)
    return ToolResult(output, errors.strip() or f"the program ended with status {process.returncode}")


def _read(process: subprocess.Popen[bytes], section: PythonTool) -> tuple[str, str, bool]:
    """Output, errors, and whether the program ended by itself in time. Reads as it comes, and keeps what is shown."""
    deadline = time.monotonic() + section.seconds
    kept, decoders = {}, {}
    with selectors.DefaultSelector() as selector:
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            selector.register(stream, selectors.EVENT_READ)
            kept[stream] = Excerpt(section.output_characters)
            decoders[stream] = codecs.getincrementaldecoder("utf-8")("replace")
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                stream = key.fileobj  # type: ignore[assignment]
                assert stream is not None
                piece = os.read(stream.fileno(), PIECE)
                kept[stream].add(decoders[stream].decode(piece, final=not piece))
                if not piece:
                    selector.unregister(stream)
    output, errors = (str(kept[stream]) for stream in (process.stdout, process.stderr) if stream is not None)
    try:
        process.wait(max(0, deadline - time.monotonic()))
    except subprocess.TimeoutExpired:
        return output, errors, False
    return output, errors, True


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends bwrap and all within. Its child goes first: it is the first process of the namespace, and the kernel ends
    the others with it. (A child does not follow a bwrap that is killed before the two have settled so.)"""
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)  # else it might start its child while we look for it
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        with suppress(psutil.Error):
            for child in psutil.Process(process.pid).children():
                child.kill()
        process.kill()
    process.wait()


@cache
def _sandbox() -> list[str]:
    """bwrap and what is seen within, under paths that tell nothing of this machine."""
    standard = sysconfig.get_path("stdlib")
    interpreter = os.path.realpath(sys.executable)
    within = f"/usr/local/{sys.platlibdir}/python{sys.version_info.major}.{sys.version_info.minor}"
    command = [
        shutil.which("bwrap") or "bwrap", "--unshare-user", "--unshare-all", "--uid", "1000", "--gid", "1000",
        "--hostname", "sandbox", "--new-session", "--die-with-parent", "--cap-drop", "ALL",
        "--ro-bind", interpreter, PYTHON, "--ro-bind", standard, within, "--dev-bind", "/dev/null", "/dev/null",
    ]  # fmt: skip
    if os.path.isdir(os.path.join(standard, "site-packages")):
        hidden = f"{within}/site-packages"
        command += ["--tmpfs", hidden, "--remount-ro", hidden]
    modules = glob.glob(os.path.join(glob.escape(standard), "lib-dynload", "*.so"))
    listed = subprocess.run(["ldd", interpreter, *modules], capture_output=True, text=True, check=False).stdout
    for library in sorted(set(re.findall(r"(/\S+) \(0x", listed))):
        loader = os.path.basename(library).startswith("ld-")  # the kernel looks for it where the interpreter says
        command += ["--ro-bind", library, library if loader else f"/lib/{os.path.basename(library)}"]
    return command


def _file(content: bytes) -> IO[bytes]:
    """An open file in memory, at its beginning."""
    file = os.fdopen(os.memfd_create("webtochat"), "w+b")
    file.write(content)
    file.seek(0)
    return file
