"""The ``[watch]`` table that training algorithms share. Imports no torch.

An algorithm takes it by a keyword-only argument of its ``build``, and attaches it as the last of
its trackers. A recipe without the table gets its defaults::

    watch: Annotated[Watcher, WatchTable] = UNWATCHED

Each rule stands once, in :data:`RULES`, and brings two keys: ``NAME``, what to do, and
``NAME_above`` or ``NAME_below``, from which level on.
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
    """A rule with its default settings."""

    action: Action = "warn"
    what: str
    """Help of the key that sets what to do."""
    measure: str
    """Help of the key with the level: its unit."""
    levels: Any = Share
    """Type of the level."""

    @property
    def level_key(self) -> str:
        """The recipe key of the level."""
        return f"{self.name}_{self.side.partition(' ')[0]}"

    def keys(self) -> dict[str, Any]:
        """Return its two keys as pydantic's ``create_model`` takes them."""
        return {
            self.name: (Action, Field(self.action, description=self.what)),
            self.level_key: (self.levels, Field(self.level, description=self.measure)),
        }


def _ratio(metric: str, way: str) -> DefaultRule:
    return DefaultRule(
        name="ratio", metric=metric, side="above", level=10.0,
        levels=Annotated[float, Field(gt=1)],
        what="Updates have moved the policy far from the one that sampled.",
        measure="99th percentile of π/π_old over a step's tokens, or of its inverse. "
        "Dimensionless.",
        cause="too many or too large updates on one rollout batch, which took the probability of "
        f"sampled tokens far {way}",
        remedy="a lower learning rate, fewer updates on a rollout batch, or a loss that clips",
    )  # fmt: skip


RULES = (
    DefaultRule(
        name="truncated", metric="train/truncated", side="above", level=0.5,
        what="Too many responses cut before the model ended them.",
        measure="Share of a step's responses.",
        cause="max_tokens is too small for what the policy writes, or the policy has not learned "
        "to end its answers (a stop string or end-of-sequence token it never draws)",
        remedy="a larger rollout.max_tokens, fine-tuning on answers that end first, or a reward "
        "that charges for length (overlong_shaping)",
    ),
    DefaultRule(
        name="no_signal", metric="train/groups_without_signal", side="above", level=0.9,
        what="Too many groups whose responses all got the same reward, so that nothing is learned.",
        measure="Share of a step's groups.",
        cause="the questions are too hard or too easy for the policy, or the reward never varies "
        "(a format the policy does not know)",
        remedy="other data, larger groups, or fine-tuning first",
    ),
    DefaultRule(
        name="unparsed", metric="train/unparsed", side="above", level=0.2,
        what="Too many answers that the reward could not read.",
        measure="Share of a step's responses.",
        cause="the policy writes answers in a form that the reward does not read",
        remedy="looking at rollouts/ for what the answers look like, another [prompt], or another "
        "[reward]",
    ),
    DefaultRule(
        name="timed_out", metric="train/timed_out", side="above", level=0.05,
        what="Too many verdicts given up for time or memory, or lost with their worker.",
        measure="Share of a step's responses.",
        cause="answers that take long to compare (towers of powers, huge numbers), or a machine "
        "that is too busy to grade",
        remedy="looking at rollouts/ for such answers, fewer processes on this machine, or a "
        "larger reward.timeout",
    ),
    DefaultRule(
        name="logprob_gap", metric="train/rollout_logprob_gap", side="above", level=0.2,
        levels=Annotated[float, Field(gt=0)],
        what="Trainer and rollout backend disagree about the sampled tokens.",
        measure="Mean of the absolute difference of log-probs, nats per token.",
        cause="the rollout backend holds other weights or computes in another precision, or top_p, "
        "top_k or min_p cut what was sampled from",
        remedy="checking the backend's weights at every sync, the same dtype on both sides, or "
        "top_p = 1",
    ),
    _ratio("train/ratio_p99", "up"),
    _ratio("train/ratio_inverse_p99", "down"),
    DefaultRule(
        name="entropy", metric="train/token_entropy", side="below its start times", level=0.1,
        only_with="train/reward",
        what="The policy has become all but deterministic: it no longer explores.",
        measure="Share of the start's token entropy.",
        cause="the policy has settled on what was rewarded early (entropy collapse)",
        remedy="a lower optimizer.lr, a higher clip range upwards (dapo_clip), a [reference], or a "
        "higher rollout.temperature",
    ),
    DefaultRule(
        name="length", metric="train/response_length", side="below its start times", level=0.2,
        what="Responses have become much shorter than they were.",
        measure="Share of the start's mean response length.",
        cause="the reward pays for short answers, or a normalizer divides by length so that short "
        "right answers weigh most",
        remedy="a look at rollouts/ for how the reward is earned, normalizer token_mean or "
        "masked_normalize, or rollout.min_tokens",
    ),
    DefaultRule(
        name="no_tokens", metric="train/response_tokens", side="below", level=1,
        levels=Annotated[int, Field(ge=1)], action="stop",
        what="The updates of a step held no response token to learn from.",
        measure="Response tokens in all of a step's updates.",
        cause="every response is empty, or prompts leave no room for an answer",
        remedy="rollout.min_tokens, shorter prompts, and a look at rollouts/ and at the sample "
        "shown with the first batch",
    ),
    DefaultRule(
        name="identical", metric="train/identical", side="above", level=0.99,
        what="The responses to a prompt are the same one, token by token.",
        measure="Mean over groups of (m - 1) / (G - 1), with m of the G responses equal: 1 = all "
        "are.",
        cause="sampling is all but greedy, the draws of a group share a seed, or the policy has "
        "collapsed to one answer per question (or knows the data by heart)",
        remedy="a higher rollout.temperature, top_p = 1 and top_k = 0, a lower learning rate, or a "
        "[reference] to stay close to",
    ),
)  # fmt: skip
"""What goes wrong in training, in the order of the recipe's keys."""


class _Steps(Params[Watcher]):
    harmless = True

    steps: Annotated[int, Field(ge=1)] = 3
    """Steps in a row a level must be passed before a rule acts."""

    start_steps: Annotated[int, Field(ge=1)] = 5
    """Steps whose mean is the start that entropy and length are compared with."""


if TYPE_CHECKING:
    _Keys = _Steps
else:
    _fields = {name: field for rule in RULES for name, field in rule.keys().items()}
    _Keys = create_model("_Keys", __base__=_Steps, __module__=__name__, **_fields)


class WatchTable(_Keys):
    """What a run watches of itself, from which level on, and what it does then.

    Every rule is on: "warn" says once what was seen, "stop" ends the run as failed, "off" looks
    away. ``alignkit run -s watch.truncated=stop`` is the way to change one.
    """

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
        """Yield every rule with its level and action, including those that are off."""
        for rule in RULES:
            action, level = getattr(self, rule.name), getattr(self, rule.level_key)
            yield replace(rule, action=action, level=level)
