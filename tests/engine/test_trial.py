"""A model is tried out once for each type it computes in, and left as it was."""

import gc
import weakref

import pytest
import torch
from torch import nn

from alignkit.engine.forward.trial import apart, compute_dtype, once_per_model


def test_a_model_is_asked_once_for_each_type_it_computes_in():
    asked = []

    @once_per_model
    def ask(model):
        asked.append(compute_dtype(model.weight))
        return len(asked)

    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    assert [ask(first), ask(first), ask(second), ask(first)] == [1, 1, 2, 1]
    with torch.autocast("cpu", torch.bfloat16):
        assert [ask(first), ask(first)] == [3, 3]
    assert [ask(first), ask(first.double())] == [1, 4]
    with torch.autocast("cpu", torch.bfloat16):
        assert ask(first) == 4  # autocast leaves float64 alone
    assert asked == [torch.float32, torch.float32, torch.bfloat16, torch.float64]


@pytest.mark.parametrize("fails", [False, True])
def test_it_evaluates_and_each_part_gets_its_mode_back(fails):
    model = nn.Sequential(nn.Dropout(), nn.Linear(1, 1), nn.Dropout()).train()
    model[2].eval()
    modes = []

    @once_per_model
    def ask(asked):
        modes.append([m.training for m in asked.modules()])
        if fails:
            raise RuntimeError("odd")

    if fails:
        with pytest.raises(RuntimeError, match="odd"):
            ask(model)
    else:
        ask(model)
    assert modes == [[False] * 4]
    assert [m.training for m in model.modules()] == [True, True, True, False]


def test_what_was_found_out_does_not_keep_the_model():
    model = nn.Linear(2, 2)
    once_per_model(lambda asked: True)(model)
    alive = weakref.ref(model)
    del model
    gc.collect()
    assert alive() is None


def test_how_far_apart_by_hand():
    # The second row lies 1 from its mean of 11, the first 3 from its mean of 0; the largest
    # difference is 0.6. By the largest value it would be 0.6 / 12.
    want = torch.tensor([[-3.0, 3.0], [10.0, 12.0]])
    got = want + torch.tensor([[0.0, 0.3], [-0.6, 0.0]])
    assert apart(got, want) == pytest.approx(0.2)
    assert apart(want, want) == 0
    assert apart(got * float("nan"), want) == float("inf")
