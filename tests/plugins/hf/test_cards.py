"""Cards that torch does not see are no reason to train on the CPU without a word."""

import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from alignkit import AlignkitError
from alignkit_hf import HfPolicy
from alignkit_hf.policy import cards

SHOWN = "| NVIDIA-SMI 535.104.05   Driver Version: 535.104.05   CUDA Version: 12.2     |\n"
LISTED = "GPU 0: NVIDIA A10G (UUID: GPU-5a)\nGPU 1: NVIDIA A10G (UUID: GPU-6b)\n"
MODULE = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 16:14:05 UTC 2021\n"


@pytest.fixture
def machine(monkeypatch):
    """``machine(smi=..., nodes=..., seen=..., cuda=...)``: a machine with that driver and torch."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)

    def make(*, smi=True, nodes=(), seen=False, cuda="13.0", module=""):
        def run(command, **_):
            if not smi:
                raise FileNotFoundError(command[0])
            return SimpleNamespace(stdout=LISTED if "-L" in command else SHOWN)

        monkeypatch.setattr(subprocess, "run", run)
        monkeypatch.setattr(Path, "glob", lambda *_: iter(nodes))
        monkeypatch.setattr(cards, "_kernel_module", lambda: module)
        monkeypatch.setattr(torch.cuda, "is_available", lambda: seen)
        monkeypatch.setattr(torch.version, "cuda", cuda)

    return make


def test_a_driver_older_than_torch_s_cuda_is_refused_before_weights_are_read(machine, tiny_folder):
    machine()
    with pytest.raises(AlignkitError) as refusal:
        HfPolicy(path=str(tiny_folder)).build()
    first, remedy = str(refusal.value).splitlines()
    assert "torch sees none of this machine's 2 NVIDIA cards" in first
    assert "driver is 535.104.05, for CUDA up to 12.2; torch 2." in first
    assert first.endswith("is built for CUDA 13.0.")
    assert 'built for CUDA 12.2 or older, or set policy.device = "cpu"' in remedy


def test_a_torch_for_cpus_beside_a_card_is_told(machine, tiny_folder):
    machine(cuda=None)
    with pytest.raises(AlignkitError, match=r"is built for the CPU only\."):
        HfPolicy(path=str(tiny_folder)).build()


@pytest.mark.parametrize(
    ("module", "said"), [(MODULE, "driver is 470.57.02;"), ("", "driver is of an unknown version;")]
)
def test_without_nvidia_smi_the_device_files_count(machine, tiny_folder, module, said):
    machine(smi=False, nodes=[Path("/dev/nvidia0")], module=module)
    with pytest.raises(AlignkitError, match=rf"1 NVIDIA card: the {said}"):
        HfPolicy(path=str(tiny_folder)).build()


@pytest.mark.parametrize(
    ("how", "environment", "device"),
    [
        ({"seen": True}, {}, "cuda:0"),
        ({"smi": False}, {}, "cpu"),
        ({}, {"CUDA_VISIBLE_DEVICES": ""}, "cpu"),
        ({}, {"CUDA_VISIBLE_DEVICES": "-1"}, "cpu"),
    ],
    ids=["seen", "none there", "hidden", "hidden by a number"],
)
def test_otherwise_auto_is_what_torch_sees(
    machine, monkeypatch, tiny_folder, how, environment, device
):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    machine(**how)
    assert str(HfPolicy(path=str(tiny_folder)).build().device) == device


def test_the_cpu_by_name_is_never_refused(machine, tiny_folder):
    machine()
    assert HfPolicy(path=str(tiny_folder), device="cpu").build().device.type == "cpu"
