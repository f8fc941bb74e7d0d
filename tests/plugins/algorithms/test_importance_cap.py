"""Truncated importance sampling as a key of GRPO."""

import pytest

from alignkit.engine.sampling.rollout_table import SamplingParams
from alignkit_algorithms.grpo import Grpo


@pytest.mark.parametrize(
    "cut", [{"top_p": 0.9}, {"top_k": 50}, {"min_p": 0.1}, {"min_tokens": 4}], ids=str
)
def test_rollouts_that_were_cut_cannot_be_corrected(cut):
    (key,) = cut
    tables = {"rollout": SamplingParams(**cut)}
    assert list(Grpo().check(tables)) == []
    ((at, message),) = Grpo(importance_cap=2.0).check(tables)
    assert at == "importance_cap"
    assert f"rollout.{key} = {cut[key]} keeps tokens from being drawn" in message


def test_whole_distributions_can():
    tables = {"rollout": SamplingParams(temperature=0.7)}
    assert list(Grpo(importance_cap=2.0).check(tables)) == []
