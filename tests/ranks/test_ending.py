"""Runs of two ranks that end early: both ranks, soon, with the cause, and can be resumed."""

import json
import signal
import time
from resource import RLIMIT_FSIZE, prlimit

import pytest

from .conftest import KILL, SHARD, TORCHRUN, assert_same, send


def status(out):
    return json.loads((out / "manifest.json").read_text())["status"]


def resumed(ranks, out, size, *more):
    plugin = ranks.place / "vowel_plugin.py"
    return ranks.go(["-m", "alignkit", "resume", out, "-p", plugin, *more], size)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), SHARD], ids=["replicated", "cut"])
@pytest.mark.parametrize(
    ("before", "after"), [(2, 1), (1, 2), (2, 4)], ids=["2-to-1", "1-to-2", "2-to-4"]
)
def test_a_signal_to_one_rank_stops_all_and_another_number_goes_on(ranks, before, after, more):
    whole = ranks.whole("off_policy", 1)
    out = ranks.place / f"signal-{before}-{after}-{len(more)}"
    words = ranks.words("off_policy", out, "-s", "reward.waits=0.3", *more)
    when = (out / "checkpoints" / "step_000001").exists
    codes, said = ranks.go(words, before, when=when, then=send(signal.SIGUSR1, before - 1))
    assert codes == [75] * before, said
    assert "stopped by SIGUSR1; go on with: alignkit resume" in said[0]
    assert said[1:] == [""] * (before - 1)
    assert status(out) == "stopped"
    assert (out / "final" / "model.safetensors").exists()
    codes, said = resumed(ranks, out, after)
    assert codes == [0] * after, said
    assert_same(whole, out)


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_what_one_rank_raises_ends_all_with_its_number(ranks, rank):
    out = ranks.place / f"raises-{rank}"
    start = time.monotonic()
    codes, said = ranks.go(ranks.words("off_policy", out, "-s", f"reward.breaks_on={rank}"), 2)
    assert codes == [1, 1], said
    assert "reward 'vowel_share' raised ValueError: no more vowels" in said[rank]
    assert ("rank 1: reward" in said[0]) == (rank == 1)
    assert "go on with: alignkit resume" in said[0]
    assert said[1 - rank].count("no more vowels") == rank  # rank 0 tells of both
    assert status(out) == "failed"
    assert time.monotonic() - start < 45  # starting two processes included
    if rank == 1:  # which one process does not have
        codes, said = resumed(ranks, out, 1)
        assert codes == [0], said
        assert_same(ranks.whole("off_policy", 1), out)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), SHARD], ids=["replicated", "cut"])
def test_what_one_rank_raises_in_an_update_ends_those_that_wait_for_it(ranks, more):
    out = ranks.place / f"brittle-{len(more)}"
    moment = []
    codes, said = ranks.go(
        ranks.words("brittle", out, *more),
        2,
        when=(out / "checkpoints" / "step_000001").exists,
        then=lambda _: moment.append(time.monotonic()),
    )
    assert time.monotonic() - moment[0] < 30
    assert codes == [1, 1], said
    assert "rank 1: loss 'brittle' raised ValueError: no more losses" in said[0]
    assert "no more losses" in said[1]
    assert (out / "checkpoints" / "step_000001").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("rank", "more"), [(0, ()), (1, SHARD)], ids=["replicated", "cut"])
def test_a_full_disk_on_a_rank_that_writes_ends_all_and_the_run_goes_on(ranks, rank, more):
    out = ranks.place / f"full-{rank}"
    moment = []

    def fill(running):
        prlimit(running[rank].pid, RLIMIT_FSIZE, (20_000, 20_000))  # bytes that a file may have
        moment.append(time.monotonic())

    words = ranks.words("off_policy", out, "-s", "reward.waits=0.3", *more)
    when = (out / "checkpoints" / "step_000001").exists
    codes, said = ranks.go(words, 2, when=when, then=fill)
    assert time.monotonic() - moment[0] < 30
    assert codes == [1, 1], said
    assert "cannot write a checkpoint to" in said[0]
    assert ("File too large" if rank == 0 else "File too large (rank 1)") in said[0]
    assert said[1] == ""
    codes, said = resumed(ranks, out, 2)
    assert codes == [0, 0], said
    assert_same(ranks.whole("off_policy", 1), out)


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), SHARD], ids=["replicated", "cut"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_rank_that_is_killed_or_stopped_ends_the_others(ranks, number, more):
    out = ranks.place / f"gone-{number.name}-{len(more)}"
    moment = []

    def then(running):
        send(number, 1)(running)
        moment.append(time.monotonic())
        running[0].wait(40)
        moment.append(time.monotonic())
        send(KILL, 1)(running)

    words = ranks.words("off_policy", out, "-s", "reward.waits=0.3", *more)
    when = (out / "checkpoints" / "step_000001").exists
    codes, said = ranks.go(words, 2, when=when, then=then)
    assert codes[0] == 1, said
    assert moment[1] - moment[0] < 30
    assert "rank 1 " in said[0]
    assert "go on with: alignkit resume" in said[0]
    assert status(out) == "failed"
    if number == signal.SIGKILL:
        codes, said = resumed(ranks, out, 2)
        assert codes == [0, 0], said
        assert_same(ranks.whole("off_policy", 1), out)


@pytest.mark.slow
def test_torchrun_starts_it_and_every_rank_has_a_word(ranks):
    out = ranks.place / "torchrun"
    words = [*TORCHRUN, *ranks.words("sft", out)]
    codes, said = ranks.go(words, 1)
    assert codes == [0], said
    assert said[0].count("run directory: ") == 2  # at the start, and at the end
    assert_same(ranks.whole("sft", 1), out)


def test_what_does_not_divide_its_work_is_refused_in_a_line(ranks, monkeypatch):
    from alignkit import AlignkitError
    from alignkit.lifecycle.ranks import refuse_unless_divided
    from alignkit_hf import HfRollout
    from alignkit_vllm import VllmRollout

    monkeypatch.setenv("WORLD_SIZE", "2")
    refuse_unless_divided(HfRollout(max_tokens=3), "hf")
    with pytest.raises(AlignkitError, match=r"^this is one of 2 .*rollout backend vllm.*$"):
        refuse_unless_divided(VllmRollout(max_tokens=3), "rollout backend vllm")


def test_one_process_loads_nothing_of_several(ranks):
    code = (
        "import sys\n"
        "from alignkit.cli import main\n"
        "main(sys.argv[1:], standalone_mode=False)\n"
        "print([m for m in sys.modules if m.startswith('alignkit.engine.ranks.')])\n"
    )
    words = ranks.words("sft", ranks.place / "alone")[2:]
    (code,), (said,) = ranks.go([*("-c", code), *words])
    assert code == 0, said
    light = ["alignkit.engine.ranks.alone", "alignkit.engine.ranks.shards"]
    assert said.splitlines()[-1] == str(light)
