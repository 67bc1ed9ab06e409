"""Serve the newest model of a recipe: the chat page and OpenAI's API on one port. Ctrl-C stops.

python jobs/serve.py recipes/demo.yaml
python jobs/serve.py recipes/demo.yaml serve.port=8080 serve.temperature=0
python jobs/serve.py recipes/demo.yaml serve.newer_model_seconds=60        # a newer one replaces it, once it is up
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from job import chatter_to_log, guarded, parser, placed, ray_started

if TYPE_CHECKING:
    from webtochat.artifact import Artifact
    from webtochat.recipe import Recipe


def main() -> None:
    options = parser(__doc__).parse_intermixed_args()

    def work() -> None:
        from webtochat import recipe as recipes

        chosen = placed(recipes.load(options.recipe, options.overrides), options.overrides)
        check(chosen)
        print("starting …", flush=True)
        try:
            # No lock: it only reads, and a pipeline may go on beside it.
            with chatter_to_log(chosen, True) as screen, ray_started(chosen):
                serve(chosen, screen)
        except KeyboardInterrupt:
            print("\nstopped")

    guarded(work)


def check(chosen: Recipe) -> None:
    """What would fail only after half a minute: no model, no key, nowhere to write traces, a port in use."""
    from serving import keys
    from serving.app import newest_model
    from serving.gate import LOOPBACK

    from webtochat.errors import UserError
    from webtochat.tracking import Tracking

    newest_model(chosen)
    if chosen.serve.keys is not None:
        if not keys.read(chosen.serve.keys):
            raise UserError(f"serve.keys={chosen.serve.keys} holds no key: jobs/keys.py makes one")
    elif chosen.serve.host not in LOOPBACK:
        raise UserError(
            f"serve.host={chosen.serve.host} would be open to others, and there are no API keys: without keys it "
            "listens on loopback only; make one with jobs/keys.py and name their file as serve.keys"
        )
    if chosen.serve.traces:
        _ = Tracking(chosen.workspace, chosen.workspace, chosen.name).uri
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((chosen.serve.host, chosen.serve.port))
        except OSError as error:
            raise UserError(
                f"cannot listen on {chosen.serve.host}:{chosen.serve.port} ({error.strerror}): "
                "choose another with serve.port="
            ) from error


def serve(chosen: Recipe, screen: Any) -> None:
    """Runs until it is interrupted."""
    from ray import serve as ray_serve
    from serving import rollover
    from serving.app import newest_model

    ray_serve.start(http_options={"host": chosen.serve.host, "port": chosen.serve.port})
    try:
        seen = newest_model(chosen)
        rollover.deploy(chosen, seen)
        address = f"http://{chosen.serve.host}:{chosen.serve.port}"
        print(f"chat at {address}  (API: {address}/v1)  Ctrl-C stops", file=screen, flush=True)
        while True:
            time.sleep(chosen.serve.newer_model_seconds or 3600)
            if chosen.serve.newer_model_seconds:
                seen = followed(chosen, seen, screen)
    finally:
        ray_serve.shutdown()


def followed(chosen: Recipe, seen: Artifact, screen: Any) -> Artifact:
    """Serves a model that was committed after the one `seen` last. Returns the last one seen: what does not come up is
    not tried again."""
    from serving import rollover
    from serving.app import newest_model

    from webtochat.errors import MachineError, UserError

    try:
        newest = newest_model(chosen)
    except UserError:  # a stage is just being made anew
        return seen
    if newest.content_hash == seen.content_hash or newest.manifest.created <= seen.manifest.created:
        return seen
    try:
        rollover.deploy(chosen, newest)
        print(f"now with the model of {newest.stage}, made {newest.manifest.created}", file=screen, flush=True)
    except MachineError as error:
        print(f"the model stays as it is: {error}", file=screen, flush=True)
    return newest


if __name__ == "__main__":
    main()
