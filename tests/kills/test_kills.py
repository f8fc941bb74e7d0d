"""A run killed at any moment and resumed ends as if nothing had happened, bit for bit.

`pytest tests/kills -m "slow or not slow" --kills 40` kills GRPO, expert iteration, SFT and a sweep
40 times each.
"""

import pytest

USES = ("grpo", "expert_iteration", "sft", "sweep")


SLOW = [
    pytest.param(use, marks=pytest.mark.slow)
    for use in (*USES[1:], "distill", "dpo", "evaluate", "episodes")
]


@pytest.mark.parametrize("use", ["grpo", *SLOW])
def test_killed_and_resumed_it_ends_the_same(killer, request, use):
    wanted = request.config.getoption("--kills")
    count = wanted if use in USES else min(wanted, 10)
    before = killer.kills
    for number in range(count):
        killer.trial(use, number)
    assert killer.kills - before >= count
