"""A reward of one's own that never ends, crashes, prints, or is closed."""

import signal
import subprocess
import sys
import textwrap
import time

import pytest

from alignkit import AlignkitError
from alignkit.protocols import Reward
from alignkit_rewards import WeightedSum
from python_rewards import EXAMPLE, slow


def gone(pid):
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            with open(f"/proc/{pid}/stat") as stat:
                if stat.read().rpartition(")")[2].split()[0] == "Z":
                    return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


LOOPS = """
def reward(r, e):
    while r == "loop":
        pass
    return 1.0
"""


def test_an_endless_call_costs_its_process_and_gets_the_stated_reward(own, caplog):
    reward = own(LOOPS, workers=1, timeout=0.5, late=-0.25)
    found = reward(["fine", "loop", "fine", "fine"], [EXAMPLE] * 4)
    assert found == [Reward(1.0), Reward(-0.25, {"timed_out": 1.0}), Reward(1.0), Reward(1.0)]
    assert "judge.py:reward took longer than 0.5 s (" in caplog.text
    assert "judge.py, line " in caplog.text


def test_in_a_weighted_sum_what_timed_out_shows_as_that(own):
    reward = WeightedSum().build(terms={"a": own(LOOPS, workers=2, timeout=0.5)})
    assert reward(["loop"], [EXAMPLE])[0].parts["timed_out"] == 1.0


@pytest.mark.parametrize("how", ["pow(7, 10**9)", slow("time.sleep(99)")])
def test_a_call_that_holds_the_interpreter_is_ended_too(own, how):
    reward = own(f"import time\ndef reward(r, e):\n    {how}\n", workers=1, timeout=0.3)
    begun = time.monotonic()
    assert reward(["x"], [EXAMPLE])[0].parts == {"timed_out": 1.0}
    assert time.monotonic() - begun < 8


def test_a_late_batch_is_late_as_a_whole(own):
    body = """
    import time
    def reward(rs, es):
        time.sleep(9 * ('loop' in rs))
        return [1] * len(rs)
    """
    reward = own(body, workers=1, timeout=0.5, batched=True)
    assert [r.total for r in reward(["a", "b"], [EXAMPLE] * 2)] == [1.0, 1.0]
    late = reward(["a", "loop"], [EXAMPLE] * 2)
    assert late == [Reward(0.0, {"timed_out": 1.0})] * 2


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("os._exit(3)", r"judge.py:reward ended its process with status 3"),
        slow("os.kill(os.getpid(), 9)", r"ended its process by SIGKILL"),
        ("faulthandler._sigsegv()", r"ended its process by SIGSEGV \(.*judge.py, line 3\)"),
        ("sys.exit(0)", r"judge.py raised SystemExit\(0\) \(.*judge.py, line 3\)"),
        slow("(_ for _ in ()).throw(KeyboardInterrupt)", r"raised KeyboardInterrupt"),
    ],
)
def test_a_process_that_crashes_is_an_error_that_says_how_and_the_next_call_has_another(
    own, how, said
):
    body = f"import os, sys, faulthandler\ndef reward(r, e):\n    r == 'x' or {how}\n    return 1\n"
    reward = own(body, workers=1)
    with pytest.raises(AlignkitError, match=said):
        reward(["x", "y"], [EXAMPLE] * 2)
    assert reward(["x"], [EXAMPLE])[0].total == 1.0


def test_what_the_function_prints_and_reads_does_not_disturb_its_rewards(own, capfd):
    body = """
    import os, sys
    print("hello from the file")
    def reward(r, e):
        print('{"rewards": []}')
        os.write(1, b'{"rewards": []}\\n')
        return len(sys.stdin.read())
    """
    assert own(body, workers=1)(["x"], [EXAMPLE])[0].total == 0.0
    said = capfd.readouterr()
    assert "hello from the file" in said.err
    assert said.out == ""


def test_processes_end_when_the_reward_is_closed_and_with_those_they_started(own, tmp_path):
    body = f"""
    import subprocess
    def reward(r, e):
        open({str(tmp_path / "child")!r}, "w").write(str(subprocess.Popen(["sleep", "99"]).pid))
        return 1
    """
    reward = own(body, workers=2)
    (first,) = reward.processes()
    reward(["x"] * 3, [EXAMPLE] * 3)
    pids = [first, *reward.processes(), int((tmp_path / "child").read_text())]
    reward.close()
    reward.close()
    assert all(map(gone, pids))
    assert reward(["x"], [EXAMPLE])[0].total == 1.0


def test_processes_end_with_a_parent_that_is_killed_in_the_midst_of_a_call(own):
    params = own("import os\ndef reward(r, e):\n    while True: pass\n", built=False)
    code = f"""
    import os, time
    from pathlib import Path
    from alignkit.protocols import Example
    from alignkit_rewards import Python
    reward = Python(file=Path({str(params.file)!r}), workers=1).build()
    reward.submit(["x"], [Example("0", "q", "4")])
    print(reward.processes()[0], flush=True)
    time.sleep(0.5)
    os.kill(os.getpid(), 9)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert gone(int(done.stdout))


def test_what_has_no_effect_is_refused(own):
    text = "def reward(r, e):\n    return 1\n"
    assert [k for k, _ in own(text, built=False, timeout=1.0).check({})] == ["timeout"]
    assert [k for k, _ in own(text, built=False, late=1.0, workers=1).check({})] == ["late"]
    assert list(own(text, built=False, workers=1, timeout=1.0, late=1.0).check({})) == []


def test_lists_of_unlike_length_are_refused(own):
    body = "def reward(rs, es):\n    return [1 for _ in rs]\n"
    for workers in (0, 1):
        with pytest.raises(ValueError, match="zip"):
            own(body, batched=True, workers=workers)(["a", "b"], [EXAMPLE])
