"""Signals and time limits: what they end, when, and with which status."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress

import pytest

from alignkit.lifecycle.signals import STOPPED, Interrupted, Signals


@pytest.fixture
def heard():
    """Signals as a terminal's processes have them; nohup and background jobs ignore some."""
    plain = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in plain.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_interrupts_at_once_or_after_what_must_be_whole():
    done, signals = [], Signals()

    def work():
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("the rest of the block")
        done.append("went on")

    with pytest.raises(Interrupted) as error, signals.installed():
        work()
    assert done == ["the rest of the block"]
    assert (error.value.exit_status, error.value.state) == (143, "interrupted")
    with pytest.raises(Interrupted), Signals().installed():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(
    ("name", "status", "state"),
    [
        ("SIGINT", 130, "interrupted"),
        ("SIGHUP", 129, "interrupted"),
        ("SIGUSR1", STOPPED, "stopped"),
        ("SIGUSR2", STOPPED, "stopped"),
        ("SIGXCPU", STOPPED, "stopped"),
    ],
)
def test_each_signal_has_its_status(name, status, state):
    with pytest.raises(Interrupted) as error, Signals().installed():
        signal.raise_signal(getattr(signal, name))
    assert (error.value.exit_status, error.value.state) == (status, state)
    assert str(error.value).startswith(f"{state} by {name}; ")


def test_an_interruption_that_something_swallowed_comes_again():
    signals = Signals()
    with signals.installed():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            signals.poll()


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals().installed():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_time_limit_wakes_a_waiting_process():
    signals, began = Signals(), time.monotonic()

    def wait():
        signals.stop_in(0.2, "stop_after = 0.2s")
        time.sleep(30)

    with signals.installed(), pytest.raises(Interrupted) as error:
        wait()
    assert 0.2 <= time.monotonic() - began < 20
    assert error.value.cause == "stop_after = 0.2s"
    assert error.value.exit_status == STOPPED


TWICE = """
import signal, sys, time
from alignkit.lifecycle.signals import Interrupted, Signals
signals = Signals()
with signals.installed():
    try:
        print("ready", flush=True)
        time.sleep(30)
    except Interrupted:
        signals.take()
        print("saving", flush=True)
        time.sleep(30)
"""


@pytest.mark.usefixtures("heard")
def test_a_second_signal_ends_the_process_at_once():
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", TWICE], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"saving\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert time.monotonic() - began < 25


REPEATED = """
import os, signal, sys, time
from alignkit.lifecycle.signals import Interrupted, Signals
signals, number = Signals(), int(sys.argv[1])
try:
    with signals.installed():
        try:
            os.kill(os.getpid(), number)
        except Interrupted:
            signals.take()
            print("saving", flush=True)
            time.sleep(1)
            print("saved", flush=True)
            raise
except Interrupted as interrupted:
    time.sleep(1)  # trackers are closed, and the interpreter
    os._exit(interrupted.exit_status)
"""


@pytest.mark.parametrize("name", ["SIGXCPU", "SIGUSR1", "SIGUSR2"])
def test_a_request_that_is_repeated_does_not_end_the_save(name):
    number = getattr(signal, name)
    command = [sys.executable, "-c", REPEATED, str(int(number))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"saving\n"
        while process.poll() is None:
            time.sleep(0.15)  # longer than what counts as one
            process.send_signal(number)
        assert (process.wait(20), process.stdout.read()) == (STOPPED, b"saved\n")


FREED_LATE = """
import atexit, os, signal, sys
import alignkit.cli
from alignkit.__main__ import main
from alignkit.lifecycle.signals import Interrupted, Signals

number, asked = int(sys.argv[1]), sys.argv[2] == "asked"

class Tensors:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=number):
        kill(pid, number)

def command():
    try:
        with Signals().installed():
            if asked:
                os.kill(os.getpid(), number)
    except Interrupted as interrupted:
        sys.exit(interrupted.exit_status)
    sys.exit(0)

alignkit.cli.main, sys.argv = command, ["alignkit", "run"]
if "WORLD_SIZE" in os.environ:  # one of several ends without freeing anything
    atexit.register(os.kill, os.getpid(), number)
else:
    kept = Tensors()
main()
"""


@pytest.mark.parametrize(("how", "status"), [("asked", STOPPED), ("done", 0)])
@pytest.mark.parametrize("place", [{}, {"WORLD_SIZE": "2", "RANK": "1"}], ids=["alone", "rank"])
@pytest.mark.parametrize("name", ["SIGXCPU", "SIGUSR1", "SIGUSR2"])
def test_a_request_at_the_interpreters_end_leaves_the_status(name, how, status, place):
    command = [sys.executable, "-c", FREED_LATE, str(int(getattr(signal, name))), how]
    done = subprocess.run(command, env={**os.environ, **place}, check=False)
    assert done.returncode == status


@pytest.mark.usefixtures("heard")
def test_a_signal_to_end_counts_after_a_request_too():
    with subprocess.Popen([sys.executable, "-c", TWICE], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == b"saving\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


def test_a_later_run_of_a_process_listens_again():
    for _ in range(2):
        with pytest.raises(Interrupted), Signals().installed():
            signal.raise_signal(signal.SIGXCPU)
