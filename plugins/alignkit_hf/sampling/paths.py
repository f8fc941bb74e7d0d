"""Chooses between the plain sampler and a faster one: the only place that knows both."""

from __future__ import annotations

from functools import cached_property
from typing import Literal

from alignkit.protocols import Policy
from alignkit_hf.fast.sampler import FastSampler
from alignkit_hf.sampling.calls import tried
from alignkit_hf.sampling.plain import PlainSampler
from alignkit_hf.sampling.texts import Texts


class Paths:
    """The samplers of one policy: a fast one for as long as it qualifies, or else the plain one."""

    def __init__(
        self,
        policy: Policy,
        texts: Texts,
        *,
        decoding: Literal["auto", "plain"],
        kv_cache_tokens: int,
        cuda_graphs: bool,
    ) -> None:
        """Try the model out.

        Raises:
            AlignkitError: it cannot be sampled from at all.
        """
        self.policy, self.texts, self.kv_cache_tokens = policy, texts, kv_cache_tokens
        self.fast: FastSampler | None = None
        self._otherwise = (
            f"{policy.name} is sampled from by plain calls of the model, which is slow, "
            "as faster decoding does not work for it"
        )
        if decoding == "auto":
            with tried(self._otherwise):
                self.fast = FastSampler(policy, texts, kv_cache_tokens, cuda_graphs=cuda_graphs)
        if self.fast is None:
            self.plain  # noqa: B018 - tried out now

    def sampler(self, longest: int) -> FastSampler | PlainSampler:
        """Return the sampler for rows of up to ``longest`` tokens, prompts included."""
        fast, self.fast = self.fast, None
        if fast is not None:
            with tried(self._otherwise):
                fast.qualify(longest)
                self.fast = fast
        return self.fast or self.plain

    @cached_property
    def plain(self) -> PlainSampler:
        """The plain sampler, made when it is first needed."""
        return PlainSampler(self.policy, self.texts, self.kv_cache_tokens)
