"""Log-probs and entropies against full logits and log_softmax, in float64."""

import pytest
import torch

from alignkit.engine.forward import head
from alignkit.engine.forward import logprobs as lp
from alignkit.engine.tokens import TrainRow

ROWS = [
    TrainRow((3, 4, 5), (6, 7, 8, 9)),
    TrainRow((11,), (12, 13, 14, 15, 16, 17, 1)),
    TrainRow((2, 3), ()),
    TrainRow((20, 21, 22, 23, 24, 25), (26,)),
]


@pytest.fixture(autouse=True)
def small_tiles(monkeypatch):
    """Three rows by 11 of the vocabulary, so that even these rows take several."""
    monkeypatch.setitem(head._KEPT_BYTES, "cpu", 0)
    monkeypatch.setattr(head, "_TILE", (3, 11))


def one_by_one(model, rows, temperature):
    """The long way: each row alone, all logits at once."""
    values, entropies = [], []
    for row in rows:
        ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
        full = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0] / temperature, -1)
        full = full[len(row.prompt_ids) - 1 : -1]
        values.append(full.gather(1, torch.tensor(row.response_ids).long()[:, None])[:, 0])
        own = torch.log_softmax(model(input_ids=ids, use_cache=False).logits[0], -1)
        own = own[len(row.prompt_ids) - 1 : -1]  # at temperature 1, whatever the sampling's is
        entropies.append(-(own.exp() * own).sum(-1))
    return torch.cat(values), torch.cat(entropies)


def gradients(model, scalar):
    model.zero_grad()
    scalar.backward()
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("kept", [0, 2**20], ids=["recomputed", "kept"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
@pytest.mark.parametrize("tied", [False, True])
def test_equal_to_full_logits_with_gradients(tiny_policy, temperature, tied, kept, monkeypatch):
    monkeypatch.setitem(head._KEPT_BYTES, "cpu", kept)
    policy = tiny_policy(tie_word_embeddings=tied)
    values, entropy, mask = lp.response_logprobs(policy, ROWS, temperature=temperature)
    expected, expected_entropy = one_by_one(policy.model, ROWS, temperature)
    torch.testing.assert_close(values[mask], expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(entropy[mask], expected_entropy, rtol=0, atol=1e-10)
    assert not entropy.requires_grad
    weights = torch.linspace(-1, 2, len(expected), dtype=torch.float64)
    got = gradients(policy.model, (values[mask] * weights).sum())
    want = gradients(policy.model, (expected * weights).sum())
    assert got.keys() == want.keys()
    for name in want:
        torch.testing.assert_close(got[name], want[name], rtol=0, atol=1e-10, msg=name)


def test_shapes_and_zeros_at_padding(tiny_policy):
    values, entropy, mask = lp.response_logprobs(tiny_policy(), ROWS)
    assert values.shape == entropy.shape == mask.shape == (4, 7)
    assert mask.sum(1).tolist() == [4, 7, 0, 1]
    assert not values[~mask].any()
    assert not entropy[~mask].any()
    assert lp.response_logprobs(tiny_policy(), ROWS, with_entropy=False)[1] is None


def test_padding_does_not_leak(tiny_policy):
    policy = tiny_policy()
    together, _, mask = lp.response_logprobs(policy, ROWS)
    policy.pad_id = 17
    other_pad, _, _ = lp.response_logprobs(policy, ROWS)
    assert torch.equal(together, other_pad)
    alone, _, _ = lp.response_logprobs(policy, ROWS[:1])
    torch.testing.assert_close(together[0][mask[0]], alone[0], rtol=0, atol=1e-12)


def test_rows_without_any_response_token(tiny_policy):
    values, entropy, mask = lp.response_logprobs(tiny_policy(), [ROWS[2]])
    assert values.shape == entropy.shape == mask.shape == (1, 0)


def test_temperature_must_be_positive(tiny_policy):
    with pytest.raises(ValueError, match="above 0"):
        lp.response_logprobs(tiny_policy(), ROWS, temperature=0.0)


# ---------------------------------------------------------------- models with more than a head


def test_a_plain_model_has_a_linear_head_and_is_left_as_it_was(tiny_policy):
    model = tiny_policy().model
    model.eval()
    model.model.train()
    assert lp.has_linear_head(model)
    assert not model.training
    assert model.model.training
    assert not model.lm_head._forward_hooks


@pytest.mark.parametrize(
    "change",
    [lambda x: 5 * torch.tanh(x / 5), lambda x: x / 8],
    ids=["soft-capped", "scaled"],
)
def test_other_heads_are_noticed_and_right(tiny_policy, change):
    """On a fresh model's small logits neither would show to 1e-3."""
    policy = tiny_policy(initializer_range=0.02)
    plain = policy.model.forward

    def forward(**kwargs):
        output = plain(**kwargs)
        output.logits = change(output.logits)
        return output

    policy.model.forward = forward
    assert not lp.has_linear_head(policy.model)
    values, entropy, mask = lp.response_logprobs(policy, ROWS, temperature=0.7)
    expected, expected_entropy = one_by_one(policy.model, ROWS, 0.7)
    torch.testing.assert_close(values[mask], expected, rtol=0, atol=1e-10)
    torch.testing.assert_close(entropy[mask], expected_entropy, rtol=0, atol=1e-10)
