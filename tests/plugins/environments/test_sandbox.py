"""Code that nobody has read is contained; what it prints and how it ends is told."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Example, Response
from alignkit_environments import CodeParams, PythonToolParams
from alignkit_environments.sandbox import Bounds, problem, run

pytestmark = pytest.mark.skipif(bool(problem()), reason=problem() or "code is contained here")

BOUNDS = Bounds(seconds=20.0, memory_mb=256, output=500)
SHORT = Bounds(seconds=0.5, memory_mb=256, output=500)


def contained(code, bounds=BOUNDS):
    """Run code, and see that nothing of it is left."""
    before = children()
    start = time.monotonic()
    outcome = run([code], bounds)
    assert time.monotonic() - start < bounds.seconds + 10
    assert children() <= before
    return outcome


def children():
    """Return the processes below this one that run the jail."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_bytes()
                state = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if b"jail.py" in words and int(state[1]) == os.getpid():
                found.add(entry.name)
    return found


def test_what_is_printed_is_told():
    code = "import math, json, re\nprint(6 * 7)\nprint('é' * 3)"
    assert contained(code).text == "42\nééé\n"
    assert contained("").how == "done"


def test_an_error_is_told_with_its_line():
    outcome = contained("x = 1\nprint('a')\ny = x / 0")
    assert outcome.how == "failed"
    assert outcome.text == "a\nerror: line 3: ZeroDivisionError: division by zero\n"
    assert "SyntaxError" in contained("print(").text


def test_the_same_seed_draws_the_same_and_sets_are_in_one_order():
    code = "import random\nprint(random.random(), {'a', 'b', 'c', 'd'}, hash('x'))"
    texts = [run([code], BOUNDS, seed=seed).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


HOSTILE = {
    "a fork bomb": "import os\nwhile True:\n    os.fork()",
    "threads": "import threading\nwhile True:\n    threading.Thread(target=input).start()",
    "ten gigabytes": "b = bytearray(10 * 2**30)",
    "ten gigabytes in pieces": "b = []\nwhile True:\n    b.append(bytearray(2**20))",
    "a shell": "import subprocess\nsubprocess.run(['/bin/sh', '-c', 'echo hi'])",
    "another program": "import os\nos.execv('/bin/echo', ['echo', 'hi'])",
    "a daemon": "import os\nos.fork() or os.setsid()",
    "killing all": "import os\nos.kill(-1, 9)",
    "killing its parent": "import os\nos.kill(os.getppid(), 9)",
    "the network": "import socket\nsocket.create_connection(('1.1.1.1', 53), 2)",
    "a datagram": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM)",
    "a socket file": "import socket\nsocket.socket(socket.AF_UNIX)",
    "passwords": "print(open('/etc/passwd').read())",
    "the root": "import os\nprint(os.listdir('/'))",
    "the home": "import os\nprint(os.listdir(os.path.expanduser('~')))",
    "the environment of its parent": "import os\nopen(f'/proc/{os.getppid()}/environ')",
    "a new file": "open('/tmp/alignkit_was_here', 'w')",
    "rights": "import os\nos.chmod('/tmp', 0)",
    "a folder": "import os\nos.mkdir('/tmp/alignkit_was_here')",
    "more memory": "import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
    "another root": "import os\nos.chroot('/tmp')",
    "its user": "import os\nos.setuid(1)",
    "its parent's memory": "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n"
    "assert libc.ptrace(16, 1, 0, 0) == 0",
    "deep recursion": "def f():\n    return f()\nf()",
    "a hard exit": "import os\nos._exit(0)",
    "a soft exit": "raise SystemExit(0)",
    "a crash": "import ctypes\nctypes.string_at(0)",
}  # fmt: skip


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_code_is_refused(name):
    outcome = contained(HOSTILE[name])
    assert outcome.how == "failed", outcome
    assert "hi" not in outcome.text.split()
    assert "root:" not in outcome.text
    assert not Path("/tmp/alignkit_was_here").exists()


FLOODS = {
    "a hundred megabytes": "print('x' * 100_000_000)",
    "lines without end": "while True:\n    print('x' * 1000)",
    "errors without end": "import sys\nwhile True:\n    sys.stderr.write('x' * 1000)",
}


@pytest.mark.parametrize("name", FLOODS)
def test_output_is_cut(name):
    outcome = contained(FLOODS[name])
    assert (outcome.how, len(outcome.text)) == ("output", 500)


LOOPS = {
    "a loop": "while True:\n    pass",
    "sleep": "import time\ntime.sleep(1000)",
    "a stubborn loop": "while True:\n  try:\n    while True: pass\n  except BaseException: pass",
    "forks that are refused": "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
    "a long number": "9**9**9",
}


@pytest.mark.parametrize("name", LOOPS)
def test_time_is_limited(name):
    assert contained(LOOPS[name], SHORT).how == "time"


def test_signals_cannot_be_ignored():
    code = "import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nwhile True: pass"
    assert contained(code, SHORT).how == "time"


def test_calls_in_threads_do_not_mix():
    found = {}

    def go(n):
        found[n] = run([f"print({n} * {n})"], BOUNDS).text

    threads = [threading.Thread(target=go, args=(n,)) for n in range(6)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert found == {n: f"{n * n}\n" for n in range(6)}


def test_it_runs_no_packages_of_this_one():
    assert "ModuleNotFoundError" in contained("import alignkit").text
    assert signal.getsignal(signal.SIGALRM) is signal.SIG_DFL  # nothing is set here
    assert sys.executable


# ---------------------------------------------------------------- python_tool


def said(text):
    ids = tuple(map(ord, text))
    return Response.of(Completion(text, ids, (0.0,) * len(ids), "stop", 0))


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("print(12 * 34)", "408"),
        ("\nfor i in range(3):\n    print(i)\n", "0\n1\n2"),
        ("1 / 0", "error: line 1: ZeroDivisionError: division by zero"),
        ("import os\nos._exit(0)", "error: the process ended by itself"),
        ("while True: pass", "error: stopped after 1 seconds"),
        ("print('x' * 10**6)", "x" * 20 + "error: too much output"),
    ],
    ids=["print", "lines", "an error", "an exit", "a loop", "a flood"],
)
def test_what_python_prints_is_the_observation(code, says):
    world = PythonToolParams(seconds=20.0 if "while" not in code else 1.0, output=20).build()
    if "error: line" in says:
        world = PythonToolParams(seconds=20.0).build()
    turn = world.open(Example("0", "?", "408"), seed=0).step(said(f"<python>{code}</python>"))
    assert turn.done is False
    assert turn.observation == f"<output>{says}</output>"


# ---------------------------------------------------------------- code

ADD = Example(
    "add", "Write add(a, b).", "", {"tests": "assert add(2, 3) == 5\nassert add(0, 0) == 0"}
)


def block(code):
    return f"So:\n```python\n{code}\n```\nDone."


@pytest.mark.parametrize(
    ("response", "total", "formatted"),
    [
        (block("def add(a, b):\n    return a + b"), 1, 1),
        (block("def add(a, b):\n    return a * b"), 0, 1),
        (block("x = 1") + block("def add(a, b):\n    return a + b"), 1, 1),
        (block("def add(a, b):\n    return a + b") + block("x = 1"), 0, 1),  # the last counts
        (block("import os\nos._exit(0)"), 0, 1),
        (block("raise SystemExit(0)"), 0, 1),
        (block("import sys\nprint(sys.stdin.read())\nimport os\nos._exit(0)"), 0, 1),
        (block("import sys\nprint(open(0).read())\nimport os\nos._exit(0)"), 0, 1),
        (block("def add(a, b:"), 0, 1),
        ("def add(a, b): return a + b", 0, 0),
        ("", 0, 0),
    ],
    ids=["right", "wrong", "last right", "last wrong", "hard exit", "soft exit", "echo", "echo fd",
         "no syntax", "no block", "nothing"],
)  # fmt: skip
def test_code_is_judged_by_its_tests(response, total, formatted):
    (reward,) = CodeParams(seconds=20.0).build()([response], [ADD])
    assert (reward.total, reward.parts["format"]) == (total, formatted)


def test_late_code_is_counted_as_late():
    reward = CodeParams(seconds=1.0).build()
    (found,) = reward([block("while True: pass")], [ADD])
    assert (found.total, found.parts["timed_out"]) == (0.0, 1.0)


@pytest.mark.parametrize("tests", [None, "", [], 4], ids=["none", "empty", "no tests", "a number"])
def test_an_example_without_tests_is_refused(tests):
    example = Example("odd", "?", "", {} if tests is None else {"tests": tests})
    with pytest.raises(AlignkitError, match="example 'odd': column 'tests' must hold tests"):
        CodeParams().build()(["x"], [example])
