"""A run on two ranks gives the numbers and the responses of one process."""

import json

import pytest

from .conftest import KINDS, assert_same, metrics

QUICK = ("off_policy",)


@pytest.mark.parametrize(
    "kind", [k if k in QUICK else pytest.param(k, marks=pytest.mark.slow) for k in KINDS]
)
def test_two_ranks_give_what_one_process_does(ranks, kind):
    one, two = ranks.whole(kind, 1), ranks.whole(kind, 2)
    assert_same(one, two)
    assert json.loads((two / "manifest.json").read_text())["hardware"]["ranks"] == 2
    assert len(metrics(two)) == 4
    assert (two / "final" / "model.safetensors").exists()
