"""What the fuzz tests share: their targets, how many cases, and a limit on the time of each."""

import importlib.util
import signal
from contextlib import contextmanager
from pathlib import Path

import pytest

collect_ignore = ["with_atheris.py"]  # a program, and atheris may be absent

SECONDS = 10
"""Of processor time that one case may take: a busy machine does not make a case hang."""


@pytest.fixture(scope="session")
def targets():
    """The module targets.py beside this file, which a script uses too."""
    path = Path(__file__).with_name("targets.py")
    spec = importlib.util.spec_from_file_location("alignkit_fuzz_targets", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def cases(pytestconfig) -> int:
    """How many cases each test makes up: ``pytest tests/fuzz --fuzz 20000`` for many."""
    return pytestconfig.getoption("--fuzz")


@pytest.fixture
def guarded():
    """``with guarded(what)``: name the case that raises or hangs."""

    @contextmanager
    def watch(what):
        def late(number, frame):
            raise TimeoutError(f"longer than {SECONDS} s")

        before = signal.signal(signal.SIGPROF, late)
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            yield
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} from {what!r}") from error
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.signal(signal.SIGPROF, before)

    return watch
