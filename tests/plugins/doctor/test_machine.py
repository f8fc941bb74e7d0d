"""What ``alignkit doctor`` finds out about a machine."""

import json

import pytest
from click.testing import CliRunner

from alignkit.cli import main
from alignkit_doctor import machine
from alignkit_doctor.machine import Card, Torch

MIB = 2**20


def test_cards_driver_and_its_cuda_are_read_from_nvidia_smi(nvidia_smi, monkeypatch):
    nvidia_smi(["535.12, NVIDIA A10G, 23028, 22000", "535.12, NVIDIA A10G, 23028, [N/A]"], "12.2")
    monkeypatch.setattr(machine, "ask_torch", lambda modules: Torch(version="2.13.0"))
    found = machine.look({})
    assert (found.driver, found.driver_cuda) == ("535.12", "12.2")
    free = [22000 * MIB, None]
    assert list(found.listed) == [Card("NVIDIA A10G", 23028 * MIB, f) for f in free]


@pytest.mark.parametrize(
    ("rows", "status"),
    [
        (["NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."], 9),
        (["No devices were found"], 0),
        (["580.1, Orin (nvgpu), [N/A], [N/A]"], 0),
        ([""], 0),
    ],
)
def test_a_driver_that_does_not_answer_is_none(nvidia_smi, monkeypatch, rows, status):
    nvidia_smi(rows, status=status)
    monkeypatch.setattr(machine, "ask_torch", lambda modules: Torch(version="2.13.0"))
    found = machine.look({})
    assert (found.driver, found.driver_cuda, list(found.listed)) == ("", "", [])


def test_settings_and_offline_mode_are_those_of_the_environment(monkeypatch):
    monkeypatch.setattr(machine, "ask_torch", lambda modules: Torch())
    given = {"PYTORCH_ALLOC_CONF": "expandable_segments:True", "HF_HUB_OFFLINE": "1", "X": "y"}
    found = machine.look(given)
    assert found.offline
    assert dict(found.settings) == {"PYTORCH_ALLOC_CONF": "expandable_segments:True"}
    assert not machine.look({"HF_HUB_OFFLINE": "0"}).offline


def python_that(tmp_path, monkeypatch, script):
    """Have ``ask_torch`` start a program of ours instead of Python."""
    tool = tmp_path / "python"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setattr(machine.sys, "executable", str(tool))


def test_a_torch_that_crashes_is_an_error_and_not_the_end(tmp_path, monkeypatch):
    python_that(tmp_path, monkeypatch, "echo 'OSError: libcudart.so.13: no such file' >&2; exit 1")
    assert machine.ask_torch([]).error == "OSError: libcudart.so.13: no such file"
    python_that(tmp_path, monkeypatch, "kill -SEGV $$")
    found = machine.ask_torch([])
    assert found.version == ""
    assert found.error == "exit status -11"


def test_what_torch_says_is_taken_over(tmp_path, monkeypatch):
    told = {
        "version": "2.13.0+cu130", "cuda": "13.0", "cards": [{"name": "H100", "bytes": 7}],
        "broken": {"flash_attn": "ImportError: undefined symbol"}, "why_none": "",
    }  # fmt: skip
    python_that(tmp_path, monkeypatch, f"echo warning; echo '{json.dumps(told)}'")
    found = machine.ask_torch(["flash-attn"])
    assert list(found.cards) == [Card("H100", 7)]
    assert found.broken == {"flash-attn": "ImportError: undefined symbol"}


def test_the_limit_of_a_container_counts(tmp_path):
    whole, available = machine._memory(tmp_path)
    (tmp_path / "memory.max").write_text("max")
    (tmp_path / "memory.current").write_text("5")
    assert machine._memory(tmp_path)[0] == whole
    (tmp_path / "memory.max").write_text("1000")
    assert machine._memory(tmp_path) == (1000, 995)
    assert available > 995


@pytest.mark.slow  # imports torch and bitsandbytes once more
def test_this_very_machine_is_told_in_json():
    import torch

    done = CliRunner().invoke(main, ["doctor", "--json"])
    told = json.loads(done.output)
    assert done.exit_code == int(not told["ready"])
    assert told["machine"]["torch"]["version"] == torch.__version__
    assert len(told["machine"]["torch"]["cards"]) == torch.cuda.device_count()
    assert told["machine"]["packages"]["torch"] == torch.__version__
