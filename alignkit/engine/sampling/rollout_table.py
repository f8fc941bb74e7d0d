"""What rollout backends share: recipe fields and checks of requests. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any

from pydantic import Field

from alignkit.component import Params
from alignkit.errors import AlignkitError
from alignkit.protocols import RolloutBackend, Sampling


class SamplingParams(Params[RolloutBackend]):
    """How responses are drawn; a backend's Params adds its own fields below these."""

    temperature: Annotated[float, Field(ge=0)] = 1.0
    """Divides the logits before the softmax; 0 takes the most probable token. Dimensionless."""

    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Keep the smallest set of most probable tokens holding this much probability; 1 keeps all."""

    top_k: Annotated[int, Field(ge=0)] = 0
    """Keep this many of the most probable tokens; 0 keeps all."""

    min_p: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Keep tokens with at least this share of the top token's probability; 0 keeps all."""

    max_tokens: Annotated[int, Field(ge=1)] = 1024
    """A response is cut after this many tokens (finish_reason "length")."""

    min_tokens: Annotated[int, Field(ge=0)] = 0
    """Nothing ends a response before this many tokens: no end-of-sequence id, no stop string."""

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Refuse a minimum above the maximum."""
        if self.min_tokens > self.max_tokens:
            yield "min_tokens", f"is {self.min_tokens}, above max_tokens = {self.max_tokens}"

    def sampling(self) -> Sampling:
        """Return the record an algorithm completes with n, stop, seed, step and prompt keys."""
        return Sampling(**self.model_dump(include={*SamplingParams.model_fields}))


def check_request(prompts: Sequence[Sequence[int]], sampling: Sampling) -> None:
    """Raise AlignkitError for prompts or settings that no backend can sample with."""
    for i, prompt in enumerate(prompts):
        if not len(prompt):
            raise AlignkitError(f"prompt {i} has no tokens; a model needs at least one to start")
    if sampling.n < 1:
        raise AlignkitError(f"asked for {sampling.n} responses per prompt; the least is 1")
    if "" in sampling.stop:
        raise AlignkitError("a stop string is empty; it would end every response at once")
    if sampling.prompt_keys is not None and len(sampling.prompt_keys) != len(prompts):
        raise AlignkitError(
            f"{len(sampling.prompt_keys)} prompt keys for {len(prompts)} prompts; give one each"
        )
