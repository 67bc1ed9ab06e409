"""The same model behind three servers, one after the other in turns: vLLM's own, ray.serve.llm, and the assistant
(without tools). Clients ask one question after another and read the answers as they are written.

python benchmarks/serve.py recipes/demo.yaml --seconds 30 --rounds 3 --write
python benchmarks/serve.py recipes/demo.yaml --seconds 5 --rounds 1 --soak 10 --kill --roll
python benchmarks/serve.py recipes/demo.yaml --rounds 0 --fuzz .peers/bin/schemathesis --requests 10000

Takes about two minutes and six times --seconds for each round. --soak, --kill and --roll are of the assistant, at the
most clients. --fuzz has the requests of schemathesis (its program, in an environment of its own), made from the
assistant's own schema, answered by it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import psutil

ROOT = Path(__file__).resolve().parent.parent
for folder in ("", "platform"):
    sys.path.insert(0, str(ROOT / folder))

from record import record  # noqa: E402
from webtochat import recipe as recipes  # noqa: E402
from webtochat.inference.engine import CPU_ENVIRONMENT, ENVIRONMENT, positions  # noqa: E402

SYSTEMS = {"vllm": "vLLM", "plain": "ray.serve.llm", "assistant": "the assistant"}
CLIENTS = (1, 8, 32)
QUESTIONS = [
    "Tell me a story about a lighthouse.", "Who are you?", "What is the capital of France?", "Write about the sea.",
    "What is 12 + 30?", "Tell me about a garden in the spring.", "How does a kite fly?", "Describe your day.",
]  # fmt: skip
START_SECONDS, AROUND_SECONDS = 300, 10
FUZZ_WORKERS = 8
HOOKS = """import schemathesis

@schemathesis.hook
def map_body(context, body):
    "Else hardly a request names a model that is there."
    if isinstance(body, dict) and isinstance(body.get("model"), str) and len(body["model"]) % 4:
        body["model"] = ["{name}", "{name}-tools"][len(body["model"]) % 2]
    return body
"""
SHARE, MILLISECONDS = 0.9, 15
"""What is aimed at: throughput of ray.serve.llm's, and time to first token more than its, of one client."""


@dataclass
class Load:
    """What clients saw."""

    seconds: float = 0.0
    tokens: int = 0
    answers: int = 0
    firsts: list[float] = field(default_factory=list)
    """Seconds to the first token."""
    failures: list[str] = field(default_factory=list)

    @property
    def rate(self) -> float:
        return self.tokens / self.seconds

    @property
    def first(self) -> float:
        """Median milliseconds."""
        return 1000 * statistics.median(self.firsts)


# clients -------------------------------------------------------------------------------------------------------------


async def ask(http: aiohttp.ClientSession, port: int, name: str, question: str, load: Load) -> None:
    body = {
        "model": name, "messages": [{"role": "user", "content": question}], "stream": True, "temperature": 0,
        "max_tokens": 64, "stream_options": {"include_usage": True},
    }  # fmt: skip
    began, first, usage = time.perf_counter(), None, None
    try:
        async with http.post(f"http://127.0.0.1:{port}/v1/chat/completions", json=body) as answer:
            if answer.status != 200:
                load.failures.append(f"{answer.status} {(await answer.text())[:200]}")
                return
            async for line in answer.content:
                if not line.startswith(b"data: {"):
                    continue
                event = json.loads(line[6:])
                if "error" in event:
                    load.failures.append(event["error"]["message"])
                    return
                if first is None and event["choices"] and event["choices"][0]["delta"].get("content"):
                    first = time.perf_counter() - began
                usage = event.get("usage") or usage
    except (aiohttp.ClientError, TimeoutError) as error:
        load.failures.append(type(error).__name__)
        return
    if usage is None:
        load.failures.append("cut off")
        return
    load.tokens += usage["completion_tokens"]
    load.answers += 1
    if first is not None:
        load.firsts.append(first)


async def loaded(port: int, name: str, clients: int, seconds: float, on: Callable[[], bool] = lambda: False) -> Load:
    """`on`: whether to go on after that, for START_SECONDS at most."""
    load, began = Load(), time.perf_counter()

    def going() -> bool:
        took = time.perf_counter() - began
        return took < seconds or (took < seconds + START_SECONDS and on())

    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=120)) as http:

        async def client(number: int) -> None:
            place = number
            while going():
                await ask(http, port, name, QUESTIONS[place % len(QUESTIONS)], load)
                place += 1

        await asyncio.gather(*(client(number) for number in range(clients)))
    load.seconds = time.perf_counter() - began
    return load


# servers -------------------------------------------------------------------------------------------------------------


@contextmanager
def running(command: list[str], port: int, name: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A server, once it has answered a question."""
    environment = os.environ | ENVIRONMENT | CPU_ENVIRONMENT | {"PYTHONPATH": f"{ROOT}:{ROOT / 'platform'}"}
    environment.pop("VLLM_ENABLE_V1_MULTIPROCESSING")  # that is for an engine in one's own process
    with log.open("wb") as screen:
        process = subprocess.Popen(command, stdout=screen, stderr=screen, env=environment, start_new_session=True)
    try:
        began = time.monotonic()
        while asyncio.run(loaded(port, name, 1, 0.1)).answers == 0:
            if process.poll() is not None or time.monotonic() - began > START_SECONDS:
                raise SystemExit(f"{' '.join(command)} does not start: {log.read_text()[-2000:]}")
            time.sleep(0.5)
        yield process
        process.send_signal(signal.SIGINT)
        process.wait(90)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(2)


def command(system: str, recipe: str, overrides: list[str], model: str, name: str, port: int) -> list[str]:
    if system == "assistant":
        return [sys.executable, str(ROOT / "jobs" / "serve.py"), recipe, *overrides, f"serve.port={port}"]
    if system == "plain":
        return [sys.executable, __file__, "--plain", model, name, str(port)]
    options = engine(model)
    return [
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--host", "127.0.0.1", "--port", str(port),
        "--model", model, "--served-model-name", name, "--disable-log-stats", "--no-enable-log-requests",
        *(f"--{key.replace('_', '-')}" + ("" if value is True else f"={shown_to_vllm(value)}")
          for key, value in options.items() if key != "disable_log_stats"),
    ]  # fmt: skip


def shown_to_vllm(value: Any) -> str:
    """On its command line."""
    return json.dumps(value) if isinstance(value, dict) else str(value)


def engine(model: str) -> dict[str, Any]:
    """vLLM's arguments, the same for all."""
    import torch
    from serving.model import engine_options

    section = recipes.Cluster()
    return engine_options(int(torch.cuda.is_available()), positions(model), section.kv_cache_gib)


def plain(model: str, name: str, port: int) -> None:
    """ray.serve.llm as it comes, until it is interrupted."""
    import ray
    from ray import serve
    from ray.serve.llm import LLMConfig, LLMServingArgs, build_openai_app

    ray.init(address="local", num_cpus=max(4, os.cpu_count() or 1), include_dashboard=False, logging_level="error")
    options = engine(model)
    gpu = "tensor_parallel_size" in options
    config = LLMConfig(
        model_loading_config={"model_id": name, "model_source": model}, engine_kwargs=options,
        placement_group_config={"bundles": [{"GPU": 1} if gpu else {"CPU": 1}]}, log_engine_metrics=False,
        deployment_config={"num_replicas": 1, "max_ongoing_requests": 1000},
    )  # fmt: skip
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(build_openai_app(LLMServingArgs(llm_configs=[config])))
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        serve.shutdown()


# the assistant under load --------------------------------------------------------------------------------------------


def during(port: int, name: str, act: Callable[[], object], on: Callable[[], bool]) -> Load:
    """The most clients, until some time after `on` holds no more; `act` in between."""
    timer = threading.Timer(AROUND_SECONDS, act)
    timer.start()
    load = asyncio.run(loaded(port, name, CLIENTS[-1], 2 * AROUND_SECONDS, on))
    after = asyncio.run(loaded(port, name, CLIENTS[-1], AROUND_SECONDS))
    for key in ("seconds", "tokens", "answers", "failures"):
        setattr(load, key, getattr(load, key) + getattr(after, key))
    return load


def replicas(server: psutil.Process) -> list[psutil.Process]:
    """Of the model."""
    found = []
    for process in server.children(recursive=True):
        with suppress(psutil.Error):
            if "ServeReplica" in (title := " ".join(process.cmdline())) and ":model" in title:
                found.append(process)
    return found


def commit_newer(manifest: Path) -> None:
    """The same model once more, as one made now."""
    told = json.loads(manifest.read_text())
    told |= {"created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "content_hash": os.urandom(32).hex()}
    manifest.write_text(json.dumps(told))


def megabytes(server: psutil.Process) -> float:
    total = 0
    for process in [server, *server.children(recursive=True)]:
        with suppress(psutil.Error):
            total += process.memory_full_info().uss
    return total / 1e6


def soaked(port: int, name: str, minutes: float, server: psutil.Process) -> tuple[Load, list[float]]:
    """The most clients for minutes, and the megabytes that the server and all its processes hold to themselves: the
    most in each tenth of the time."""
    seen: list[float] = []
    ended = threading.Event()

    def look() -> None:
        while not ended.wait(minutes * 60 / 50):
            seen.append(megabytes(server))

    thread = threading.Thread(target=look)
    thread.start()
    load = asyncio.run(loaded(port, name, CLIENTS[-1], minutes * 60))
    ended.set()
    thread.join()
    return load, [max(seen[len(seen) * tenth // 10 : max(1, len(seen) * (tenth + 1) // 10)]) for tenth in range(10)]


def fuzzed(program: str, requests: int, port: int, name: str, folder: Path) -> str:
    """What the assistant's log tells of at least so many requests: every round has others."""

    def statuses() -> list[int]:
        files = sorted(folder.glob("*/logs/access-*.jsonl"))
        lines = [line for file in files for line in file.read_text().split("\n") if line]  # a path may hold U+2028
        return [json.loads(line)["status"] for line in lines]

    (folder / "hooks.py").write_text(HOOKS.replace("{name}", name))
    environment = os.environ | {"SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(folder)}
    before = len(statuses())
    for seed in range(1, 100):
        if len(statuses()) - before >= requests:
            break
        subprocess.run(
            [program, "run", f"http://127.0.0.1:{port}/openapi.json", "--phases", "coverage,fuzzing", "--seed",
             str(seed), "--max-examples", "1000", "--workers", str(FUZZ_WORKERS), "--checks", "not_a_server_error",
             "--continue-on-failure", "--request-timeout", "60"],
            env=environment, cwd=folder,
        )  # fmt: skip
    counts = Counter(statuses()[before:])
    told = ", ".join(f"{count:,} with {status}" for status, count in sorted(counts.items()))
    failed = sum(count for status, count in counts.items() if status >= 500)
    return f"- {counts.total():,} requests by schemathesis: {told}; {failed} of 500 and above."


def shown(load: Load, what: str) -> str:
    failed = f"{len(load.failures)} failed" + (f" ({'; '.join(sorted(set(load.failures)))})" if load.failures else "")
    return f"- {what}: {load.answers:,} answers, {failed}, {load.rate:,.0f} tokens a second."


def table(loads: dict[tuple[str, int], list[Load]]) -> str:
    def rate(system: str, clients: int) -> float:
        return statistics.median(load.rate for load in loads[system, clients])

    def first(system: str, clients: int) -> float:
        return statistics.median(load.first for load in loads[system, clients])

    lines = [
        "| clients | " + " | ".join(f"{title}, tokens/s" for title in SYSTEMS.values())
        + " | the assistant's share of ray.serve.llm's | "
        + " | ".join(f"{title}, ms to first token" for title in SYSTEMS.values()) + " |",
        "| --- " * (2 + 2 * len(SYSTEMS)) + "|",
    ]  # fmt: skip
    for clients in CLIENTS:
        share = rate("assistant", clients) / rate("plain", clients)
        lines.append(
            f"| {clients} | " + " | ".join(f"{rate(system, clients):,.0f}" for system in SYSTEMS)
            + f" | {share:.0%} | " + " | ".join(f"{first(system, clients):.1f}" for system in SYSTEMS) + " |"
        )  # fmt: skip
    least = min(rate("assistant", clients) / rate("plain", clients) for clients in CLIENTS)
    more = first("assistant", 1) - first("plain", 1)
    lines += [
        "",
        f"Aimed at: at least {SHARE:.0%} of ray.serve.llm's throughput (the least is {least:.0%}: "
        f"{'reached' if least >= SHARE else 'missed'}), and at most {MILLISECONDS} ms more to the first token of one "
        f"client ({more:+.1f} ms: {'reached' if more <= MILLISECONDS else 'missed'}).",
    ]
    failures = [each for some in loads.values() for load in some for each in load.failures]
    return "\n".join(lines + ([f"Failed requests: {len(failures)} ({failures[0]})."] if failures else []))


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("recipe", nargs="?", help="of a model that is there")
    arguments.add_argument("overrides", nargs="*", metavar="key=value")
    arguments.add_argument("--seconds", type=float, default=30, help="of each number of clients")
    arguments.add_argument("--rounds", type=int, default=3, help="0: only what the following ask for")
    arguments.add_argument("--soak", type=float, metavar="MINUTES")
    arguments.add_argument("--kill", action="store_true", help="SIGKILL the model's replica")
    arguments.add_argument("--roll", action="store_true", help="have a newer model take over")
    arguments.add_argument("--fuzz", metavar="PROGRAM", help="schemathesis")
    arguments.add_argument("--requests", type=int, default=10_000, help="of --fuzz, at least")
    arguments.add_argument("--write", action="store_true", help="put the figures into docs/benchmarks.md")
    arguments.add_argument("--plain", nargs=3, metavar=("MODEL", "NAME", "PORT"), help=argparse.SUPPRESS)
    options = arguments.parse_intermixed_args()
    if options.plain:
        plain(*options.plain[:2], int(options.plain[2]))
        return

    from serving.app import name_of, newest_model

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # and the servers with it
    chosen = recipes.load(options.recipe, options.overrides)
    name, found = name_of(chosen), newest_model(chosen)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="webtochat-benchmark-") as temporary:
        folder = Path(temporary)
        mine = folder / chosen.name / found.stage
        shutil.copytree(found.local(), mine)
        overrides = [*options.overrides, f"workspace={folder}", "serve.newer_model_seconds=2", "serve.access_log=true"]
        commands = {
            system: command(system, options.recipe, overrides, str(mine / "model"), name, port) for system in SYSTEMS
        }
        loads: dict[tuple[str, int], list[Load]] = {(system, n): [] for system in SYSTEMS for n in CLIENTS}
        for number in range(options.rounds):
            for system in SYSTEMS:
                with running(commands[system], port, name, folder / f"{system}.log"):
                    for clients in CLIENTS:
                        asyncio.run(loaded(port, name, clients, min(2, options.seconds)))
                        load = asyncio.run(loaded(port, name, clients, options.seconds))
                        loads[system, clients].append(load)
                        print(number, system, clients, f"{load.rate:.0f} tokens/s, {load.first:.1f} ms", flush=True)
        told = table(loads) if options.rounds else ""
        if options.soak or options.kill or options.roll or options.fuzz:
            told += f"\n\nThe assistant with {CLIENTS[-1]} clients:\n\n"
            with running(commands["assistant"], port, name, folder / "assistant.log") as process:
                server = psutil.Process(process.pid)
                if options.soak:
                    load, looks = soaked(port, name, options.soak, server)
                    told += shown(load, f"{options.soak:g} minutes") + " Megabytes, the most in each tenth of them: "
                    told += ", ".join(f"{look:,.0f}" for look in looks) + ".\n"
                if options.fuzz:
                    told += fuzzed(options.fuzz, options.requests, port, name, folder) + "\n"
                if options.roll:
                    log = folder / "assistant.log"
                    load = during(
                        port, name, lambda: commit_newer(mine / "manifest.json"),
                        lambda: "now with" not in log.read_text(),
                    )  # fmt: skip
                    told += shown(load, "while a newer model took over") + "\n"
                if options.kill:
                    [old] = replicas(server)
                    load = during(port, name, old.kill, lambda: replicas(server) in ([], [old]))
                    told += shown(load, "while its model's replica was killed") + "\n"
    print(told)
    if options.write:
        more = "".join(f" --{key}" for key in ("kill", "roll") if getattr(options, key))
        more += f" --soak {options.soak:g}" if options.soak else ""
        more += f" --fuzz schemathesis --requests {options.requests}" if options.fuzz else ""
        words = ["benchmarks/serve.py", options.recipe, *options.overrides, f"--seconds {options.seconds:g}"]
        record("Serving", f"{' '.join(words)} --rounds {options.rounds}{more} --write", told)


if __name__ == "__main__":
    main()
