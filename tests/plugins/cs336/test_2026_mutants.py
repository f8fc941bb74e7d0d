"""The hand-worked numbers of the 2026 edition hold for ours, and for none of the mutants."""

import pytest
import torch

from alignkit_cs336 import spring2026
from numbers_2026 import (
    ALL,
    check_advantages,
    check_aggregation,
    check_clipping,
    check_grpo,
    check_gspo,
    check_noclip,
    check_reinforce,
    check_rewards,
    check_step,
    check_step_with_everything,
    step_mutant,
)


def rewards_mutant(total="reward", backwards=False, average=lambda x: sum(x) / len(x), ddof=1):
    def mutant(reward_fn, responses, truths):
        parts = [reward_fn(r, t) for r, t in zip(responses, truths, strict=True)]
        raw = torch.tensor([part[total] for part in parts])
        means = {f"mean_{k}": average([part[k] for part in parts]) for k in parts[0]}
        found = {"std_reward": float(raw.std(correction=ddof)), **means}
        found |= {"max_reward": float(raw.max()), "min_reward": float(raw.min())}
        return (raw.flip(0) if backwards else raw), found

    return mutant


def advantage_mutant(
    sign=1, ddof=1, rows=True, eps=lambda scale, eps: scale + eps, whole=False, swapped=False
):
    def mutant(raw, size, baseline="mean", advantage_eps=1e-6, normalizer="std"):
        groups = raw.view(-1, size) if rows else raw.view(size, -1).T
        own = groups.mean(1, keepdim=True)
        mean = raw.mean().expand_as(own) if whole else own
        scale = {"none": None, "mean": own, "std": groups.std(1, correction=ddof, keepdim=True)}
        if swapped:
            scale["mean"], scale["std"] = scale["std"], scale["mean"]
        values = groups - mean if baseline == "mean" else groups
        if (by := scale[normalizer]) is not None:
            values = values / eps(by, advantage_eps)
        flat = (values if rows else values.T).flatten()
        return sign * flat, {"mean_reward": float(raw.mean()), "signal": 1.0}

    return mutant


def _log_ratio(new, old, mask, kind):
    log_ratio = new - old
    if kind == "token":
        return log_ratio
    kept = torch.where(mask, log_ratio, 0) if kind != "padded" else log_ratio
    count = mask.sum(1, keepdim=True) if kind != "padded" else new.shape[1]
    return (kept.sum(1, keepdim=True) / (1 if kind == "sum" else count)).expand_as(new)


def loss_mutant(
    sign=-1,
    choose=torch.minimum,
    low=True,
    high=True,
    power=1,
    attached=True,
    sequence="mean",
    outside=False,
    flipped=False,
    unlogged=False,
):
    def mutant(advantages, new, method="none", old=None, cliprange=None, response_mask=None):
        weight = (advantages.view(-1, 1) if not flipped else advantages.flip(0).view(-1, 1)).to(new)
        zeros = torch.zeros_like(new).detach()
        if method == "none":
            return sign * weight * (new.exp() if unlogged else new), {"clip_fraction": zeros}
        mask = ALL if response_mask is None else response_mask
        kind = sequence if method == "gspo" else "token"
        ratio = (power * _log_ratio(new, old, mask, kind)).exp()
        ratio = ratio if attached else ratio.detach() * (1 + 0 * new)
        if method == "noclip":
            return sign * ratio * weight, {"clip_fraction": zeros}
        bounds = (1 - cliprange if low else None, 1 + cliprange if high else None)
        free, clipped = ratio * weight, ratio.clamp(*bounds) * weight
        fraction = clipped != free if outside else clipped < free
        return sign * choose(free, clipped), {"clip_fraction": fraction.double()}

    return mutant


def aggregation_mutant(
    rows=lambda sums, counts, width: sums / counts.clamp(min=1),
    constant=lambda total, c: total / c,
    over=lambda x: x.mean(),
    masked=lambda x, m: torch.where(m, x, 0),
    axis=1,
):
    def mutant(per_token, mask, loss_normalization="sequence", normalization_constant=None):
        kept = masked(per_token, mask.bool())
        sums, counts = kept.sum(axis), mask.bool().sum(axis)
        if loss_normalization == "constant":
            return over(constant(sums, normalization_constant))
        return over(rows(sums, counts, mask.shape[axis]))

    return mutant


REWARDS, ADVANTAGE = "compute_rollout_rewards", "compute_group_normalized_rewards"

LOSS, AGGREGATE = "compute_policy_gradient_loss", "aggregate_loss_across_microbatch"

CHECKS = {
    "rewards": (check_rewards, REWARDS, rewards_mutant),
    "advantages": (check_advantages, ADVANTAGE, advantage_mutant),
    "reinforce": (check_reinforce, LOSS, loss_mutant),
    "noclip": (check_noclip, LOSS, loss_mutant),
    "grpo": (check_grpo, LOSS, loss_mutant),
    "gspo": (check_gspo, LOSS, loss_mutant),
    "aggregation": (check_aggregation, AGGREGATE, aggregation_mutant),
    "step": (check_step, "grpo_train_step", step_mutant),
    "step with everything": (check_step_with_everything, "grpo_train_step", step_mutant),
    "gradient clipping": (check_clipping, "grpo_train_step", step_mutant),
}

MUTANTS = {
    "format reward as the total": ("rewards", {"total": "format_reward"}),
    "rewards in reverse": ("rewards", {"backwards": True}),
    "sums of the parts": ("rewards", {"average": sum}),
    "largest of the parts": ("rewards", {"average": max}),
    "rewards' deviation with ddof 0": ("rewards", {"ddof": 0}),
    "advantages of the other sign": ("advantages", {"sign": -1}),
    "deviation with ddof 0": ("advantages", {"ddof": 0}),
    "tiled groups": ("advantages", {"rows": False}),
    "eps left out": ("advantages", {"eps": lambda scale, eps: scale}),
    "eps taken off": ("advantages", {"eps": lambda scale, eps: scale - eps}),
    "eps under the root": ("advantages", {"eps": lambda s, e: (s * s + e).sqrt()}),
    "eps as a lower bound": ("advantages", {"eps": lambda scale, eps: scale.clamp(min=eps)}),
    "mean of the batch": ("advantages", {"whole": True}),
    "mean and deviation swapped": ("advantages", {"swapped": True}),
    "log-probs of the other sign": ("reinforce", {"sign": 1}),
    "probabilities for log-probs": ("reinforce", {"unlogged": True}),
    "another row's advantage": ("reinforce", {"flipped": True}),
    "ratio of the other sign": ("noclip", {"sign": 1}),
    "ratio upside down": ("noclip", {"power": -1}),
    "ratio without gradient": ("noclip", {"attached": False}),
    "ratio squared": ("noclip", {"power": 2}),
    "clipped loss of the other sign": ("grpo", {"sign": 1}),
    "the larger branch": ("grpo", {"choose": torch.maximum}),
    "always the clipped branch": ("grpo", {"choose": lambda free, clipped: clipped}),
    "never the clipped branch": ("grpo", {"choose": lambda free, clipped: free}),
    "no lower bound": ("grpo", {"low": False}),
    "no upper bound": ("grpo", {"high": False}),
    "clip fraction of all outside": ("grpo", {"outside": True}),
    "one ratio per token": ("gspo", {"sequence": "token"}),
    "sum of log-ratios": ("gspo", {"sequence": "sum"}),
    "log-ratios of padding": ("gspo", {"sequence": "padded"}),
    "gspo's larger branch": ("gspo", {"choose": torch.maximum}),
    "gspo without an upper bound": ("gspo", {"high": False}),
    "gspo without gradient": ("gspo", {"attached": False}),
    "mean over padding": ("aggregation", {"rows": lambda sums, counts, width: sums / width}),
    "token mean": ("aggregation", {"rows": lambda s, c, w: s.sum().expand(3) / c.sum()}),
    "mean over the batch axis": ("aggregation", {"axis": 0}),
    "sum over responses": ("aggregation", {"over": lambda x: x.sum()}),
    "times the constant": ("aggregation", {"constant": lambda total, c: total * c}),
    "without the constant": ("aggregation", {"constant": lambda total, c: total}),
    "mask by product": ("aggregation", {"masked": lambda x, m: x * m}),
    "mask turned round": ("aggregation", {"masked": lambda x, m: torch.where(m, 0, x)}),
    "an empty response is NaN": ("aggregation", {"rows": lambda s, c, width: s / c}),
    "all responses in the model": ("step", {"drop": False}),
    "mean over the kept responses": ("step", {"over": "kept"}),
    "micro-batches not divided": ("step", {"over": "none"}),
    "gradients left": ("step", {"left": True}),
    "no step": ("step", {"moves": False}),
    "prompt tokens trained on": ("step", {"whole_mask": True}),
    "advantages in reverse": ("step", {"backwards": True}),
    "constant over the kept": ("step with everything", {"over": "kept"}),
    "gradient not clipped": ("gradient clipping", {"clip": False}),
    "a step before clipping": ("gradient clipping", {"every": True}),
}  # fmt: skip


@pytest.mark.parametrize("name", CHECKS)
def test_ours_passes(name):
    check, function, _ = CHECKS[name]
    check(getattr(spring2026, function))


@pytest.mark.parametrize("name", CHECKS)
def test_a_correct_rewrite_passes(name):
    """The mutants fail for what they change, not for being written out again."""
    check, _, rewritten = CHECKS[name]
    check(rewritten())


@pytest.mark.parametrize("mutant", MUTANTS)
def test_the_named_check_catches_the_mutant(mutant):
    name, change = MUTANTS[mutant]
    check, _, rewritten = CHECKS[name]
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        check(rewritten(**change))
