"""When workers end, and what they load."""

import os
import subprocess
import sys
import textwrap
import time

from alignkit_rewards import R1Zero
from alignkit_rewards.pool import close_pool, shared_pool
from worker_processes import RULES, gone


def run_script(body, **environment):
    code = textwrap.dedent(body)
    return subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


SCRIPT = """
from alignkit.protocols import Example
from alignkit_rewards import R1Zero
from alignkit_rewards.pool import shared_pool
reward = R1Zero().build()
def ask():
    return reward(["t </think> <answer>x + x</answer>"], [Example("0", "q", "2x")])[0].total
"""


def test_workers_end_with_a_parent_that_just_stops():
    done = run_script(SCRIPT + "print(ask(), *shared_pool().processes())")
    total, *pids = done.stdout.split()
    assert done.stderr == ""
    assert total == "1.0"
    assert pids
    assert gone(map(int, pids))


def test_workers_end_with_a_parent_that_is_killed():
    body = (
        "print(ask(), *shared_pool().processes(), flush=True)\nimport os\nos.kill(os.getpid(), 9)"
    )
    done = run_script(SCRIPT + body)
    total, *pids = done.stdout.split()
    assert total == "1.0"
    assert pids
    assert gone([int(p) for p in pids])


def test_a_forked_child_gets_workers_of_its_own():
    body = """
import os, sys
assert ask() == 1.0
mine = set(shared_pool().processes())
child = os.fork()
if child == 0:
    total = ask()
    theirs = set(shared_pool().processes())
    from alignkit_rewards.pool import close_pool
    close_pool()
    os._exit(0 if total == 1.0 and theirs and not theirs & mine else 1)
assert os.waitpid(child, 0)[1] == 0
assert ask() == 1.0
print("fine")
"""
    done = run_script(SCRIPT + body)
    assert done.stdout == "fine\n", done.stderr


def test_a_main_module_without_a_guard_is_not_run_again(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT + "print(ask())\n")
    done = subprocess.run(
        [sys.executable, str(script)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout == "1.0\n", done.stderr


def test_the_pool_starts_again_after_it_was_closed(example, tagged):
    reward = R1Zero().build()
    assert reward([tagged("x + 1")], [example("1 + x")])[0].total == 1.0
    before = shared_pool().processes()
    close_pool()
    assert gone(before)
    assert reward([tagged("x + 2")], [example("2 + x")])[0].total == 1.0


def test_workers_load_no_ml_stack(pool):
    pool.submit([(["x"], "x + 0")], RULES, 2.0).result()
    (pid,) = pool.processes()
    with open(f"/proc/{pid}/maps") as maps:
        assert "torch" not in maps.read()


def test_hostile_inputs_are_answered_in_time_and_leak_nothing(grader_cases, example, tagged):
    rows = grader_cases("stress.jsonl")
    reward = R1Zero(timeout=1.0).build()
    started = time.perf_counter()
    results = reward([tagged(r["pred"]) for r in rows], [example(r["gold"]) for r in rows])
    assert len(results) == len(rows) == 50
    assert sum("timed_out" in r.parts for r in results) <= 10
    assert time.perf_counter() - started < 60
    pool = shared_pool()
    assert len(pool.processes()) <= pool.size
    children = subprocess.run(
        ["pgrep", "-P", str(os.getpid()), "-f", "alignkit_rewards"],
        capture_output=True, text=True, check=False,
    ).stdout.split()  # fmt: skip
    assert {int(p) for p in children} == set(pool.processes())
