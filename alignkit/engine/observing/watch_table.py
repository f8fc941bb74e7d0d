"""The ``[watch]`` table that training algorithms share. Imports no torch.

An algorithm takes it by a keyword-only argument of its ``build``, and attaches what it gets as
the last of its trackers. A recipe without the table gets its defaults::

    watch: Annotated[Watcher, WatchTable] = UNWATCHED
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field

from alignkit.component import Params
from alignkit.engine.observing.watch import Action, Rule, Watcher

Share = Annotated[float, Field(ge=0, le=1)]


class WatchTable(Params[Watcher]):
    """What a run watches of itself, from which level on, and what it does then.

    Every rule is on: "warn" says once what was seen, "stop" ends the run as failed, "off" looks
    away. ``alignkit run -s watch.truncated=stop`` is the way to change one.
    """

    steps: Annotated[int, Field(ge=1)] = 3
    """Steps in a row a level must be passed before a rule acts."""

    start_steps: Annotated[int, Field(ge=1)] = 5
    """Steps whose mean is the start that entropy and length are compared with."""

    truncated: Action = "warn"
    """Too many responses cut before the model ended them."""

    truncated_above: Share = 0.5
    """Share of a step's responses."""

    no_signal: Action = "warn"
    """Too many groups whose responses all got the same reward, so that nothing is learned."""

    no_signal_above: Share = 0.9
    """Share of a step's groups."""

    unparsed: Action = "warn"
    """Too many answers that the reward could not read."""

    unparsed_above: Share = 0.2
    """Share of a step's responses."""

    timed_out: Action = "warn"
    """Too many verdicts given up for time or memory, or lost with their worker."""

    timed_out_above: Share = 0.05
    """Share of a step's responses."""

    logprob_gap: Action = "warn"
    """Trainer and rollout backend disagree about the sampled tokens."""

    logprob_gap_above: Annotated[float, Field(gt=0)] = 0.2
    """Mean of the absolute difference of log-probs, nats per token."""

    ratio: Action = "warn"
    """Updates have moved the policy far from the one that sampled."""

    ratio_above: Annotated[float, Field(gt=1)] = 10.0
    """99th percentile of π/π_old over a step's tokens, or of its inverse. Dimensionless."""

    entropy: Action = "warn"
    """The policy has become all but deterministic: it no longer explores."""

    entropy_below: Share = 0.1
    """Share of the start's token entropy."""

    length: Action = "warn"
    """Responses have become much shorter than they were."""

    length_below: Share = 0.2
    """Share of the start's mean response length."""

    no_tokens: Action = "stop"
    """The updates of a step held no response token to learn from."""

    no_tokens_below: Annotated[int, Field(ge=1)] = 1
    """Response tokens in all of a step's updates."""

    identical: Action = "warn"
    """The responses to a prompt are the same one, token by token."""

    identical_above: Share = 0.99
    """Mean over groups of (m - 1) / (G - 1), with m of the G responses equal: 1 = all are."""

    nonfinite: Annotated[int, Field(ge=0)] = 5
    """Optimizer steps in a row whose loss or gradient is not finite, after which the run stops and
    saves the batch. Each is skipped: it changes no weight. 0 = go on for ever."""

    def build(self) -> Watcher:
        return Watcher(
            list(self.rules()),
            steps=self.steps,
            start_steps=self.start_steps,
            nonfinite=self.nonfinite,
        )

    def rules(self) -> Iterator[Rule]:
        """Yield every rule with its level and action, those that are off included."""
        yield from self._responses()
        yield from self._verdicts()
        yield from self._updates()
        yield from self._collapses()

    def _responses(self) -> Iterator[Rule]:
        yield Rule(
            name="truncated", metric="train/truncated", action=self.truncated,
            level=self.truncated_above, side="above",
            cause="max_tokens is too small for what the policy writes, or the policy has not "
            "learned to end its answers (a stop string or end-of-sequence token it never draws)",
            remedy="a larger rollout.max_tokens, fine-tuning on answers that end first, or a "
            "reward that charges for length (overlong_shaping)",
        )  # fmt: skip
        yield Rule(
            name="identical", metric="train/identical", action=self.identical,
            level=self.identical_above, side="above",
            cause="sampling is all but greedy, the draws of a group share a seed, or the policy "
            "has collapsed to one answer per question (or knows the data by heart)",
            remedy="a higher rollout.temperature, top_p = 1 and top_k = 0, a lower learning rate, "
            "or a [reference] to stay close to",
        )  # fmt: skip
        yield Rule(
            name="no_signal", metric="train/groups_without_signal", action=self.no_signal,
            level=self.no_signal_above, side="above",
            cause="the questions are too hard or too easy for the policy, or the reward never "
            "varies (a format the policy does not know)",
            remedy="other data, a larger group_size, fine-tuning first, or "
            "drop_groups_without_signal = true with max_refills",
        )  # fmt: skip

    def _verdicts(self) -> Iterator[Rule]:
        yield Rule(
            name="unparsed", metric="train/unparsed", action=self.unparsed,
            level=self.unparsed_above, side="above",
            cause="the policy writes answers in a form that the reward does not read",
            remedy="looking at rollouts/ for what the answers look like, another [prompt], or "
            "another [reward]",
        )  # fmt: skip
        yield Rule(
            name="timed_out", metric="train/timed_out", action=self.timed_out,
            level=self.timed_out_above, side="above",
            cause="answers that take long to compare (towers of powers, huge numbers), or a "
            "machine that is too busy to grade",
            remedy="looking at rollouts/ for such answers, fewer processes on this machine, or a "
            "larger reward.timeout",
        )  # fmt: skip

    def _updates(self) -> Iterator[Rule]:
        yield Rule(
            name="logprob_gap", metric="train/rollout_logprob_gap", action=self.logprob_gap,
            level=self.logprob_gap_above, side="above",
            cause="the rollout backend holds other weights or computes in another precision, or "
            "top_p, top_k or min_p cut what was sampled from",
            remedy="rollout.check_every = 1 to find stale weights, the same dtype on both sides, "
            "top_p = 1, or importance_cap = 2 to correct for it",
        )  # fmt: skip
        for metric, what in (("train/ratio_p99", "up"), ("train/ratio_inverse_p99", "down")):
            yield Rule(
                name="ratio", metric=metric, action=self.ratio,
                level=self.ratio_above, side="above",
                cause=f"too many or too large updates on one rollout batch, which took the "
                f"probability of sampled tokens far {what}",
                remedy="a lower optimizer.lr, fewer epochs_per_rollout_batch, a larger "
                "train_batch_size, or a loss that clips (grpo_clip)",
            )  # fmt: skip
        yield Rule(
            name="no_tokens", metric="train/response_tokens", action=self.no_tokens,
            level=self.no_tokens_below, side="below",
            cause="every response is empty, or prompts leave no room for an answer",
            remedy="rollout.min_tokens, shorter prompts, and a look at rollouts/ and at the sample "
            "shown with the first batch",
        )  # fmt: skip

    def _collapses(self) -> Iterator[Rule]:
        yield Rule(
            name="entropy", metric="train/token_entropy", action=self.entropy,
            level=self.entropy_below, side="below its start times", only_with="train/reward",
            cause="the policy has settled on what was rewarded early (entropy collapse)",
            remedy="a lower optimizer.lr, a higher clip range upwards (dapo_clip), a [reference], "
            "or a higher rollout.temperature",
        )  # fmt: skip
        yield Rule(
            name="length", metric="train/response_length", action=self.length,
            level=self.length_below, side="below its start times",
            cause="the reward pays for short answers, or a normalizer divides by length so that "
            "short right answers weigh most",
            remedy="a look at rollouts/ for how the reward is earned, normalizer token_mean or "
            "masked_normalize, or rollout.min_tokens",
        )  # fmt: skip
