"""The whole server on a model that only pretends: clients that vanish, replicas that are killed, models that roll."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import socket
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.curate import test_report
from tests.serving import slow_model
from tests.serving.test_serving import ask, free_port, post

from webtochat.artifact import Artifact
from webtochat.errors import MachineError
from webtochat.recipe import Recipe

browser = test_report.browser


class Here(NamedTuple):
    port: int
    root: Path
    recipe: Recipe
    found: Artifact
    key: str
    ray_logs: Path

    @property
    def headers(self) -> dict[str, str]:
        return {"Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}

    @property
    def head(self) -> str:
        """Of a request by hand, but for its length."""
        fields = [f"{name}: {value}\r\n" for name, value in {"Host": "127.0.0.1", **self.headers}.items()]
        return "POST /v1/chat/completions HTTP/1.1\r\n" + "".join(fields)

    def deploy(self, name: str, seconds: float = 60, **options: Any) -> None:
        """Another model in the place of the one that is served."""
        from serving import app, rollover

        manifest = self.found.manifest.model_copy(update={"content_hash": name})
        section = self.recipe.serve.model_copy(update={"start_seconds": seconds})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(app, "model", lambda *_: slow_model.deployment(name=name, **options))
            rollover.deploy(
                self.recipe.model_copy(update={"serve": section}), Artifact(self.found.directory, manifest)
            )  # fmt: skip

    def model(self) -> Any:
        from ray import serve

        [name] = [each for each in serve.status().applications if each.startswith("model-")]
        return serve.get_app_handle(name)

    def lines(self) -> list[dict[str, Any]]:
        """Of the access log."""
        logs = self.root.glob("runs/tiny/logs/access-*.jsonl")
        return [json.loads(line) for path in sorted(logs) for line in path.read_text().splitlines()]

    def chat(self, words: int = 5, stream: bool = True) -> tuple[int, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        body = {"model": "tiny", "messages": ask("Hi"), "stream": stream, "max_tokens": words}
        connection.request("POST", "/v1/chat/completions", json.dumps(body), self.headers)
        response = connection.getresponse()
        return response.status, response.read().decode()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    import ray
    from serving import keys

    root, port = tmp_path_factory.mktemp("operation"), free_port()
    text, key = keys.made("ann")
    keys.write(str(root / "keys.jsonl"), [key])
    chosen, found = slow_model.loaded(
        root, keys=str(root / "keys.jsonl"), traces=True, drain_seconds=20, limits={"requests": 40}
    )
    with slow_model.ray_serve(port):
        logs = Path(ray._private.worker._global_node.get_logs_dir_path())
        held = Here(port, root, chosen, found, text, logs)
        held.deploy("first")
        yield held


def until(condition: Callable[[], Any], seconds: float = 20) -> float:
    """How long it took."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < seconds
        time.sleep(0.02)
    return time.monotonic() - began


def test_it_is_alive_and_ready(here: Here) -> None:
    for path in ("/livez", "/healthz"):
        with urllib.request.urlopen(f"http://127.0.0.1:{here.port}{path}", timeout=30) as response:
            assert (response.status, json.loads(response.read())) == (200, {"status": "ok"})
    status, answer = post(here.port, "/v1/chat/completions", b"{}")
    assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
    status, text = here.chat()
    assert status == 200 and text.count('"content": "first "') == 5 and text.endswith("data: [DONE]\n\n")


def test_the_page_asks_for_the_key_and_keeps_it_in_its_tab(here: Here, browser: test_report.Browser) -> None:
    browser("Page.navigate", url=f"http://127.0.0.1:{here.port}/")
    browser.until("document.querySelector('#model')?.textContent === 'needs a key'")

    def typed(key: str) -> None:
        browser.run(f"key.value = '{key}', key.dispatchEvent(new Event('change'))")

    assert browser.run("!door.hidden && send.disabled")
    typed("wtc-wrong")
    browser.until("sessionStorage.getItem('key') === 'wtc-wrong' && !door.hidden")
    typed(here.key)
    browser.until("document.querySelector('#model').textContent === 'tiny' && door.hidden")
    browser.run("text.value = 'Hi', form.requestSubmit()")
    browser.until("document.querySelector('.assistant')?.textContent.startsWith('first first')")
    browser.run("running.abort()")
    assert browser.run("localStorage.length === 0 && document.cookie === ''")


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_vanishes_frees_its_place(here: Here, stream: bool) -> None:
    model = here.model()
    body = json.dumps({"model": "tiny", "messages": ask("Hi"), "stream": stream, "max_tokens": 200}).encode()
    with socket.create_connection(("127.0.0.1", here.port)) as raw:
        raw.sendall(here.head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        until(lambda: model.running.remote().result() == 1)
        if stream:
            assert raw.recv(100).startswith(b"HTTP/1.1 200")
    assert until(lambda: model.running.remote().result() == 0) < 1
    until(lambda: here.lines()[-1]["status"] == 499)
    assert here.lines()[-1]["completion_tokens"] < 100


def test_slow_clients_hold_no_place(here: Here) -> None:
    """One that never reads its answer, one that never ends its headers, one that never ends its body."""
    model = here.model()
    body = json.dumps({"model": "tiny", "messages": ask("Hi"), "stream": True, "max_tokens": 20}).encode()
    sent = (
        f"{here.head}Content-Length: {len(body)}\r\n\r\n".encode() + body,
        here.head.encode(),
        f"{here.head}Content-Length: 1000\r\n\r\n".encode() + body,
    )
    open_ones = [socket.create_connection(("127.0.0.1", here.port)) for _ in sent]
    try:
        for raw, text in zip(open_ones, sent, strict=True):
            raw.sendall(text)
        until(lambda: model.running.remote().result() == 1)
        assert until(lambda: model.running.remote().result() == 0) < 4  # its 20 words, and no more
        assert here.chat()[0] == 200
    finally:
        for raw in open_ones:
            raw.close()


def test_a_full_server(here: Here) -> None:
    answers: list[tuple[int, str]] = []
    threads = [threading.Thread(target=lambda: answers.append(here.chat(40))) for _ in range(60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _ in answers} == {200, 429}
    assert sum(status == 200 for status, _ in answers) >= 40
    assert all(text.endswith("data: [DONE]\n\n") for status, text in answers if status == 200)
    assert all('"code": "server_full"' in text for status, text in answers if status == 429)


class Load:
    """Clients that ask one after the other until they are told to stop."""

    def __init__(self, here: Here, clients: int, words: int):
        self.answers: list[tuple[int, str]] = []
        self._stopped = threading.Event()

        def work() -> None:
            while not self._stopped.is_set():
                self.answers.append(here.chat(words))

        self._threads = [threading.Thread(target=work) for _ in range(clients)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        for thread in self._threads:
            thread.join()


def test_a_killed_replica_costs_its_running_requests_alone(here: Here) -> None:
    with Load(here, 4, 20) as load:
        until(lambda: len(load.answers) >= 4)
        # What no replica had begun to answer is answered by the next one.
        until(lambda: here.model().running.remote().result() == 4)
        os.kill(here.model().pid.remote().result(), signal.SIGKILL)
        before = len(load.answers)
        until(lambda: len(load.answers) >= before + 16, 60)
    broken = [(status, text) for status, text in load.answers if status != 200 or '"error"' in text]
    assert 1 <= len(broken) <= 4
    assert all(text.endswith("data: [DONE]\n\n") for status, text in load.answers if status == 200)
    for status, text in broken:
        error = json.loads(text.split("\n\n")[-3].removeprefix("data: ") if status == 200 else text)["error"]
        assert set(error) == {"message", "type", "param", "code"} and error["type"] == "server_error"
        assert status in (200, 503), text


def test_a_newer_model_replaces_an_older_one_without_a_failed_request(here: Here) -> None:
    with Load(here, 6, 20) as load:
        until(lambda: len(load.answers) >= 6)
        here.deploy("second")
        after = len(load.answers)
        until(lambda: len(load.answers) >= after + 12)
    assert all(status == 200 and '"error"' not in text and text.endswith("[DONE]\n\n") for status, text in load.answers)
    said = ["first " in text for _, text in load.answers], ["second " in text for _, text in load.answers]
    assert any(said[0]) and any(said[1]) and not any(map(all, zip(*said, strict=True)))
    assert not any(said[0][after:])


def test_a_model_that_does_not_start_leaves_the_old_one(here: Here) -> None:
    from ray import serve

    with pytest.raises(MachineError, match="model-third"):
        here.deploy("third", seconds=4, broken=True)
    assert "second " in here.chat()[1] and set(serve.status().applications) == {"webtochat", "model-second"}


def test_metrics_for_prometheus(here: Here) -> None:
    import ray

    port = ray.nodes()[0]["MetricsExportPort"]

    def told() -> dict[str, float]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
            text = response.read().decode()
        found = re.findall(r"^ray_(webtochat_\w+?)(?:_total)?\{([^}]*)\} (\S+)$", text, re.MULTILINE)
        told = [(name, re.findall('(?:reason|kind)="(.+?)"', tags), float(value)) for name, tags, value in found]
        return {" ".join([name, *tags]): value for name, tags, value in told}

    until(lambda: "webtochat_refused server_full" in told(), 30)
    held = told()
    assert held["webtochat_tokens completion"] > 100 and held["webtochat_first_token_seconds_count"] > 10
    assert {"webtochat_running", "webtochat_waiting", "webtochat_tokens_per_second_count"} <= set(held)


def test_a_trace_of_each_answer(here: Here) -> None:
    import mlflow

    uri = f"sqlite:///{here.root}/runs/mlflow.db"
    client = mlflow.MlflowClient(tracking_uri=uri)

    def traces() -> list[Any]:
        experiment = client.get_experiment_by_name("tiny")
        return client.search_traces(locations=[experiment.experiment_id], max_results=5) if experiment else []

    until(lambda: any(len(trace.data.spans) == 2 for trace in traces()), 60)
    spans = next(trace.data.spans for trace in traces() if len(trace.data.spans) == 2)
    assert {span.span_type for span in spans} == {"AGENT", "LLM"}
    [root] = [span for span in spans if span.parent_id is None]
    assert root.attributes["key"] == "ann" and root.inputs is None and root.end_time_ns > root.start_time_ns


def test_no_secret_and_no_text_is_in_any_log(here: Here) -> None:
    lines = here.lines()
    assert {line["key"] for line in lines} == {None, "ann"}
    assert {200, 401, 429, 499} <= {line["status"] for line in lines}
    secret = here.key.removeprefix("wtc-").encode()
    files = [path for folder in (here.root, here.ray_logs) for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        held = path.read_bytes()
        assert secret not in held and b"Bearer" not in held, path
