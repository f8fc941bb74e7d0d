"""Logits of 16-bit factors are added up, and kept, in float32."""

import pytest
import torch

from alignkit.engine.forward import head

pytestmark = pytest.mark.pretend


@pytest.mark.parametrize("tile", [2**29, 1], ids=["one tile", "tiles"])
@pytest.mark.parametrize("autocast", [False, True], ids=["16-bit weights", "autocast"])
def test_log_probs_are_those_of_exact_sums(monkeypatch, tile, autocast):
    """Rounding logits near 8 to bfloat16 would move them by up to 1/64 and log-probs as much."""
    monkeypatch.setitem(head._KEPT_BYTES, "cuda", tile)
    draw = torch.Generator().manual_seed(0)
    hidden, weight = (torch.randn(n, 64, generator=draw).bfloat16() for n in (300, 50))
    targets = torch.arange(300) % 50
    want = (hidden.double() @ weight.double().T).log_softmax(-1).gather(1, targets[:, None])[:, 0]
    dtype = torch.float32 if autocast else torch.bfloat16
    with torch.autocast("cuda", torch.bfloat16, enabled=autocast):
        got, _ = head.linear_logprobs(
            hidden.to("cuda", dtype), weight.to("cuda", dtype), targets.to("cuda")
        )
    assert float((got.cpu().double() - want).abs().max()) < 1e-4
