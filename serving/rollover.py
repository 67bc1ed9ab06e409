"""A newer model in the place of an older one, without a request that fails. Each model is a Serve application of its
own; the assistant before them is one more, bound to one of them. The newer one is started and waited for; then the
assistant is deployed anew, bound to it: Serve has the new replica up before it drains the old (max_surge_percent). The
older model goes when no assistant that asks it is left. Until then both stand in memory.
"""

from __future__ import annotations

import time

from ray import serve
from ray.serve.schema import ApplicationStatus

from serving import app
from webtochat.artifact import Artifact
from webtochat.errors import MachineError
from webtochat.recipe import Recipe

ASSISTANT = "webtochat"
LOOK_SECONDS = 0.2


def model_application(found: Artifact) -> str:
    """The name of a model's application."""
    return f"model-{found.content_hash[:12]}"


def deploy(chosen: Recipe, found: Artifact) -> None:
    """Serves a model, in the place of any other. Raises MachineError where it or its assistant does not come up; then
    what was served before is still served."""
    name = model_application(found)
    try:
        _run(app.model(chosen, found), name, None, chosen.serve.start_seconds)
    except MachineError:
        serve.delete(name)
        raise
    assistant = app.assistant(chosen, found, serve.get_app_handle(name))
    _run(assistant, ASSISTANT, "/", chosen.serve.start_seconds + chosen.serve.drain_seconds)
    for other in serve.status().applications:
        if other not in (name, ASSISTANT):
            serve.delete(other)


def _run(application: serve.Application, name: str, route: str | None, seconds: float) -> None:
    """Returns once it is up, and nothing of what it replaces is left: that is what Serve calls running."""
    target = serve.RunTarget(application, name=name, route_prefix=route)
    serve.run_many([target], wait_for_applications_running=False)
    end = time.monotonic() + seconds
    while True:
        found = serve.status().applications[name]
        if found.status == ApplicationStatus.RUNNING:
            return
        if found.status == ApplicationStatus.DEPLOY_FAILED:
            raise MachineError(f"{name} does not start: {found.message}")
        if time.monotonic() > end:
            raise MachineError(f"{name} is not up after {seconds:g} s: is there room for it beside the other model?")
        time.sleep(LOOK_SECONDS)
