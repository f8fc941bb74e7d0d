"""Hugging Face models: the policy being trained, and rollouts from it in the same process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit import Component, hookimpl
from alignkit.engine.sampling.rollout_table import SamplingParams
from alignkit.footprint import CACHE, ModelSizes, Workload
from alignkit.protocols import Policy, RolloutBackend
from alignkit_hf.policy.params import Lora, LoraSpec, PolicyParams

MERGED = "weights with the adapter merged, to sample from"


class HfPolicy(PolicyParams):
    """A causal language model from a Hugging Face folder or the Hub.

    What a model supports is found by trials, not by its name. Running some tokens through the model
    shows whether training can use packed rows, padded rows or only single rows, and whether
    decoding can use alignkit's own cache, with its own decode steps or the model's, or has to call
    the model plainly. The fastest way is chosen whose log-probs equal those of one call per row
    without a cache; after an error in a trial the next simpler way is tried.

    Trials are repeated before the first rows that are longer than an attention window or than the
    positions were made for. Dropout and router noise are always off. Model types whose logits
    change with the tokens that follow are refused before anything is loaded. So are rows past the
    original length of dynamic and longrope positions, whose angles depend on the whole row;
    max_length therefore excludes them.
    """

    def build(self, *, lora: Annotated[LoraSpec, Lora] | None = None) -> Policy:
        from alignkit_hf.policy.causal import CausalPolicy

        policy = CausalPolicy(self, lora)
        policy.refuse_unsupported()
        return policy


class HfRollout(SamplingParams):
    """Sampling in this process, straight from the policy's own weights; needs only torch.

    A group's prompt is run once, finished responses make room for waiting ones, and every random
    draw depends only on (seed, step, prompt, sample, token), not on the batch.
    """

    kv_cache_tokens: Annotated[int, Field(ge=1)] = 2**18
    """Upper bound on tokens held in the key-value cache, which sets how many responses run at
    once. At least one runs, however long. Bytes per token: 2 x layers x key-value heads x
    head size x bytes per number."""

    cuda_graphs: bool = True
    """On a CUDA device, record each decode step of a shape once and replay it: many times faster
    where the model is small. The cache stays allocated from batch to batch. Not used with autocast,
    windowed attention or unusual scores. No effect on CPUs."""

    decoding: Literal["auto", "plain"] = "auto"
    """"plain" makes ordinary calls of the model, one prompt at a time: slow, and the reference for
    all other ways. "auto" takes the fastest way that gives the same for this model, or else
    "plain"."""

    def memory(
        self, tables: Mapping[str, Any], sizes: ModelSizes, workload: Workload
    ) -> Mapping[str, float | None]:
        """Count keys and values of the responses that run at once, and an adapter's merged copy."""
        most = workload.at_once * self.max_tokens or self.kv_cache_tokens
        tokens = min(self.kv_cache_tokens, most)
        merged = {MERGED: float(sizes.parameters * sizes.number)} if sizes.adapted else {}
        return {CACHE: None if sizes.cache is None else sizes.cache * tokens, **merged}

    @property
    def on_ranks(self) -> bool:
        """Whether each of several ranks can have its own."""
        return True

    @property
    def samples_ahead(self) -> bool:
        """Whether it can sample while the policy learns."""
        return True

    def build(self) -> RolloutBackend:
        from alignkit_hf.sampling.backend import HfBackend

        return HfBackend(
            self.sampling(),
            kv_cache_tokens=self.kv_cache_tokens,
            cuda_graphs=self.cuda_graphs,
            decoding=self.decoding,
        )


# Not named after its hook: importing the submodule alignkit_hf.policy would replace it.
@hookimpl(specname="policy")
def policies() -> Iterator[Component[Policy]]:
    """Offer the policy."""
    yield Component("hf", HfPolicy)


@hookimpl
def rollout_backend() -> Iterator[Component[RolloutBackend]]:
    yield Component("hf", HfRollout)
