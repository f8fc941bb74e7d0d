"""KL estimators and the penalised loss; numbers worked by hand."""

import pytest
import torch

from alignkit.engine.forward.frozen import FrozenPolicy, detached_logprobs
from alignkit.engine.learning.reference import check_vocabularies, kl_estimate, penalised
from alignkit.engine.tokens import TrainRow
from alignkit.errors import AlignkitError
from alignkit.protocols import LossInputs, LossOutput

LOGPROBS = torch.tensor([[-1.0, -2.0]], dtype=torch.float64)
REF = torch.tensor([[-1.5, -1.0]], dtype=torch.float64)  # d = 0.5, -1


@pytest.mark.parametrize(
    ("estimator", "expected"),
    [
        ("k1", [0.5, -1.0]),
        ("k2", [0.125, 0.5]),
        # exp(-0.5) - 1 + 0.5 and e - 1 - 1; the ratio the wrong way round would give
        # e^0.5 - 1 - 0.5 = 0.1487 and e^-1 - 1 + 1 = 0.3679.
        ("k3", [0.10653065971263342, 0.7182818284590452]),
    ],
)
def test_estimators(estimator, expected):
    got = kl_estimate(LOGPROBS, REF, estimator)
    assert got.tolist() == [pytest.approx(expected, abs=1e-12)]


def test_k2_and_k3_estimate_the_same_gradient_direction_at_a_token():
    """d k2 = d and d k3 = 1 - exp(-d): both push a token above its reference down."""
    for estimator, expected in (("k2", [0.5, -1.0]), ("k3", [0.3934693402873666, -1.71828182845])):
        x = LOGPROBS.clone().requires_grad_()
        kl_estimate(x, REF, estimator).sum().backward()
        assert x.grad.tolist() == [pytest.approx(expected, abs=1e-9)]


def inputs(logprobs, ref):
    return LossInputs(
        logprobs=logprobs,
        mask=torch.ones(1, 2, dtype=torch.bool),
        advantages=torch.ones(1, 1),
        ref_logprobs=ref,
    )


def plain(x):
    return LossOutput(per_token=-x.logprobs, metrics={"own": x.logprobs.detach()})


@pytest.mark.parametrize(
    ("estimator", "expected"), [("k1", [1.0, 2.0]), ("k2", [1.25, 3.0]), ("k3", None)]
)
def test_the_penalty_is_added_per_token_and_logged(estimator, expected):
    x = LOGPROBS.clone().requires_grad_()
    got = penalised(plain, 2.0, estimator)(inputs(x, REF))
    kl = kl_estimate(LOGPROBS, REF, estimator)
    wanted = expected or (-LOGPROBS + 2 * kl)[0].tolist()
    assert got.per_token.tolist() == [pytest.approx(wanted)]
    assert got.metrics.keys() == {"own", "kl"}
    assert torch.equal(got.metrics["kl"], kl)
    assert not got.metrics["kl"].requires_grad


def test_the_penalty_needs_a_reference():
    with pytest.raises(ValueError, match="ref_logprobs"):
        penalised(plain, 1.0, "k3")(inputs(LOGPROBS, None))


def test_a_frozen_copy_does_not_follow_the_policy(tiny_policy):
    policy = tiny_policy()
    frozen = FrozenPolicy.of(policy, copied=True)
    before = next(frozen.model.parameters()).clone()
    with torch.no_grad():
        next(policy.model.parameters()).add_(1.0)
    assert torch.equal(next(frozen.model.parameters()), before)
    assert all(p.requires_grad for p in policy.model.parameters())
    assert not any(p.requires_grad for p in frozen.model.parameters())
    assert (frozen.pad_id, frozen.eos_ids, frozen.max_length) == (0, {1}, 64)


def test_other_vocabularies_are_refused(tiny_policy):
    class Words:
        def __init__(self, *words):
            self.words = words

        def get_vocab(self):
            return {w: i for i, w in enumerate(self.words)}

    one, other = tiny_policy(), tiny_policy()
    one.tokenizer, other.tokenizer = Words("a", "b"), Words("a", "b")
    check_vocabularies(one, other)
    other.tokenizer = Words("b", "a")
    with pytest.raises(AlignkitError, match="different vocabularies"):
        check_vocabularies(one, other)


# ---------------------------------------------------------------- offloading


def test_offloaded_weights_give_the_same_and_stay_where_they_wait(tiny_policy):
    policy = tiny_policy(tie_word_embeddings=True)
    rows = [TrainRow((3, 4), (5, 6, 7)), TrainRow((8,), (2,))]
    how = {"token_budget": 64, "temperature": 1.0}
    want = detached_logprobs(FrozenPolicy.of(policy, copied=True), rows, **how)
    frozen = FrozenPolicy.of(policy, copied=True, offload=True)
    kept = {p.data_ptr() for p in frozen.offloaded.values()}
    assert len(kept) == len(list(policy.model.parameters()))  # the tied head once
    with frozen.resident():
        assert frozen.model.lm_head.weight is frozen.model.get_input_embeddings().weight
    for got, expected in zip(detached_logprobs(frozen, rows, **how), want, strict=True):
        assert torch.equal(got, expected)
    assert {p.data_ptr() for p in frozen.model.parameters()} == kept
    assert kept.isdisjoint({p.data_ptr() for p in policy.model.parameters()})
