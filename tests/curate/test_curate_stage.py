"""Measure and curate under Ray: real pages, damaged files, other thresholds, any number of workers."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import ray
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from webtochat import storage
from webtochat.artifact import Artifact
from webtochat.crawl.stage import crawl
from webtochat.curate.stage import PAGE, curate, measure, quality
from webtochat.errors import UserError
from webtochat.recipe import Recipe
from webtochat.recipe_pages import Limits
from webtochat.run import Run, Screen

sys.path.insert(0, str(Path(__file__).parent))
ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "data" / "warc"
TOPICS = [
    "mill", "river", "bridge", "boat", "garden", "market", "forest", "school", "harbour", "tower", "meadow", "station",
]  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def cluster(tmp_path_factory: pytest.TempPathFactory, s3_endpoint: str):
    store = {key: value for key, value in os.environ.items() if key.startswith("AWS_")}
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
        _temp_dir=str(tmp_path_factory.mktemp("ray", numbered=False))[:60],
        runtime_env={"env_vars": {"PYTHONPATH": f"{ROOT / 'platform'}:{Path(__file__).parent}"} | store},
    )  # fmt: skip
    yield
    ray.shutdown()


def prose(topic: str) -> str:
    """Six sentences about something: of no two topics alike, but some of them near duplicates."""
    lines = [
        f"The {topic} of our town is older than anybody can say, and it has a name of its own.",
        f"In the morning the people go to the {topic} with bread, cheese and a bottle of water.",
        f"A stranger once asked the mayor why the {topic} was never painted in bright colours.",
        f"Nobody could answer, but the whole council laughed about the {topic} until the evening.",
        f"When it rains, the {topic} looks as if it were made of silver and of glass.",
        f"Children have drawn the {topic} on every wall that they could reach with chalk.",
    ]
    return "".join(f"<p>{line}</p>" for line in lines)


def warc(pages: list[tuple[str, bytes, str]]) -> bytes:
    """A gzipped WARC file of (address, body, content type)."""
    sink = io.BytesIO()
    writer = WARCWriter(sink, gzip=True)
    for address, body, kind in pages:
        headers = StatusAndHeaders("200 OK", [("Content-Type", kind)], protocol="HTTP/1.1")
        writer.write_record(writer.create_warc_record(address, "response", io.BytesIO(body), http_headers=headers))
    return sink.getvalue()


def html(topic: str) -> bytes:
    return f"<html><head><title>{topic}</title></head><body><main>{prose(topic)}</main></body></html>".encode()


def run_of(workspace: Path | str, paths: str, **sections: object) -> Run:
    recipe = {"name": "r", "workspace": str(workspace), "crawl": {"source": "warc", "paths": paths}, **sections}
    return Run(Recipe.model_validate(recipe), Screen(open(os.devnull, "w")))


def rows(artifact: Artifact, folder: str) -> list[dict]:
    return [row for path in artifact.files(folder) for row in pq.read_table(path).to_pylist()]


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for number in range(4):
        found = [(f"http://{t}.example/{number}", html(t), "text/html") for t in TOPICS[number * 3 : number * 3 + 3]]
        found.append((f"http://copy.example/{number}", html(TOPICS[0]), "text/html"))
        found.append((f"http://pdf.example/{number}", b"%PDF-1.4", "application/pdf"))
        (folder / f"part-{number}.warc.gz").write_bytes(warc(found))
    return folder


def test_everything_is_kept_or_removed_with_a_reason(pages: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, f"{pages}/*.warc.gz", curate={"near_duplicates": None})
    crawl(run)
    measured, curated = measure(run), curate(run)
    counts = curated.manifest.counts
    assert counts["measured"] == measured.manifest.counts["rows"] == 20
    kept, removed = rows(curated, "kept/"), rows(curated, "removed/")
    assert (len(kept), len(removed)) == (counts["kept"], sum(counts["removed"].values())) == (12, 8)
    reasons = Counter(f"{row['step']}.{row['reason']}" for row in removed)
    assert reasons == counts["removed"] == {"http.not_html": 4, "duplicates.exact_duplicate": 4}
    # The first in (file_path, offset) stays: the page itself, which stands before its copies.
    assert "http://copy.example/0" not in {row["url"] for row in kept}
    assert [(row["file_path"], row["offset"]) for row in kept] == sorted((r["file_path"], r["offset"]) for r in kept)
    assert str(pages) not in str(kept) and all(row["language"] == "en" and row["text"] for row in kept)


def test_other_thresholds_read_no_warc_and_hashes_do_not_know_the_workers(pages: Path, tmp_path: Path) -> None:
    copy = tmp_path / "pages"
    copy.mkdir()
    for path in pages.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    run = run_of(tmp_path / "one", f"{copy}/*.warc.gz", cluster={"measure_workers": 1})
    two = run_of(tmp_path / "two", f"{copy}/*.warc.gz", cluster={"measure_workers": 2})
    for each in (run, two):
        crawl(each)
        measure(each)
    assert curate(run).content_hash == curate(two).content_hash
    for path in copy.iterdir():
        path.unlink()
    run.discard("curate")
    run.recipe.curate.gopher.min_words = 10_000
    assert curate(run).manifest.counts["removed"]["gopher_quality.min_words"] == 16


def test_the_users_own_steps(pages: Path, tmp_path: Path) -> None:
    steps = [
        {"path": "python:own_steps:Classifier", "arguments": {"word": "bread"}, "name": "bread_counter"},
        {"path": "python:own_steps:no_rivers"},
        {"path": "python:own_steps:vowels"},
        {"path": "python:own_steps:sometimes_broken"},
    ]
    sections = {"measure": {"steps": steps}, "cluster": {"steps": {"bread_counter": {"batch": 2, "number": 2}}}}
    run = run_of(tmp_path, f"{pages}/*.warc.gz", curate={"near_duplicates": None}, **sections)
    crawl(run)
    measured = measure(run)
    assert measured.manifest.counts["own"] == {"bread": 13, "together": 13, "vowels": 15}
    curated = curate(run)
    assert curated.manifest.counts["removed"] == {
        "http.not_html": 4, "duplicates.exact_duplicate": 4, "bread_counter.too_towering": 1, "no_rivers.river": 1,
        "sometimes_broken.error_KeyError": 1,
    }  # fmt: skip
    own = [dict(row["own"]) for row in rows(curated, "kept/")]
    assert len(own) == 9 and {each["bread"] for each in own} == {1.0}
    assert max(each["together"] for each in own) == 2.0
    run.discard("curate")
    run.recipe.curate.own = {"vowels": Limits(at_least=0.99)}
    assert curate(run).manifest.counts["removed"]["own.min_vowels"] == 13
    run.discard("curate")
    run.recipe.curate.own = {"vowles": Limits(at_least=0.99)}
    with pytest.raises(UserError, match=r"curate\.own\.vowles: none of measure\.steps measured it"):
        curate(run)


def test_pages_with_texts_of_evaluation_sets_go_with_the_set_named(pages: Path, tmp_path: Path) -> None:
    asked = "In the morning the people go to the bridge with bread, cheese and a bottle of water."
    (tmp_path / "towns.jsonl").write_text(json.dumps({"question": asked}))
    run = run_of(tmp_path, f"{pages}/*.warc.gz", curate={"evaluation_sets": {"towns": [f"{tmp_path}/towns.jsonl"]}})
    crawl(run)
    measure(run)
    curated = curate(run)
    (row,) = (row for row in rows(curated, "removed/") if row["step"] == "contamination")
    assert (row["reason"], row["value"]) == ("towns", 5.0) and row["title"] == "bridge"
    page = Path(run.directory, PAGE).read_text()
    assert "contamination" in page and "http://bridge.example/0" in page and "kept in its place: http://mill" in page
    (tmp_path / "towns.jsonl").write_text(json.dumps({"question": asked + " Who are they?"}))
    with pytest.raises(UserError, match="evaluation_sets"):
        curate(run)


def test_a_quality_model_is_trained_and_then_measured_by(pages: Path, tmp_path: Path) -> None:
    good = [{"text": f"The council of the {topic} met and voted on its budget."} for topic in TOPICS * 20]
    (tmp_path / "good.jsonl").write_text("".join(json.dumps(row) + "\n" for row in good))
    run = run_of(tmp_path, f"{pages}/*.warc.gz", quality={"good": [f"{tmp_path}/good.jsonl"]})
    crawl(run)
    measure(run)
    curate(run)
    trained = quality(run)
    assert trained.manifest.counts["good"]["trained"] > 5 and trained.path("model.bin") in trained.files()
    sections = {"measure": {"quality_model": trained.path("model.bin")}, "curate": {"min_quality": 1.0}}
    judged = run_of(tmp_path / "judged", f"{pages}/*.warc.gz", **sections)
    crawl(judged)
    measure(judged)
    removed = [row for row in rows(curate(judged), "removed/") if row["step"] == "quality"]
    assert removed and {row["reason"] for row in removed} == {"min_quality"} and 0 <= removed[0]["quality"] < 1
    judged.recipe.measure.quality_model = None
    with pytest.raises(UserError, match=r"curate\.min_quality"):
        curate(judged)


def test_a_part_that_a_killed_run_left_is_not_made_again(pages: Path, tmp_path: Path) -> None:
    run = run_of(tmp_path, f"{pages}/*.warc.gz")
    crawl(run)
    whole = measure(run)
    storage.delete(whole.path("manifest.json"))
    draft = whole.path("draft.json")
    identity = whole.manifest.identity | {"inputs": whole.manifest.inputs}

    storage.write_bytes(draft, json.dumps({"identity": identity, "seconds": 1.0}).encode())
    parts = sorted(Path(path) for path in whole.files())
    parts[-1].unlink()
    untouched = {path: path.stat().st_mtime_ns for path in parts[:-1]}
    assert measure(run).content_hash == whole.content_hash
    assert {path: path.stat().st_mtime_ns for path in parts[:-1]} == untouched


def test_a_worker_that_is_killed_costs_its_file_and_no_count(pages: Path, tmp_path: Path) -> None:
    """A step of the user's kills its process half-way through the second file, the first time."""
    marker = tmp_path / "marker"
    step = {"path": "python:own_steps:dies_once", "arguments": {"where": "boat", "marker": str(marker)}}
    hashes = []
    for name in ("killed", "undisturbed"):  # in the second run the marker is there
        run = run_of(tmp_path / name, f"{pages}/*.warc.gz", measure={"steps": [step]})
        crawl(run)
        assert marker.exists() == (name == "undisturbed")
        hashes.append((measure(run).content_hash, curate(run).content_hash))
        assert run.open("curate").manifest.counts["measured"] == 20
    assert hashes[0] == hashes[1]


def test_everything_over_a_store(pages: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """WARC files, lists, evaluation sets and every artifact on S3; the same content hashes as on disk."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    rain = "when it rains the boat looks as if it were made of silver and of glass"
    storage.write_bytes(f"{bucket}/set.jsonl", json.dumps({"question": rain}).encode())
    storage.write_bytes(f"{bucket}/domains.txt", b"river.example")
    hashes = []
    for path in sorted(pages.iterdir()):
        storage.write_bytes(f"{bucket}/warc/{path.name}", path.read_bytes())
    for root, warcs in ((str(tmp_path), str(pages)), (bucket, f"{bucket}/warc")):
        sections = {"measure": {"urls": {"domains": [f"{bucket}/domains.txt"]}},
                    "curate": {"evaluation_sets": {"rain": [f"{bucket}/set.jsonl"]}}}  # fmt: skip
        run = run_of(f"{root}/runs", f"{warcs}/*.warc.gz", **sections)
        listed = crawl(run)
        measured = measure(run)
        curated = curate(run)
        assert curated.manifest.counts["removed"]["contamination.rain"] == 1
        assert curated.manifest.counts["removed"]["url.blocked_domain"] == 1
        assert storage.exists(f"{root}/runs/r/{PAGE}")
        hashes.append([made.manifest.files for made in (measured, curated)])
        assert listed.manifest.counts["files"] == 4
    assert hashes[0] == hashes[1]


def test_bad_input_is_counted_and_the_rest_goes_on(tmp_path: Path) -> None:
    good = [(f"http://{topic}.example/", html(topic), "text/html") for topic in TOPICS[:6]]
    hostile = [
        ("http://deep.example/", b"<html><body>" + b"<div>" * 100_000 + b"x", "text/html"),
        ("http://large.example/", b"<html>" + b"word " * 21_000_000, "text/html"),
        ("http://charset.example/", b"<html><p>caf\xe9</p>" * 50, "text/html; charset=klingon"),
        ("http://nothing.example/", b"", "text/html"),
    ]
    (tmp_path / "a.warc.gz").write_bytes(warc(good[:3] + hostile + good[3:]))
    member = gzip.compress(b"noise" * 1000)
    (tmp_path / "b.warc.gz").write_bytes(warc(good[:1])[:-40] + b"\1" * 40 + member + warc(good[1:2])[:-100])
    (tmp_path / "c.warc.gz").write_bytes(b"")
    run = run_of(tmp_path / "runs", f"{tmp_path}/*.warc.gz", measure={"max_page_bytes": 5_000_000, "page_seconds": 2},
                 curate={"near_duplicates": None})  # fmt: skip
    crawl(run)
    measure(run)
    curated = curate(run)
    removed = curated.manifest.counts["removed"]
    assert removed["extract.timeout"] == removed["read.too_large"] == removed["extract.unknown_charset"] == 1
    assert removed["extract.empty"] == 1 and curated.manifest.counts["kept"] == 6
    assert sum(removed.get(f"read.{reason}", 0) for reason in ("bad_gzip", "truncated", "not_warc")) >= 1


def test_near_duplicates_of_this_run_and_of_earlier_ones(tmp_path: Path) -> None:
    changed = (
        html("mill").replace(b"cheese", b"butter").replace(b"council laughed", b"council (a.b@c.example.org) laughed")
    )
    for number, page in enumerate([html("mill"), changed, html("boat")]):
        (tmp_path / f"{number}.warc.gz").write_bytes(warc([(f"http://{number}.example/", page, "text/html")]))
    joint = run_of(tmp_path / "joint", f"{tmp_path}/*.warc.gz")
    first, later = (
        run_of(tmp_path / "first", f"{tmp_path}/1*"),
        run_of(
            tmp_path / "later", f"{tmp_path}/*.warc.gz", curate={"earlier": [str(tmp_path / "first" / "r" / "curate")]}
        ),
    )
    for run in (joint, first, later):
        crawl(run)
        measure(run)
        curate(run)
    assert [row["url"] for row in rows(joint.open("curate"), "kept/")] == ["http://0.example/", "http://2.example/"]
    assert [row["url"] for row in rows(later.open("curate"), "kept/")] == ["http://2.example/"]
    assert later.open("curate").manifest.counts["removed"] == {
        "duplicates.exact_duplicate": 1, "duplicates.near_duplicate": 1
    }  # fmt: skip
    [kept] = rows(first.open("curate"), "kept/")
    assert "the whole council (email@example.com) laughed" in kept["text"]
    assert first.open("curate").manifest.counts["pii"] == {"email": 1}


def test_real_pages(tmp_path: Path) -> None:
    path = SHARED / "pages-00000.warc.gz"
    if not path.exists():
        assert not os.environ.get("CI"), f"{path} must be there in CI"
        pytest.skip(f"no {path}")
    run = run_of(tmp_path, str(path), measure={"languages": {"en": 0.6}})
    crawl(run)
    measure(run)
    counts = curate(run).manifest.counts
    assert counts["measured"] == 600 and counts["kept"] + sum(counts["removed"].values()) == 600
    assert 100 <= counts["kept"] <= 400 and counts["removed"]["language.other_language"] > 100
