"""What arrives at servers by vLLM's own transfer, and how it ends where it fails; no GPU."""

import threading
import time

import pytest
import torch

from alignkit import AlignkitError
from alignkit_hf import HfPolicy
from alignkit_vllm.engines import LostError
from alignkit_vllm.engines.client import UnreachableError
from alignkit_vllm.engines.delivery import Delivery
from alignkit_vllm.watchdog import DeadlineError, Watchdog
from alignkit_vllm.weights import named_weights, shapes
from alignkit_vllm.weights import transfer as transfer_module
from alignkit_vllm.weights.transfer import BUFFER, Source
from alignkit_vllm.worker import Extension

from .transfer_stub import StubServer, assert_holds

# ---------------------------------------------------------------- what is sent


@pytest.fixture(params=["tied", "untied", "lora"])
def policy(request):
    if request.param != "lora":
        return HfPolicy(path=str(request.getfixturevalue(f"{request.param}_folder"))).build()
    from alignkit_hf import Lora

    pytest.importorskip("peft")
    folder = request.getfixturevalue("tied_folder")
    policy = HfPolicy(path=str(folder)).build(lora=Lora(rank=2).build())
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1)  # B begins at zero, where there is nothing to merge
    return policy


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_are_listed_as_they_are_sent(policy, dtype):
    listed = list(shapes(policy, dtype))
    assert listed == [(name, w.dtype, w.shape) for name, w in named_weights(policy, dtype)]
    assert len(listed) > 10


def test_a_buffer_holds_any_weight(tied_folder):
    policy = HfPolicy(path=str(tied_folder)).build()
    assert Source(policy, torch.float32).buffer() == BUFFER
    policy.model.lm_head = torch.nn.Linear(2**13, 2**14, device="meta")
    assert Source(policy, torch.float32).buffer() == 2**29
    assert Source(policy, torch.bfloat16).buffer() == BUFFER


def test_streams_of_their_own_read_weights_that_are_finished(policy, monkeypatch):
    """Waits once, after the first weight was made: then an adapter is merged, and all is queued."""
    waits, made = [], []
    monkeypatch.setattr(transfer_module, "device_of", lambda policy: torch.device("cuda:0"))
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: waits.append(len(made)))

    def noted(*given):
        for pair in named_weights(*given):
            made.append(pair[0])
            yield pair

    monkeypatch.setattr(transfer_module, "named_weights", noted)
    assert [name for name, _ in Source(policy, torch.float32)] == made
    assert waits == [1]


# ---------------------------------------------------------------- how it is sent


def update(policy):
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.mul_(1.25)


SERVERS = {
    "ipc": [{"transfer": "ipc", "gpus": ("GPU-a",)}],
    "nccl": [{}],
    "nccl tp": [{"gpus": ("GPU-b", "GPU-c")}],
    "nccl engines": [{"gpus": ("GPU-b", "GPU-c")}, {"gpus": ("GPU-d", "GPU-e")}],
    "nccl away": [{"here": False}],
}


@pytest.mark.parametrize("kind", SERVERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_worker_gets_every_weight_after_each_update(stub, policy, kind, dtype):
    servers = [StubServer(**how) for how in SERVERS[kind]]
    delivery = Delivery(servers, len(servers[0].gpus), 20.0)
    for version in ("run/0", "run/1"):
        delivery.bring(policy, dtype, version)
        for server in servers:
            assert server.held == version
            for found in server.weights:
                assert_holds(found, policy, dtype)
        update(policy)
    assert delivery.route.way == kind.split()[0]
    delivery.close()


@pytest.mark.parametrize("kind", ["ipc", "nccl"])
def test_the_engine_is_joined_once_and_holds_no_version_amid_an_update(stub, tied, kind):
    (server,) = [StubServer(**how) for how in SERVERS[kind]]
    delivery = Delivery([server], 1, 20.0)
    for version in ("run/0", "run/1"):
        delivery.bring(tied, torch.float32, version)
    calls = [c for c in server.calls if c != "update_weights"]
    once = ["shutdown_weight_transfer_engine", "init_weight_transfer_engine"]
    each = ["start_weight_update", "finish_weight_update"]
    hold = "alignkit_hold"
    assert calls == [
        ("alignkit_place",), *once, (hold, ""), *each, (hold, "run/0"), (hold, ""), *each,
        (hold, "run/1"),
    ]  # fmt: skip


def test_workers_of_several_engines_have_ranks_of_their_own_in_one_group(stub, tied, monkeypatch):
    sent = []
    broadcast = stub.Group.broadcast
    monkeypatch.setattr(
        stub.Group, "broadcast", lambda self, item: (sent.append(item[0]), broadcast(self, item))
    )
    servers = [StubServer(**how) for how in SERVERS["nccl engines"]]
    Delivery(servers, 2, 20.0).bring(tied, torch.float32, "run/0")
    assert [(s.offset, s.world) for s in servers] == [(1, 5), (3, 5)]
    assert sent == [name for name, _ in named_weights(tied, torch.float32)]  # once for all


@pytest.mark.parametrize(("here", "address"), [(True, "127.0.0.1"), (False, "127.0.0.2")])
def test_workers_of_another_machine_are_given_an_address_they_reach(stub, tied, here, address):
    server = StubServer(here=here)
    Delivery([server], 1, 20.0).bring(tied, torch.float32, "run/0")
    assert server.address == address
    assert server.over_socket == 0


def test_the_key_sends_over_a_socket(stub, tied):
    server = StubServer()
    delivery = Delivery([server], 1, 20.0, wanted="socket")
    delivery.bring(tied, torch.bfloat16, "run/0")
    assert server.calls == [("alignkit_fetch", "run/0")]
    assert_holds(server.weights[0], tied, torch.bfloat16)
    assert str(delivery.route) == 'a socket: rollout.weights = "socket"'


# ---------------------------------------------------------------- what goes wrong


@pytest.fixture
def no_threads_left():
    """No thread of the trainer's waits for a worker once a test is over."""
    yield
    end = time.monotonic() + 5
    names = ("alignkit sends", "ThreadPoolExecutor")
    while left := [t.name for t in threading.enumerate() if t.name.startswith(names)]:
        assert time.monotonic() < end, left
        time.sleep(0.01)


@pytest.mark.parametrize("after", [0, 1, 5])
@pytest.mark.parametrize("lost", [0, 1])
def test_a_worker_that_fails_ends_the_broadcast_with_what_it_said(
    stub, tied, no_threads_left, after, lost
):
    servers = [StubServer(), StubServer(gpus=("GPU-c",))]
    servers[lost].lose_after = after
    delivery = Delivery(servers, 1, 20.0)
    with pytest.raises(UnreachableError, match="500 shapes differ"):
        delivery.bring(tied, torch.float32, "run/0")
    assert [server.held for server in servers] == ["", ""]


@pytest.mark.parametrize("kind", ["ipc", "nccl"])
@pytest.mark.parametrize("path", ["start_weight_update", "update_weights", "finish_weight_update"])
def test_a_request_that_fails_ends_the_transfer(stub, tied, no_threads_left, kind, path):
    (server,) = [StubServer(**how) for how in SERVERS[kind]]
    server.fails[path] = UnreachableError(f"POST {path}: gone")
    with pytest.raises(LostError, match=f"{path}: gone"):
        Delivery([server], 1, 20.0).bring(tied, torch.float32, "run/0")
    assert server.held == ""


@pytest.mark.parametrize("path", ["init_weight_transfer_engine", "start_weight_update",
                                  "update_weights", "finish_weight_update"])  # fmt: skip
@pytest.mark.parametrize("kind", ["ipc", "nccl"])
def test_a_server_that_never_answers_is_given_up_at_the_deadline(
    stub, tied, no_threads_left, kind, path, capsys
):
    (server,) = [StubServer(**how) for how in SERVERS[kind]]
    server.hangs = path
    delivery = Delivery([server], 1, 20.0)
    watch = Watchdog(lambda: "the stub", 60)
    start = time.monotonic()
    with (
        pytest.raises(DeadlineError, match=r"sync of weights 3: the stub: not finished after 0\.3"),
        watch.stage("sync of weights 3", 0.3),
    ):
        delivery.bring(tied, torch.float32, "run/3")
    assert time.monotonic() - start < 15
    delivery.close()
    if path.startswith("init") and kind == "nccl":  # who waits there waits in C
        next(reversed(stub.GROUPS.values())).joined.release()


def test_a_trainer_that_fails_says_why_and_what_does_without(stub, tied, monkeypatch):
    def fails(*_):
        yield from list(named_weights(tied, torch.float32))[:3]
        raise RuntimeError("NCCL error: unhandled system error")

    monkeypatch.setattr(transfer_module, "named_weights", fails)
    server = StubServer()
    text = r"by NCCL could not be carried out: .*unhandled system error.*weights = \"socket\""
    with pytest.raises(AlignkitError, match=text) as raised:
        Delivery([server], 1, 20.0).bring(tied, torch.float32, "run/0")
    assert not isinstance(raised.value, LostError)  # another server would fare no better
    assert isinstance(raised.value.__cause__, RuntimeError)
    assert server.held == ""


def test_who_closes_a_transfer_ends_it(stub, tied, no_threads_left):
    server = StubServer(hangs="update_weights")
    delivery = Delivery([server], 1, 20.0)
    timer = threading.Timer(0.2, delivery.close)
    timer.start()
    with pytest.raises(AlignkitError, match="the transfer of weights was given up"):
        delivery.bring(tied, torch.float32, "run/0")
    timer.join()


@pytest.mark.parametrize("kind", ["ipc", "nccl"])
def test_a_transfer_that_cannot_be_joined_is_told_once_and_the_socket_serves(
    stub, tied, kind, capsys
):
    (server,) = [StubServer(**how) for how in SERVERS[kind]]
    server.fails["init_weight_transfer_engine"] = UnreachableError("500 no NCCL library")
    delivery = Delivery([server], 1, 20.0)
    start = time.monotonic()
    for version in ("a", "b"):
        delivery.bring(tied, torch.float32, version)
        assert server.held == version
    assert time.monotonic() - start < 15  # the rendezvous itself would wait for 300 s
    assert server.over_socket == 2
    name = {"ipc": "CUDA IPC", "nccl": "NCCL"}[kind]
    said = capsys.readouterr().err
    text = f"vLLM's transfer by {name} cannot be set up: 500 no NCCL library"
    assert said.count(f"{text}; weights are sent over a socket instead") == 1
    assert str(delivery.route) == f"a socket: {text}"
    if kind == "nccl":
        next(reversed(stub.GROUPS.values())).joined.release()


# ---------------------------------------------------------------- the worker's side


class HalfUpdated(Extension):
    """vLLM's worker, as far as an update that breaks off shows in it."""

    def __init__(self):
        self._weight_update_active, self.ended = False, 0

    def finish_weight_update(self):
        if not self._weight_update_active:
            raise RuntimeError("finish_weight_update called without start_weight_update")
        self.ended, self._weight_update_active = self.ended + 1, False


@pytest.mark.parametrize("active", [True, False], ids=["trainer gone", "update failed"])
def test_an_update_that_broke_off_is_ended_before_the_next(active):
    worker = HalfUpdated()
    worker.alignkit_hold("")
    worker._weight_update_active = active
    worker.alignkit_hold("")
    assert (worker.ended, worker._weight_update_active) == (1, False)
    worker.alignkit_hold("a/1")
    worker.alignkit_hold("")
    assert (worker.ended, worker.alignkit_version()) == (1, "")
