"""The fast sampler: prompts prefilled together, responses decoded in rows that are refilled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignkit.protocols import Completion, Policy, Sampling
from alignkit_hf.fast.decoding import Decoding
from alignkit_hf.fast.forward import Forward
from alignkit_hf.fast.probe import qualify, qualify_past
from alignkit_hf.fast.static import GraphForward
from alignkit_hf.sampling.calls import windows
from alignkit_hf.sampling.texts import Texts


class FastSampler:
    """Samples in the best way that the model qualifies for."""

    def __init__(
        self, policy: Policy, texts: Texts, kv_cache_tokens: int, *, cuda_graphs: bool
    ) -> None:
        """Try the model out on a few tokens.

        Raises:
            UnqualifiedError: no way gives what plain calls of the model give.
        """
        on_cuda = next(policy.model.parameters()).device.type == "cuda"
        kind = GraphForward if cuda_graphs and on_cuda else Forward
        self.forward: Forward = kind(policy)
        self.texts, self.kv_cache_tokens = texts, kv_cache_tokens
        qualify(self.forward)
        self._untried = windows(self.forward.model)

    def qualify(self, longest: int) -> None:
        """Try the model out past each of its windows below ``longest``, each once.

        Raises:
            UnqualifiedError: rows of so many tokens are not decoded right.
        """
        while self._untried and self._untried[0] < longest:
            qualify_past(self.forward, self._untried[0])
            del self._untried[0]

    def stream(
        self, prompts: Sequence[Sequence[int]], how: Sampling, /
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Yield each prompt's index and completions soon after the last of them is finished."""
        return Decoding(self.forward, self.texts, how, self.kv_cache_tokens).run(prompts)
