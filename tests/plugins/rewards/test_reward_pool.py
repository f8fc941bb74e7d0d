"""The grading workers: killed in time, replaced, usable from anywhere, gone in the end."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from alignkit_rewards import QuestionOnly, R1Zero, graded, process
from alignkit_rewards import pool as graders
from alignkit_rewards.pool import Pool
from worker_processes import RULES, gone

FOREVER = r"\int_0^{\infty} e^{-x^2}\sin(x^3) dx"
"""An expression on which sympy does not come back."""


def test_a_hanging_verdict_costs_its_worker_and_nothing_else(pool, caplog):
    pairs = [(["x"], "x + 0"), (["4"], FOREVER), (["y"], "y + 0"), (["z"], "w")]
    found = pool.submit(pairs, RULES, 0.5).result()
    assert [(v.correct, v.why) for v in found] == [
        (True, "expression"),
        (False, "timed out"),
        (True, "expression"),
        (False, "different"),
    ]
    assert "timed out" in caplog.text
    assert len(pool.processes()) == 1


def test_a_verdict_that_wants_too_much_memory_costs_its_worker_and_nothing_else(monkeypatch):
    monkeypatch.setattr(graders, "MEMORY_MB", 48)  # too little for sympy
    made = Pool(1)
    try:
        assert made.submit([(["x"], "x + 0")], RULES, 20.0).result()[0].correct
        before = made.processes()
        pairs = [(["y"], "y + 0"), (["10"], r"\sum_{k=1}^4 k"), (["z"], "z + 0")]
        found = made.submit(pairs, RULES, 20.0).result()
        assert [v.why for v in found] == ["expression", "out of memory", "expression"]
        assert gone(before)
        assert made.submit(pairs[:1], RULES, 20.0).result()[0].correct
    finally:
        made.close()


def test_a_worker_killed_while_idle_is_replaced(pool):
    assert pool.submit([(["x"], "x + 0")], RULES, 2.0).result()[0].correct
    (pid,) = pool.processes()
    os.kill(pid, 9)
    assert gone([pid])
    assert pool.submit([(["y"], "y + 0")], RULES, 2.0).result()[0].correct
    assert pool.processes() != [pid]


def test_verdicts_come_back_in_order_from_many_threads(pool):
    results = {}

    def work(k):
        pairs = [([f"{i}x"], f"x*{i if i % (k + 2) else i + 1}") for i in range(1, 30)]
        results[k] = [v.correct for v in pool.submit(pairs, RULES, 5.0).result()]

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for k in range(4):
        assert results[k] == [bool(i % (k + 2)) for i in range(1, 30)]


def test_pairs_in_the_hands_of_killed_workers_are_judged_again(pool):
    assert pool.submit([(["x"], "x + 0")], RULES, 5.0).result()[0].correct
    pending = pool.submit([(["x"], f"x + {i} - {i}") for i in range(1, 600)], RULES, 5.0)
    killed = set()
    while len(killed) < 2 and not pending.tasks[-1].verdict.done():
        for pid in set(pool.processes()) - killed:
            os.kill(pid, signal.SIGKILL)
            killed.add(pid)
        time.sleep(0.01)
    assert killed
    assert [(v.correct, v.why) for v in pending.result() if not v.correct] == []


def test_a_pair_that_kills_each_of_its_workers_is_given_up(pool, monkeypatch, caplog):
    lost = []

    def verdict(self, task, before=graders.Worker.verdict):
        if task.pair[1] != "y":
            return before(self, task)
        lost.append(self.process.pid)
        self.kill()
        return None

    monkeypatch.setattr(graders.Worker, "verdict", verdict)
    found = pool.submit([(["x"], "x"), (["y"], "y"), (["z"], "z")], RULES, 5.0).result()
    assert [v.why for v in found][1] == "crashed"
    assert [v.correct for v in found] == [True, False, True]
    assert len(set(lost)) == graders.TRIES
    assert "grading crashed: 'y'" in caplog.text


@pytest.mark.parametrize("who", ["workers", "all"])
def test_time_in_which_grading_is_stopped_does_not_count(who):
    """As by Ctrl-Z, for longer than a verdict may take and the parent waits for it."""
    code = textwrap.dedent("""
    import sys
    from alignkit_rewards import pool as graders, process
    from alignkit_rewards.answers import Conventions
    pool = graders.Pool(1)
    pool.submit([(["x"], "x + 0")], Conventions(), 20.0).result()
    graders.GRACE_S = process.IDLE_S = 0.6
    pairs = [(["x"], f"x + {i} - {i}") for i in range(400)]
    pending = pool.submit(pairs, Conventions(), 0.5)
    print(*pool.processes(), flush=True)
    print({v.why for v in pending.result() if not v.correct}, flush=True)
    pool.close()
    """)
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        workers = [int(word) for word in child.stdout.readline().split()]
        stopped = workers if who == "workers" else [child.pid, *workers]
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        time.sleep(2)
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)
        assert child.stdout.readline() == "set()\n"


def test_a_worker_that_waits_for_ever_is_given_up(pool, monkeypatch):
    monkeypatch.setattr(process, "IDLE_S", 1.0)
    pool.submit([(["x"], "x + 0")], RULES, 2.0).result()
    worker = pool._workers[0]
    assert worker.line_of_work(2.0) is None  # nothing was asked, so nothing comes


def test_closing_ends_the_workers(pool):
    pool.submit([(["x"], "x + 0")], RULES, 2.0).result()
    pids = pool.processes()
    pool.close()
    assert pids
    assert gone(pids)


def test_submitting_does_not_wait(example, tagged):
    reward = R1Zero(timeout=1.0).build()
    started = time.perf_counter()
    pending = reward.submit([tagged(FOREVER)], [example("4")])
    assert time.perf_counter() - started < 0.5
    (result,) = pending.result()
    assert result.total == 0.0
    assert result.parts == {"format": 1.0, "answer": 0.0, "timed_out": 1.0}


def test_plain_numbers_and_the_gold_itself_need_no_worker(example, tagged, monkeypatch):
    monkeypatch.setattr(graded, "shared_pool", lambda: pytest.fail("a worker was asked"))
    reward = R1Zero().build()
    answers = ["1,234", "1234.0", "1/2", ".5", " 7 ", r"\frac{1}{2}", "8", "", "x^2", "9" * 30_000]
    golds = ["1234", "1,234", "0.5", r"\frac12", "7", "2/4", "9", "9", "x^2", "8"]
    golds[3] = r"\frac{1}{2}"
    got = [r.total for r in reward([tagged(a) for a in answers], [example(g) for g in golds])]
    assert got == [1, 1, 1, 1, 1, 1, 0, 0, 1, 0]


def test_unreadable_answers_are_told_apart(example):
    reward = QuestionOnly().build()
    (result,) = reward([r"\boxed{\frac{1}{}"], [example("4")])
    assert result.parts == {"format": 0.0, "answer": 0.0}
    (result,) = reward([r"\boxed{4 \foo ]}"], [example("4")])
    assert result.parts == {"format": 1.0, "answer": 0.0, "unparsed": 1.0}
