"""The stages on a real, small Ray: what they commit, show, track, survive and refuse; and the sweep over them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from rich.table import Table
from small_training import LENGTH, NAMES, PLACES, ROOT, commit_tokens, job_of, quiet, run_of, tiny

from webtochat import artifact
from webtochat.artifact import Artifact
from webtochat.errors import UserError
from webtochat.recipe import Recipe
from webtochat.tokens.shards import Split
from webtochat.train.rank import pretrain_rank


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    os.environ.update(RAY_TRAIN_V2_ENABLED="1", RAY_USAGE_STATS_ENABLED="0", MLFLOW_DISABLE_TELEMETRY="true")
    import ray

    paths = ":".join(str(ROOT / folder) for folder in ("platform", "recipes", "jobs"))
    ray.init(
        address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="error",
        _temp_dir=str(tmp_path_factory.mktemp("ray", numbered=True))[:60],
        runtime_env={"env_vars": {"PYTHONPATH": paths, "RAY_TRAIN_V2_ENABLED": "1"}},
    )  # fmt: skip
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("stages")
    commit_tokens(directory)
    return directory


def one_thread(home: Path, name: str = "tiny", **changes: object) -> Recipe:
    return tiny(home, name, cluster={"train_cpus": 1, "train_retries": 1}, **changes)


def copied(home: Path, name: str, *stages: str) -> None:
    """Another recipe of the same workspace, which has these stages' artifacts."""
    for stage in stages:
        shutil.copytree(home / "tiny" / stage, home / name / stage, dirs_exist_ok=True)


def kill_worker(checkpoints: Path, killed: list[int]) -> None:
    """SIGKILL of this process's own training worker once a checkpoint stands."""
    deadline = time.monotonic() + 400
    while not list(checkpoints.glob("step-*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    for process in psutil.Process().children(recursive=True):
        with_title = " ".join(process.cmdline())
        if "RayTrainWorker" in with_title:
            process.send_signal(signal.SIGKILL)
            killed.append(process.pid)


@pytest.fixture(scope="module")
def trained(cluster: None, home: Path) -> tuple[Artifact, str]:
    """A pretrain whose worker is killed half-way."""
    from webtochat.train.stage import pretrain

    killed: list[int] = []
    checkpoints = home / "tiny" / "pretrain" / "_scratch" / "checkpoints"
    killer = threading.Thread(target=kill_worker, args=(checkpoints, killed))
    killer.start()
    run, shown = run_of(one_thread(home))
    made = pretrain(run)
    killer.join()
    assert killed
    return made, shown.getvalue()


def test_a_killed_worker_is_replaced_and_nothing_differs(
    trained: tuple[Artifact, str], home: Path, tmp_path: Path
) -> None:
    made, shown = trained
    assert "going on from the checkpoint of step " in shown
    pretrain_rank(job_of(one_thread(home), tmp_path), quiet, 1)
    for name in made.manifest.files:
        assert (tmp_path / name).read_bytes() == Path(made.path(name)).read_bytes(), name
    assert set(made.manifest.files) >= {"metrics.jsonl", "model/model.safetensors", "model/tokenizer.json"}
    assert made.verify() == [] and not (home / "tiny" / "pretrain" / "_scratch").exists()
    assert set(made.manifest.inputs) == {"tokenizer", "tokens"}


def test_the_screen_shows_lines_and_evaluations(trained: tuple[Artifact, str]) -> None:
    made, shown = trained
    assert "step 60/60 | loss " in shown and " | norm " in shown and " | mfu n/a | " in shown
    assert "step 0 | validation bpb " in shown and "step 60 | validation bpb " in shown
    assert made.manifest.counts["tokens"] == 60 * 256 and made.manifest.counts["validation_bpb"] < 0.4
    assert "bits per byte" in made.manifest.gain


def test_mlflow_has_the_curves(trained: tuple[Artifact, str], home: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    run_id = trained[0].manifest.mlflow_run_id
    assert run_id is not None
    for name in ("loss", "norm", "lr", "tok/s", "data", "validation_bpb"):
        assert len(client.get_metric_history(run_id, name)) > 3, name


def test_it_is_reused_and_other_settings_are_refused(trained: tuple[Artifact, str], home: Path) -> None:
    from webtochat.train.stage import pretrain

    run, shown = run_of(one_thread(home, pretrain={"checkpoint_every": 7, "keep_checkpoints": 5}))
    began = time.monotonic()
    assert pretrain(run).content_hash == trained[0].content_hash
    assert time.monotonic() - began < 1 and "pretrain: reused" in shown.getvalue()
    with pytest.raises(UserError, match=r"pretrain\.lr: 0\.01 → 0\.02"):
        pretrain(run_of(one_thread(home, pretrain={"lr": 2e-2}))[0])


def test_tasks_are_scored_while_it_trains(cluster: None, home: Path, tmp_path: Path) -> None:
    """Told at each evaluation, in the curve and to MLflow; the file is part of the identity."""
    import mlflow

    from webtochat.train.stage import pretrain

    copied(home, "scored", "tokenizer", "tokens")
    written = tmp_path / "order.jsonl"
    rows = [
        {"query": f"{name} lives in {place} and has", "choices": ["two cats.", "cats two."], "gold": 0}
        for name in NAMES for place in PLACES
    ]  # fmt: skip
    written.write_text("\n".join([*map(json.dumps, rows), "{}"]))
    settings = {
        "pretrain": {"tokens": 40 * 256, "evaluate_tasks": 10}, "evaluate": {"tasks": [{"path": str(written)}]},
    }  # fmt: skip
    run, shown = run_of(one_thread(home, name="scored", **settings))
    made = pretrain(run)
    curve = [json.loads(line) for line in Path(made.path("metrics.jsonl")).read_text().splitlines()]
    told = [(point["step"], point["core"], point["task/order"]) for point in curve if "core" in point]
    assert [step for step, _, _ in told] == [0, 20, 40] and told[-1][1:] == (1.0, 1.0)
    assert "order: left out 1 rows: unknown form" in shown.getvalue()
    assert " | core 1.0000 | task/order 1.0000" in shown.getvalue() and made.manifest.counts["core"] == 1.0
    assert made.manifest.counts["tasks_skipped"] == {"order": {"unknown_form": 1}}
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    assert len(client.get_metric_history(made.manifest.mlflow_run_id, "task/order")) == 3
    with pytest.raises(UserError, match=r"evaluate\.tasks names none"):
        pretrain(run_of(one_thread(home, name="scored", pretrain=settings["pretrain"]))[0])
    written.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(UserError, match=r"pretrain\.tasks: "):
        pretrain(run_of(one_thread(home, name="scored", **settings))[0])


def test_a_mixture_is_trained_on_by_its_shares(cluster: None, home: Path, tmp_path: Path) -> None:
    """Its identity is what the corpora hold, wherever they lie; what does not fit together is one line."""
    from webtochat.train.stage import corpora, pretrain

    copied(home, "mixed", "tokenizer", "tokens")
    commit_tokens(tmp_path, "wiki", documents=120, own=False)
    wiki = str(tmp_path / "wiki" / "tokens")
    steps = {"tokens": 20 * 256, "evaluate_every": 0}
    run, shown = run_of(one_thread(home, name="mixed", pretrain=steps | {"mixture": {"own": 3, wiki: 1}}))
    counts = pretrain(run).manifest.counts
    assert list(counts["epochs"]) == [*corpora(run.recipe, run.open("tokens"))] and len(counts["epochs"]) == 2
    windows = {name: len(Split(f"{folder}/train", LENGTH, 512)) for name, folder in
               (("own", str(home / "mixed" / "tokens")), (wiki, wiki))}  # fmt: skip
    taken = {name: counts["epochs"][name] * windows[name] for name in windows}
    assert sum(taken.values()) == pytest.approx(20 * 8, abs=0.1) and taken["own"] == pytest.approx(120, rel=0.05)
    assert f"{counts['epochs'][wiki]:.2f} epochs of {wiki}" in shown.getvalue()

    moved = str(tmp_path / "elsewhere")
    shutil.move(wiki, moved)
    run, shown = run_of(one_thread(home, name="mixed", pretrain=steps | {"mixture": {moved: 1, "own": 3}}))
    pretrain(run)
    assert "pretrain: reused" in shown.getvalue()
    with pytest.raises(UserError, match=r"pretrain\.mixture\.own: 3\.0 → 4\.0"):
        pretrain(run_of(one_thread(home, name="mixed", pretrain=steps | {"mixture": {moved: 1, "own": 4}}))[0])

    commit_tokens(tmp_path, "other", documents=80)
    for mixture, told in (
        ({"own": 1, str(tmp_path / "other" / "tokens"): 1}, "was made with another tokenizer"),
        ({"own": 1, str(tmp_path / "nowhere"): 1}, "holds no committed tokens"),
        ({"own": 1, str(home / "tiny" / "tokenizer"): 1}, "is a tokenizer artifact, not a tokens artifact"),
        ({"own": 1, str(home / "tiny" / "tokens"): 1}, "hold the same tokens: name them once"),
    ):  # fmt: skip
        run, _ = run_of(one_thread(home, name="mixed", pretrain={"mixture": mixture}))
        with pytest.raises(UserError, match=told) as raised:
            corpora(run.recipe, run.open("tokens"))
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match="greater than 0"):
        tiny(home, pretrain={"mixture": {"own": 0}})


def test_damaged_tokens_are_not_trained_on(home: Path) -> None:
    from webtochat.train.stage import pretrain

    copied(home, "damaged", "tokenizer", "tokens")
    shard = home / "damaged" / "tokens" / "train" / "shard-00000.bin"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(UserError, match=r"shard-00000\.bin is not what was committed: .* --rebuild tokens"):
        pretrain(run_of(one_thread(home, name="damaged"))[0])


def conversations(path: Path, extra: list[str]) -> None:
    rows = [
        {"messages": [
            {"role": "user", "content": f"Where does {name} live{mark}"},
            {"role": "assistant", "content": f"{name} lives in {place}."},
        ]}
        for name, place in zip(NAMES, [*PLACES, "Rome"], strict=True) for mark in ("?", " now?", ", please?", "")
    ]  # fmt: skip
    path.write_text("\n".join([*(json.dumps(row) for row in rows * 8), *extra]))


def test_sft_learns_answers_and_counts_what_it_leaves_out(
    trained: tuple[Artifact, str], home: Path, tmp_path: Path
) -> None:
    from webtochat.train.stage import sft

    long = {"messages": [{"role": "user", "content": "why? " * 100}, {"role": "assistant", "content": "so"}]}
    conversations(tmp_path / "chats.jsonl", [
        "{broken", "[]", json.dumps({"messages": []}), json.dumps(long),
        json.dumps({"messages": [{"role": "user", "content": "hi"}]}),
        json.dumps({"messages": [{"role": "wizard", "content": "hi"}]}),
    ])  # fmt: skip
    sources = [
        {"path": str(tmp_path / "*.jsonl")},
        {"path": "python:miniweb.conversations:about_people", "needs": "miniweb"},
    ]
    run, shown = run_of(one_thread(home, sft={"data": sources, "validation_percent": 20}))
    made = sft(run)
    counts = made.manifest.counts
    assert counts["skipped"] == {
        "not_json": 1, "not_an_object": 1, "no_messages": 1, "too_long": 1, "nothing_from_the_assistant": 1,
        "unknown_role": 1,
    }  # fmt: skip
    assert counts["conversations"] + counts["validation_conversations"] == 128
    assert 0 < counts["validation_conversations"] < 64 and counts["padding"] < 0.5
    assert "skipped python:miniweb.conversations:about_people: it needs the miniweb" in shown.getvalue()
    assert "left out 1 rows: too long" in shown.getvalue()
    assert counts["validation_loss"] < 1.5 and counts["loss"] < 0.5
    assert made.manifest.inputs == {"pretrain": trained[0].content_hash}
    assert (Path(made.directory) / "model" / "model.safetensors").exists()
    # The same again is reused; a changed file is another identity.
    assert sft(run_of(one_thread(home, sft={"data": sources, "validation_percent": 20}))[0]).content_hash == (
        made.content_hash
    )
    conversations(tmp_path / "chats.jsonl", [])
    with pytest.raises(UserError, match="other settings"):
        sft(run_of(one_thread(home, sft={"data": sources, "validation_percent": 20}))[0])


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ([], "holds no conversation"),
        ([{"path": "/nowhere/*.jsonl"}], "no file matches /nowhere"),
        ([{"path": "python:miniweb.nothing:train"}], "no module miniweb.nothing"),
        ([{"path": "python:miniweb.conversations:about_people"}], "this crawl has no miniweb"),
    ],
)
def test_mistakes_in_the_data_are_one_line(
    trained: tuple[Artifact, str], home: Path, data: list[dict[str, str]], words: str
) -> None:
    from webtochat.train.stage import sft

    copied(home, "mistaken", "pretrain")
    with pytest.raises(UserError, match=words) as raised:
        sft(run_of(one_thread(home, name="mistaken", sft={"data": data}))[0])
    assert "\n" not in str(raised.value)


def test_a_sweep_trains_each_combination_once(cluster: None, home: Path, tmp_path: Path) -> None:
    """One trial learns, one diverges: a row that says so, without a retry; one learns nothing and is stopped early."""
    import mlflow

    from sweep import sweep, trials_of
    from trials import Halving

    copied(home, "swept", "tokenizer", "tokens")
    recipe = one_thread(home, name="swept", pretrain={"tokens": 40 * 256, "clip": 1e30})
    written = tmp_path / "swept.yaml"
    written.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    plain, trials = trials_of(["pretrain.lr=[1e-2, 1e30, 1e-9]", "pretrain.evaluate_every=10"])
    assert plain == ["pretrain.evaluate_every=10"]
    run, shown = run_of(recipe)
    halving = Halving(grace_period=25, reduction_factor=2)
    first = cells(sweep(run, str(written), plain, trials, 1, halving))
    assert [row[0] for row in first] == ["1e-2", "1e30", "1e-9"]
    assert first[0][-1] == "best" and first[1][-1].startswith("failed: training diverged at step")
    assert first[2][-1].startswith("stopped at step 10/40 with ")
    assert shown.getvalue().count("pretrain.lr=1e30 …") == 1
    swept = home / "swept" / "sweep"
    made = artifact.find(str(swept / "pretrain.lr=1e-2" / "pretrain"))
    assert made is not None and f"{made.manifest.counts['validation_bpb']:.4f}" == first[0][1]
    assert not (swept / "pretrain.lr=1e-9" / "pretrain" / "_scratch").exists()
    assert "pretrain.lr=1e-9 (stopped)" in (swept / "sweep.svg").read_text()
    client = mlflow.MlflowClient(f"sqlite:///{home}/mlflow.db")
    runs = client.search_runs([client.get_experiment_by_name("swept").experiment_id])
    parent = next(each for each in runs if each.info.run_name == "sweep")
    assert {each.path for each in client.list_artifacts(parent.info.run_id)} == {"sweep.svg", "table.txt"}
    children = [each for each in runs if each.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert {each.info.run_name: each.info.status for each in children} == {
        "pretrain.lr=1e-2": "FINISHED", "pretrain.lr=1e30": "FAILED", "pretrain.lr=1e-9": "KILLED",
    }  # fmt: skip
    best, stopped = (next(each for each in children if each.info.status == how) for how in ("FINISHED", "KILLED"))
    assert len(client.get_metric_history(best.info.run_id, "loss")) > 3
    assert stopped.data.tags["mlflow.note.content"].startswith("stopped at step 10/40 with ")
    # Again, with the trials that are over: neither is run again, and no MLflow run is added.
    again, shown = run_of(recipe)
    over = [trials[0], trials[2]]
    assert cells(sweep(again, str(written), plain, over, 1, halving)) == [first[0], first[2]]
    assert "pretrain.lr=1e-2: reused" in shown.getvalue()
    assert "pretrain.lr=1e-9: stopped at step 10/40" in shown.getvalue()
    with pytest.raises(UserError, match="other settings"):
        sweep(again, str(written), ["pretrain.seed=7"], over, 1, halving)
    assert len(client.search_runs([client.get_experiment_by_name("swept").experiment_id])) == len(runs)


def cells(table: Table) -> list[tuple[str, ...]]:
    return list(zip(*(map(str, column.cells) for column in table.columns), strict=True))


def test_what_cannot_be_swept_is_one_line() -> None:
    from sweep import trials_of

    with pytest.raises(UserError, match="sweep over pretrain"):
        trials_of(["tokens.sequence_length=[64,128]"])
    with pytest.raises(UserError, match="nothing to sweep over"):
        trials_of(["pretrain.lr=1e-3"])
    _, trials = trials_of(["pretrain.lr=[1e-3,3e-3]", "model.depth=[2,4]"])
    assert [trial.name for trial in trials] == [
        "pretrain.lr=1e-3,model.depth=2", "pretrain.lr=1e-3,model.depth=4",
        "pretrain.lr=3e-3,model.depth=2", "pretrain.lr=3e-3,model.depth=4",
    ]  # fmt: skip
