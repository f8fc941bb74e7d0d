"""A run on two ranks gives the numbers and the responses of one process."""

import json

import pytest
import torch
from safetensors.torch import load_file

from .conftest import KINDS, SHARD, assert_same, metrics

QUICK = ("off_policy",)
LEARNING = [kind for kind in KINDS if kind != "brittle"]


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in LEARNING]
)
def test_two_ranks_give_what_one_process_does(ranks, kind):
    one, two = ranks.whole(kind, 1), ranks.whole(kind, 2)
    assert_same(one, two)
    assert json.loads((two / "manifest.json").read_text())["hardware"]["ranks"] == 2
    assert len(metrics(two)) == 4
    assert (two / "final" / "model.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize("kind", LEARNING)
def test_a_policy_cut_over_ranks_learns_the_same(ranks, kind):
    one, two = ranks.whole(kind, 1), ranks.whole(kind, 2, *SHARD)
    assert_same(one, two)
    a, b = (load_file(folder / "final" / "model.safetensors") for folder in (one, two))
    assert a.keys() == b.keys()
    for name, value in a.items():
        torch.testing.assert_close(b[name], value, atol=1e-5, rtol=1e-5)
