"""The output head whose sums are compiled: what the head in tiles gives, from the same formulas."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.engine.forward import compiled_head, head
from alignkit.engine.forward.compiled_head import CompiledLogprobs, Kernels, delta, sums

PLAIN = Kernels(sums, delta)


def through(hidden, weight, targets, temperature, compute=torch.float64):
    return CompiledLogprobs.apply(hidden, weight, targets, temperature, compute, PLAIN)


@given(
    st.integers(1, 12),
    st.integers(1, 9),
    st.integers(2, 40),
    st.sampled_from([0.3, 0.7, 1.0, 2.5]),
    st.integers(0, 99),
    st.integers(1, 5),
)
@settings(deadline=None, max_examples=60)
def test_values_entropies_and_gradients_are_the_plain_heads(n, h, v, temperature, seed, rows):
    draw = torch.Generator().manual_seed(seed)
    given = [4 * torch.randn(*s, generator=draw, dtype=torch.float64) for s in ((n, h), (v, h))]
    targets = torch.randint(v, (n,), generator=draw)
    scale = torch.randn(n, generator=draw, dtype=torch.float64)

    def found(call):
        hidden, weight = (x.clone().requires_grad_() for x in given)
        values, entropy = call(hidden, weight)
        (values * scale).sum().backward()
        assert not entropy.requires_grad
        return values.detach(), entropy, hidden.grad, weight.grad

    least, compiled_head._LEAST_ROWS = compiled_head._LEAST_ROWS, rows
    tile, compiled_head.TILE = compiled_head.TILE, 1
    try:
        got = found(lambda x, w: through(x, w, targets, temperature))
    finally:
        compiled_head._LEAST_ROWS, compiled_head.TILE = least, tile
    want = found(lambda x, w: head.linear_logprobs(x, w, targets, temperature=temperature))
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(0)
    hidden, weight = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in [(7, 5), (29, 5)]
    )
    targets = torch.randint(29, (7,))
    assert torch.autograd.gradcheck(lambda h, w: through(h, w, targets, 0.5)[0], (hidden, weight))


@pytest.mark.parametrize("frozen", [0, 1], ids=["hidden states", "weight"])
def test_what_is_frozen_gets_no_gradient(frozen):
    given = [torch.randn(4, 5, dtype=torch.float64), torch.randn(9, 5, dtype=torch.float64)]
    given[1 - frozen].requires_grad_()
    through(*given, torch.arange(4), 1.0)[0].sum().backward()
    assert given[frozen].grad is None
    assert given[1 - frozen].grad.abs().sum() > 0


def test_extreme_logits_stay_finite():
    hidden = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    weight = torch.tensor([[1.0], [-1.0], [0.0]], requires_grad=True)
    values, entropy = through(hidden, weight, torch.tensor([0, 0]), 1.0, torch.float32)
    values.sum().backward()
    assert values.tolist() == [0.0, -2e4]
    assert entropy.tolist() == [0.0, 0.0]
    assert torch.isfinite(hidden.grad).all()
    assert torch.isfinite(weight.grad).all()


def test_16_bit_products_are_as_exact_as_the_plain_heads():
    torch.manual_seed(0)
    given = [torch.randn(64, 32), torch.randn(50, 32)]
    targets, scale = torch.randint(50, (64,)), torch.randn(64)

    def found(call):
        hidden, weight = (x.clone().requires_grad_() for x in given)
        values = call(hidden, weight)[0]
        (values * scale).sum().backward()
        return [values.detach(), hidden.grad, weight.grad]

    exact = found(lambda x, w: head.linear_logprobs(x, w, targets))
    got = found(lambda x, w: through(x, w, targets, 1.0, torch.bfloat16))
    with torch.autocast("cpu", torch.bfloat16):
        plain = found(lambda x, w: head.linear_logprobs(x, w, targets))
    for a, b, want in zip(got, plain, exact, strict=True):
        assert a.dtype == torch.float32
        assert (a - want).norm() <= 1.2 * (b - want).norm()


def test_it_is_used_only_where_layers_run_compiled(monkeypatch):
    calls = []
    monkeypatch.setattr(
        compiled_head, "compiled", lambda: Kernels(lambda *x: calls.append(0) or sums(*x), delta)
    )
    hidden, weight, targets = torch.randn(3, 4), torch.randn(6, 4), torch.tensor([0, 1, 2])
    plain = head.linear_logprobs(hidden, weight, targets)
    assert not calls
    token = compiled_head.ACTIVE.set(True)
    try:
        found = head.linear_logprobs(hidden, weight, targets)
        biased = head.linear_logprobs(hidden, weight, targets, bias=torch.zeros(6))
    finally:
        compiled_head.ACTIVE.reset(token)
    assert len(calls) == 1  # a bias takes the plain head
    for a, b, c in zip(plain, found, biased, strict=True):
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(a, c)
