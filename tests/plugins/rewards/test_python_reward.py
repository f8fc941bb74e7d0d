"""A reward of one's own: helpers beside its file, processes, a time limit, what errors say."""

import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit import AlignkitError, TransientError
from alignkit.abilities import judges
from alignkit.protocols import Completion, Example, Response, Reward
from alignkit_rewards import Python, WeightedSum
from alignkit_rewards.helpers import helpers

EXAMPLE = Example("0", "q", "4", {"level": 3})


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.fixture
def own(tmp_path):
    """Write a file of code, and files beside it; return a reward made of it, closed in the end."""
    made = []

    def write(body, beside=(), folder="own", built=True, **keys):
        place = tmp_path / folder
        place.mkdir(exist_ok=True)
        for name, text in {**dict(beside), "judge.py": body}.items():
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(textwrap.dedent(text))
        params = Python(file=place / "judge.py", **keys)
        if not built:
            return params
        made.append(params.build())
        return made[-1]

    yield write
    for reward in made:
        if hasattr(reward, "close"):
            reward.close()
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]  # other tests have helpers of the same names


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


HELPED = """
from style import words
import deep.inner as inner
def reward(r, e):
    import late_one
    return words(r) + inner.ONE + late_one.ten
"""
BESIDE = {
    "style.py": "def words(r):\n    return len(r.split())\n",
    "deep/__init__.py": "",
    "deep/inner.py": "from deep.more import ONE\n",
    "deep/more.py": "ONE = 1\n",
    "late_one.py": "ten = 10\n",
    "unused.py": "raise SystemExit\n",
}


@pytest.mark.parametrize("workers", [0, 1])
def test_modules_beside_the_file_are_imported_and_named(own, workers):
    params = own(HELPED, BESIDE, built=False, workers=workers)
    assert [p.name for p in params.code()] == [
        "judge.py", "__init__.py", "inner.py", "more.py", "late_one.py", "style.py",
    ]  # fmt: skip
    reward = own(HELPED, BESIDE, workers=workers)
    assert reward(["a b"], [EXAMPLE])[0].total == 13.0


def test_a_changed_helper_is_the_one_that_counts(own):
    """Also in one process, and where the change keeps the size of the file."""
    text = "from style import words\ndef reward(r, e):\n    return words(r)\n"
    for number in (1, 2, 3):
        reward = own(text, {"style.py": f"def words(r):\n    return {number}\n"})
        assert reward(["x"], [EXAMPLE])[0].total == number


def test_helpers_of_one_name_in_two_folders_are_refused_where_they_would_be_mixed_up(own):
    text = "from manner import one\ndef reward(r, e):\n    return one\n"
    own(text, {"manner.py": "one = 1\n"}, folder="first")
    with pytest.raises(
        AlignkitError, match=r"'manner' in .* the name of another .*first/manner.py"
    ):
        own(text, {"manner.py": "one = 2\n"}, folder="second")
    apart = own(text, {"manner.py": "one = 2\n"}, folder="second", workers=1)
    assert apart(["x"], [EXAMPLE])[0].total == 2.0


def test_a_module_named_as_one_of_the_standard_library_stays_unused(own):
    text = "import wave\nimport json\ndef reward(r, e):\n    return float(hasattr(wave, 'open'))\n"
    params = own(text, {"wave.py": "", "json.py": ""}, built=False)
    assert [p.name for p in params.code()] == ["judge.py"]
    for workers in (0, 1):
        reward = own(text, {"wave.py": "", "json.py": ""}, workers=workers)
        assert reward(["x"], [EXAMPLE])[0].total == 1.0


def test_a_helper_that_is_no_python_is_told_before_the_run(own):
    params = own("import style\nreward = style.f\n", {"style.py": "def f(:\n"}, built=False)
    ((key, text),) = params.check({})
    assert key == "file"
    assert "style.py, which it imports, cannot be read as Python" in text
    assert [p.name for p in params.code()] == ["judge.py"]


@given(st.lists(st.sampled_from("abcde"), min_size=1, unique=True), st.randoms())
def test_helpers_are_all_that_imports_reach(tmp_path_factory, names, random):
    """Whatever imports what, in circles too."""
    folder = tmp_path_factory.mktemp("imports")
    edges = {n: [m for m in names if random.random() < 0.4] for n in ["main", *names]}
    ways = ("import {0}", "from {0} import x", "def f():\n    import {0} as y", "import {0}.z")
    for name, targets in edges.items():
        lines = [random.choice(ways).format(f"mod_{t}") for t in targets]
        (folder / f"mod_{name}.py").write_text("\n".join(lines))
    reached, waiting = set(), ["main"]
    while waiting:
        new = set(edges[waiting.pop()]) - reached
        reached |= new
        waiting += new
    assert helpers(folder / "mod_main.py") == sorted(folder / f"mod_{n}.py" for n in reached)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def reward(r, e):\n    return 1 / 0\n", r"raised ZeroDivisionError.*judge.py, line 2"),
        ("from sums import f\ndef reward(r, e):\n    return f(r)\n", r"raised.*sums.py, line 4"),
        ("import json\ndef reward(r, e):\n    json.loads(r)\n", r"JSONDecode.*judge.py, line 3"),
        slow("def reward(r, e):\n    return 'good'\n", "returned 'good'"),
    ],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_errors_name_the_file_and_the_line(own, body, message, workers):
    beside = {"sums.py": "import math\n\ndef f(r):\n    return math.sqrt(-1)\n"}
    with pytest.raises(AlignkitError, match=message):
        own(body, beside, workers=workers)(["x"], [EXAMPLE])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("import os\n1 / 0\n", r"cannot be imported: ZeroDivisionError.*judge.py, line 2"),
        ("import bad\n", r"cannot be imported: KeyError.*bad.py, line 1"),
        ("from nothing_of_that_name import f\n", "cannot be imported: ModuleNotFoundError"),
    ],
)
def test_a_file_that_cannot_be_imported_is_told_when_it_is_built(own, body, message, workers):
    with pytest.raises(AlignkitError, match=message):
        own(body + "def reward(r, e): pass\n", {"bad.py": "{}['x']\n"}, workers=workers)


def test_a_transient_error_is_one_and_the_call_is_made_again(own, tmp_path):
    body = f"""
    from pathlib import Path
    from alignkit import TransientError
    def reward(r, e):
        tries = Path({str(tmp_path)!r}) / r
        tries.write_text(tries.read_text() + "." if tries.exists() else ".")
        if r == "slow" and len(tries.read_text()) < 3:
            raise TransientError("busy", retries=4, wait=0.5)
        return len(tries.read_text())
    """
    for workers in (0, 2):
        for old in (tmp_path / "slow", tmp_path / "quick"):
            old.unlink(missing_ok=True)
        reward = own(body, workers=workers)
        ask = reward.submit(["quick", "slow"], [EXAMPLE] * 2).result if workers else None
        ask = ask or (lambda: reward(["quick", "slow"], [EXAMPLE] * 2))  # noqa: B023
        for _ in range(2):
            with pytest.raises(TransientError, match="busy") as error:
                ask()
            assert (error.value.retries, error.value.wait) == (4, 0.5)
        found = [r.total for r in ask()]
        assert found == ([1.0, 3.0] if workers else [3.0, 3.0])  # the other is not asked again


def test_calls_run_side_by_side_while_the_caller_goes_on(own):
    body = "import os, time\ndef reward(r, e):\n    time.sleep(0.5)\n    return os.getpid()\n"
    reward = own(body, workers=4)
    assert judges(reward)
    reward(["x"] * 4, [EXAMPLE] * 4)  # all are started
    begun = time.monotonic()
    pending = [reward.submit(["x"] * 2, [EXAMPLE] * 2) for _ in range(2)]
    assert time.monotonic() - begun < 0.3
    pids = {r.total for p in pending for r in p.result()}
    assert time.monotonic() - begun < 1.5  # one after the other they take 2 s
    assert len(pids) == 4
    assert os.getpid() not in pids


def test_rewards_come_back_in_order_with_their_parts_and_see_all_of_an_example(own):
    body = """
    from alignkit.protocols import Response, Reward
    def reward(r, e):
        tokens = len(r.completion.token_ids) if isinstance(r, Response) else 0
        return Reward(float(r), {"tokens": tokens, "level": e.extra["level"]})
    """
    reward = own(body, workers=3)
    sampled = Response.of(Completion("7", (1, 2), (0.0, 0.0), "stop", 0))
    texts = [str(i) for i in range(20)]
    found = reward([*texts, sampled], [EXAMPLE] * 21)
    assert [r.total for r in found] == [*map(float, range(20)), 7.0]
    assert found[-1] == Reward(7.0, {"tokens": 2.0, "level": 3.0})


def test_texts_and_columns_reach_the_process_as_they_are_but_for_what_json_cannot_hold(own):
    """Halves of surrogate pairs, line ends, numbers that are none; an object is left out."""
    body = """
    def reward(r, e):
        same = r == e.question == e.extra["text"] == e.also_accepted[0] and e.extra["n"] == [1, "2"]
        return float(same and e.extra["nan"] != e.extra["nan"] and "thing" not in e.extra)
    """
    reward = own(body, workers=2)
    texts = ["\ud83d", "a\nb\r\x00\u2028", "\N{GRINNING FACE} é", ""]
    extra = {"n": [1, "2"], "nan": float("nan"), "thing": object()}
    rows = [Example("0", t, "4", {**extra, "text": t}, (t,)) for t in texts]
    assert [r.total for r in reward(texts, rows)] == [1.0] * 4


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
