"""A reward of one's own: helpers beside its file, processes, a time limit, what errors say."""

import os
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit import AlignkitError, TransientError
from alignkit.abilities import judges
from alignkit.protocols import Completion, Example, Response, Reward
from alignkit_rewards.helpers import helpers
from python_rewards import EXAMPLE, slow

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
