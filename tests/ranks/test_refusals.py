"""A rank that ends before all have met ends the others too, soon, with the cause.

No launcher ends the others here, but for one test.
"""

import signal
import time

import pytest

from .conftest import KILL, STOP, TORCHRUN, assert_same

LATEST = 30.0
"""Seconds in which every rank has to end, from the cause on."""
PLUGIN = '''
import os, time
from alignkit import AlignkitError, Component, Params, hookimpl
from alignkit.protocols import Reward, RewardFn

class Late(Params[RewardFn]):
    """No reward for anything; takes its time to be built on one rank, or cannot be."""

    refused_on: int = -1
    """Rank on which it cannot be built."""

    breaks_on: int = -1
    """Rank on which that ends in an error which nobody foresaw."""

    late_on: int = -1
    """Rank on which it is built in ten minutes only."""

    tells: str = os.devnull
    """File that is made when that begins."""

    def build(self) -> RewardFn:
        if os.environ.get("RANK") == str(self.refused_on):
            raise AlignkitError("no such judge")
        if os.environ.get("RANK") == str(self.breaks_on):
            raise ValueError("no such number")
        if os.environ.get("RANK") == str(self.late_on):
            open(self.tells, "w").close()
            time.sleep(600)
        return lambda responses, examples: [Reward(0.0, {}) for _ in responses]

@hookimpl
def reward_fn():
    yield Component("late", Late)
'''
WRONG = {
    "a recipe": (["-s", "optimizer.lr=fast"], 2, "optimizer.lr: "),
    "an option": (["--no-such-option"], 2, "--no-such-option"),
    "a plugin file": (["-p", "no_such_plugin.py"], 2, "no_such_plugin.py"),
    "a model": (["-s", "policy.path=nowhere"], 2, "nowhere"),
    "a file": (["-s", "data.path=nowhere.jsonl"], 2, "nowhere.jsonl"),
    "a device": (["-s", "policy.device=cuda:7"], 1, "cuda"),
    "a component": (["-s", "reward.refused_on={rank}"], 2, "no such judge"),
    "anything": (["-s", "reward.breaks_on={rank}"], 99, "no such number"),
}
"""What is wrong on one rank alone: words, the exit status, a part of what is said."""


@pytest.fixture
def ended(ranks, forked):
    """Return a function that runs words, and more on one rank, and what its ranks leave."""

    def run(name, rank, more, *both, **job):
        plugin = ranks.place / "late_plugin.py"
        plugin.write_text(PLUGIN)
        late = ["-p", plugin, "-s", "reward.use=late", *both]
        out = ranks.place / name
        words = ranks.words("brittle", out, *late)
        job = {"more": {str(rank): more}, "limit": 4 * LATEST} | job
        found, said = forked.ask(words, 2, out, **job)
        return found, said

    return run


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("wrong", WRONG)
@pytest.mark.one_in(2)
def test_a_rank_that_is_refused_ends_the_others(ended, wrong, rank):
    words, status, cause = WRONG[wrong]
    found, said = ended(f"{wrong}-{rank}", rank, [word.format(rank=rank) for word in words])
    codes = found["codes"]
    assert found["since_said"][rank] < LATEST, said
    assert cause in said[rank]
    assert status in (codes[rank], 1), said  # 1 where rank 0 has begun the run
    assert set(codes) <= {1, 2, status}, said
    if rank == 1:
        assert "rank 1: " in said[0]
        assert cause in said[0]
        assert "rank 1: " in said[1] or status == 99
    assert ("Traceback" in said[rank]) == (status == 99)  # which the process of its own exits 1 for
    assert "Traceback" not in said[1 - rank]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_refused_ends_one_that_still_loads(ended, rank):
    late = ["-s", f"reward.late_on={1 - rank}"]
    found, said = ended(f"late-{rank}", rank, ["-s", "data.path=nowhere.jsonl"], *late)
    assert found["codes"] == [2, 2], said
    assert found["since_said"][rank] < LATEST, said
    assert "nowhere.jsonl" in said[rank]
    assert "nowhere.jsonl" in said[1 - rank]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", [KILL, signal.SIGTERM, STOP])
@pytest.mark.one_in(2)
def test_a_rank_that_is_ended_while_it_loads_ends_the_others(ranks, ended, number, rank):
    name = f"{number.name}-{rank}"
    building = ranks.place / f"{name}.building"
    job = {"since": str(building), "after": 1.0, "victims": [rank], "signal": number}
    job |= {"limit": 3 * LATEST, "patience": 2 * LATEST}
    late = ["-s", f"reward.late_on={rank}", "-s", f"reward.tells='{building}'"]
    found, said = ended(name, rank, [], *late, **job)
    assert found["codes"][1 - rank] not in (0, -KILL), said
    assert found["took"][1 - rank] < LATEST, said
    if rank == 1:
        assert "rank 1" in said[0]


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_torchrun_is_told_why_a_rank_was_refused(ranks, rank):
    plugin = ranks.place / "late_plugin.py"
    plugin.write_text(PLUGIN)
    late = ["-p", plugin, "-s", "reward.use=late", "-s", f"reward.refused_on={rank}"]
    words = [*TORCHRUN, *ranks.words("brittle", ranks.place / f"torchrun-{rank}", *late)]
    start = time.monotonic()
    codes, (said,) = ranks.go(words, 1)
    assert codes == [1], said
    assert ("rank 1: " if rank else "") + "no such judge" in said
    assert time.monotonic() - start < 2 * LATEST  # with the start of three processes


@pytest.mark.slow
def test_ranks_that_have_nothing_to_do_say_so_and_end(ranks):
    out = ranks.place / "done"
    codes, said = ranks.go(ranks.words("sft", out), 1)
    assert codes == [0], said
    before = [path.stat().st_mtime_ns for path in sorted(out.rglob("*"))]
    plugin = ranks.place / "vowel_plugin.py"
    words = ["-m", "alignkit", "resume", out, "-p", plugin]
    codes, said = ranks.go(words, 2, limit=60.0)
    assert codes == [0, 0], said
    assert "there is nothing to do" in said[0]
    assert before == [path.stat().st_mtime_ns for path in sorted(out.rglob("*"))]
    assert_same(ranks.whole("sft", 1), out)
