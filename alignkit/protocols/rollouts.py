"""How responses are sampled: the settings, the records, and the backend that samples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from alignkit.protocols.policies import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How responses are drawn. The backend's recipe table sets it, the algorithm adjusts it."""

    n: int = 1
    """Responses per prompt."""
    temperature: float = 1.0
    """Divides the logits; 0 means greedy."""
    top_p: float = 1.0
    """Nucleus: keep the smallest set of tokens with at least this probability; 1 = all."""
    top_k: int = 0
    """Keep the k most probable tokens; 0 = all."""
    min_p: float = 0.0
    """Keep tokens at least this fraction as probable as the most probable one; 0 = all."""
    max_tokens: int = 1024
    """A response is cut (finish_reason "length") after this many tokens."""
    min_tokens: int = 0
    """No end of sequence and no stop string before this many tokens."""
    stop: tuple[str, ...] = ()
    """A response ends right after the first of these strings, which stays in the text."""
    seed: int = 0
    """Draws are keyed by (seed, step, prompt key, sample index), never by batch position."""
    step: int = 0
    """Training step the draws belong to."""
    prompt_keys: tuple[int, ...] | None = None
    """One key per prompt; None means each prompt's position in the call."""


@dataclass(frozen=True, slots=True)
class Completion:
    """One sampled response."""

    text: str
    """Decoded response, without special tokens, cut right after the stop string if one ended it."""
    token_ids: tuple[int, ...]
    """The sampled ids, the end-of-sequence id included when the model drew it."""
    logprobs: tuple[float, ...]
    """Log-probability of each sampled id under the distribution it was drawn from."""
    finish_reason: Literal["stop", "length"]
    """"stop": end of sequence or stop string; "length": cut at max_tokens."""
    weight_version: int
    """``Policy.version`` of the weights that sampled it."""
    given: tuple[bool, ...] | None = None
    """For each of ``token_ids``, whether an environment inserted it between two turns: such ids
    have no entry in ``logprobs`` and are never trained on. None = all were sampled."""


class Response(str):
    """A sampled response as a reward receives it: its text, with a record of how it was sampled.

    Text derived from it (stripped, cut, joined) is a plain ``str`` again. So is a response that
    was not sampled, such as a row of a file: a reward that needs more than the text checks with
    ``isinstance``. During a run it is a ``SampledResponse`` of :mod:`alignkit.dialogues`, which
    separates the thought from the answer.
    """

    completion: Completion

    @classmethod
    def of(cls, completion: Completion) -> Response:
        """Return the text of a completion."""
        made = cls(completion.text)
        made.completion = completion
        return made


class RolloutBackend(Protocol):
    """Samples responses from the current policy. Optional: :class:`Streams`, :class:`Holds`."""

    @property
    def sampling(self) -> Sampling:
        """What the recipe's table sets; algorithms ``dataclasses.replace`` n, stop and seed."""
        ...

    def start(self, policy: Policy, /) -> None:
        """Get ready to sample from ``policy``; called once, before anything else."""
        ...

    def sync(self, policy: Policy, /) -> None:
        """Take over the policy's current weights and drop every cache built with older ones."""
        ...

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, /
    ) -> list[list[Completion]]:
        """Return ``sampling.n`` completions for each prompt (token ids), in order."""
        ...

    def close(self) -> None:
        """Release devices and processes; calling it twice is fine."""
        ...


class Streams(RolloutBackend, Protocol):
    """A rollout backend that hands over each prompt's completions as soon as they are finished."""

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, /
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Yield each prompt's index, once and in any order, with what ``generate`` returns for it.

        The caller judges groups between items.
        """
        ...


@runtime_checkable
class Holds(Protocol):
    """A rollout backend that can sample from weights of its own while the policy learns."""

    def hold(self) -> None:
        """From now on sample from a copy of the weights as of the last ``sync``."""
        ...


@runtime_checkable
class SavesHeld(Protocol):
    """A backend that :class:`Holds` whose weights can be saved and given back.

    A batch that could not be sampled beside a step is then sampled exactly when the run resumes.
    """

    def held_weights(self) -> dict[str, Tensor]:
        """Return a copy, on the CPU, of the weights that responses are sampled from."""
        ...

    def load_held_weights(self, weights: Mapping[str, Tensor], version: int, /) -> None:
        """Sample from these weights, of that version of the policy, until the next ``sync``."""
        ...


@runtime_checkable
class Prefetches(Protocol):
    """Parameters of a rollout backend that tell, before it is built, whether it :class:`Holds`."""

    @property
    def samples_ahead(self) -> bool:
        """Whether the backend they build can sample while the policy learns."""
        ...
