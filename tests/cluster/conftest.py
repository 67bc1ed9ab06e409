"""cluster/local.yaml brought up on loopback, with a token, a dashboard and an MLflow server, and taken down again."""

from __future__ import annotations

import http.client
import json
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


Done = subprocess.CompletedProcess[str]


def free_port() -> int:
    """Outside the ranges that Ray's workers (10002-19999) and the system (32768 and up) give away by themselves."""
    for port in random.SystemRandom().sample(range(20_000, 32_000), 50):
        with socket.socket() as each, suppress(OSError):
            each.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port between 20000 and 32000")


@dataclass
class LocalCluster:
    directory: Path
    gcs_port: int
    dashboard_port: int
    mlflow_port: int
    token: str = field(default_factory=lambda: secrets.token_hex(32))
    started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """Of whoever holds the token."""
        clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "WEBTOCHAT_"))}
        return clean | {
            "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": self.token, "RAY_USAGE_STATS_ENABLED": "0",
            "HOME": str(self.directory), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }  # fmt: skip

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    @property
    def gcs(self) -> str:
        return f"127.0.0.1:{self.gcs_port}"

    @property
    def mlflow(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    def submit(self, *entrypoint: str, env_vars: dict[str, str], env: dict[str, str] | None = None) -> Done:
        """`ray job submit` of the working tree, followed to its end."""
        return subprocess.run(
            [RAY, "job", "submit", "--address", self.address, "--working-dir", ".",
             "--runtime-env-json", json.dumps({"env_vars": env_vars}), "--", *entrypoint],
            cwd=ROOT, env=self.environment if env is None else env, timeout=300,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def run(self, *command: str, **env_vars: str) -> Done:
        """A command on this machine that joins the cluster."""
        return subprocess.run(
            command, cwd=ROOT, env=self.environment | {"RAY_ADDRESS": self.gcs} | env_vars, timeout=120,
            capture_output=True, text=True,
        )  # fmt: skip

    def nodes(self) -> dict[str, bool]:
        """Every node that the cluster has had: its id, and whether it is alive."""
        assert self.started["ray"].poll() is None, (self.directory / "ray.log").read_text()
        asked = urllib.request.Request(f"{self.address}/api/v0/nodes", headers=self.headers)
        with urllib.request.urlopen(asked, timeout=30) as answer:
            told = json.load(answer)["data"]["result"]["result"]
        return {each["node_id"]: each["state"] == "ALIVE" for each in told}

    def up(self, name: str, command: list[str], env: dict[str, str], ready: Callable[[], bool]) -> None:
        """Starts a process and waits until it is ready. Ray gives a node thirty seconds to come up, and no more: on a
        busy machine it may need another try."""
        log = self.directory / f"{name}.log"
        for _ in range(3):
            with open(log, "wb") as sink:
                process = self.started[name] = subprocess.Popen(
                    command, env=env, stdout=sink, stderr=sink, cwd=self.directory, start_new_session=True
                )
            deadline = time.monotonic() + 120
            while process.poll() is None and time.monotonic() < deadline:
                if ready():
                    return
                time.sleep(0.3)
            end(process)
        raise TimeoutError(f"{name} does not come up: {log.read_text()}")

    def down(self) -> None:
        """Ends what was started here, and workers that name this directory. (A plain SIGTERM to `ray start --block`
        takes half a minute.)"""
        for process in self.started.values():
            end(process)
        for process in psutil.process_iter(["pid", "cmdline"]):
            if any(str(self.directory) in part for part in process.info["cmdline"] or []):
                process.kill()


def end(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def answers(url: str, headers: dict[str, str]) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5).close()
        return True
    except (OSError, http.client.HTTPException):
        return False


@pytest.fixture(scope="session")
def cluster() -> Iterator[LocalCluster]:
    directory = Path(tempfile.mkdtemp(prefix="wtc-"))  # short: Ray's sockets live in it
    local = LocalCluster(directory, free_port(), free_port(), free_port())
    config = yaml.safe_load((ROOT / "cluster" / "local.yaml").read_text())
    config["provider"]["gcs_address"] = f"127.0.0.1:{local.gcs_port}"
    (directory / "local.yaml").write_text(yaml.safe_dump(config))
    head = config["provider"]["head_node_id"]
    environment = local.environment | {
        "RAY_FAKE_CLUSTER": "1", "RAY_enable_autoscaler_v2": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_CLOUD_INSTANCE_ID": head, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": head,
    }  # fmt: skip
    try:
        local.up(
            "mlflow",
            [sys.executable, "-m", "mlflow", "server", "--host=127.0.0.1", f"--port={local.mlflow_port}", "--workers=1",
             f"--backend-store-uri=sqlite:///{directory}/mlflow.db",
             f"--artifacts-destination={directory}/mlartifacts"],
            os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true"},
            lambda: answers(f"{local.mlflow}/health", {}),
        )  # fmt: skip
        local.up(
            "ray",
            [RAY, "start", "--head", "--block", f"--port={local.gcs_port}", "--num-cpus=0",
             "--dashboard-host=127.0.0.1", f"--dashboard-port={local.dashboard_port}",
             "--dashboard-agent-listen-port=0", "--dashboard-agent-grpc-port=0",
             f"--ray-client-server-port={free_port()}", f"--temp-dir={directory}/ray",
             f"--autoscaling-config={directory}/local.yaml", "--object-store-memory=200000000"],
            environment,
            # The dashboard answers a moment before it knows of the head.
            lambda: answers(f"{local.address}/api/version", local.headers) and bool(local.nodes()),
        )  # fmt: skip
        yield local
    finally:
        local.down()
        shutil.rmtree(directory, ignore_errors=True)
