"""Layouts for the variable-length kernel, and that packed rows reach it; the kernel needs CUDA."""

import pytest
import torch
from torch.nn import functional as F

from alignkit.engine.forward import packed, varlen
from alignkit.engine.forward.logprobs import response_logprobs
from alignkit.engine.forward.packable import can_pack
from alignkit.engine.forward.packed import Packed
from alignkit.engine.forward.varlen import Layout, written_out
from alignkit.engine.tokens import TrainRow

ROWS = [
    TrainRow((3, 4, 5), (6, 7, 8, 9)),
    TrainRow((3, 4, 5), (6, 2)),
    TrainRow((12, 13), (3, 4, 5)),
]


def spans_of(rows):
    return [span for block in Packed.of(rows).blocks for span in block.spans]


def test_layout_by_hand():
    # The row on its own, 4 tokens, before the prompt of 3; then responses of 3 and 1 tokens.
    assert spans_of(ROWS) == [(0, 4, 0, 0), (4, 3, 0, 0), (7, 3, 4, 3), (10, 1, 4, 3)]
    layout = Layout.of(spans_of(ROWS), torch.device("cpu"))
    assert layout.starts.tolist() == [0, 4, 7, 10, 11]
    assert layout.key_starts.tolist() == [0, 4, 7, 13, 17]
    assert (layout.longest, layout.longest_keys) == (4, 6)
    assert layout.keys.tolist() == [*range(7), 4, 5, 6, 7, 8, 9, 4, 5, 6, 10]


def test_keys_stay_in_place_where_nothing_is_shared():
    assert Layout.of(spans_of(ROWS[2:]), torch.device("cpu")).keys is None


def by_the_formula(q, k, v, layout, scaling):
    """What the kernel is said to do: causal within a sequence, aligned at the last key."""
    share = q.shape[1] // k.shape[1]
    parts = []
    for i in range(len(layout.starts) - 1):
        mine = q[layout.starts[i] : layout.starts[i + 1]].transpose(0, 1)
        at = slice(layout.key_starts[i], layout.key_starts[i + 1])
        keys, values = (x[at].transpose(0, 1).repeat_interleave(share, 0) for x in (k, v))
        t, s = mine.shape[1], keys.shape[1]
        seen = torch.ones(t, s, dtype=torch.bool).tril(s - t)
        out = F.scaled_dot_product_attention(mine, keys, values, attn_mask=seen, scale=scaling)
        parts.append(out.transpose(0, 1))
    return torch.cat(parts)


@pytest.fixture
def kernel(monkeypatch):
    """Put the formula in the kernel's place, on the CPU, and say that it is usable."""
    calls = []

    def counted(*given):
        calls.append(given[3])
        return by_the_formula(*given)

    monkeypatch.setattr(varlen, "kernel", counted)
    monkeypatch.setattr(varlen, "usable", lambda query, key: True)
    return calls


def test_packed_rows_give_the_same_through_the_kernel(tiny_policy, request):
    want = gradients(tiny_policy())
    calls = request.getfixturevalue("kernel")
    policy = tiny_policy()
    assert can_pack(policy.model)
    calls.clear()
    got = gradients(policy)
    assert len({id(layout) for layout in calls}) == 1  # laid out once for both layers
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def gradients(policy):
    logprobs, _, mask = response_logprobs(policy, ROWS)
    weights = torch.linspace(-1, 2, int(mask.sum()), dtype=logprobs.dtype)
    value = logprobs[mask] @ weights
    return logprobs, *torch.autograd.grad(value, list(policy.model.parameters()))


def test_the_probe_tells_right_from_wrong(kernel, monkeypatch):
    kind = (torch.device("cpu"), torch.bfloat16, 4, 2, 16)
    assert not varlen._fault(*kind)

    def aligned_at_the_first_key(q, k, v, layout, scaling):
        return by_the_formula(q, k.flip(0), v, layout, scaling)

    monkeypatch.setattr(varlen, "kernel", aligned_at_the_first_key)
    assert varlen._fault(*kind).startswith("it differs from the formula by ")

    def absent(*_):
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(varlen, "kernel", absent)
    assert varlen._fault(*kind) == "RuntimeError: no such kernel"


def test_not_on_a_cpu_nor_in_32_bits():
    q = torch.zeros(1, 4, 3, 16, dtype=torch.bfloat16)
    assert not varlen.usable(q, q)


def test_written_out_is_attention_within_segments():
    draw = torch.Generator().manual_seed(1)
    q, k, v = (torch.randn(1, n, 11, 8, generator=draw, dtype=torch.double) for n in (4, 2, 2))
    blocks = Packed.of(ROWS).blocks
    token = packed._ACTIVE.set(blocks)
    try:
        want, _ = packed.attention(torch.nn.Identity(), q, k, v, None)
    finally:
        packed._ACTIVE.reset(token)
    torch.testing.assert_close(written_out(q, k, v, spans_of(ROWS)), want, rtol=0, atol=1e-6)
