"""Packed rows stay packed where products of few rows are added up in another order, as on CUDA.

cuBLAS takes another kernel for few rows than for many, whose sums round elsewhere. Rows packed
and rows alone then differ by the rounding of 16 bits, which is no reason to pack no more.
"""

import pytest
import torch
from pretended.tensor import KERNELS

from alignkit.engine.forward import varlen
from alignkit.engine.forward.logprobs import cut, response_logprobs
from alignkit.engine.forward.packable import can_pack
from alignkit.engine.tokens import TrainRow

pytestmark = pytest.mark.pretend
aten = torch.ops.aten

FEW = 8
"""Rows up to this many are multiplied in two halves of the inner dimension."""


def product(a, b):
    if len(a) > FEW or a.dtype != torch.bfloat16:
        return (a.float() @ b.float()).to(a.dtype)
    half = a.shape[1] // 2
    first, second = a[:, :half].float() @ b[:half].float(), a[:, half:].float() @ b[half:].float()
    return first.to(a.dtype) + second.to(a.dtype)


@pytest.fixture
def other_sums(monkeypatch):
    monkeypatch.setitem(KERNELS, aten.mm.default, product)
    monkeypatch.setitem(KERNELS, aten.addmm.default, lambda c, a, b: product(a, b) + c)


@pytest.mark.parametrize("recomputed", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("how", [{"autocast": "bfloat16"}, {"dtype": "bfloat16"}], ids=str)
def test_rounding_in_16_bits_is_allowed_for(policy, other_sums, how, recomputed):
    subject = policy(gradient_checkpointing=recomputed, **how)
    with subject.autocast():
        assert can_pack(subject.model)
    rows = [TrainRow((5, 6, 7), (8, 9)), TrainRow((5, 6, 7), (3, 2, 1))]
    assert cut(subject, rows, 9) == [[1, 0]]  # 3 + 2 + 3 = 8 tokens; padded, they would be 12
    logprobs, _, _ = response_logprobs(subject, rows)
    logprobs.sum().backward()
    assert list(varlen._faults.values()) == [""]


def test_float32_is_held_to_its_own_rounding(policy, monkeypatch):
    """A tenth of bfloat16's rounding shows."""
    subject = policy()

    def rough(a, b):
        found = a @ b
        return found * (1 + 2e-3 * (torch.arange(found.shape[1]) % 2)) if len(a) > FEW else found

    monkeypatch.setitem(KERNELS, aten.mm.default, rough)
    assert not can_pack(subject.model)


def test_the_verdict_is_of_each_type_it_computes_in(policy, other_sums):
    """Asked outside autocast first, then within it: two questions, whatever the first answer."""
    subject = policy(autocast="bfloat16")
    assert can_pack(subject.model)
    assert not varlen._faults  # float32 has no such kernel
    with subject.autocast():
        assert can_pack(subject.model)
    assert varlen._faults
