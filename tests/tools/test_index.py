"""The index: the same documents make the same files, however often and in however many pieces of work."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from webtochat import artifact, storage
from webtochat.artifact import Artifact, Draft
from webtochat.errors import UserError
from webtochat.recipe import Recipe
from webtochat.recipe_tools import Index, WebTool
from webtochat.run import Run, Screen
from webtochat.tools import index as making
from webtochat.tools import stage
from webtochat.tools.index import Document, SearchIndex, batches, write_meta, write_segment

ROOT = Path(__file__).resolve().parents[2]
FILES, PER_FILE = 3, 40
WORDS = ["baker", "bread", "village", "river", "mountain", "running", "library", "garden", "winter", "music"]


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT / "platform")}},
    )  # fmt: skip
    yield
    ray.shutdown()


def row(number: int) -> dict[str, str | None]:
    rng = random.Random(number)
    text = f"Document number{number}.\n" + " ".join(rng.choices(WORDS, k=60))
    title = None if number == 7 else " " if number == 8 else f"Title {number}"
    url = None if number == 9 else f"http://a.test/{number}"
    return {"id": f"<id:{number}>", "url": url, "title": title, "text": text}


ROWS = [row(number) for number in range(FILES * PER_FILE)]


def run_of(workspace: Path | str, **settings: object) -> Run:
    return Run(
        Recipe.model_validate({"name": "x", "workspace": str(workspace), "index": settings}), Screen(io.StringIO())
    )


def curated(run: Run, rows: list[dict[str, str | None]] = ROWS, files: int = FILES) -> Artifact:
    draft = artifact.begin(storage.join(run.directory, "curate"), "curate", {}, [])
    assert isinstance(draft, Draft)
    schema = pa.schema([(name, pa.string()) for name in ("id", "url", "title", "text")])
    per_file = -(-len(rows) // files)
    for number in range(files):
        part = rows[number * per_file : (number + 1) * per_file]
        with storage.writing(draft.path("kept", f"{number:05d}.parquet")) as local:
            pq.write_table(pa.Table.from_pylist(part, schema), local, row_group_size=16)
    return draft.commit(counts={"kept": len(rows)}, summary="")


@pytest.fixture(scope="module")
def made(cluster: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Artifact]:
    run = run_of(tmp_path_factory.mktemp("index"))
    curated(run)
    return run, stage.index(run)


def search(found: SearchIndex, query: str, results: int = 5) -> list[str]:
    return [each.url for each in found.search(query, WebTool(results=results, snippet_characters=100))]


def test_every_document_is_found_and_opened(made: tuple[Run, Artifact]) -> None:
    found = SearchIndex(made[1].local())
    assert found.documents == made[1].manifest.counts["documents"] == len(ROWS)
    for number, each in enumerate(ROWS):
        address = each["url"] or each["id"]
        assert search(found, f"number{number}")[0] == address
        page = found.page(str(address))
        assert page is not None and page.text == each["text"]
        assert page.title == (f"Document number{number}." if number in (7, 8) else each["title"])
    assert found.page("http://a.test/") is None and found.page("") is None


def test_words_that_stand_together_count_more_and_are_shown() -> None:
    filler = "some other words of no use to anybody here. " * 9
    documents = [
        Document("apart", "a", f"Ada Birch and Bo Ash came. Ada and Ash {filler}Ash Ash Ada Ada"),
        Document("together", "b", f"{filler}Then it was said that Ada Ash likes tea very much. {filler}" * 3),
        Document("Ünïcode", "c", "é" * 300 + " Zoë Ünger lives there " + "ü" * 300),
    ]  # fmt: skip
    found = index_of(documents, Index())
    section = WebTool(snippet_characters=60)
    first = found.search("about Ada Ash", section)[0]
    assert first.url == "b" and "Ada Ash likes tea" in first.snippet and len(first.snippet) <= 60
    assert found.search("about Ada Ash", section.model_copy(update={"phrase_weight": 0.0}))[0].url == "a"
    assert "Zoë Ünger" in found.search("Zoë Ünger", section)[0].snippet
    counted = [found.documents_with(name, most=2) for name in ("Ada Ash", "Ash Bo", "Ada", "Zoë", "nobody", "?")]
    assert counted == [1, 0, 2, 1, 0, 0]


def test_words_are_compared_by_stem_and_titles_count_more() -> None:
    documents = [
        Document("Rivers", "a", "nothing of it here"), Document("Other", "b", "she runs by the river"),
        Document("Other", "c", "he was running"),
    ]  # fmt: skip
    with_stems, without = (index_of(documents, Index(stemmer=stemmer)) for stemmer in ("english", None))
    assert search(with_stems, "what is the run")[:2] == ["c", "b"] and search(without, "what is the run") == ["b"]
    assert search(with_stems, "river") == ["a", "b"]
    assert search(with_stems, "the") == ["b"], "a query of nothing else is searched for as it is"


def index_of(documents: list[Document], section: Index | None = None) -> SearchIndex:
    import tempfile

    section = section or Index()
    with tempfile.TemporaryDirectory() as directory:
        entries = []
        for number, batch in enumerate(batches(documents, section)):
            entries += write_segment(batch, section, str(number), directory)
        write_meta(entries, section, directory)
        return SearchIndex(directory)


@pytest.mark.parametrize(
    "query",
    [
        "", " ", "(" * 100_000, "title:", "[a TO", '"', "*", "a AND", "NOT a", "/.*/", "a^9", "\0", "日本語", "~",
        "url:http", "bread " * 50_000, "-bread", "'; DROP TABLE", "x" * 100_000, "<|im_start|>",
    ],
)  # fmt: skip
def test_any_text_is_a_query(made: tuple[Run, Artifact], query: str) -> None:
    assert isinstance(search(SearchIndex(made[1].local()), query), list)


def test_the_same_documents_make_the_same_bytes(made: tuple[Run, Artifact], tmp_path: Path) -> None:
    run = run_of(tmp_path)
    curated(run)
    assert stage.index(run).manifest.files == made[1].manifest.files
    names = sorted(made[1].manifest.files)
    assert "meta.json" in names and not any("lock" in name or "managed" in name for name in names)


def test_segments_are_cut_by_size_and_found_together(tmp_path: Path) -> None:
    text = "bread of the village " * 10_000
    documents = [Document(f"t{number}", f"u{number}", f"number{number} {text}") for number in range(60)]
    section = Index(segment_mb=4)
    assert [len(batch) for batch in batches(documents, section)] == [20, 20, 20]
    files = []
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        entries = []
        for number, batch in enumerate(batches(documents, section)):
            entries += write_segment(batch, section, str(number), str(folder))
        write_meta(entries, section, str(folder))
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert files[0] == files[1] and len(entries) == 3
    found = SearchIndex(str(tmp_path / "0"))
    assert all(search(found, f"number{number}") == [f"u{number}"] for number in range(60))


def test_odd_text_that_takes_more_memory_still_makes_the_same_bytes(tmp_path: Path) -> None:
    """Short words only: more than one segment from one batch."""
    documents = [Document("", str(number), f"number{number} " + "a b " * 50_000) for number in range(200)]
    files = []
    for attempt in range(2):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        entries = write_segment(documents, Index(segment_mb=4), "0", str(folder))
        files.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert len(entries) > 1 and files[0] == files[1]


def test_it_is_reused_and_another_is_refused(made: tuple[Run, Artifact]) -> None:
    run, first = made
    assert stage.index(run).manifest == first.manifest
    with pytest.raises(UserError, match=r"index\.stemmer"):
        stage.index(run_of(run.recipe.workspace, stemmer=None))


def test_killed_half_way_goes_on_to_the_same_hash(made: tuple[Run, Artifact], tmp_path: Path) -> None:
    run = run_of(tmp_path)
    last = Path(curated(run).path("kept", f"{FILES - 1:05d}.parquet"))
    content = last.read_bytes()
    last.write_bytes(b"torn")
    with pytest.raises(ray.exceptions.RayTaskError, match="Parquet"):
        stage.index(run)
    directory = Path(run.directory, "index")
    assert not (directory / "manifest.json").exists() and not (directory / "meta.json").exists()
    noted = list((directory / "_scratch" / "segments").iterdir())
    assert 1 <= len(noted) < FILES
    before = {path: path.stat().st_mtime_ns for path in directory.glob("*.store")}
    last.write_bytes(content)
    again = stage.index(run)
    assert again.manifest.files == made[1].manifest.files
    assert len([path for path, when in before.items() if path.stat().st_mtime_ns == when]) >= len(noted)


@pytest.mark.parametrize("rows", [[], ROWS[:0]])
def test_nothing_to_index_is_said(cluster: None, tmp_path: Path, rows: list[dict[str, str | None]]) -> None:
    run = run_of(tmp_path)
    curated(run, rows, 1)
    with pytest.raises(UserError, match="no document"):
        stage.index(run)


def test_an_unknown_language_is_said(cluster: None, tmp_path: Path) -> None:
    run = run_of(tmp_path, stemmer="klingon")
    curated(run)
    with pytest.raises((UserError, ray.exceptions.RayTaskError), match=r"index\.stemmer=klingon"):
        stage.index(run)


def test_a_reader_writes_nothing_beside_the_index(made: tuple[Run, Artifact]) -> None:
    before = sorted(os.listdir(made[1].directory))
    SearchIndex(made[1].local())
    assert sorted(os.listdir(made[1].directory)) == before


def test_it_is_read_from_remote_storage_by_the_nodes_cache(cluster: None, bucket: str) -> None:
    run = run_of(bucket)
    section = Index()
    draft = artifact.begin(storage.join(run.directory, "index"), "index", {}, [])
    assert isinstance(draft, Draft)
    entries = write_segment([Document("Bread", "u", "of a baker")], section, "0/0", run.directory + "/index")
    write_meta(entries, section, run.directory + "/index")
    kept = draft.commit(counts={}, summary="")
    assert search(SearchIndex(kept.local()), "bakers") == ["u"]


def test_long_words_and_titles_are_cut(cluster: None, tmp_path: Path) -> None:
    run = run_of(tmp_path)
    curated(run, [{"id": "i", "url": "u", "title": "t" * 5000, "text": "w" * 70_000 + " bread"}], 1)
    found = SearchIndex(stage.index(run).local())
    page = found.page("u")
    assert page is not None and len(page.title) == stage.LONGEST_TITLE and search(found, "bread") == ["u"]
    assert search(found, "w" * (making.LONGEST_WORD + 10)) == []
