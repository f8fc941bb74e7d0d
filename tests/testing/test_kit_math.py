"""A planted bug per property of losses, normalizers and advantages."""

import pytest
import torch

from alignkit.protocols import LossOutput, PreferenceOutput

# ---------------------------------------------------------------- losses


def loss(formula, needs=(), metrics=None, declared=()):
    """Return what `planted` takes for a loss of (x) -> per_token."""

    def build():
        return lambda x: LossOutput(per_token=formula(x), metrics=metrics(x) if metrics else {})

    return build, needs, declared


ZERO = {"zero_without_advantage"}
PUSHES_WITHOUT_ADVANTAGE = {
    "a value": lambda x: -x.advantages * x.logprobs + 0.1 * (x.logprobs - x.old_logprobs) ** 2,
    "a slope whose value is 0": lambda x: (
        -x.advantages * x.logprobs + x.logprobs - x.logprobs.detach()
    ),
    "a term that shows far from the old policy": lambda x: (
        -x.advantages * x.logprobs + ((x.logprobs - x.old_logprobs).abs() > 1).to(x.logprobs.dtype)
    ),
    "NaN": lambda x: x.advantages * x.logprobs * (torch.nan if (x.advantages == 0).all() else -1),
}


def sequence_ratio(x, length):
    """GSPO's loss with a response's length as ``length`` says."""
    log_ratio = ((x.logprobs - x.old_logprobs) * x.mask).sum(1, keepdim=True) / length(x)
    return -log_ratio.exp() * x.advantages + 0 * x.logprobs


def token_ratio(x):
    """GSPO's loss where each token's own advantage weighs its own gradient."""
    whole = sequence_ratio(x, lambda x: x.mask.sum(1, keepdim=True).clamp(min=1)).detach()
    return whole * (x.logprobs - x.logprobs.detach()).exp()


def batch_wide(x):
    """Weigh every token by the mean advantage of its response."""
    return -x.advantages.mean(1, keepdim=True) * x.logprobs


def in_place(x):
    x.advantages.mul_(1.0001)
    return -x.advantages * x.logprobs


def own_weight(x):
    return -x.advantages * x.logprobs * torch.ones(1, dtype=torch.float64, requires_grad=True)


GOOD_LOSS = loss(token_ratio, needs={"old_logprobs"}, declared=ZERO)
LOSS_BUGS = {
    "declares_what_it_reads": loss(lambda x: -(x.logprobs - x.old_logprobs).exp() * x.advantages),
    "keeps_shape_and_dtype": loss(lambda x: -(x.advantages * x.logprobs).sum(1)),
    "is_finite": loss(  # the empty response divides by zero
        lambda x: sequence_ratio(x, lambda x: x.mask.sum(1, keepdim=True)), {"old_logprobs"}
    ),
    "gradient_reaches_logprobs_only": loss(own_weight),
    "detaches_metrics": loss(
        lambda x: -x.advantages * x.logprobs, metrics=lambda x: {"entropy": -x.logprobs}
    ),
    "has_the_right_sign": loss(lambda x: x.advantages * x.logprobs),
    "keeps_responses_independent": loss(
        lambda x: -(x.advantages - x.advantages.mean()) * x.logprobs
    ),
    "ignores_padding": loss(  # divides by the width of the batch
        lambda x: sequence_ratio(x, lambda x: x.mask.shape[1]), {"old_logprobs"}
    ),
    "leaves_its_inputs_alone": loss(in_place),
    "weighs_each_token_by_its_own_advantage": loss(batch_wide),
    "is_zero_without_advantage_if_it_says_so": loss(
        PUSHES_WITHOUT_ADVANTAGE["a value"], {"old_logprobs"}, declared=ZERO
    ),
}


@pytest.mark.parametrize("formula", PUSHES_WITHOUT_ADVANTAGE.values(), ids=PUSHES_WITHOUT_ADVANTAGE)
def test_a_loss_that_pushes_without_advantage_may_not_say_otherwise(planted, failing, formula):
    check = "is_zero_without_advantage_if_it_says_so"
    assert check in failing("loss_type", planted(*loss(formula, {"old_logprobs"}, declared=ZERO)))
    silent = planted(*loss(formula, {"old_logprobs"}))
    assert check not in failing("loss_type", silent, only=check)


def test_a_sound_loss_passes(planted, failing):
    assert failing("loss_type", planted(*GOOD_LOSS)) == {}


@pytest.mark.parametrize("check", LOSS_BUGS)
def test_bug_in_a_loss_is_caught(planted, failing, check):
    assert check in failing("loss_type", planted(*LOSS_BUGS[check]), only=check)


MORE_LOSS_BUGS = {
    "detached": (
        "gradient_reaches_logprobs_only",
        loss(lambda x: -x.advantages * x.logprobs.detach()),
    ),
    "integer dtype": (
        "keeps_shape_and_dtype",
        loss(lambda x: (-x.advantages * x.logprobs).float()),
    ),
    "one scalar": ("keeps_shape_and_dtype", loss(lambda x: -(x.advantages * x.logprobs).mean())),
    "what stands in padding": (
        "ignores_padding",
        loss(lambda x: -x.advantages * (x.logprobs + 0.1 * x.logprobs.sum(1, keepdim=True))),
    ),
    "overflow": (
        "is_finite",
        loss(
            lambda x: -((x.logprobs - x.old_logprobs) * 100).exp() * x.advantages,
            {"old_logprobs"},
        ),
    ),
    "metric of another shape": (
        "detaches_metrics",
        loss(
            lambda x: -x.advantages * x.logprobs,
            metrics=lambda x: {"mean": x.logprobs.mean().detach()},
        ),
    ),
    "a name that is no record": (
        "declares_what_it_reads",
        loss(lambda x: -x.advantages * x.logprobs, {"old_logprob"}),
    ),
    "random": (
        "leaves_its_inputs_alone",
        loss(lambda x: -x.advantages * x.logprobs * torch.rand_like(x.logprobs)),
    ),
}


@pytest.mark.parametrize("bug", MORE_LOSS_BUGS)
def test_more_bugs_in_losses_are_caught(planted, failing, bug):
    check, made = MORE_LOSS_BUGS[bug]
    assert check in failing("loss_type", planted(*made), only=check)


# ---------------------------------------------------------------- normalizers


def masked(per_token, mask):
    return torch.where(mask, per_token, 0)


def normalizer(formula):
    return lambda: lambda per_token, mask, /, *, totals: formula(per_token, mask, totals)


GOOD_NORMALIZER = normalizer(lambda x, m, t: masked(x, m).sum() / max(t.tokens, 1))
NORMALIZER_BUGS = {
    "returns_a_scalar": normalizer(lambda x, m, t: masked(x, m).sum(1) / max(t.tokens, 1)),
    "adds_up_over_micro_batches": normalizer(lambda x, m, t: masked(x, m).sum() / max(m.sum(), 1)),
    "is_blind_to_masked_tokens": normalizer(lambda x, m, t: (x * m).sum() / max(t.tokens, 1)),
    "ignores_padding": normalizer(
        lambda x, m, t: masked(x, m).sum() / (x.shape[1] * max(t.responses, 1))
    ),
    "survives_empty_responses": normalizer(
        lambda x, m, t: (masked(x, m).sum(1) / m.sum(1)).sum() / t.responses
    ),
    "keeps_the_sign": normalizer(lambda x, m, t: -masked(x, m).sum() / max(t.tokens, 1)),
}


def test_a_sound_normalizer_passes(planted, failing):
    assert failing("normalizer", planted(GOOD_NORMALIZER)) == {}


@pytest.mark.parametrize("check", NORMALIZER_BUGS)
def test_bug_in_a_normalizer_is_caught(planted, failing, check):
    assert check in failing("normalizer", planted(NORMALIZER_BUGS[check]), only=check)


# ---------------------------------------------------------------- advantages


def advantage(formula):
    return lambda: lambda rewards, /, *, group_size: formula(rewards, group_size)


def groups(rewards, size):
    return rewards.view(-1, size)


def centred(rewards, size):
    return (groups(rewards, size) - groups(rewards, size).mean(1, keepdim=True)).flatten()


def over_std(rewards, size):
    return centred(rewards, size) / groups(rewards, size).std(1).repeat_interleave(size)


def cut_short(rewards, size):
    whole = len(rewards) // size * size
    return torch.cat([centred(rewards[:whole], size), torch.zeros(len(rewards) - whole)])


class WeighsPrompts:
    """One advantage per group where one per response is wanted."""

    def __call__(self, rewards, /, *, group_size):
        return centred(rewards, group_size)

    def weigh(self, batch, /):
        return torch.stack([g.mean() for g in torch.split(batch.rewards, list(batch.group_sizes))])


ADVANTAGE_BUGS = {
    "keeps_shape_and_dtype": advantage(lambda r, g: centred(r, g).view(-1, g)),
    "keeps_groups_independent": advantage(  # groups read as columns: prompts tiled, not repeated
        lambda r, g: (r.view(g, -1) - r.view(g, -1).mean(0)).flatten()
    ),
    "survives_constant_groups": advantage(over_std),
    "keeps_the_order": advantage(lambda r, g: -centred(r, g)),
    "ignores_order_within_a_group": advantage(
        lambda r, g: centred(r, g) + torch.arange(len(r), dtype=r.dtype) * 1e-3
    ),
    "refuses_cut_groups": advantage(cut_short),
    "leaves_its_input_alone": advantage(
        lambda r, g: r.sub_(groups(r, g).mean(1).repeat_interleave(g))
    ),
    "weighs_as_it_maps": WeighsPrompts,
}


def test_a_sound_advantage_passes(planted, failing):
    assert failing("advantage", planted(advantage(centred))) == {}


@pytest.mark.parametrize("check", ADVANTAGE_BUGS)
def test_bug_in_an_advantage_is_caught(planted, failing, check):
    assert check in failing("advantage", planted(ADVANTAGE_BUGS[check]), only=check)


# ---------------------------------------------------------------- preference losses


def preference(formula, margin=None, needs=()):
    """A loss of (pairs) -> (P,), whose margin is log π of the chosen less that of the rejected."""

    def build():
        def loss(x):
            m = (margin or (lambda x: x.chosen - x.rejected))(x)
            return PreferenceOutput(loss=formula(x), margin=m if margin else m.detach())

        return loss

    return build, needs


def hinge(x):
    return (40 - x.chosen + x.rejected).relu() + 0.01 * (x.rejected - x.chosen)


PREFERENCE_BUGS = {
    "returns_a_number_a_pair": preference(hinge, lambda x: x.chosen - x.rejected),
    "declares_what_it_reads": preference(lambda x: hinge(x) + x.ref_chosen),
    "is_finite": preference(lambda x: hinge(x) - torch.log(-x.chosen)),
    "prefers_the_chosen_response": preference(lambda x: -x.chosen - x.rejected),
    "has_a_margin_that_ranks": preference(hinge, lambda x: (x.rejected - x.chosen).detach()),
    "keeps_pairs_independent": preference(lambda x: hinge(x) * (1 + x.chosen.detach().mean() ** 2)),
}


@pytest.mark.parametrize("check", PREFERENCE_BUGS)
def test_a_bug_in_a_preference_loss_is_found(planted, failing, check):
    assert check in failing("preference_loss", planted(*PREFERENCE_BUGS[check]), only=check)


def test_a_sound_preference_loss_passes(planted, failing):
    assert not failing("preference_loss", planted(*preference(hinge)))


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("kind", "bugs"),
    [
        ("loss_type", LOSS_BUGS),
        ("normalizer", NORMALIZER_BUGS),
        ("advantage", ADVANTAGE_BUGS),
        ("preference_loss", PREFERENCE_BUGS),
    ],
)
def test_every_check_has_a_planted_bug(names, kind, bugs):
    assert names(kind) == set(bugs)
