"""What every job file shares: paths, arguments, Ray, the screen, exit codes.

from job import main
from webtochat.curate.stage import curate

if __name__ == "__main__":
    main(__doc__, curate)
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
for folder in ("", "recipes", "platform"):
    sys.path.insert(0, str(ROOT / folder))

if TYPE_CHECKING:
    from webtochat.artifact import Artifact
    from webtochat.run import Run

# Set before Ray, vLLM and MLflow are imported. None of them may phone home.
os.environ.update(
    RAY_USAGE_STATS_ENABLED="0",
    RAY_TRAIN_V2_ENABLED="1",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    VLLM_NO_USAGE_STATS="1",
    DO_NOT_TRACK="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    HF_HUB_DISABLE_TELEMETRY="1",
    PYTHONWARNINGS="ignore",
)
# What workers need of it, on any node.
WORKER_ENVIRONMENT = {
    key: os.environ[key] for key in ("RAY_TRAIN_V2_ENABLED", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "PYTHONWARNINGS")
} | {key: value for key, value in os.environ.items() if key.startswith(("AWS_", "HF_TOKEN"))}


def parser(description: str | None) -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    arguments.add_argument("recipe", help="a YAML file, such as recipes/demo.yaml")
    arguments.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. pretrain.lr=1e-3 workspace=/data")
    return arguments


def main(description: str | None, stage: Callable[[Run], Artifact]) -> NoReturn:
    """Runs one stage of the recipe on the command line, and exits."""
    arguments = parser(description)
    arguments.add_argument("--rebuild", action="store_true", help="delete what the stage made and make it anew")
    options = arguments.parse_intermixed_args()

    def work() -> None:
        with started(options.recipe, options.overrides) as run:
            if options.rebuild:
                run.discard(stage.__name__)
            made = stage(run)
            run.screen.say(f"{made.stage}: {made.manifest.summary}  [{made.directory}]")

    guarded(work)


def guarded(work: Callable[[], None]) -> NoReturn:
    """Runs `work`; a user's mistake is one line and exit code 2, a machine's fault one line and 1."""
    from webtochat.errors import MachineError, UserError

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        work()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        leave(2)
    except MachineError as error:
        print(f"error: {error}", file=sys.stderr)
        leave(1)
    except KeyboardInterrupt:
        print("stopped; the same command goes on from here", file=sys.stderr)
        leave(130)
    leave(0)


def leave(code: int) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    sys.exit(code)


@contextmanager
def started(recipe_path: str, overrides: list[str], quiet: bool = True) -> Iterator[Run]:
    """A run with Ray up, the workspace locked, and everything but our own lines in a log file."""
    from webtochat import recipe as recipes
    from webtochat.run import Run, Screen

    recipe = recipes.load(recipe_path, overrides)
    recipe = placed(recipe)
    with locked(recipe), chatter_to_log(recipe, quiet) as stream, ray_started(recipe):
        yield Run(recipe, Screen(stream))


def placed(recipe: Any) -> Any:
    """The recipe with its workspace settled. In a submitted job the working directory is a copy that goes away, so
    relative paths are refused there."""
    from webtochat.errors import UserError

    shared = os.environ.get("WEBTOCHAT_WORKSPACE")
    if shared:
        recipe = recipe.model_copy(update={"workspace": shared})
    if os.environ.get("RAY_JOB_SUBMISSION_ID") or os.environ.get("RAY_JOB_CONFIG_JSON_ENV_VAR"):
        relative = [
            path for path in [recipe.workspace, *recipe.crawl.paths] if "://" not in path and not os.path.isabs(path)
        ]  # fmt: skip
        if relative:
            raise UserError(
                f"{relative[0]} is a relative path, and a submitted job runs in a copy of the code that is thrown "
                "away: set WEBTOCHAT_WORKSPACE (or workspace=) to storage that every node sees"
            )
    return recipe


@contextmanager
def locked(recipe: Any) -> Iterator[None]:
    """One writer per recipe and workspace. Local workspaces only."""
    from webtochat import storage
    from webtochat.errors import UserError

    if storage.is_remote(recipe.workspace):
        yield
        return
    directory = os.path.join(recipe.workspace, recipe.name)
    try:
        os.makedirs(directory, exist_ok=True)
        lock = open(os.path.join(directory, ".lock"), "w")  # noqa: SIM115 (closed below, held all along)
    except OSError as error:
        raise UserError(f"cannot write to the workspace {directory}: {error.strerror}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(f"another job is writing to {directory}: wait for it, or choose another name=") from error
        yield


@contextmanager
def chatter_to_log(recipe: Any, quiet: bool) -> Iterator[Any]:
    """Yields a stream to the real screen, while file descriptors 1 and 2 go to a log file: Ray, vLLM and MLflow write
    there past any logging configuration. An unexpected error shows its last line and the log's path."""
    from webtochat import storage
    from webtochat.errors import MachineError, UserError

    if not quiet or os.environ.get("WEBTOCHAT_VERBOSE"):
        yield sys.stdout
        return
    folder = "." if storage.is_remote(recipe.workspace) else os.path.join(recipe.workspace, recipe.name)
    os.makedirs(os.path.join(folder, "logs"), exist_ok=True)
    log_path = os.path.join(folder, "logs", time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}.log")
    sys.stdout.flush()
    sys.stderr.flush()
    screen_descriptor, error_descriptor = os.dup(1), os.dup(2)
    with open(log_path, "w") as log, os.fdopen(os.dup(screen_descriptor), "w", buffering=1) as screen:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield screen
        except (UserError, MachineError, KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:
            import traceback

            traceback.print_exc()
            first = (str(error).strip().splitlines() or [""])[0][:300]
            raise MachineError(f"{type(error).__name__}: {first} (the whole of it: {log_path})") from error
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os.dup2(screen_descriptor, 1)
            os.dup2(error_descriptor, 2)
            os.close(screen_descriptor)
            os.close(error_descriptor)


@contextmanager
def ray_started(recipe: Any) -> Iterator[None]:
    """Joins the cluster named by RAY_ADDRESS (as in a submitted job), else starts Ray on this machine. The code travels
    to the workers by runtime_env, so that what runs there is what stands here."""
    import ray

    address = os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": address} if address else {
        "num_cpus": recipe.cluster.cpus or max(4, os.cpu_count() or 1), "include_dashboard": False, "address": "local",
    }  # fmt: skip
    modules = [str(ROOT / "platform" / "webtochat"), str(ROOT / "serving")]
    modules += [str(path.parent) for path in sorted((ROOT / "recipes").glob("*/__init__.py"))]
    ray.init(
        **options, log_to_driver=False, logging_level="error",
        runtime_env={"py_modules": modules, "env_vars": WORKER_ENVIRONMENT},
    )  # fmt: skip
    try:
        yield
    finally:
        ray.shutdown()
