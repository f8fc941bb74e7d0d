"""The ``[watch]`` table that training algorithms share. Imports no torch.

An algorithm takes it by a keyword-only argument of its ``build``, and attaches it as the last of
its trackers. A recipe without the table gets its defaults::

    watch: Annotated[Watcher, WatchTable] = UNWATCHED

Each rule in :data:`RULES` defines two keys: ``NAME``, the action, and ``NAME_above`` or
``NAME_below``, the threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, create_model

from alignkit.component import Params
from alignkit.engine.observing.watch import Action, Rule, Watcher

Share = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class DefaultRule(Rule):
    """A rule with its defaults, and the help of its keys."""

    action: Action = "warn"
    what: str
    """Help of the key for the action."""
    measure: str
    """Help of the key for the threshold, with its unit."""
    levels: Any = Share
    """Type of the threshold."""

    @property
    def level_key(self) -> str:
        """The recipe key of the threshold."""
        return f"{self.name}_{self.side.partition(' ')[0]}"

    def keys(self) -> dict[str, Any]:
        """Return its two keys in the form that pydantic's ``create_model`` expects."""
        return {
            self.name: (Action, Field(self.action, description=self.what)),
            self.level_key: (self.levels, Field(self.level, description=self.measure)),
        }


def _ratio(metric: str, way: str) -> DefaultRule:
    return DefaultRule(
        name="ratio", metric=metric, side="above", level=10.0,
        levels=Annotated[float, Field(gt=1)],
        what="Updates have moved the policy far from the one that sampled the responses.",
        measure="99th percentile of π/π_old over a step's tokens, or of its inverse. "
        "Dimensionless.",
        cause="too many or too large updates on one rollout batch, which took the probability of "
        f"sampled tokens far {way}",
        remedy="a lower learning rate, fewer updates on a rollout batch, or a loss that clips",
    )  # fmt: skip


RULES = (
    DefaultRule(
        name="truncated", metric="train/truncated", side="above", level=0.5,
        what="Too many responses are truncated at max_tokens.",
        measure="Share of a step's responses.",
        cause="max_tokens is too small for what the policy writes, or the policy has not learned "
        "to end its answers (a stop string or end-of-sequence token it never draws)",
        remedy="a larger rollout.max_tokens, fine-tuning on answers that end first, or a reward "
        "that charges for length (overlong_shaping)",
    ),
    DefaultRule(
        name="no_signal", metric="train/groups_without_signal", side="above", level=0.9,
        what="Too many groups have equal rewards throughout, so nothing is learned from them.",
        measure="Share of a step's groups.",
        cause="the questions are too hard or too easy for the policy, or the reward never varies "
        "(a format the policy does not know)",
        remedy="other data, larger groups, or fine-tuning first",
    ),
    DefaultRule(
        name="unparsed", metric="train/unparsed", side="above", level=0.2,
        what="Too many answers cannot be parsed by the reward.",
        measure="Share of a step's responses.",
        cause="the policy writes answers in a form that the reward does not read",
        remedy="looking at rollouts/ for what the answers look like, another [prompt], or another "
        "[reward]",
    ),
    DefaultRule(
        name="timed_out", metric="train/timed_out", side="above", level=0.05,
        what="Too many answers are not graded: out of time or memory, or their worker died.",
        measure="Share of a step's responses.",
        cause="answers that take long to compare (towers of powers, huge numbers), or a machine "
        "that is too busy to grade",
        remedy="looking at rollouts/ for such answers, fewer processes on this machine, or a "
        "larger reward.timeout",
    ),
    DefaultRule(
        name="logprob_gap", metric="train/rollout_logprob_gap", side="above", level=0.2,
        levels=Annotated[float, Field(gt=0)],
        what="Trainer and rollout backend disagree on the log-probs of sampled tokens.",
        measure="Mean absolute difference of log-probs, in nats per token.",
        cause="the rollout backend holds other weights or computes in another precision, or top_p, "
        "top_k or min_p cut what was sampled from",
        remedy="checking the backend's weights at every sync, the same dtype on both sides, or "
        "top_p = 1",
    ),
    DefaultRule(
        name="rollout_kl", metric="train/rollout_kl", side="above", level=0.015,
        levels=Annotated[float, Field(gt=0)],
        what="The rollout backend samples from another distribution than the trainer's.",
        measure="Estimate of KL(backend ‖ trainer), in nats per token.",
        cause="the rollout backend holds older weights or computes in another precision, or top_p, "
        "top_k or min_p cut what was sampled from",
        remedy="the same dtype on both sides, rollouts by newer weights, or top_p = 1",
    ),
    _ratio("train/ratio_p99", "up"),
    _ratio("train/ratio_inverse_p99", "down"),
    DefaultRule(
        name="entropy", metric="train/token_entropy", side="below its start times", level=0.1,
        only_with="train/reward",
        what="The policy is nearly deterministic and no longer explores.",
        measure="Share of the mean token entropy of the first start_steps steps.",
        cause="the policy has settled on what was rewarded early (entropy collapse)",
        remedy="a lower optimizer.lr, a higher clip range upwards (dapo_clip), a [reference], or a "
        "higher rollout.temperature",
    ),
    DefaultRule(
        name="length", metric="train/response_length", side="below its start times", level=0.2,
        what="Responses have become much shorter than they were.",
        measure="Share of the mean response length of the first start_steps steps.",
        cause="the reward pays for short answers, or a normalizer divides by length so that short "
        "right answers weigh most",
        remedy="a look at rollouts/ for how the reward is earned, normalizer token_mean or "
        "masked_normalize, or rollout.min_tokens",
    ),
    DefaultRule(
        name="no_tokens", metric="train/response_tokens", side="below", level=1,
        levels=Annotated[int, Field(ge=1)], action="stop",
        what="The updates of a step contained no response token to learn from.",
        measure="Number of response tokens in all updates of a step.",
        cause="every response is empty, or prompts leave no room for an answer",
        remedy="rollout.min_tokens, shorter prompts, and a look at rollouts/ and at the sample "
        "shown with the first batch",
    ),
    DefaultRule(
        name="identical", metric="train/identical", side="above", level=0.99,
        what="The responses to a prompt are identical, token by token.",
        measure="Mean over groups of (m - 1) / (G - 1), with m of the G responses equal: 1 = all "
        "are.",
        cause="sampling is all but greedy, the draws of a group share a seed, or the policy has "
        "collapsed to one answer per question (or knows the data by heart)",
        remedy="a higher rollout.temperature, top_p = 1 and top_k = 0, a lower learning rate, or a "
        "[reference] to stay close to",
    ),
)  # fmt: skip
"""The rules, in the order of the recipe's keys."""


class _Steps(Params[Watcher]):
    harmless = True

    steps: Annotated[int, Field(ge=1)] = 3
    """Consecutive steps beyond the threshold before a rule acts."""

    start_steps: Annotated[int, Field(ge=1)] = 5
    """Number of first steps whose mean is the baseline for entropy and length."""


if TYPE_CHECKING:
    _Keys = _Steps
else:
    _fields = {name: field for rule in RULES for name, field in rule.keys().items()}
    _Keys = create_model("_Keys", __base__=_Steps, __module__=__name__, **_fields)


class WatchTable(_Keys):
    """Rules that check each step's metrics: from which threshold on they act, and how.

    Every rule is on by default. Its action is "warn", which prints one warning, "stop", which ends
    the run as failed, or "off". Change one with ``alignkit run -s watch.truncated=stop``.
    """

    nonfinite: Annotated[int, Field(ge=0)] = 5
    """Consecutive optimizer steps with a loss or gradient that is not finite, after which the run
    stops and saves the batch. Such steps are skipped: they change no weight. 0 = never stop."""

    def build(self) -> Watcher:
        return Watcher(
            list(self.rules()),
            steps=self.steps,
            start_steps=self.start_steps,
            nonfinite=self.nonfinite,
        )

    def rules(self) -> Iterator[Rule]:
        """Yield every rule with its threshold and action, including those that are off."""
        for rule in RULES:
            action, level = getattr(self, rule.name), getattr(self, rule.level_key)
            yield replace(rule, action=action, level=level)
