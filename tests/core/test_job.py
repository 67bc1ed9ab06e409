"""What every job file does around its stage: exit codes, one line, the lock, the screen and the log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import job
from webtochat import recipe as recipes
from webtochat.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_RAY = "import contextlib\njob.ray_started = lambda recipe: contextlib.nullcontext()\n"


def run(
    folder: Path, body: str, *arguments: str, prelude: str = WITHOUT_RAY, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs a job whose stage, `toy`, has this body, on an almost empty recipe."""
    script = folder / "toy.py"
    script.write_text(
        f'"""A toy: python toy.py toy.yaml"""\nimport os, sys\nsys.path.insert(0, {str(ROOT / "jobs")!r})\n'
        f"import job\n{prelude}from webtochat.errors import MachineError, UserError\n"
        f"def toy(run):\n{textwrap.indent(textwrap.dedent(body), '    ')}\n"
        "if __name__ == '__main__':\n    job.main(__doc__, toy)\n"
    )
    (folder / "toy.yaml").write_text(f"workspace: {folder / 'runs'}\n")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "WEBTOCHAT_", "MLFLOW_"))}
    return subprocess.run(
        [sys.executable, str(script), str(folder / "toy.yaml"), *arguments],
        env=clean | (env or {}), capture_output=True, text=True, timeout=120, cwd=folder,
    )  # fmt: skip


MAKES = """
stage = run.begin("toy", {"size": 1}, [])
if not hasattr(stage, "progress"):
    return stage
with stage:
    print("chatter on stdout")
    os.write(2, b"chatter on descriptor 2\\n")
    os.system("echo chatter of a child")
    stage.say("step 1/1 | loss 2.0")
    with open(stage.path("file"), "w") as sink:
        sink.write("made")
    return stage.commit(counts={}, summary="1 file")
"""


def test_our_lines_go_to_the_screen_and_chatter_to_the_log(tmp_path: Path) -> None:
    done = run(tmp_path, MAKES)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "toy …", "  step 1/1 | loss 2.0", f"toy: 1 file  [{tmp_path}/runs/toy/toy]",
    ]  # fmt: skip
    assert done.stderr == ""
    log = next((tmp_path / "runs" / "toy" / "logs").glob("*.log")).read_text()
    assert {"chatter on stdout", "chatter on descriptor 2", "chatter of a child"} <= set(log.splitlines())
    again = run(tmp_path, MAKES)
    assert again.stdout.startswith("toy: reused (1 file)\n")
    rebuilt = run(tmp_path, MAKES, "--rebuild")
    assert rebuilt.stdout.startswith("toy …\n")


@pytest.mark.parametrize(
    ("body", "code", "line"),
    [
        ("raise UserError('no file at x:\\n  name another')", 2, "error: no file at x: name another"),
        ("raise MachineError('no space left: free some')", 1, "error: no space left: free some"),
        ("raise KeyboardInterrupt", 130, "stopped; the same command goes on from here"),
        ("import errno\nraise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))", 1, "error: no space left on device"),
        ("[][3]", 1, "error: IndexError: list index out of range (the whole of it: "),
        ("import signal\nos.kill(os.getpid(), signal.SIGTERM)\nimport time\ntime.sleep(9)", 143, ""),
    ],
)
def test_whatever_goes_wrong_is_one_line_with_its_exit_code(tmp_path: Path, body: str, code: int, line: str) -> None:
    done = run(tmp_path, body)
    assert done.returncode == code
    assert done.stderr.startswith(line) and len(done.stderr.splitlines()) == bool(line), done.stderr
    if "IndexError" in line:
        log = re.search(r"the whole of it: (.*)\)", done.stderr)
        assert log and "Traceback (most recent call last)" in Path(log.group(1)).read_text()


def test_mistakes_before_the_stage_are_one_line_and_exit_code_2(tmp_path: Path) -> None:
    for arguments, said in [
        (["pretrain.lrr=3"], "unknown key pretrain.lrr; did you mean lr?"),
        (["nonsense"], "write section.key=value"),
        (["workspace=/proc/none"], "cannot write to the workspace"),
    ]:
        done = run(tmp_path, "pass", *arguments)
        assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
        assert done.stderr.startswith("error: ") and said in done.stderr


def test_help_shows_the_example(tmp_path: Path) -> None:
    done = run(tmp_path, "pass", "--help")
    assert done.returncode == 0 and "python toy.py toy.yaml" in done.stdout and "--rebuild" in done.stdout


def test_a_second_job_on_the_same_recipe_is_refused(tmp_path: Path) -> None:
    recipe = recipes.Recipe(name="toy", workspace=str(tmp_path / "runs"))
    reached = "raise UserError('reached the stage')"
    with job.locked(recipe):
        refused = run(tmp_path, reached)
        assert refused.returncode == 2 and "another job is writing to" in refused.stderr
        assert "reached the stage" in run(tmp_path, reached, "name=other").stderr
    assert "reached the stage" in run(tmp_path, reached).stderr


def test_a_full_disk_ends_in_one_line_though_the_log_is_on_it(tiny_disk: Path) -> None:
    body = """
    from webtochat import storage
    storage.write_bytes(os.path.join(run.directory, "first"), os.urandom(900 << 10))
    print("x" * (200 << 10))
    storage.write_bytes(os.path.join(run.directory, "second"), os.urandom(900 << 10))
    """
    done = run(tiny_disk, body)
    assert done.returncode == 1
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert errors and "no space left" in errors[0] and "Traceback" not in done.stderr, done.stderr
    assert not (tiny_disk / "runs" / "toy" / "second").exists()


def test_the_workspace_of_the_command_line_goes_before_that_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.yaml").write_text("workspace: from-recipe")

    def workspace(*overrides: str) -> str:
        return job.placed(recipes.load(str(tmp_path / "x.yaml"), list(overrides)), overrides).workspace

    assert workspace() == "from-recipe"
    monkeypatch.setenv("WEBTOCHAT_WORKSPACE", "/shared")
    assert workspace() == "/shared"
    assert workspace("workspace=/mine") == "/mine"


def test_a_submitted_job_refuses_relative_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    fine = {"name": "x", "workspace": "s3://bucket/runs"}
    for changed in [
        {"workspace": "runs"},
        {"crawl": {"paths": ["pages/*.gz"]}},
        {"sft": {"data": [{"path": "chats.jsonl"}]}},
        {"evaluate": {"questions": [{"path": "questions.jsonl"}]}},
        {"reward": {"data": [{"path": "pairs.jsonl"}]}},
        {"reward": {"answers": {"prompts": [{"path": "prompts.jsonl"}], "judge": "python:people:like"}}},
    ]:
        with pytest.raises(UserError, match="is a relative path, and a submitted job runs in a copy"):
            job.placed(recipes.Recipe.model_validate(fine | changed))
    for changed in [{}, {"workspace": "/nfs"}, {"sft": {"data": [{"path": "python:miniweb.chats:train"}]}}]:
        job.placed(recipes.Recipe.model_validate(fine | changed))


def test_an_address_where_no_cluster_is_is_told_at_once(tmp_path: Path) -> None:
    for address, said in [
        ("127.0.0.1:1", "no Ray cluster at RAY_ADDRESS=127.0.0.1:1: start it, or unset RAY_ADDRESS"),
        ("http://127.0.0.1:8265", "is for `ray job submit`: unset it to run on this machine"),
    ]:
        done = run(tmp_path, "pass", prelude="", env={"RAY_ADDRESS": address})
        assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_ray_comes_up_with_our_code_and_our_errors_come_back_from_it_as_themselves(tmp_path: Path) -> None:
    """Also that Ray leaves no token in the home directory, where all could read it."""
    body = """
    import ray
    def fails(batch):
        from webtochat.errors import MachineError
        raise MachineError("node 7 has no space left: free some")
    assert ray.get_runtime_context().runtime_env["py_modules"]
    ray.data.range(10).map_batches(fails).take_all()
    """
    home = tmp_path / "home"
    home.mkdir()
    done = run(tmp_path, body, prelude="", env={"HOME": str(home)})
    assert done.returncode == 1, done.stderr
    assert done.stderr == "error: node 7 has no space left: free some\n"
    assert done.stdout == ""
    assert not (home / ".ray").exists()
