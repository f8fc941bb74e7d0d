"""Rollouts from the policy's own weights, in the same process."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Literal, cast

from torch import Tensor

from alignkit.engine.ranks.shards import shards_of
from alignkit.engine.sampling.rollout_table import check_request
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Policy, Sampling
from alignkit_hf.policy.served import Served
from alignkit_hf.policy.twins import adapted
from alignkit_hf.sampling.paths import Paths
from alignkit_hf.sampling.texts import Texts

_NOT_STARTED = "the hf rollout backend was not started: call start(policy)"


class HfBackend:
    """Samples with the model itself. Keeps nothing between calls but the tokenizer's tables.

    A policy with an adapter is sampled with merged weights, a copy made at each sync; a policy cut
    over several ranks from a whole copy, gathered at each sync; after ``hold`` any policy is
    sampled from a copy.
    """

    def __init__(
        self,
        sampling: Sampling,
        *,
        kv_cache_tokens: int,
        cuda_graphs: bool = True,
        decoding: Literal["auto", "plain"] = "auto",
    ) -> None:
        self.sampling = sampling
        self._find_paths = partial(
            Paths, kv_cache_tokens=kv_cache_tokens, cuda_graphs=cuda_graphs, decoding=decoding
        )
        self._policy: Policy | None = None
        self._served: Served | None = None
        self._paths: Paths | None = None

    def start(self, policy: Policy, /) -> None:
        """Load the model and check that it can be sampled from."""
        self._policy = policy
        base, _ = adapted(policy)
        apart = base is not None or shards_of(policy.model)
        self._served = Served(policy) if apart else None
        texts = Texts(policy.tokenizer, _vocabulary(policy))
        self._paths = self._find_paths(self._served or policy, texts)

    def hold(self) -> None:
        """From now on sample from a copy of the weights, made now and again at each sync."""
        if self._policy is None or self._paths is None:
            raise AlignkitError(_NOT_STARTED)
        if self._served is None:
            self._served = Served(self._policy)
            self._paths = self._find_paths(self._served, self._paths.texts)

    def held_weights(self) -> dict[str, Tensor]:
        """Return a copy of the weights it samples from, on the CPU."""
        if self._served is None:
            raise AlignkitError("the hf rollout backend holds no weights: call hold()")
        state = self._served.model.state_dict()
        return {name: value.detach().to("cpu", copy=True) for name, value in state.items()}

    def load_held_weights(self, weights: Mapping[str, Tensor], version: int, /) -> None:
        """Sample from these weights until the next sync."""
        if self._served is None:
            raise AlignkitError("the hf rollout backend holds no weights: call hold()")
        self._served.load(weights, version)

    def sync(self, policy: Policy, /) -> None:
        """Take over the weights, if there is a copy; each call builds its own cache."""
        if self._paths is None or policy is not self._policy:
            self.start(policy)
        elif self._served is not None:
            self._served.take()

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, /
    ) -> list[list[Completion]]:
        """Return ``sampling.n`` completions for each prompt, in order.

        A prompt that leaves no room below the policy's ``max_length`` gives completions without
        tokens, finish_reason "length".

        Raises:
            AlignkitError: a prompt or a stop string is empty, or ``start`` was not called.
        """
        groups = dict(self.stream(prompts, sampling))
        return [groups[i] for i in range(len(prompts))]

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, /
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Yield what ``generate`` returns, each prompt's with its index, as groups finish.

        Raises:
            AlignkitError: at the call itself, for the reasons ``generate`` has.
        """
        if self._paths is None:
            raise AlignkitError(_NOT_STARTED)
        check_request(prompts, sampling)
        longest = max((len(prompt) for prompt in prompts), default=0) + sampling.max_tokens
        sampler = self._paths.sampler(min(longest, self._paths.policy.max_length))
        name = self._paths.policy.name
        return _finite(sampler.stream(prompts, sampling), name, sampling.step)

    def close(self) -> None:
        """Let go of the policy."""
        self._policy = self._served = self._paths = None


def _vocabulary(policy: Policy) -> int:
    """Return how many token ids the model gives a logit for."""
    model = cast(Any, policy.model)
    head = model.get_output_embeddings()
    size: int = model.config.get_text_config().vocab_size if head is None else len(head.weight)
    return size


def _finite(
    groups: Iterator[tuple[int, list[Completion]]], name: str, step: int
) -> Iterator[tuple[int, list[Completion]]]:
    """Pass the groups on; AlignkitError at the first token whose distribution was not finite."""
    for index, group in groups:
        for completion in group:
            if not math.isfinite(sum(completion.logprobs)):
                at = next(i for i, p in enumerate(completion.logprobs) if not math.isfinite(p))
                raise AlignkitError(
                    f"the logits of {name} are not finite at step {step} (token {at + 1} of a "
                    f"response): its weights have diverged\n  Lower optimizer.lr or "
                    f"max_grad_norm, or train in float32; a checkpoint from before goes on well."
                )
        yield index, group
