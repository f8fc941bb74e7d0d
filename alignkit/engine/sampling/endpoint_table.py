"""The keys by which a recipe names an OpenAI-compatible endpoint, and its limits."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

from pydantic import Field

from alignkit.component import NewPath, Params

if TYPE_CHECKING:
    from alignkit.engine.sampling.endpoint import Endpoint
else:  # a name for annotations; importing it would import an HTTP client
    Endpoint = Any

T = TypeVar("T")
LIMITS = frozenset(
    {"timeout", "retries", "backoff", "requests_per_minute", "token_budget", "concurrency"}
)


class EndpointFields(Params[T], Generic[T]):
    """Keys of what asks an endpoint."""

    url: Annotated[str, Field(pattern="^(https?://.*)?$")] = ""
    """Base URL of the endpoint, such as ``http://localhost:8000/v1``."""

    model: str = ""
    """Name of the model to request from the endpoint."""

    cache: NewPath | None = None
    """JSON Lines file of replies, created if missing; give it on the command line. Unset: they are
    kept in memory only."""

    key_from: str = ""
    """Environment variable with the endpoint's API key; "" = it needs none."""

    max_tokens: Annotated[int, Field(ge=1)] = 256
    """Most tokens of a reply."""

    timeout: Annotated[float, Field(gt=0)] = 60.0
    """Seconds an attempt may take in all, whatever arrives meanwhile."""

    retries: Annotated[int, Field(ge=0)] = 4
    """Further attempts when the endpoint stalls, fails or is busy."""

    backoff: Annotated[float, Field(ge=0)] = 1.0
    """Seconds before the second attempt; each further wait is twice as long, at most 60."""

    concurrency: Annotated[int, Field(ge=1)] = 8
    """Requests open at the same time."""

    requests_per_minute: Annotated[float, Field(ge=0)] = 0.0
    """Requests started per minute, spread evenly; 0 = no limit."""

    token_budget: Annotated[int, Field(ge=0)] = 0
    """Prompt and reply tokens that one process may spend; 0 = no limit. A request is made only if
    the most it may take is left: a token for each byte of the prompt, plus ``max_tokens``. What the
    endpoint reports counts in full, so its own system prompt can exceed that."""

    def endpoint(self, temperature: float = 0.0) -> Endpoint:
        """Return the endpoint that these keys name."""
        from alignkit.engine.sampling import endpoint

        limits = endpoint.Limits(**self.model_dump(include={*LIMITS}))
        key = os.environ.get(self.key_from, "") if self.key_from else ""
        cache = endpoint.Cache(self.cache)
        return endpoint.Endpoint(
            self.url, self.model, self.max_tokens, key, limits, cache, temperature
        )

    def missing(self) -> Iterable[str]:
        if self.key_from and not os.environ.get(self.key_from):
            yield f"the environment variable {self.key_from} is not set; it is to hold the key"

    def named(self) -> Iterable[tuple[str, str]]:
        """Yield a problem for each of ``url`` and ``model`` that is not given."""
        for key in ("url", "model"):
            if not getattr(self, key):
                yield key, "an endpoint needs both url and model"


class EndpointTable(EndpointFields[Endpoint]):
    """An OpenAI-compatible endpoint, ``[endpoint]``, that is asked in place of a policy."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Sampling temperature; 0 = greedy."""

    def build(self) -> Endpoint:
        return self.endpoint(self.temperature)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return self.named()
