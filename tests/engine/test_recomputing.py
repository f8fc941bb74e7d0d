"""Layers computed again in the backward pass, on packed rows: the same numbers, less memory."""

import pytest
import torch

from alignkit.engine.forward.checkpointing import checkpoint, is_checkpointed
from alignkit.engine.forward.frozen import FrozenPolicy
from alignkit.engine.forward.logprobs import has_linear_head, response_logprobs
from alignkit.engine.forward.packable import can_pack
from alignkit.engine.forward.recomputing import checkpoint_layers
from alignkit.engine.tokens import TrainRow

ROWS = [
    TrainRow((3, 4, 5), (6, 7, 8, 9)),
    TrainRow((3, 4, 5), (6, 2)),
    TrainRow((12, 13), (3, 4, 5)),
]


def gradients(policy, rows, *, twice=False):
    logprobs, _, mask = response_logprobs(policy, rows)
    weights = torch.linspace(-1, 2, int(mask.sum()), dtype=logprobs.dtype)
    value = logprobs[mask] @ weights
    parameters = list(policy.model.parameters())
    if twice:
        torch.autograd.grad(value, parameters, retain_graph=True)
    return logprobs, torch.autograd.grad(value, parameters)


@pytest.mark.parametrize("twice", [False, True], ids=["once", "backwards twice"])
def test_packed_rows_with_checkpointing_have_the_same_gradients(tiny_policy, twice):
    want = gradients(tiny_policy(), ROWS)
    policy = tiny_policy()
    checkpoint_layers(policy.model)
    policy.model.train()
    assert can_pack(policy.model)
    assert has_linear_head(policy.model)  # the model is tried out here, once
    calls = count_layers(policy.model)
    got = gradients(policy, ROWS, twice=twice)
    assert calls == [2 * (3 if twice else 2)]  # both layers, forward and again in each backward
    torch.testing.assert_close(got[0], want[0], rtol=0, atol=0)
    for a, b in zip(got[1], want[1], strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def count_layers(model):
    calls = [0]

    def count(*_):
        calls[0] += 1

    for layer in model.model.layers:
        layer.mlp.register_forward_pre_hook(count)
    return calls


def test_two_packed_batches_keep_their_blocks_apart(tiny_policy):
    """Both go forward before either goes backward."""
    first, second = ROWS, [TrainRow((9,), (8, 7, 6, 5, 4)), TrainRow((9,), (2, 2))]
    want = [gradients(tiny_policy(), rows)[1] for rows in (first, second)]
    policy = tiny_policy()
    checkpoint_layers(policy.model)
    policy.model.train()
    values = []
    for rows in (first, second):
        logprobs, _, mask = response_logprobs(policy, rows)
        values.append(logprobs[mask] @ torch.linspace(-1, 2, int(mask.sum()), dtype=torch.double))
    parameters = list(policy.model.parameters())
    for value, expected in zip(values, want, strict=True):
        for a, b in zip(torch.autograd.grad(value, parameters), expected, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_plain_checkpointing_is_not_packed(tiny_policy):
    model = tiny_policy().model
    checkpoint(model)
    assert not can_pack(model)


def test_activations_are_not_kept(tiny_policy):
    """What autograd saves of 4 layers: without recomputing, several times as much."""
    row = TrainRow((3, 4), tuple(range(2, 28)))
    plain, recomputing = (tiny_policy(num_hidden_layers=4) for _ in range(2))
    checkpoint_layers(recomputing.model)
    recomputing.model.train()
    assert saved_bytes(recomputing, row) < 0.4 * saved_bytes(plain, row)


def saved_bytes(policy, row):
    """Return the bytes that a forward pass saves for the backward pass, weights left out."""
    assert can_pack(policy.model)
    assert has_linear_head(policy.model)
    weights = {p.untyped_storage().data_ptr() for p in policy.model.parameters()}
    held = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: held.append(t) or t, lambda t: t):
        response_logprobs(policy, [row])
    sizes = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    return sum(size for at, size in sizes.items() if at not in weights)


def test_a_frozen_copy_of_a_checkpointed_model_is_packed(tiny_policy):
    """It has no backward pass, and so nothing to recompute."""
    policy = tiny_policy()
    policy.model.float()  # a copy's norms round to float32 again, so float64 would not be packed
    checkpoint_layers(policy.model)
    policy.model.train()
    copied = FrozenPolicy.of(policy, copied=True)
    assert can_pack(copied.model)
    assert is_checkpointed(policy.model)
    assert can_pack(policy.model)
