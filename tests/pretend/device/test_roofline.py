"""The share of an H100's peak that a step of a 1.5B model can reach: it falls only for a reason.

Predicted from what each operation has to move and to multiply (``pretended/roofline.py``), not
measured: on a card ``tests/bench/bench_gpu.py`` says what is true.
"""

import pytest
from pretended import large, roofline
from pretended.shapes import shapes_only

from alignkit.engine.forward import compiled_head, compiling
from alignkit.engine.observing.metering import Meter

pytestmark = pytest.mark.pretend

PLAIN = compiled_head.Kernels(compiled_head.sums, compiled_head.delta)
FLOORS = {"plain": 0.235, "compiled": 0.33, "compiled, masters": 0.37}
"""Seen when this was written: 0.239, 0.336, 0.377."""


@pytest.fixture
def trusted(monkeypatch):
    """Trials of models and kernels pass, and what is compiled runs as it is: only shapes count."""
    large.trust(monkeypatch)
    monkeypatch.setattr(compiling, "_compiled", lambda layer: layer._call_impl)
    monkeypatch.setattr(compiled_head, "compiled", lambda: PLAIN)


def step(kind):
    """Return what a step of 19,255 tokens took, 8,192 a micro-batch, and its share of the peak."""
    with shapes_only():
        policy = large.policy(masters="masters" in kind)
        if "compiled" in kind:
            compiling.compile_layers(policy.model)
        learner, objective = large.learner(policy, 8192)
        rows = large.rows(3)
        learner.step(rows, objective)  # trials, and the optimizer's state
        joined = "compiled" in kind
        counting = roofline.counting(large.VOCABULARY, policy.model, joined=joined)
        with counting as spent, Meter().counting() as meter:
            learner.step(rows, objective)
    return spent, meter.flops / sum(spent.seconds.values()) / roofline.PEAK


@pytest.mark.parametrize("kind", FLOORS)
def test_the_predicted_share_of_the_peak_does_not_fall(trusted, kind):
    spent, share = step(kind)
    assert share >= FLOORS[kind], f"{share:.4f}\n{spent.table()}"
    assert share < FLOORS[kind] + 0.02, f"raise the floor: {share:.4f}\n{spent.table()}"
