"""Rollouts from the policy's own weights, in the same process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from alignkit.engine.sampling.rollout_table import check_request
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Policy, Sampling
from alignkit_hf.decoding import Decoding
from alignkit_hf.forward import Forward
from alignkit_hf.served import Served
from alignkit_hf.static import GraphForward
from alignkit_hf.stops import StopStrings, Texts

if TYPE_CHECKING:
    from torch import device


class HfBackend:
    """Samples with the model itself. Keeps nothing between calls but the tokenizer's tables.

    A policy with an adapter is sampled from by merged weights, a copy made at each sync; so is
    any policy after ``hold``.
    """

    def __init__(
        self, sampling: Sampling, *, kv_cache_tokens: int, cuda_graphs: bool = True
    ) -> None:
        self.sampling = sampling
        self.kv_cache_tokens = kv_cache_tokens
        self.cuda_graphs = cuda_graphs
        self._policy: Policy | None = None
        self._served: Served | None = None
        self._forward: Forward | None = None
        self._texts: Texts | None = None
        self._stops: dict[tuple[str, ...], StopStrings] = {}

    def start(self, policy: Policy, /) -> None:
        """Load the model and check that it can be sampled from."""
        self._policy = policy
        self._served = Served(policy) if getattr(policy, "adapter", None) else None
        self._forward = self._make_forward(self._served or policy)
        vocab = self._forward.model.get_output_embeddings().weight.shape[0]
        self._texts = Texts(policy.tokenizer, vocab)
        self._stops = {}

    def hold(self) -> None:
        """From now on sample by a copy of the weights as of the last sync, this moment's first."""
        if self._policy is None:
            raise AlignkitError("the hf rollout backend was not started: call start(policy)")
        if self._served is None:
            self._served = Served(self._policy)
            self._forward = self._make_forward(self._served)

    def sync(self, policy: Policy, /) -> None:
        """Take over the weights, if there is a copy; each call builds its own cache."""
        if self._forward is None or policy is not self._policy:
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
        if self._forward is None or self._texts is None:
            raise AlignkitError("the hf rollout backend was not started: call start(policy)")
        check_request(prompts, sampling)
        stops = self._stop_strings(sampling.stop, self._forward.device)
        run = Decoding(self._forward, self._texts, stops, sampling, self.kv_cache_tokens)
        return run.run(prompts)

    def close(self) -> None:
        """Let go of the policy."""
        self._forward = self._texts = self._policy = self._served = None
        self._stops = {}

    def _make_forward(self, policy: Policy) -> Forward:
        on_cuda = next(policy.model.parameters()).device.type == "cuda"
        return GraphForward(policy) if self.cuda_graphs and on_cuda else Forward(policy)

    def _stop_strings(self, stops: tuple[str, ...], device: device) -> StopStrings | None:
        if not stops or self._texts is None:
            return None
        if stops not in self._stops:
            self._stops[stops] = StopStrings(self._texts, stops, device)
        return self._stops[stops]
