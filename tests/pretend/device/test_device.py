"""The pretended device itself: it refuses what CUDA refuses, and sees each wait of the host."""

import pytest
import torch
from pretended.memory import HELD
from pretended.syncs import CaptureError
from torch.nn.attention.varlen import varlen_attn

pytestmark = pytest.mark.pretend


def test_two_devices_in_one_operation_are_refused():
    there = torch.ones(3, device="cuda")
    with pytest.raises(RuntimeError, match="same device"):
        there + torch.ones(3)
    with pytest.raises(RuntimeError, match="same device"):
        torch.cat([there, torch.ones(3)])
    assert (there + torch.tensor(1.0)).tolist() == [2, 2, 2]  # a number goes along


def test_a_generator_of_the_cpu_is_refused():
    with pytest.raises(RuntimeError, match="'cuda' device type for generator"):
        torch.randn(3, device="cuda", generator=torch.Generator())


WAITS = {
    "item": lambda x: float(x[0]),
    "bool": lambda x: bool(x.any()),
    "tolist": lambda x: x.tolist(),
    "cpu": lambda x: x.cpu(),
    "mask": lambda x: x[x > 0],
    "nonzero": lambda x: x.nonzero(),
    "upload": lambda x: torch.tensor([1, 2], device=x.device),
    "from the host": lambda x: x[torch.tensor([0])],
    "copy": lambda x: x.copy_(torch.zeros(3)),
}
GOES_ON = {
    "arithmetic": lambda x: (x * 2 + 1).sum().sqrt(),
    "where": lambda x: torch.where(x > 0, x, 0),
    "scatter": lambda x: x.masked_scatter(x > 0, x),
    "factory": lambda x: torch.zeros(3, device=x.device),
    "pinned": lambda x: torch.ones(3).pin_memory().to(x.device, non_blocking=True),
    "gather": lambda x: x[torch.arange(2, device=x.device)],
}


@pytest.mark.parametrize("name", [*WAITS, *GOES_ON])
def test_each_wait_is_seen_and_nothing_else(waits, name):
    there = torch.ones(3, device="cuda")
    waits.clear()
    ({**WAITS, **GOES_ON})[name](there)
    assert waits.total() == (name in WAITS)


def test_a_graph_runs_again_on_the_same_tensors_and_refuses_waits():
    x, graph = torch.ones(3, device="cuda"), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = (x * 2).cumsum(0)
    x.fill_(5)
    assert y.tolist() == [2, 4, 6]
    graph.replay()
    assert y.tolist() == [10, 20, 30]
    with pytest.raises(CaptureError), torch.cuda.graph(torch.cuda.CUDAGraph()):
        float(x[0])


def test_memory_is_counted_while_a_tensor_lives():
    before = HELD.now
    x = torch.ones(1000, device="cuda")  # 4000 bytes, 8 blocks of 512
    view = x[10:]
    assert HELD.now - before == 4096
    del x
    assert HELD.now - before == 4096
    del view
    assert HELD.now == before


def test_autocast_multiplies_in_its_type_and_backward_runs():
    w = torch.nn.Parameter(torch.ones(4, 4, device="cuda"))
    with torch.autocast("cuda", dtype=torch.bfloat16):
        out = torch.nn.functional.linear(torch.ones(2, 4, device="cuda"), w)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert w.grad.dtype == torch.float32
    assert w.grad.tolist() == [[2] * 4] * 4


def test_the_kernel_differentiates_its_formula():
    """Two sequences of 2 and 3 queries; the second has 2 keys before its own."""
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(n, h, 8, generator=draw) for n, h in ((5, 4), (7, 2), (7, 2)))
    there = [x.to("cuda", torch.bfloat16).requires_grad_() for x in (q, k, v)]
    edges = [torch.tensor(e, dtype=torch.int32, device="cuda") for e in ([0, 2, 5], [0, 2, 7])]
    got = varlen_attn(*there, *edges, 3, 5, window_size=(-1, 0), enable_gqa=True)
    grads = torch.autograd.grad(got.float().square().sum(), there)
    here = [x.to(torch.bfloat16).float().requires_grad_() for x in (q, k, v)]
    parts = []
    for at, to in ((slice(0, 2), slice(0, 2)), (slice(2, 5), slice(2, 7))):
        keys, values = (x[to].repeat_interleave(2, 1).transpose(0, 1) for x in here[1:])
        n, m = at.stop - at.start, to.stop - to.start
        seen = torch.ones(n, m).bool().tril(m - n)
        mine = here[0][at].transpose(0, 1)
        out = torch.nn.functional.scaled_dot_product_attention(mine, keys, values, attn_mask=seen)
        parts.append(out.transpose(0, 1))
    want = torch.cat(parts)
    wanted = torch.autograd.grad(want.square().sum(), here)
    for a, b in zip((got, *grads), (want, *wanted), strict=True):
        assert (
            float((a.detach().float().cpu() - b.detach()).abs().max() / b.detach().abs().max())
            < 0.02
        )
    with pytest.raises(RuntimeError, match="fp16 and bf16"):
        varlen_attn(*(x.float() for x in there), *edges, 3, 5, enable_gqa=True)
