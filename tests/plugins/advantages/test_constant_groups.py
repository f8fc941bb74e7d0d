"""Groups of equal rewards: whatever the advantage, baseline and eps, nothing explodes."""

from itertools import product
from typing import Literal, get_args, get_origin

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

from alignkit_advantages import advantage

VALUES = st.floats(min_value=0, max_value=100, width=32)


def settings_of(params):
    """Every combination of a component's choices, with several values of eps."""
    choices = {}
    for name, field in params.model_fields.items():
        if get_origin(field.annotation) is Literal:
            choices[name] = get_args(field.annotation)
        elif name == "eps":
            choices[name] = (0.0, 1e-8, 1e-6, 1e-3)
    keys = list(choices)
    return [dict(zip(keys, values, strict=True)) for values in product(*choices.values())]


CASES = [(c, how) for c in advantage() for how in settings_of(c.params)]
IDS = [f"{c.name}-{'-'.join(f'{k}={v}' for k, v in how.items())}" for c, how in CASES]


def test_all_choices_are_covered():
    assert {c.name for c, _ in CASES} == {c.name for c in advantage()}
    assert sum("baseline=none" in name for name in IDS) >= 12


@pytest.mark.parametrize(("component", "how"), CASES, ids=IDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(value=VALUES, other=VALUES)
@example(value=1.0, other=0.0)
@example(value=0.1, other=0.1)  # a mean that rounding moves
@example(value=1e-30, other=1.0)
def test_a_constant_group_stays_within_its_rewards(component, how, dtype, value, other):
    """Beside groups that differ, a constant one gets at most its own reward, or a ratio near 1.

    With 1 / eps in the way it would be 1e6 and more for a reward of 1.
    """
    rewards = torch.tensor([value] * 4 + [other, 0.0, other, 1.0], dtype=dtype)
    found = component.params(**how).build()(rewards, group_size=4)
    bound = max(value, 1.0) * 1.001 + 1e-6
    if component.name == "batch_std" and how["baseline"] == "none":
        bound = 8**0.5 + 1e-6  # against the batch: no deviation is above (n - 1) / sqrt(n) of it
    assert bool(found.isfinite().all())
    assert float(found[:4].abs().max()) <= bound


@pytest.mark.parametrize(("component", "how"), CASES, ids=IDS)
@given(value=VALUES)
def test_a_constant_batch_stays_within_its_rewards(component, how, value):
    rewards = torch.full((8,), value, dtype=torch.float64)
    found = component.params(**how).build()(rewards, group_size=4)
    assert bool(found.isfinite().all())
    assert float(found.abs().max()) <= max(value, 1.0) * 1.001


@pytest.mark.parametrize("eps", [0.0, 1e-6])
def test_group_std_without_baseline_by_hand(eps):
    (component,) = [c for c in advantage() if c.name == "group_std"]
    build = component.params(baseline="none", eps=eps).build()
    got = build(torch.tensor([1.0, 1.0, 1.0, 0.0], dtype=torch.float64), group_size=2)
    # (1, 1) has nothing to be compared by. (1, 0): deviation sqrt(1/2), so 1 / 0.7071 and 0.
    assert got.tolist() == pytest.approx([0, 0, 2**0.5 / (1 + eps * 2**0.5), 0], abs=1e-12)
