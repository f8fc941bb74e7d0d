"""What each kind of component produces, and the records passed between them.

Shapes: B = responses, T = tokens of the longest response. Logarithms are natural.
Nothing here imports torch; tensors appear in annotations only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer as TorchOptimizer
    from torch.optim.lr_scheduler import LRScheduler
    from transformers import PreTrainedTokenizerBase

    from alignkit.episodes import Episode, EpisodeLimits
    from alignkit.lifecycle.signals import Signals


# ---------------------------------------------------------------- records


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a dataset."""

    id: str
    """Unique within its dataset and stable between runs."""
    question: str
    """The problem as the prompt template receives it."""
    answer: str
    """The gold answer the reward compares with (for SFT: the response to imitate)."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Every other column of the row, untouched."""
    also_accepted: tuple[str, ...] = ()
    """Further answers that count as right, where the data name several."""
    messages: tuple[Mapping[str, Any], ...] = ()
    """The dialogue, if the row is one, with the assistant's last turn if the row has it.
    ``question`` is then the user's last message, ``answer`` the assistant's."""

    @property
    def answers(self) -> tuple[str, ...]:
        """All answers that count as right; ``answer`` is the first."""
        return (self.answer, *self.also_accepted)


@dataclass(frozen=True, slots=True)
class Reward:
    """What a reward function returns for one response."""

    total: float
    """The number the algorithm maximises."""
    parts: Mapping[str, float] = field(default_factory=dict)
    """Named components of the total for the logs, such as ``{"format": 1.0, "answer": 0.0}``."""


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


@dataclass(frozen=True, slots=True, kw_only=True)
class LossInputs:
    """One micro-batch as the loss sees it. Padding positions hold zeros and mask False."""

    logprobs: Tensor
    """(B, T) log πθ(o_t | q, o_<t); carries the gradient."""
    mask: Tensor
    """(B, T) bool, True at response tokens."""
    advantages: Tensor
    """(B, 1), one for all tokens of a response, or (B, T), one for each; no gradient."""
    old_logprobs: Tensor | None = None
    """(B, T) under the policy at the start of the rollout batch's updates, no gradient."""
    ref_logprobs: Tensor | None = None
    """(B, T) under the frozen reference policy, no gradient."""
    rollout_logprobs: Tensor | None = None
    """(B, T) as reported by the rollout backend, no gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LossOutput:
    """What a loss returns."""

    per_token: Tensor
    """(B, T) loss to MINIMISE, before masking and normalisation."""
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    """(B, T) or (B, 1) tensors, detached; logged as means over the step's response tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePairs:
    """The P pairs of a step as a preference loss sees them; all tensors are (P,) float64."""

    chosen: Tensor
    """log πθ of the whole preferred response, in nats; carries the gradient."""
    rejected: Tensor
    """log πθ of the whole rejected response, in nats; carries the gradient."""
    chosen_tokens: Tensor
    """Number of tokens in the preferred response."""
    rejected_tokens: Tensor
    """Number of tokens in the rejected response."""
    ref_chosen: Tensor | None = None
    """log πref of the preferred response, no gradient."""
    ref_rejected: Tensor | None = None
    """log πref of the rejected response, no gradient."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferenceOutput:
    """What a preference loss returns for P pairs."""

    loss: Tensor
    """(P,) loss to MINIMISE; the algorithm takes the mean over the step's pairs."""
    margin: Tensor
    """(P,) above 0 where the pair is ranked correctly; detached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledBatch:
    """The responses of a step, group by group, as passed to an advantage that :class:`Weighs`."""

    rewards: Tensor
    """(B,) float64, what is maximised: reward totals minus the penalty of a k1 reference."""
    group_sizes: Sequence[int]
    """Number of responses in each group, which may differ; groups are consecutive."""
    lengths: Tensor
    """(B,) int64 T_i, the number of tokens of each response that are trained on."""
    responses: Sequence[Response]
    """The texts, which also hold their tokens, log-probs and how they ended."""
    examples: Sequence[Example]
    """The question of each response. After a run is resumed within a step, ``extra`` columns that
    JSON cannot hold are missing."""
    parts: Sequence[Mapping[str, float]]
    """Named components of each reward, as in :attr:`Reward.parts`."""
    step: int
    """The training step that the responses were sampled for, counted from 1."""


@dataclass(frozen=True, slots=True)
class StepTotals:
    """Counts over the WHOLE optimizer step, however it is split into micro-batches (and ranks)."""

    responses: int
    """Responses in the step, including those without a token."""
    tokens: int
    """Unmasked response tokens in the step."""


# ---------------------------------------------------------------- the run


class Run(Protocol):
    """A run directory, and the channel through which algorithms and trackers report to it."""

    dir: Path
    """Holds ``recipe.toml``, ``manifest.json``, ``metrics.jsonl`` and what the run produces."""
    plan: Mapping[str, Any]
    """The resolved recipe, as in ``recipe.toml``."""
    printer: Callable[[str], None]
    """Where :meth:`say` prints; a tracker that owns the terminal may replace it."""
    total_steps: int | None
    """Number of the last step, for progress displays; set by algorithms that know it."""
    resumed: bool
    """Whether rows of this run may have been logged before, by a process that ended."""
    first_step: int
    """The first step to log; rows of earlier steps exist already and are not logged again."""
    checkpoint: Path | None
    """Folder to resume from, for ``alignkit.engine.training.loop``."""
    profiled: bool
    """Whether a few steps are profiled, by ``alignkit.engine.training.loop``."""
    computed: dict[str, str]
    """How named parts of the run are computed; recorded in ``manifest.json``."""
    signals: Signals
    """Delays signals while something must not be left half done."""

    @property
    def name(self) -> str:
        """Name of the run directory."""
        ...

    def elapsed(self) -> float:
        """Return the seconds the run has taken, including those before it was resumed."""
        ...

    def say(self, text: str) -> None:
        """Print a line for the user."""
        ...

    def note(self, text: str) -> None:
        """Print a line and also keep it in the manifest, under ``notes``."""
        ...

    def attach(self, trackers: Iterable[Tracker]) -> None:
        """Start trackers, which then receive every row; the run closes them when it ends."""
        ...

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Append one row to ``metrics.jsonl`` and pass it to the trackers; call once per step."""
        ...

    def rows(self, step: int, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write samples to ``{name}/step_NNNNNN.jsonl`` and pass them to the trackers.

        ``name`` is ``rollouts``, ``eval`` or ``eval/SET``.
        """
        ...

    def stay(self) -> None:
        """Raise AlignkitError if the directory was deleted or moved during the run.

        ``dir`` is then set to where the run's state can be saved.
        """
        ...

    def logged_bytes(self) -> int:
        """Return the length of ``metrics.jsonl``."""
        ...

    def sync_metrics(self) -> None:
        """Flush ``metrics.jsonl`` to disk, before a checkpoint relies on it."""
        ...


# ---------------------------------------------------------------- kinds


class Algorithm(Protocol):
    """A whole run: a training procedure or an evaluation."""

    def run(self, run: Run) -> Mapping[str, float]:
        """Do the work, log through ``run``, return the final metrics."""
        ...


class Policy(Protocol):
    """The model being trained, with its tokenizer. Optional abilities: :class:`Adapted`,
    :class:`Begins`, :class:`Rated`, and ``Ends`` of :mod:`alignkit.dialogues`."""

    version: int
    """Counts weight updates; the learner adds one per optimizer step."""

    @property
    def name(self) -> str:
        """Folder or Hub name the weights came from."""
        ...

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase: ...

    @property
    def model(self) -> nn.Module:
        """The torch module, loaded at first use, on its training device."""
        ...

    @property
    def eos_ids(self) -> frozenset[int]:
        """Every id that ends a response, from the model's generation config."""
        ...

    @property
    def pad_id(self) -> int: ...

    @property
    def max_length(self) -> int:
        """The most tokens the model takes, prompt and response together."""
        ...

    def autocast(self) -> Any:
        """Context manager for the forward pass (bf16 autocast, or nothing)."""
        ...

    def save(self, folder: Path) -> None:
        """Write a Hugging Face folder that ``from_pretrained`` loads."""
        ...


class Dataset(Protocol):
    """A finite, ordered collection of examples. Optional: :class:`Orders`, :class:`Observes`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Example: ...


class PromptTemplate(Protocol):
    """Turns a question into prompt text. Optional: ``Converses`` of :mod:`alignkit.dialogues`."""

    @property
    def stop(self) -> Sequence[str]:
        """Strings that end a response."""
        ...

    def render(self, question: str) -> str:
        """Return the prompt, which contains the question verbatim."""
        ...


class RewardFn(Protocol):
    """Judges responses, many at a time.

    Optional: :class:`Judges`, :class:`Reads`, :class:`Closes`. During a run the responses are
    :class:`Response`.
    """

    def __call__(
        self, responses: Sequence[str], examples: Sequence[Example], /
    ) -> Sequence[Reward]:
        """Return one reward per response, in order; never raise on what a model wrote."""
        ...


class Environment(Protocol):
    """Answers the policy turn by turn, in episodes; see :mod:`alignkit.episodes`."""

    @property
    def stop(self) -> Sequence[str]:
        """Strings that end a turn."""
        ...

    @property
    def limits(self) -> EpisodeLimits:
        """Where episodes are cut, from the recipe's table."""
        ...

    def open(self, example: Example, /, *, seed: int) -> Episode:
        """Begin an episode; equal examples and seeds give episodes that behave the same.

        The episodes of a group share both. The episodes of a batch are opened and stepped at the
        same time, on several threads.
        """
        ...


class Advantage(Protocol):
    """Turns rewards into advantages. Groups are consecutive blocks of ``group_size``.

    Optional: :class:`Weighs`.
    """

    def __call__(self, rewards: Tensor, /, *, group_size: int) -> Tensor:
        """Map (B,) to (B,)."""
        ...


class LossType(Protocol):
    """Policy-gradient surrogate: turns log-probs and advantages into a per-token loss."""

    def __call__(self, inputs: LossInputs, /) -> LossOutput: ...


class PreferenceLoss(Protocol):
    """Turns pairs of a preferred and a rejected response into one loss per pair."""

    def __call__(self, pairs: PreferencePairs, /) -> PreferenceOutput:
        """Return loss and margin of each pair, which must not depend on the other pairs."""
        ...


class Normalizer(Protocol):
    """Turns per-token losses into the scalar that is differentiated.

    It must be additive: the sum over any partition of the step into micro-batches, each
    called with the same ``totals``, equals the value for the step as one batch.
    """

    def __call__(self, per_token: Tensor, mask: Tensor, /, *, totals: StepTotals) -> Tensor:
        """Map (B, T) and (B, T) bool to a scalar."""
        ...


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


class Optimizer(Protocol):
    """Creates the torch optimizer and its learning-rate schedule. Optional ability:
    ``Looks`` of :mod:`alignkit.abilities`."""

    @property
    def max_grad_norm(self) -> float:
        """Gradients with a larger global L2 norm are scaled down to this norm; ``inf`` = never."""
        ...

    def start(
        self, parameters: Iterable[nn.Parameter], *, total_steps: int
    ) -> tuple[TorchOptimizer, LRScheduler]:
        """Return the optimizer and a schedule to be stepped once per optimizer step."""
        ...


class Tracker(Protocol):
    """Receives what a run logs. The run directory's ``metrics.jsonl`` is written regardless."""

    def start(self, run: Run, /) -> None: ...

    def log(self, step: int, metrics: Mapping[str, float], /) -> None:
        """Take one row of metrics; ``time`` (seconds since start) is among them."""
        ...

    def rollouts(self, step: int, name: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        """Take a table of samples; ``name`` is "rollouts" or "eval"."""
        ...

    def close(self, status: Literal["done", "failed"], /) -> None: ...


# ---------------------------------------------------------------- optional abilities
#
# A component may offer any of these besides its kind's protocol; callers check for them with
# `isinstance`, or with `judges` and `streams` of `alignkit.abilities`.


@runtime_checkable
class Stateful(Protocol):
    """Any component that changes from step to step, so that a checkpoint must hold its state."""

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs: numbers, strings and tensors, in lists, tuples and dicts."""
        ...

    def load_state_dict(self, state: dict[str, Any], /) -> Any:
        """Restore what :meth:`state_dict` returned."""
        ...


@runtime_checkable
class Weighs(Protocol):
    """An advantage that uses more than rewards: lengths, texts, questions, the step."""

    def weigh(self, batch: SampledBatch, /) -> Tensor | Sequence[Tensor]:
        """Return (B,), or a (T_i,) tensor for each response, one number per trained token.

        Sampling algorithms call this instead of the advantage itself.
        """
        ...


@runtime_checkable
class Groups(Protocol):
    """Parameters of an advantage that tell, before it is built, which groups it can compare."""

    def group_problem(self, group_size: int, /) -> str:
        """Return what is wrong with groups of ``group_size`` responses, "" if nothing is."""
        ...


@runtime_checkable
class Orders(Protocol):
    """A dataset that chooses which questions come next: a fixed order, a curriculum.

    Whatever changes between calls belongs in ``state_dict``, see :class:`Stateful`.
    """

    def choose(self, count: int, /, *, step: int, position: int) -> Sequence[int]:
        """Return the row indices of the next ``count`` questions; a row may be repeated.

        ``step`` is the training step they are for, counted from 1; ``position`` is how many
        questions were chosen before.
        """
        ...


@runtime_checkable
class Observes(Protocol):
    """A dataset that is informed how its questions were answered, as for an adaptive curriculum."""

    def observe(self, rows: Sequence[int], rewards: Sequence[Reward], /) -> None:
        """Receive one reward per response; ``rows`` are the row indices of their questions.

        Called after each round of sampling, in the order of sampling.
        """
        ...


@runtime_checkable
class Closes(Protocol):
    """A reward that holds processes or files until it is closed."""

    def close(self) -> None:
        """Release them; calling it twice is fine."""
        ...


class Pending(Protocol):
    """Verdicts that are still being computed."""

    def result(self) -> Sequence[Reward]:
        """Wait for them; return what calling the reward itself would have returned."""
        ...


class Verdict(Protocol):
    """What was decided about one response."""

    @property
    def why(self) -> str:
        """The reason in a few words, "" if there is none."""
        ...


@runtime_checkable
class Explains(Protocol):
    """A :class:`Pending` that also gives its reasons."""

    def judged(self) -> Sequence[Verdict]:
        """Wait for the verdicts; return one per response, in order."""
        ...


class Judges(RewardFn, Protocol):
    """A reward that judges in the background, so that groups are judged during generation."""

    def submit(self, responses: Sequence[str], examples: Sequence[Example], /) -> Pending:
        """Start judging and return without waiting.

        It is called from the thread that generates, so slow work belongs in other processes or in
        ``result``.
        """
        ...


@runtime_checkable
class Reads(Protocol):
    """A reward that extracts the answer from a response, so that samples can be voted on."""

    def read(self, response: str, /) -> str | None:
        """Return it, normalised so that equivalent answers are equal; None if there is none."""
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


@runtime_checkable
class Adapted(Protocol):
    """A policy that may train an adapter while the other weights stay as they are."""

    @property
    def adapter(self) -> object | None:
        """The adapter; None where all weights are trained."""
        ...

    @property
    def base(self) -> nn.Module | None:
        """The model without its adapter, sharing its weights; None if there is no adapter."""
        ...

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every weight by its checkpoint name, with the adapter merged in."""
        ...


@runtime_checkable
class Begins(Protocol):
    """A policy whose prompts begin with a token of its own."""

    @property
    def bos_ids(self) -> tuple[int, ...]:
        """The beginning-of-sequence id, or nothing."""
        ...


@runtime_checkable
class Rated(Protocol):
    """A policy that knows its hardware's peak, so that a step's utilisation can be computed."""

    @property
    def peak_tflops(self) -> float | None:
        """10¹² floating-point operations per second in its compute type; None = not specified."""
        ...


# ---------------------------------------------------------------- helpers


def per_response(
    judge: Callable[[str, Example], Reward],
) -> Callable[[Sequence[str], Sequence[Example]], list[Reward]]:
    """Turn a function of one response into a batched :class:`RewardFn`.

    >>> exact = per_response(lambda text, example: Reward(float(text == example.answer)))
    >>> exact(["4", "5"], [Example("0", "2+2?", "4")] * 2)[0].total
    1.0
    """
    return lambda responses, examples: [
        judge(r, e) for r, e in zip(responses, examples, strict=True)
    ]


__all__ = [name for name, item in globals().items() if getattr(item, "__module__", "") == __name__]
