"""What a rank's engine is started with and sent, as one of several; whole runs are in ranks/."""

from types import SimpleNamespace

import pytest
import torch

from alignkit_hf import HfPolicy
from alignkit_vllm import VllmRollout, backend
from alignkit_vllm.weights import named_weights, transfer


@pytest.mark.parametrize(
    ("keys", "serves"),
    [
        ({"mode": "server"}, True),
        ({"mode": "server", "tensor_parallel_size": 2}, False),
        ({"mode": "server", "url": "http://there:8000"}, False),
        ({"mode": "colocate"}, False),
        ({"mode": "device"}, False),
    ],
    ids=str,
)
def test_each_rank_has_an_engine_of_its_own_or_the_remedy_is_told(monkeypatch, keys, serves):
    monkeypatch.setattr("alignkit_vllm.machine.lacking", lambda *_, **__: [])
    params = VllmRollout(max_tokens=8, **keys)
    assert list(params.missing()) == []
    assert params.on_ranks is serves
    monkeypatch.setenv("WORLD_SIZE", "2")
    said = list(params.missing())
    assert len(said) == (0 if serves else 1)
    assert all('set mode = "server" in [rollout], without url' in text for text in said)


def test_a_policy_cut_over_ranks_is_gathered_once_a_sync_and_sent_whole(tied_folder, monkeypatch):
    policy = HfPolicy(path=str(tied_folder)).build()
    whole = HfPolicy(path=str(tied_folder)).build().model
    gathered = []

    def gather():
        gathered.append(policy.version)
        with torch.no_grad():
            for parameter in whole.parameters():
                parameter.fill_(policy.version)

    shards = SimpleNamespace(whole=whole, gather=gather)
    monkeypatch.setattr(backend, "shards_of", lambda model: shards)
    policy.version = 3
    seen = backend._whole(policy)
    policy.version = 4  # learns on, while the engine may have to get its weights once more
    for _ in range(2):
        assert {float(w.unique()) for _, w in named_weights(seen, torch.float32)} == {3.0}
    assert (seen.version, gathered) == (3, [3])
    assert seen.model is whole


def test_a_policy_that_is_whole_is_taken_as_it_is(tied_folder):
    policy = HfPolicy(path=str(tied_folder)).build()
    assert backend._whole(policy) is policy


def test_memory_is_given_to_the_rank_s_own_engine_alone():
    """Handles are not exchanged: another rank is not asked to take part."""
    engine = SimpleNamespace()
    made = transfer._for_one_rank(engine)
    handles = [{"GPU-a": (1, 2)}]
    assert made._all_gather_and_merge_handles(handles) is handles
    assert made._post_send_sync is torch.cuda.ipc_collect
