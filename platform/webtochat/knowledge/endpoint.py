"""A model behind OpenAI's API, asked many things at once."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import openai

from webtochat.errors import MachineError, UserError
from webtochat.recipe import Cluster
from webtochat.recipe_knowledge import Endpoint


class Client:
    """What a server says of an error is not passed on: it may quote the key."""

    def __init__(self, endpoint: Endpoint, cluster: Cluster, named: str = "knowledge.endpoint"):
        """`named`: the recipe's key. Raises UserError where the environment holds no key."""
        key = os.environ.get(endpoint.key_variable)
        if not key:
            raise UserError(f"{named} asks {endpoint.address}: put its key into {endpoint.key_variable}")
        self._endpoint, self._named, self._requests = endpoint, named, cluster.endpoint_requests
        self._client = openai.OpenAI(
            base_url=endpoint.address, api_key=key, timeout=cluster.endpoint_seconds,
            max_retries=cluster.endpoint_retries,
        )  # fmt: skip

    def ask(self, prompts: Sequence[str], failed: Counter[str]) -> list[str | None]:
        """A reply to each, in order; None where there was none, counted in `failed` by reason. Raises UserError where
        the server refuses us, MachineError where it answers none of them."""
        with ThreadPoolExecutor(self._requests) as pool:
            told = list(pool.map(self._reply, prompts))
        replies = [reply for reply, _ in told]
        reasons = Counter(reason for _, reason in told if reason)
        failed.update(reasons)
        if prompts and all(reply is None for reply in replies):
            raise MachineError(
                f"{self._endpoint.address} gives no answer ({', '.join(reasons)}): the same command goes on from here"
            )
        return replies

    def _reply(self, prompt: str) -> tuple[str | None, str]:
        """(reply, why there is none)."""
        try:
            done = self._client.chat.completions.create(
                model=self._endpoint.model, messages=[{"role": "user", "content": prompt}], temperature=0.0
            )
        except openai.APITimeoutError:
            return None, "timeout"
        except openai.APIConnectionError:
            return None, "no_connection"
        except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
            raise UserError(
                f"{self._endpoint.address} answers {error.status_code}: check {self._named}'s address and model, "
                f"and the key in {self._endpoint.key_variable}"
            ) from None
        except openai.APIStatusError as error:
            return None, f"status_{error.status_code}"
        except (openai.OpenAIError, ValueError):
            return None, "not_openai"
        choices = getattr(done, "choices", None)
        content = choices[0].message.content if choices else None
        return (content, "") if content else (None, "empty")
