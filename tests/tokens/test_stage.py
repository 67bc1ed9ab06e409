"""The tokenizer and tokens stages on Ray, from kept documents to shards."""

from __future__ import annotations

import io
import os
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from webtochat import artifact
from webtochat.artifact import Artifact, Draft
from webtochat.errors import UserError
from webtochat.recipe import Recipe
from webtochat.run import Run, Screen
from webtochat.tokens import counts, stage
from webtochat.tokens import tokenizer as bpe
from webtochat.tokens.shards import Split
from webtochat.tokens.tokenizer import END_OF_TEXT, Tokenizer

ROOT = Path(__file__).resolve().parents[2]
FILES, PER_FILE = 4, 60
WORDS = ["the", "old", "baker", "of", "a", "small", "town", "bread", "12", "345", "café", "Straße", "sky", "light"]


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
        runtime_env={"env_vars": {"PYTHONPATH": str(ROOT / "platform")}},
    )  # fmt: skip
    yield
    ray.shutdown()


def document(number: int) -> dict[str, str]:
    rng = random.Random(number)
    text = " ".join(rng.choices(WORDS, k=40)) + (" <|im_end|>" if number == 7 else "") + "\n"
    url = "http://[torn" if number == 8 else f"http://host-{number % 3}.example:80/{number}"
    return {"id": f"<urn:uuid:{number}>", "url": url, "text": text}


DOCUMENTS = [document(number) for number in range(FILES * PER_FILE)]


def run_of(workspace: Path, tokenizer: dict[str, object] | None = None, **tokens: object) -> Run:
    recipe = Recipe.model_validate({
        "name": "x", "workspace": str(workspace), "tokenizer": {"vocabulary": 512, **(tokenizer or {})},
        "tokens": {"sequence_length": 64, "validation_percent": 10, "packing": "best-fit", **tokens},
    })  # fmt: skip
    return Run(recipe, Screen(io.StringIO()))


def curated(run: Run, documents: list[dict[str, str]] = DOCUMENTS, files: int = FILES) -> Artifact:
    """What curate would leave: kept documents in files."""
    draft = artifact.begin(os.path.join(run.directory, "curate"), "curate", {}, [])
    assert isinstance(draft, Draft)
    os.mkdir(draft.path("kept"))
    per_file = -(-len(documents) // files)
    for number in range(files):
        rows = documents[number * per_file : (number + 1) * per_file]
        schema = pa.schema([("id", pa.string()), ("url", pa.string()), ("text", pa.string())])
        pq.write_table(pa.Table.from_pylist(rows, schema), draft.path("kept", f"part-{number:05d}.parquet"))
    size = sum(len(each["text"].encode()) for each in documents)
    return draft.commit(counts={"kept": len(documents), "kept_bytes": size}, summary="")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, Artifact, Artifact]:
    run = run_of(tmp_path_factory.mktemp("stage"))
    curated(run)
    return run, stage.tokenizer(run), stage.tokens(run)


def test_every_document_is_in_one_split_byte_for_byte(made: tuple[Run, Artifact, Artifact]) -> None:
    _, learned, tokens = made
    tokenizer = Tokenizer.load(learned.directory)
    splits = {name: Split(tokens.path(name), 64, tokenizer.vocabulary) for name in stage.SPLITS}
    found = {each.id: each for split in splits.values() for each in split.documents()}
    assert sum(sum(split.counts()) for split in splits.values()) == len(found) == len(DOCUMENTS)
    for one in DOCUMENTS:
        kept = found[one["id"]]
        assert tokenizer.decode(kept.tokens.tolist()) == one["text"] and kept.bytes == len(one["text"].encode())
        assert kept.host == ("" if "torn" in one["url"] else one["url"].removeprefix("http://").split(":")[0])
        assert not set(kept.tokens.tolist()) & tokenizer.special_ids
    counts = tokens.manifest.counts
    for name, split in splits.items():
        documents = list(split.documents())
        size = sum(each.bytes for each in documents)
        found_here = (len(documents), split.tokens, size, len(split))
        assert found_here == tuple(counts[f"{name}_{what}"] for what in ("documents", "tokens", "bytes", "windows"))
        assert sum(len(each.tokens) + 1 for each in documents) == split.tokens
    assert 5 < counts["validation_documents"] < 60
    held = {one["id"] for one in DOCUMENTS if stage.held_out(one["id"], 10)}
    assert held == {each.id for each in splits["validation"].documents()}


def test_what_no_window_holds_and_what_is_empty_is_counted(
    made: tuple[Run, Artifact, Artifact], tmp_path: Path
) -> None:
    """In all, by shard and on the screen; end to end the windows are full and the rest is left out."""
    run, _, packed = made
    other = run_of(tmp_path, packing="stream")
    curated(other)
    stage.tokenizer(other)
    streamed = stage.tokens(other)
    for tokens in (packed, streamed):
        counts = tokens.manifest.counts
        shards = counts["train_shards"]
        assert len(shards) == FILES
        for what in ("windows", "cropped", "padding"):
            assert sum(each[what] for each in shards.values()) == counts[f"train_{what}"]
        filled = counts["train_windows"] * 64 - counts["train_padding"]
        assert filled + counts["train_cropped"] == counts["train_tokens"] - FILES
    counts = packed.manifest.counts
    assert counts["train_cropped"] == 0 < counts["train_padding"]
    shown = run.screen.stream.getvalue()  # type: ignore[attr-defined]
    assert f"{counts['train_padding'] / counts['train_windows'] / 64:.2%} of them padding, 0.00% of the tokens" in shown
    assert streamed.manifest.counts["train_padding"] == 0 < streamed.manifest.counts["train_cropped"]
    same = [name for name in packed.manifest.files if not name.endswith(".arrow")]
    assert all(packed.manifest.files[name] == streamed.manifest.files[name] for name in same)


def test_a_shard_is_flat_little_endian_ids(made: tuple[Run, Artifact, Artifact]) -> None:
    _, learned, tokens = made
    tokenizer = Tokenizer.load(learned.directory)
    flat = np.frombuffer(Path(tokens.path("train", "shard-00000.bin")).read_bytes(), "<u2")
    index = pq.read_table(tokens.path("train", "shard-00000.parquet")).to_pylist()
    assert (flat == tokenizer.special(END_OF_TEXT)).sum() == len(index)
    for row in index:
        assert flat[row["first"] - 1] == tokenizer.special(END_OF_TEXT)


def test_the_same_again_is_reused_and_another_is_refused(made: tuple[Run, Artifact, Artifact]) -> None:
    run, _, tokens = made
    assert stage.tokens(run).manifest == tokens.manifest
    other = run_of(Path(run.recipe.workspace), validation_percent=20)
    with pytest.raises(UserError, match="validation_percent"):
        stage.tokens(other)


def test_killed_half_way_goes_on_with_the_same_hash(made: tuple[Run, Artifact, Artifact], tmp_path: Path) -> None:
    """A run that fails in its last file leaves the others whole; the next run takes them as they are."""
    run = run_of(tmp_path)
    last = Path(curated(run).path("kept", f"part-{FILES - 1:05d}.parquet"))
    stage.tokenizer(run)
    content = last.read_bytes()
    last.write_bytes(b"torn")
    with pytest.raises(ray.exceptions.RayTaskError, match="Parquet"):
        stage.tokens(run)
    directory = Path(run.directory, "tokens")
    noted = {path.stem for path in (directory / "_scratch" / "parts").iterdir()}
    before = {path: path.stat().st_mtime_ns for path in directory.glob("*/*.bin") if path.stem in noted}
    assert 1 <= len(noted) < FILES and len(before) == 2 * len(noted)
    last.write_bytes(content)
    again = stage.tokens(run)
    assert again.content_hash == made[2].content_hash and again.manifest.counts == made[2].manifest.counts
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (directory / "_scratch").exists()


@pytest.mark.parametrize(
    ("documents", "message"),
    [([], "no document"), (DOCUMENTS[:1], "held out"), (DOCUMENTS[:30], "do not fill a window")],
)  # fmt: skip
def test_too_little_text_is_said_in_one_line(tmp_path: Path, documents: list[dict[str, str]], message: str) -> None:
    run = run_of(tmp_path, sequence_length=100_000, packing="stream")
    curated(run, documents, files=1)
    with pytest.raises((UserError, ray.exceptions.RayTaskError), match=message):
        stage.tokenizer(run)
        stage.tokens(run)


def test_texts_are_capped(tmp_path: Path) -> None:
    run = run_of(tmp_path)
    paths = curated(run).files("kept/")
    assert list(stage.capped(paths, 25, 10)) == [DOCUMENTS[0]["text"][:10], DOCUMENTS[1]["text"][:10], 
                                                 DOCUMENTS[2]["text"][:5]]  # fmt: skip


def test_the_tokenizer_does_not_depend_on_the_files(made: tuple[Run, Artifact, Artifact], tmp_path: Path) -> None:
    run = run_of(tmp_path)
    curated(run, files=7)
    learned = stage.tokenizer(run)
    assert learned.manifest.files == made[1].manifest.files and learned.manifest.counts == made[1].manifest.counts
    assert learned.manifest.counts["characters"] == sum(len(each["text"]) for each in DOCUMENTS)
    direct = bpe.train([each["text"] for each in DOCUMENTS], 512, run.recipe.tokenizer.pattern)
    assert Path(learned.path("tokenizer.json")).read_text() == _saved(direct, tmp_path)


def _saved(tokenizer: Tokenizer, folder: Path) -> str:
    tokenizer.save(str(folder / "direct"))
    return (folder / "direct" / "tokenizer.json").read_text()


def test_a_killed_tokenizer_goes_on_from_the_counted_files(
    made: tuple[Run, Artifact, Artifact], tmp_path: Path
) -> None:
    run = run_of(tmp_path)
    last = Path(curated(run).path("kept", f"part-{FILES - 1:05d}.parquet"))
    content = last.read_bytes()
    last.write_bytes(b"torn")
    with pytest.raises(ray.exceptions.RayTaskError, match="Parquet"):
        stage.tokenizer(run)
    counted = Path(run.directory, "tokenizer", "_scratch", "counts")
    names = sorted(path.name for path in counted.iterdir() if path.suffix == ".parquet")
    assert 1 <= len(names) < FILES
    rare = counts.count(["zzzz"] * 10_000, run.recipe.tokenizer.pattern)
    counts.write(counts.together([counts.read(str(counted / names[0])), rare], 9999), str(counted / names[0]))
    last.write_bytes(content)
    again = Tokenizer.load(stage.tokenizer(run).directory)
    assert len(again.encode("zzzz")) == 1, "the file that was counted is counted no second time"
    run.discard("tokenizer")
    assert stage.tokenizer(run).content_hash == made[1].content_hash


def test_of_a_large_corpus_each_file_gives_its_share(tmp_path: Path) -> None:
    total = sum(min(100, len(each["text"])) for each in DOCUMENTS)
    run = run_of(tmp_path, {"max_characters": total // 3, "max_document_characters": 100})
    paths = curated(run).files("kept/")
    learned = stage.tokenizer(run)
    assert total // 3 <= learned.manifest.counts["characters"] <= total // 3 + FILES
    section = run.recipe.tokenizer
    lengths = [stage._length({"number": 0, "path": path}, section)["characters"] for path in paths]
    assert sum(lengths) == total
    shares = [-(-section.max_characters * length // total) for length in lengths]
    texts = [text for path, share in zip(paths, shares, strict=True) for text in stage.capped([path], share, 100)]
    direct = bpe.train(texts, 512, section.pattern)
    assert Path(learned.path("tokenizer.json")).read_text() == _saved(direct, tmp_path)


def test_rare_pieces_that_are_dropped_are_said(tmp_path: Path) -> None:
    run = run_of(tmp_path, {"max_pieces": 5})
    curated(run)
    learned = stage.tokenizer(run).manifest.counts
    assert learned["pieces"] == 5 and learned["dropped"] > 0
    assert f"{learned['dropped']:,} pre-tokens dropped" in run.screen.stream.getvalue()  # type: ignore[attr-defined]
