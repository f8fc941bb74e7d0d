"""The output head in tiles: log-probs, entropies, gradients, memory."""

import math

import pytest
import torch

from alignkit.engine.forward import head


@pytest.mark.parametrize("tile", [(1, 1), (3, 7), (5, 29), (100, 4)])
def test_tiles_change_nothing(tile, monkeypatch):
    torch.manual_seed(0)
    given = [torch.randn(shape, dtype=torch.float64) * 5 for shape in [(11, 6), (29, 6), (29,)]]
    targets = torch.randint(29, (11,))
    weights = torch.linspace(-1, 2, 11, dtype=torch.float64)

    def found(kept):
        monkeypatch.setitem(head._KEPT_BYTES, "cpu", kept)
        hidden, weight, bias = (x.clone().requires_grad_() for x in given)
        values, entropy = head.linear_logprobs(hidden, weight, targets, bias=bias, temperature=0.7)
        (values * weights).sum().backward()
        return values.detach(), entropy, hidden.grad, weight.grad, bias.grad

    monkeypatch.setattr(head, "_TILE", tile)
    for tiled, whole in zip(found(0), found(2**20), strict=True):
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-12)


def test_a_bias_may_rule_tokens_out(monkeypatch):
    monkeypatch.setitem(head._KEPT_BYTES, "cpu", 0)
    monkeypatch.setattr(head, "_TILE", (1, 2))
    bias = torch.tensor([0.0, -math.inf, -math.inf, -math.inf, 0.0])
    values, entropy = head.linear_logprobs(
        torch.zeros(1, 3), torch.ones(5, 3), torch.tensor([4]), bias=bias
    )
    assert values.item() == pytest.approx(-math.log(2))
    assert entropy.item() == pytest.approx(math.log(2))


def test_linear_logprobs_passes_gradcheck_with_bias():
    torch.manual_seed(0)
    hidden, weight, bias = (
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in [(7, 5), (29, 5), (29,)]
    )
    targets = torch.randint(29, (7,))

    def values(hidden, weight, bias):
        return head.linear_logprobs(hidden, weight, targets, bias=bias, temperature=0.5)[0]

    assert torch.autograd.gradcheck(values, (hidden, weight, bias))


def test_a_frozen_head_gets_no_gradient():
    hidden = torch.randn(4, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(29, 5, dtype=torch.float64)
    head.linear_logprobs(hidden, weight, torch.arange(4))[0].sum().backward()
    assert weight.grad is None
    assert hidden.grad.abs().sum() > 0


def test_memory_is_a_tile_not_the_batch(monkeypatch):
    """No tensor of the head is larger than a tile or the matrix: N x V is never there."""
    rows, vocabulary, hidden_size = 64, 50, 4
    monkeypatch.setattr(head, "_TILE", (8, 25))
    monkeypatch.setitem(head._KEPT_BYTES, "cpu", 4 * 8 * 25)
    largest = 0

    class Watch(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            nonlocal largest
            result = function(*args, **(kwargs or {}))
            for tensor in torch.utils._pytree.tree_leaves(result):
                if isinstance(tensor, torch.Tensor):
                    largest = max(largest, tensor.numel())
            return result

    hidden = torch.randn(rows, hidden_size, requires_grad=True)
    weight = torch.randn(vocabulary, hidden_size, requires_grad=True)
    with Watch():
        values, _ = head.linear_logprobs(hidden, weight, torch.arange(rows) % vocabulary)
        values.sum().backward()
    assert largest == 64 * 4  # of hidden states; a tile has 8 * 25 = 200, naive logits 64 * 50


def test_bfloat16_autocast_keeps_wide_results():
    torch.manual_seed(0)
    hidden = torch.randn(6, 32, requires_grad=True)
    weight = torch.randn(29, 32, requires_grad=True)
    targets = torch.arange(6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        values, entropy = head.linear_logprobs(hidden, weight, targets)
    values.sum().backward()
    assert values.dtype == entropy.dtype == torch.float32
    assert hidden.grad.dtype == weight.grad.dtype == torch.float32
    exact = torch.log_softmax(hidden @ weight.T, -1).gather(1, targets[:, None])[:, 0]
    (want,) = torch.autograd.grad(exact.sum(), weight)
    torch.testing.assert_close(values, exact, rtol=0.02, atol=0.1)
    torch.testing.assert_close(weight.grad, want, rtol=0.05, atol=0.05)


def test_entropy_by_hand():
    # softmax(0, ln 3) = (1/4, 3/4): H = ln 4 - 3/4 ln 3 = 0.562335 nats (0.811278 bits).
    logits = torch.tensor([0.0, math.log(3)])
    assert head.entropy_from_logits(logits).item() == pytest.approx(0.5623351446, abs=1e-6)


def test_entropy_survives_impossible_tokens_and_large_logits():
    logits = torch.tensor([[0.0, 0.0, -math.inf], [1e4, 0.0, 0.0]], requires_grad=True)
    entropy = head.entropy_from_logits(logits)
    torch.testing.assert_close(entropy, torch.tensor([math.log(2), 0.0]))
    entropy.sum().backward()
    assert logits.grad.isfinite().all()
