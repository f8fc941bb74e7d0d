"""What arrives at several engines: by one broadcast to all, or one by one."""

import pytest
import torch

from alignkit_vllm.engines import LostError
from alignkit_vllm.engines.delivery import Delivery
from alignkit_vllm.engines.fleet import Fleet

from .transfer_stub import StubServer, assert_holds


class StubEngine:
    """A server engine whose restart is a new server."""

    def __init__(self, **how):
        self.how, self.client, self.resets, self.restarts = how, StubServer(**how), 0, 0
        self.alone = []

    def load(self, policy, dtype, version):
        self.alone.append(version)
        Delivery([self.client], 1, 20.0).bring(policy, dtype, version)
        self.reset()

    def reset(self):
        self.resets += 1

    def holds(self):
        return self.client.held

    def recover(self, lost):
        self.restarts += 1
        self.client = StubServer(**self.how)

    def computed(self):
        return {"weights": "alone"}


def to_all(engines):
    return Delivery([engine.client for engine in engines], 1, 20.0)


def test_engines_with_cards_of_their_own_get_one_broadcast(stub, tied):
    engines = [StubEngine(), StubEngine(gpus=("GPU-c",))]
    fleet = Fleet(engines, together=to_all)
    fleet.load(tied, torch.float32, "run/0")
    assert fleet.holds() == "run/0"
    assert [(e.resets, e.alone) for e in engines] == [(1, [])] * 2
    told = "NCCL: the engine has 2 cards of its own; one broadcast to all engines"
    assert fleet.computed() == {"weights": told}


def test_engines_without_one_way_for_all_get_theirs_one_by_one(stub, tied):
    engines = [StubEngine(), StubEngine(transfer="ipc", gpus=("GPU-a",))]
    fleet = Fleet(engines, together=to_all)
    fleet.load(tied, torch.float32, "run/0")
    assert fleet.holds() == "run/0"
    assert [e.alone for e in engines] == [["run/0"]] * 2
    assert fleet.computed() == {"weights": "alone"}


def test_a_broken_broadcast_loses_all_engines_as_the_others_wait_in_it(stub, tied):
    engines = [StubEngine(), StubEngine(gpus=("GPU-c",))]
    fleet = Fleet(engines, together=to_all)
    fleet.load(tied, torch.float32, "run/0")
    engines[1].client.lose_after = 2
    with pytest.raises(LostError) as raised:
        fleet.load(tied, torch.float32, "run/1")
    assert fleet.holds() == ""
    fleet.recover(raised.value)
    assert [e.restarts for e in engines] == [1, 1]
    fleet.load(tied, torch.float32, "run/1")
    assert fleet.holds() == "run/1"
    for engine in engines:
        assert_holds(engine.client.weights[0], tied, torch.float32)


def test_after_one_engine_s_restart_all_are_joined_anew(stub, tied):
    engines = [StubEngine(), StubEngine(gpus=("GPU-c",))]
    fleet = Fleet(engines, together=to_all)
    fleet.load(tied, torch.float32, "run/0")
    first = engines[0].client.port
    fleet._lost.add(1)  # as the stream of its answers does
    fleet.recover(LostError("gone"))
    fleet.load(tied, torch.float32, "run/0")
    assert [e.restarts for e in engines] == [0, 1]
    assert engines[0].client.calls.count("shutdown_weight_transfer_engine") == 2
    assert engines[0].client.port == engines[1].client.port != first
