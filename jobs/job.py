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
import re
import secrets
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
    RAY_OVERRIDE_JOB_RUNTIME_ENV="1",  # a submitted job's environment and ours may name the same variable
    VLLM_NO_USAGE_STATS="1",
    DO_NOT_TRACK="1",
    MLFLOW_DISABLE_TELEMETRY="true",
    HF_HUB_DISABLE_TELEMETRY="1",
    PYTHONWARNINGS="ignore",
)
if not os.environ.get("RAY_ADDRESS"):
    # A Ray that we start is for this machine: its ports, also of its metrics, are then on loopback. (Ray's own setting
    # for laptops; elsewhere it takes an outer address of the machine, whatever it is told.)
    os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
# What workers need of it, on any node: with the keys of storage and of search engines, the hashes of our own API keys,
# and where the served model's traces go.
WORKER_KEYS = (
    "AWS_", "HF_TOKEN", "SEARXNG_URL", "BRAVE_API_KEY", "TAVILY_API_KEY", "WEBTOCHAT_API_KEYS", "MLFLOW_TRACKING",
)  # fmt: skip
WORKER_ENVIRONMENT = {
    key: os.environ[key] for key in ("RAY_TRAIN_V2_ENABLED", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK", "PYTHONWARNINGS")
} | {key: value for key, value in os.environ.items() if key.startswith(WORKER_KEYS)}


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
    except (UserError, MachineError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        leave(2 if isinstance(error, UserError) else 1)
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

    recipe = placed(recipes.load(recipe_path, overrides), overrides)
    with locked(recipe), chatter_to_log(recipe, quiet) as stream, ray_started(recipe):
        yield Run(recipe, Screen(stream))


def placed(recipe: Any, overrides: Sequence[str] = ()) -> Any:
    """The recipe with its workspace settled: `workspace=` on the command line, else WEBTOCHAT_WORKSPACE, else the
    recipe's. In a submitted job the working directory is a copy that goes away, so relative paths are refused there."""
    from webtochat.errors import UserError

    shared = os.environ.get("WEBTOCHAT_WORKSPACE")
    if shared and not any(override.startswith("workspace=") for override in overrides):
        recipe = recipe.model_copy(update={"workspace": shared})
    if submitted():
        sources = [*recipe.sft.data, *recipe.demonstrations.direct, *recipe.evaluate.questions, *recipe.evaluate.tasks]
        if recipe.reward is not None:
            sources += recipe.reward.data + (recipe.reward.answers.prompts if recipe.reward.answers else [])
        sources += [*(recipe.dpo.data if recipe.dpo else []), *(recipe.rl.data if recipe.rl else [])]
        read = [*recipe.crawl.paths, *(source.path for source in sources if not source.of_stage)]
        read += [path for path in recipe.pretrain.mixture if path != "own"]
        read += [path for path in (recipe.pretrain.start, recipe.tokenizer.start) if path is not None]
        for path in [recipe.workspace, *read]:
            if "://" not in path and not path.startswith("python:") and not os.path.isabs(path):
                raise UserError(
                    f"{path} is a relative path, and a submitted job runs in a copy of the code that is thrown away: "
                    + ("set WEBTOCHAT_WORKSPACE (or workspace=) to" if path == recipe.workspace else "put it on")
                    + " storage that every node sees, and name that"
                )
    return recipe


def submitted() -> bool:
    """Whether this process is the driver of a job that `ray job submit` started. Ray 2.60 tells its driver by this one
    variable (whose name is its own constant's) and RAY_ADDRESS."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


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
    there past any logging configuration. An unexpected error shows its first line and the log's path."""
    from webtochat import storage

    if not quiet or os.environ.get("WEBTOCHAT_VERBOSE"):
        with errors_in_one_line("above"):
            yield sys.stdout
        return
    remote = storage.is_remote(recipe.workspace)
    folder = tempfile.mkdtemp(prefix="webtochat-") if remote else os.path.join(recipe.workspace, recipe.name)
    name = time.strftime("%Y%m%d-%H%M%S") + f"-{os.getpid()}.log"
    log_path = os.path.join(folder, "logs", name)
    flush()
    screen_descriptor, error_descriptor = os.dup(1), os.dup(2)
    with storage.machine_faults(log_path):
        os.makedirs(os.path.dirname(log_path), exist_ok=True)
        log = open(log_path, "w")  # noqa: SIM115 (closed below)
    with log, os.fdopen(os.dup(screen_descriptor), "w", buffering=1) as screen:
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            with errors_in_one_line(log_path):
                yield screen
        finally:
            flush()
            os.dup2(screen_descriptor, 1)
            os.dup2(error_descriptor, 2)
            os.close(screen_descriptor)
            os.close(error_descriptor)
            if remote:
                storage.upload_directory(folder, storage.join(recipe.workspace, recipe.name))


def flush() -> None:
    """Empties Python's buffers into descriptors 1 and 2. A log on a full disk takes no more: that must not hide what
    went wrong, which the caller is about to say."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()


@contextmanager
def errors_in_one_line(log_path: str) -> Iterator[None]:
    """Writes an unexpected error's traceback to the log and raises a MachineError of one line in its place. An error of
    ours that comes back from a worker, wrapped by Ray, is itself again."""
    from webtochat.errors import MachineError, UserError

    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        import traceback

        wrapped = hasattr(error, "as_instanceof_cause")
        if isinstance(error, (UserError, MachineError)) and not wrapped:
            raise
        with suppress(OSError):
            traceback.print_exc()
        text = "".join(traceback.format_exception(error))
        told = re.findall(r"^(?:webtochat\.errors\.)?(UserError|MachineError): (.+)$", text, re.MULTILINE)
        if told:
            kind, message = told[-1]
            raise (UserError if kind == "UserError" else MachineError)(message) from error
        if "No space left on device" in text:
            raise MachineError("no space left on device: free some and run the same command again") from error
        first = (str(error).strip().splitlines() or [""])[0][:300]
        raise MachineError(f"{type(error).__name__}: {first} (the whole of it: {log_path})") from error


@contextmanager
def ray_started(recipe: Any) -> Iterator[None]:
    """Joins a cluster for as long as the context lasts."""
    import ray

    import nodes

    join(recipe)
    try:
        nodes.check(recipe)
        yield
    finally:
        ray.shutdown()


def join(recipe: Any) -> None:
    """Joins the cluster named by RAY_ADDRESS (as in a submitted job), else starts Ray on this machine. The code travels
    to the workers by runtime_env, so that what runs there is what stands here."""
    address = os.environ.get("RAY_ADDRESS")
    if address:
        reachable(address)
    else:
        # Else Ray would write a token of its own, readable by all, into the home directory.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    import ray

    from webtochat.errors import UserError

    options: dict[str, Any] = {"address": address} if address else {
        "num_cpus": recipe.cluster.cpus or max(4, os.cpu_count() or 1), "include_dashboard": False, "address": "local",
        "_metrics_export_port": recipe.cluster.metrics_port,
    }  # fmt: skip
    modules = [str(ROOT / "platform" / "webtochat"), str(ROOT / "serving")]
    modules += [str(path.parent) for path in sorted((ROOT / "recipes").glob("*/__init__.py"))]
    modules += [str(path) for path in sorted((ROOT / "recipes").glob("*.py"))]
    try:
        ray.init(
            **options, log_to_driver=False, logging_level="error",
            runtime_env={"py_modules": modules, "env_vars": WORKER_ENVIRONMENT},
        )  # fmt: skip
    except (ray.exceptions.AuthenticationError, ConnectionError) as error:
        if not address:
            raise
        raise UserError(
            f"the cluster at RAY_ADDRESS={address} does not let this job in: if it asks for a token, set "
            "RAY_AUTH_MODE=token and RAY_AUTH_TOKEN"
        ) from error


def reachable(address: str) -> None:
    """Raises UserError where nobody listens at RAY_ADDRESS: Ray itself would try for minutes."""
    from webtochat.errors import UserError

    if address.startswith(("http://", "https://")):
        raise UserError(f"RAY_ADDRESS={address} is for `ray job submit`: unset it to run on this machine")
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not port.isdigit():  # "auto", "local"
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except OSError as error:
        raise UserError(f"no Ray cluster at RAY_ADDRESS={address}: start it, or unset RAY_ADDRESS") from error
