"""Invariant 1 over ranks: 1, 2, 3 and 4 of them make the same update (float64, 1e-9)."""

import hashlib
import math
import pickle
import threading
from dataclasses import replace

import pytest
import torch
import torch.distributed as dist
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.engine import ranks
from alignkit.engine.forward.frozen import detached_logprobs, frozen_copy
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective
from alignkit.engine.ranks import parted
from alignkit.engine.ranks.cutting import cut
from alignkit.engine.ranks.parted import Parts
from alignkit.engine.ranks.shards import own_part, shards_of
from alignkit.engine.ranks.shares import slices
from alignkit.engine.ranks.wire import packed, unpacked
from alignkit.engine.tokens import TrainRow
from alignkit.engine.training.checkpoint import (
    EncodedState,
    StoredState,
    load_weights,
    weights,
)
from alignkit.protocols import Completion, Reward
from alignkit_losses import GrpoClip
from alignkit_normalizers import TokenMean
from alignkit_optimizers import AdamW


class Threads:
    """Ranks that are threads of this process; what they send goes over the wire's bytes."""

    def __init__(self, size):
        self.size, self._barrier, self._given = size, threading.Barrier(size), {}
        self._own = threading.local()

    @property
    def rank(self):
        return self._own.rank

    def share(self, costs):
        return slices(costs, self.size)[self.rank]

    def gather(self, value):
        self._given[self.rank] = packed(value)
        self._barrier.wait(30)
        found = [unpacked(self._given[r]) for r in range(self.size)]
        self._barrier.wait(30)
        return found

    def merge(self, mine):
        return dict(sorted(pair for d in self.gather(dict(mine)) for pair in d.items()))

    def add(self, tensors):
        for tensor in tensors:
            tensor.copy_(torch.stack(self.gather(tensor)).sum(0))

    def poll(self):
        pass

    def run(self, work):
        """Return what ``work()`` returns on each rank."""
        found, errors = {}, []

        def one(rank):
            self._own.rank = rank
            try:
                found[rank] = work()
            except BaseException as error:  # noqa: BLE001
                errors.append(error)
                self._barrier.abort()

        before = ranks.here()
        ranks.put(self)
        threads = [threading.Thread(target=one, args=(r,)) for r in range(self.size)]
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            ranks.put(before)
        if errors:
            raise errors[0]
        return [found[r] for r in range(self.size)]


def rows_of(lengths):
    """Return a row per response length; some prompts are shared, some advantages zero."""
    made = []
    for i, length in enumerate(lengths):
        response = tuple(2 + (3 * i + 5 * j) % 27 for j in range(length))
        old = torch.linspace(-3, -1, length, dtype=torch.float64)
        row = TrainRow((4, 5 + i // 2), response, [1.0, -0.5, 0.0][i % 3], old_logprobs=old)
        made.append(replace(row, measured=i % 3 == 2))
    return made


def learned(own, rows, steps=3):
    """Return the metrics of some steps, the first one's old log-probs, and the weights."""
    learner = Learner(own, AdamW(lr=1e-2).build(), token_budget=16, total_steps=steps)
    objective = Objective.of(GrpoClip(cliprange=0.2).build(), TokenMean().build())
    metrics, old = learner.first_step(rows, objective)
    done = [metrics, *(learner.step(rows, objective) for _ in range(steps - 1))]
    logprobs = [*learner.logprobs(rows), *detached_logprobs(own, rows, token_budget=16,
                                                          temperature=1.0)]  # fmt: skip
    weights = torch.cat([p.detach().flatten() for p in own.model.parameters()])
    return done, old, logprobs, weights


@pytest.mark.parametrize("size", [2, 3, 4])
@pytest.mark.parametrize("lengths", [(5, 1, 9, 2, 0, 7, 3, 3), (4,), (3, 11), (0, 0, 6)], ids=str)
def test_the_update_does_not_depend_on_the_number_of_ranks(tiny_policy, size, lengths):
    rows = rows_of(lengths)
    done, old, logprobs, weights = learned(tiny_policy(), rows)
    policies = [tiny_policy() for _ in range(size)]
    group = Threads(size)
    for found in group.run(lambda: learned(policies[group.rank], rows)):
        for a, b in zip(done, found[0], strict=True):
            assert b == pytest.approx(a, abs=1e-9, rel=1e-9)
        assert [x is None for x in old] == [x is None for x in found[1]]
        for a, b in zip([*old, *logprobs], [*found[1], *found[2]], strict=True):
            assert a is None or torch.allclose(a, b, atol=1e-9, rtol=0)
        assert torch.allclose(weights, found[3], atol=1e-9, rtol=0)


@given(st.lists(st.integers(0, 50), max_size=30), st.integers(1, 8))
def test_every_item_is_one_ranks_and_the_ranks_have_as_much_to_do(costs, size):
    found = slices(costs, size)
    assert [i for part in found for i in part] == list(range(len(costs)))
    costs = [max(c, 1) for c in costs]
    most = max((sum(costs[i] for i in part) for part in found), default=0)
    assert most <= sum(costs) / size + max(costs, default=0)


numbers = st.integers() | st.floats(allow_nan=False) | st.text() | st.none() | st.booleans()
values = st.recursive(
    numbers,
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(numbers, inner),
    max_leaves=8,
)


@settings(max_examples=40)
@given(values)
def test_values_come_back_as_they_were(value):
    assert unpacked(packed(value)) == value


def test_tensors_and_records_come_back_bit_for_bit():
    dtypes = [torch.float64, torch.float32, torch.bfloat16, torch.int64, torch.bool]
    for dtype in dtypes:
        for shape in [(), (0,), (3, 2)]:
            given_tensor = (torch.randn(shape) * 3).to(dtype)
            (back,) = unpacked(packed([given_tensor]))
            assert back.dtype == dtype
            assert torch.equal(back, given_tensor)
    odd = torch.tensor([math.nan, math.inf, -0.0])
    assert unpacked(packed(odd)).numpy().tobytes() == odd.numpy().tobytes()
    whole = (Completion("é\ud800", (1, 2), (-0.1, -2.5), "stop", 3), Reward(0.5, {"format": 1.0}))
    assert unpacked(packed(whole)) == whole
    with pytest.raises(TypeError, match="a object cannot be sent to other ranks"):
        packed([object()])


@pytest.fixture
def one_rank():
    """torch.distributed with this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_the_whole_copy_of_a_model_that_is_cut_takes_no_memory_of_its_own(tiny_policy):
    model = tiny_policy().model
    places = [p.data_ptr() for p in model.parameters()]
    was = [p.detach().clone() for p in model.parameters()]
    cut(model, frozen_copy(model, shared=True))
    shards = shards_of(model)
    kept = list(shards.whole.parameters())
    assert [p.data_ptr() for p in kept] == places
    assert not any(p.requires_grad for p in kept)
    with torch.no_grad():
        for part in shards.parts():
            part.add_(1.0)
    assert all(map(torch.equal, kept, was))
    shards.gather()
    for now, before in zip(kept, was, strict=True):
        torch.testing.assert_close(now.detach(), before + 1.0)


@pytest.mark.usefixtures("one_rank")
def test_what_is_cut_is_written_and_read_by_torch_without_a_pickle(
    tiny_policy, tmp_path, monkeypatch
):
    policy = tiny_policy()
    was = {name: p.detach().clone() for name, p in policy.model.named_parameters()}
    cut(policy.model, frozen_copy(policy.model, shared=True))
    monkeypatch.setattr(parted, "FILE", 2**12)  # several files
    for name in ("loads", "load", "Unpickler", "dumps", "dump", "Pickler"):
        monkeypatch.setattr(pickle, name, None)
    encoded = EncodedState({"weights": weights(policy), "step": 3})
    with Parts(encoded.parts).led() as write:
        sums = write(tmp_path)
    for name, content in encoded.files().items():
        content(tmp_path / name)
    assert len(sums) > 1
    for name, facts in sums.items():
        assert name.startswith("parts/shard-00001-model-")
        data = (tmp_path / name).read_bytes()
        assert facts == {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    shards = shards_of(policy.model)
    for blank in (torch.empty, shards.blank):
        found = StoredState(tmp_path, blank).value()
        assert found["step"] == 3
        for name, before in was.items():
            assert torch.equal(own_part(found["weights"][name]), before), name
    with torch.no_grad():
        for part in shards.parts():
            part.zero_()
    load_weights(policy, found["weights"])
    assert all(torch.equal(own_part(p), was[n]) for n, p in policy.model.named_parameters())
