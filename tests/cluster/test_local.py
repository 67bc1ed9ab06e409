"""cluster/local.yaml: jobs come in by `ray job submit` with a token, workers come up for them and go again."""

from __future__ import annotations

import io
import json
import os
import random
import shutil
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = ["python", "jobs/pipeline.py", "recipes/demo.yaml", "--until", "curate"]
WORDS = {
    "when": "today|in spring|at noon|before dawn|on market days|after the rain|last week|now and then|for years",
    "kind": "small|grey|early|quiet|broken|wooden|narrow|bright|heavy|distant|gentle|careful|sudden|empty|patient",
    "thing": "baker|harbour|lantern|orchard|letter|bridge|teacher|garden|window|kettle|map|river|market|doctor|ladder",
    "did": "found|carried|mended|painted|followed|remembered|counted|opened|watched|moved|praised|crossed|drew",
    "how": "with care|and smiled|to be sure|that way|of course|by chance|as planned|for a friend|in good time|slowly",
}


def page(number: int) -> bytes:
    """English prose of its own that the recipe's rules keep; every fourth page is too short to keep."""
    chosen = random.Random(number)

    def sentence() -> str:
        kinds = ["when", "kind", "thing", "did", "kind", "thing", "how"]
        when, *rest = (chosen.choice(WORDS[kind].split("|")) for kind in kinds)
        return "{} the {} {} {} the {} {} {}.".format(when.capitalize(), *rest)

    lines = [sentence() for _ in range(2 if number % 4 == 3 else 24)]
    body = "".join(
        f"<p>House {number}, part {at}. {' '.join(lines[at : at + 6])}</p>" for at in range(0, len(lines), 6)
    )
    return f"<html><head><title>Page {number}</title></head><body>{body}</body></html>".encode()


@pytest.fixture(scope="module")
def warc(tmp_path_factory: pytest.TempPathFactory) -> str:
    from warcio.statusandheaders import StatusAndHeaders
    from warcio.warcwriter import WARCWriter

    path = tmp_path_factory.mktemp("warc") / "pages.warc.gz"
    with open(path, "wb") as sink:
        writer = WARCWriter(sink, gzip=True)
        for number in range(20):
            headers = StatusAndHeaders("200 OK", [("Content-Type", "text/html; charset=utf-8")], protocol="HTTP/1.1")
            writer.write_record(
                writer.create_warc_record(
                    f"http://pages.example/{number}", "response", payload=io.BytesIO(page(number)), http_headers=headers
                )
            )
    return str(path)


def test_curate_runs_on_workers_that_come_up_for_it_and_go(cluster, warc: str, tmp_path: Path) -> None:
    head = set(cluster.nodes())
    assert len(head) == 1
    done = cluster.submit(
        *PIPELINE, "name=submitted", "crawl.source=warc", f"crawl.paths={warc}",
        env_vars={"WEBTOCHAT_WORKSPACE": str(tmp_path / "runs"), "MLFLOW_TRACKING_URI": cluster.mlflow},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + logs(tmp_path)
    manifest = json.loads((tmp_path / "runs/submitted/curate/manifest.json").read_text())
    assert manifest["stage"] == "curate" and manifest["files"] and manifest["mlflow_run_id"]
    import pyarrow.parquet

    kept = pyarrow.parquet.read_table(tmp_path / "runs/submitted/curate/kept").to_pylist()
    assert 10 <= len(kept) < 20 and all("House" in row["text"] for row in kept)

    deadline = time.monotonic() + 120
    while sum(cluster.nodes().values()) > 1 and time.monotonic() < deadline:
        time.sleep(1)
    nodes = cluster.nodes()
    assert len(nodes) > 1 and {node for node, alive in nodes.items() if alive} == head


def logs(folder: Path) -> str:
    return "\n".join(path.read_text()[-3000:] for path in folder.rglob("logs/*.log"))


def test_without_the_token_nothing_is_let_in(cluster) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{cluster.address}/api/jobs/", timeout=30)
    wrong = cluster.environment | {"RAY_AUTH_TOKEN": "0" * 64}
    done = cluster.submit("python", "-c", "print('let' + ' in')", env_vars={}, env=wrong)
    assert done.returncode != 0 and "let in" not in done.stdout
    assert "nvalid token" in done.stdout or "uthentication" in done.stdout, done.stdout


def test_a_relative_workspace_is_refused_in_a_submitted_job(cluster) -> None:
    done = cluster.submit(*PIPELINE, env_vars={})
    assert done.returncode != 0 and "exit code 2" in done.stdout, done.stdout
    (error,) = {line for line in done.stdout.splitlines() if line.startswith("error: ")}
    assert "set WEBTOCHAT_WORKSPACE" in error
    assert "Traceback" not in done.stdout


def refused(cluster, **env_vars: str) -> str:
    done = cluster.run(sys.executable, "jobs/curate.py", "recipes/demo.yaml", **env_vars)
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def test_joining_without_the_token_is_told_in_one_line(cluster, tmp_path: Path) -> None:
    told = refused(cluster, RAY_AUTH_MODE="disabled", RAY_AUTH_TOKEN="", WEBTOCHAT_WORKSPACE=str(tmp_path))
    assert "if it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN" in told


def test_mlflow_on_sqlite_is_refused_on_a_cluster(cluster, tmp_path: Path) -> None:
    assert "set MLFLOW_TRACKING_URI" in refused(cluster, WEBTOCHAT_WORKSPACE=str(tmp_path))


@pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None, reason="a node with another view of the disk needs root"
)
def test_a_node_that_does_not_see_the_workspace_is_named(cluster, tmp_path: Path) -> None:
    """A second node in a mount namespace of its own, where the workspace is an empty file system."""
    (tmp_path / "shared").mkdir()
    mount = f"mount -t tmpfs tmpfs '{tmp_path}/shared'"
    start = f"exec ray start --address={cluster.gcs} --num-cpus=1 --block"
    cluster.up(
        "node", ["unshare", "--mount", "bash", "-c", f"{mount} && {start}"], cluster.environment,
        lambda: sum(cluster.nodes().values()) == 2,
    )  # fmt: skip
    told = refused(cluster, WEBTOCHAT_WORKSPACE=str(tmp_path / "shared"), MLFLOW_TRACKING_URI=cluster.mlflow)
    assert f"the workspace {tmp_path}/shared is not shared: node " in told
    assert told.count("does not see a file that the driver wrote there") == 1
    assert os.listdir(tmp_path / "shared") == ["demo"]
