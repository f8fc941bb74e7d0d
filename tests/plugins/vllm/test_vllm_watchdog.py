"""Deadlines and heartbeats of the stages that wait for an engine."""

import signal
import threading
import time

import pytest

from alignkit_vllm import watchdog
from alignkit_vllm.watchdog import DeadlineError, Watchdog


def watch(**how):
    return Watchdog(lambda: "the engine of the test", how.get("heartbeat", 60.0))


def test_a_deadline_names_stage_peer_and_what_was_done_last(capfd):
    watched = watch()
    watched.on_expiry = lambda: "the end of its log: boom"
    with watched.stage("sync of weights 3", 5):
        pass
    start = time.monotonic()
    with pytest.raises(DeadlineError) as raised, watched.stage("generation", 0.3, lambda: "7 left"):
        time.sleep(300)
    assert time.monotonic() - start < 200, "the wait itself has to end"
    message = str(raised.value)
    assert "generation: the engine of the test, 7 left: not finished after 0.3 s" in message
    assert "finished last: sync of weights 3" in message
    assert message.endswith("boom")
    assert "test_a_deadline_names_stage" in capfd.readouterr().err  # the stack


def test_a_deadline_ends_a_wait_off_the_main_thread():
    raised = []

    def work():
        try:
            with watch().stage("start", 0.3):
                for _ in range(6000):
                    time.sleep(0.05)
        except DeadlineError as error:
            raised.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(200)
    assert len(raised) == 1


def test_a_heartbeat_tells_of_slow_stages_only(capsys):
    watched = watch(heartbeat=0.1)
    with watched.stage("start", 60, lambda: "loading"):
        time.sleep(0.35)
    beats = capsys.readouterr().err.splitlines()
    assert len(beats) >= 2
    assert beats[0].startswith("alignkit: vllm: start: the engine of the test, loading: still")
    with watched.stage("start", 60):
        pass
    assert capsys.readouterr().err == ""


def test_a_signal_from_elsewhere_amid_a_stage_reaches_its_handler():
    got = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: got.append(number))
    try:
        with watch().stage("generation", 60):
            signal.raise_signal(signal.SIGUSR2)
        assert got == [signal.SIGUSR2]
        with pytest.raises(DeadlineError), watch().stage("generation", 0.1):
            time.sleep(300)
        assert got == [signal.SIGUSR2], "the watch's own signal is nobody else's"
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_deadline_that_passes_as_the_stage_ends_signals_nobody_else(monkeypatch, capfd):
    """The signal is on its way while the block is left: the handler of before must not see it."""
    interrupt = watchdog._interrupt

    def late(thread):
        time.sleep(0.6)
        interrupt(thread)

    got = []
    monkeypatch.setattr(watchdog, "_interrupt", late)
    before = signal.signal(signal.SIGUSR2, lambda number, frame: got.append(number))
    try:
        with pytest.raises(DeadlineError), watch().stage("waiting", deadline=0.1):
            time.sleep(0.3)
        assert got == []
    finally:
        signal.signal(signal.SIGUSR2, before)


def test_a_stage_leaves_signals_and_threads_as_they_were():
    before, threads = signal.getsignal(signal.SIGUSR2), threading.active_count()
    with watch().stage("start", 60):
        assert signal.getsignal(signal.SIGUSR2) is not before
    with pytest.raises(KeyError), watch().stage("start", 60):
        raise KeyError("as it was")
    assert signal.getsignal(signal.SIGUSR2) is before
    assert threading.active_count() == threads
