"""What is reported of judged responses: means, categories, standard errors, pass@k, majority@k."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean, stdev
from typing import Literal

from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.engine.tokens import sampled_tokens
from alignkit.protocols import Reads, Reward, RewardFn

Category = Literal["correct", "format_only", "neither"]

AMISS = ("unparsed", "timed_out")
"""Parts of a reward that say why there is no verdict; shares of responses, not rewards."""


def category(reward: Reward) -> Category:
    """Sort a response into (format, answer) = (1, 1), (1, 0) or (0, 0).

    A right answer counts as correct whatever its format. A reward without these parts is
    correct when its total reaches 1.
    """
    if answer_reward(reward) >= 1:
        return "correct"
    return "format_only" if reward.parts.get("format", 0.0) >= 1 else "neither"


def answer_reward(reward: Reward) -> float:
    """Return the "answer" part, or the total of a reward that has no such part."""
    return reward.parts.get("answer", reward.total)


def summary(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return the means over responses: rewards, tokens, and shares with something amiss.

    A reward's part NAME becomes ``NAME_reward``; one it lacks for some responses counts as 0
    there. Lengths are in tokens, the end-of-sequence token included. ``unparsed`` and
    ``timed_out`` are the shares of verdicts that could not be given; see :func:`identical` for
    ``identical``.
    """
    names = sorted({name for t in trajectories for name in t.reward.parts} - {*AMISS})
    return {
        "reward": fmean(t.reward.total for t in trajectories),
        **{
            f"{name}_reward": fmean(t.reward.parts.get(name, 0.0) for t in trajectories)
            for name in names
        },
        "response_length": fmean(sampled_tokens(t.completion) for t in trajectories),
        "truncated": fmean(t.truncated for t in trajectories),
        "empty": fmean(t.empty for t in trajectories),
        "identical": identical(trajectories),
        **{part: fmean(t.reward.parts.get(part, 0.0) > 0 for t in trajectories) for part in AMISS},
        **(episodes(trajectories) if any(t.turns for t in trajectories) else {}),
    }


def episodes(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return the mean turns and given tokens of episodes, and the shares that each limit cut.

    ``turn_truncated``: a turn reached its limit; ``episode_truncated``: all turns together reached
    theirs, or the policy's length; ``out_of_turns``: the number of turns did.
    """
    limits = {"turn_truncated": "turn", "episode_truncated": "episode", "out_of_turns": "turns"}
    return {
        "turns": fmean(len(t.turns) for t in trajectories),
        "given_tokens": fmean(sum(t.completion.given or ()) for t in trajectories),
        **{name: fmean(t.cut == cut for t in trajectories) for name, cut in limits.items()},
    }


def identical(trajectories: Sequence[Trajectory]) -> float:
    """Return how far groups consist of one response: the mean over groups of (m - 1) / (G - 1).

    m is the number of its G responses with the same tokens as its most frequent one: 0 if all
    differ, 1 if all are equal. Responses without a token equal none: they have a share of their
    own. Groups of one response give 0.
    """
    groups: dict[int, Counter[tuple[int, ...]]] = defaultdict(Counter)
    sizes = Counter(t.group_id for t in trajectories)
    for t in trajectories:
        groups[t.group_id][t.completion.token_ids] += bool(t.completion.token_ids)
    shares = (max(max(groups[g].values()) - 1, 0) / max(n - 1, 1) for g, n in sizes.items())
    return fmean(shares)


def graded(groups: Sequence[Sequence[Trajectory]]) -> dict[str, float]:
    """Return what evaluation reports beyond :func:`summary`; a group answers one example.

    ``answer_reward_se`` is the standard error of ``answer_reward`` with examples as the unit:
    the deviation (ddof 1) of the examples' means over √n, so that several responses to one
    example do not pass for independent evidence; absent for a single example. Lengths of
    right or wrong answers are absent where there are none. ``n`` counts examples, ``n_responses``
    responses, which the categories ``n_correct``, ``n_format_only`` and ``n_neither`` add up to.
    """
    flat = [t for group in groups for t in group]
    kinds = [category(t.reward) for t in flat]
    means = [fmean(answer_reward(t.reward) for t in group) for group in groups]
    right = [t for t, kind in zip(flat, kinds, strict=True) if kind == "correct"]
    wrong = [t for t, kind in zip(flat, kinds, strict=True) if kind != "correct"]
    metrics: dict[str, float] = {
        "answer_reward": fmean(means),
        "n": len(groups),
        "n_responses": len(flat),
        "n_correct": kinds.count("correct"),
        "n_format_only": kinds.count("format_only"),
        "n_neither": kinds.count("neither"),
    }
    if len(groups) > 1:
        metrics["answer_reward_se"] = stdev(means) / math.sqrt(len(means))
    for name, some in (("correct", right), ("incorrect", wrong)):
        if some:
            metrics[f"response_length_{name}"] = fmean(sampled_tokens(t.completion) for t in some)
    return metrics


def sampled(
    groups: Sequence[Sequence[Trajectory]], reward: RewardFn | None = None
) -> dict[str, float]:
    """Return pass@k for k = 1, 2, 4, … up to the samples per example, and majority@samples.

    Responses vote for the answers that ``reward`` reads in them, if it is one that
    :class:`~alignkit.protocols.Reads`, else for their whole text. Where it can read no answer in
    any response, there is no vote to report; an example all of whose responses lack one counts as
    wrong beside others.
    """
    read = reward.read if isinstance(reward, Reads) else _squeezed
    n = len(groups[0])
    verdicts = [[category(t.reward) == "correct" for t in group] for group in groups]
    ks = sorted({2**i for i in range(n.bit_length())} & set(range(1, n + 1)) | {n})
    passes = {f"pass@{k}": fmean(pass_at_k(n, sum(v), k) for v in verdicts) for k in ks}
    answers = [[read(t.completion.text) for t in group] for group in groups]
    if not any(answer is not None for group in answers for answer in group):
        return passes
    votes = fmean(majority(given, right) for given, right in zip(answers, verdicts, strict=True))
    return {**passes, f"majority@{n}": votes}


def pass_rates(trajectories: Sequence[Trajectory]) -> dict[str, float]:
    """Return pass@k for every k from 1 to the responses of a group, the mean over the groups.

    Where groups differ in size, k goes to the size of the smallest.
    """
    groups: dict[int, list[bool]] = defaultdict(list)
    for t in trajectories:
        groups[t.group_id].append(category(t.reward) == "correct")
    counts = [(len(verdicts), sum(verdicts)) for verdicts in groups.values()]
    size = min((n for n, _ in counts), default=0)
    return {
        f"pass@{k}": fmean(pass_at_k(n, right, k) for n, right in counts)
        for k in range(1, size + 1)
    }


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Return the chance that k of n responses, drawn without replacement, hold a right one.

    The unbiased estimator 1 - C(n-c, k) / C(n, k) of Chen et al. 2021, arXiv:2107.03374,
    eq. 1.

    >>> pass_at_k(4, 1, 2)
    0.5
    """
    if not 1 <= k <= n or not 0 <= correct <= n:
        raise ValueError(f"pass@{k} of {correct} right among {n} responses is not defined")
    return 1.0 - math.comb(n - correct, k) / math.comb(n, k)


def majority(answers: Sequence[str | None], right: Sequence[bool]) -> float:
    """Return whether the most frequent answer is right: 1 or 0, the mean over those tied.

    Wang et al. 2022, arXiv:2203.11171. Responses without an answer (None) do not vote; if none
    votes the result is 0. Answers that read alike are one vote each for the same thing; should
    the judge have ruled differently on them, their mean counts.

    >>> majority(["4", "5", "4", None], [True, False, True, False])
    1.0
    """
    votes: dict[str, list[bool]] = defaultdict(list)
    for answer, verdict in zip(answers, right, strict=True):
        if answer is not None:
            votes[answer].append(verdict)
    most = max((len(v) for v in votes.values()), default=0)
    return fmean(fmean(v) for v in votes.values() if len(v) == most) if votes else 0.0


def _squeezed(text: str) -> str | None:
    return " ".join(text.split()) or None


def prefixed(prefix: str, metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics under ``prefix/``."""
    return {f"{prefix}/{name}": value for name, value in metrics.items()}


def update_means(steps: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Join the metrics of several optimizer steps into those of one training step.

    Means over response tokens are weighted by the tokens of each step. ``loss`` and ``grad_norm``
    are plain means over the steps, ``lr`` is the last one, percentiles are the largest, and
    ``skipped_steps`` is a count. No step gives no metric.
    """
    steps = list(steps)
    if not steps:
        return {}
    joined = {}
    for name in dict.fromkeys(name for step in steps for name in step):
        known = [step for step in steps if name in step]  # without a token a loss says nothing
        values = [step[name] for step in known]
        weights = [step["response_tokens"] for step in known]
        if name == "lr":
            joined[name] = values[-1]
        elif name in ("ratio_p99", "ratio_inverse_p99"):
            joined[name] = max(values)
        elif name in ("skipped_steps", "response_tokens"):
            joined[name] = sum(values)
        elif name in ("loss", "grad_norm"):
            joined[name] = fmean(values)
        else:
            joined[name] = fmean(values, weights) if sum(weights) else 0.0
    return joined
