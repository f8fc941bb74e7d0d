"""Requests to a sampler and its results, the same for every sampler."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from alignkit.protocols import Completion, Sampling
from alignkit_hf.sampling.rng import stream
from alignkit_hf.sampling.texts import Texts


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and the responses asked for."""

    prompt: Sequence[int]
    limit: int
    """Tokens a response may have: ``max_tokens``, or what the model's length leaves."""
    streams: list[int]
    """Stream that each response's random draws come from; one per response."""

    @property
    def longest(self) -> int:
        """Tokens of the prompt and its longest possible response."""
        return len(self.prompt) + self.limit


def requests(prompts: Sequence[Sequence[int]], how: Sampling, max_length: int) -> list[Request]:
    """Return what ``how`` asks for each prompt of a model that takes ``max_length`` tokens."""
    keys = how.prompt_keys or range(len(prompts))
    return [
        Request(
            prompt=prompt,
            limit=max(0, min(how.max_tokens, max_length - len(prompt))),
            streams=[stream(how.seed, how.step, key, sample) for sample in range(how.n)],
        )
        for prompt, key in zip(prompts, keys, strict=True)
    ]


@dataclass(slots=True)
class Response:
    """What was drawn for one response."""

    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ended: bool = False
    """Whether it ended by an end-of-sequence id or a stop string, not by its limit."""
    cut: str | None = None
    """The text up to the stop string that ended it, if one did."""

    def completion(self, texts: Texts, eos_ids: frozenset[int], version: int) -> Completion:
        """Return the response as the backend hands it out; an end-of-sequence id has no text."""
        ids, text = self.ids, self.cut
        if text is None:
            text = texts.decode(ids[:-1] if ids and ids[-1] in eos_ids else ids)
        return Completion(
            text=text,
            token_ids=tuple(ids),
            logprobs=tuple(self.logprobs),
            finish_reason="stop" if self.ended else "length",
            weight_version=version,
        )
