"""Serve the newest model of a recipe: the chat page and OpenAI's API on one port. Ctrl-C stops.

python jobs/serve.py recipes/demo.yaml
python jobs/serve.py recipes/demo.yaml serve.port=8080 serve.temperature=0
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, Any

from job import chatter_to_log, guarded, parser, placed, ray_started

if TYPE_CHECKING:
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
    """What would fail only after half a minute: no model, a port in use."""
    from serving.app import newest_model

    from webtochat.errors import UserError

    newest_model(chosen)
    if chosen.serve.host not in ("127.0.0.1", "localhost", "::1"):
        raise UserError(
            f"serve.host={chosen.serve.host} would be open to others, and there are no API keys yet: "
            "keep to loopback and put a proxy that asks for a key before it"
        )
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
    from serving.app import application

    ray_serve.start(http_options={"host": chosen.serve.host, "port": chosen.serve.port})
    try:
        ray_serve.run(application(chosen), name="webtochat", route_prefix="/")
        address = f"http://{chosen.serve.host}:{chosen.serve.port}"
        print(f"chat at {address}  (API: {address}/v1)  Ctrl-C stops", file=screen, flush=True)
        while True:
            time.sleep(3600)
    finally:
        ray_serve.shutdown()


if __name__ == "__main__":
    main()
