"""What a rank's engine is started with and sent, as one of several; whole runs are in ranks/."""

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignkit_hf import HfPolicy
from alignkit_rewards.judge import Judge
from alignkit_vllm import VllmRollout, backend
from alignkit_vllm.engines.shared import sharers
from alignkit_vllm.weights import named_weights, transfer


@pytest.mark.parametrize(
    ("keys", "shared", "problem"),
    [
        ({"mode": "server"}, False, ""),
        ({"mode": "server", "tensor_parallel_size": 2}, True, ""),
        ({"mode": "server", "tensor_parallel_size": 3}, True, "start a multiple of 3"),
        ({"mode": "server", "url": "http://127.0.0.1:8000"}, True, ""),
        ({"mode": "device", "engines": 3}, True, ""),
        ({"mode": "colocate"}, False, 'mode = "server" in [rollout] for an engine on each rank'),
    ],
    ids=str,
)
def test_ranks_have_engines_or_share_them_or_are_told_the_remedy(
    monkeypatch, keys, shared, problem
):
    monkeypatch.setattr("alignkit_vllm.machine.lacking", lambda *_, **__: [])
    params = VllmRollout(max_tokens=8, **keys)
    assert params.together is shared
    assert list(params.missing()) == []
    monkeypatch.setenv("WORLD_SIZE", "4")
    said = list(params.missing())
    assert len(said) == bool(problem)
    assert all(problem in text for text in said)
    assert params.on_ranks is ("in its own process" not in "".join(said))


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "there"])
@pytest.mark.parametrize("local", ["2", "4"])
def test_ranks_on_several_machines_are_not_sent_to_their_own(monkeypatch, host, local):
    params = VllmRollout(max_tokens=8, mode="server", url=f"http://{host}:8000")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
    said = list(params.missing())
    assert ["every machine reaches it" in text for text in said] == [True] * (
        host != "there" and local == "2"
    )


def test_engines_of_their_own_leave_a_card_to_each_rank(monkeypatch):
    asked = []
    lacking = lambda needed, chosen: asked.append(needed) or []  # noqa: E731
    monkeypatch.setattr("alignkit_vllm.machine.lacking", lacking)
    for size, local in (("", ""), ("2", "2"), ("8", "4")):
        monkeypatch.setenv("WORLD_SIZE", size)
        monkeypatch.setenv("LOCAL_WORLD_SIZE", local)
        for devices in ((), ("2", "3")):
            params = VllmRollout(max_tokens=8, mode="device", engines=2, devices=devices)
            assert list(params.missing()) == []
    assert asked == [3, 2, 4, 2, 6, 2]


@given(data=st.data(), nodes=st.integers(1, 3), groups=st.integers(1, 3), split=st.integers(1, 4))
def test_every_rank_shares_with_those_of_its_own_machine(data, nodes, groups, split):
    """And all who share name the same ranks; none but the server at a URL is asked from afar."""
    local = groups * split
    keys = data.draw(
        st.sampled_from(
            [
                {"mode": "server", "tensor_parallel_size": split},
                {"mode": "device"},
                {"mode": "server", "url": "http://127.0.0.1:8000"},
            ]
        )
    )
    params = VllmRollout(max_tokens=8, **keys)
    found = {}
    for rank in range(nodes * local):
        with pytest.MonkeyPatch.context() as env:
            env.setenv("WORLD_SIZE", str(nodes * local))
            env.setenv("LOCAL_WORLD_SIZE", str(local))
            env.setenv("RANK", str(rank))
            found[rank] = sharers(params)
    assert all(rank in found[rank] for rank in found)
    assert all(found[other] == found[rank] for rank in found for other in found[rank])
    expected = {"url": nodes * local, "tensor_parallel_size": split}
    assert {len(r) for r in found.values()} == {expected.get([*keys][-1], local)}
    if "url" not in keys:
        assert all(r[0] // local == r[-1] // local for r in found.values())


def test_a_judge_under_torchrun_has_an_engine_on_each_rank(monkeypatch, tmp_path):
    prompt = tmp_path / "prompt.txt"
    prompt.write_text("{response}")
    judge = Judge(prompt=prompt)
    for keys in ({"mode": "device"}, {"mode": "server"}):
        tables = {"policy": None, "rollout": VllmRollout(max_tokens=8, **keys)}
        assert list(judge.check(tables)) == []
        with monkeypatch.context() as env:
            env.setenv("WORLD_SIZE", "2")
            said = list(judge.check(tables))
        assert [key for key, _ in said] == ["rollout"] * (keys["mode"] == "device")


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
