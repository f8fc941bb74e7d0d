"""The share of an H100's peak that a step of a 1.5B model can reach: it falls only for a reason.

Predicted from what each operation has to move and to multiply (``pretended/roofline.py``), not
measured: on a card ``tests/bench/bench_gpu.py`` says what is true. What 28 layers take is reckoned
from 2 and 4, as each layer takes the same.
"""

import tomllib
from collections import Counter
from pathlib import Path

import pytest
from pretended import large, roofline
from pretended.shapes import shapes_only

from alignkit.engine.forward import compiling
from alignkit.engine.observing.metering import Meter

pytestmark = pytest.mark.pretend

OVERLAY = Path(__file__).resolve().parents[3] / "recipes" / "scale" / "hardware-80gb.toml"
BUDGET = tomllib.loads(OVERLAY.read_text())["token_budget"]
FLOORS = {
    ("plain", 8192): 0.235,
    ("compiled", 8192): 0.39,
    ("compiled, masters", 8192): 0.42,
    ("compiled, masters", BUDGET): 0.47,
}
"""By weights and passes, and tokens of a micro-batch. Seen when this was written: ."""


def counted(kind, budget, layers):
    """Return seconds of a step by its parts, and its operations, for so many layers."""
    with shapes_only():
        policy = large.policy(layers, masters="masters" in kind)
        if "compiled" in kind:
            compiling.compile_layers(policy.model)
        learner, objective = large.learner(policy, budget)
        rows = large.rows(3)  # 15,055 tokens with each prompt once
        learner.step(rows[:1], objective)  # trials, and the optimizer's state
        joined = "compiled" in kind
        counting = roofline.counting(large.VOCABULARY, policy.model, joined=joined)
        with counting as spent, Meter().counting() as meter:
            learner.step(rows, objective)
    return Counter({**spent.seconds, "operations": meter.flops})


def predicted(kind, budget):
    """Return the share of the peak, and milliseconds by part, of the model of 28 layers."""
    few, more = (counted(kind, budget, layers) for layers in (2, 4))
    whole = {part: few[part] + 13 * (more[part] - few[part]) for part in more}
    operations = whole.pop("operations")
    parts = {part: round(1e3 * seconds, 1) for part, seconds in whole.items()}
    return operations / sum(whole.values()) / roofline.PEAK, parts


@pytest.mark.parametrize(("kind", "budget"), FLOORS)
def test_the_predicted_share_of_the_peak_does_not_fall(monkeypatch, kind, budget):
    large.trust(monkeypatch)
    share, parts = predicted(kind, budget)
    assert share >= FLOORS[kind, budget], f"{share:.4f} {parts}"
    assert share < FLOORS[kind, budget] + 0.02, f"raise the floor: {share:.4f} {parts}"
