"""What a checkpoint holds comes back as it was, to the bit, and nothing is pickled."""

import errno
import math
import os
import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors import SafetensorError, safe_open

from alignkit.engine.learning.supervised import Epochs
from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.engine.seeds import generators, seed_everything, set_generators
from alignkit.engine.tokens import TrainRow
from alignkit.engine.training import checkpoint
from alignkit.engine.training.checkpoint import (
    LONG,
    SMALL,
    EncodedState,
    StoredState,
    load_weights,
    os_errors,
    weights,
)
from alignkit.engine.training.checkpoint_table import CheckpointPlan, CheckpointTable, seconds
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Example, Reward


def back(value, folder):
    for name, write in EncodedState(value).files().items():
        write(folder / name)
    return StoredState(folder).value()


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        -3,
        2**70,
        0.1 + 0.2,
        float("inf"),
        "é\n\ud83d",
        [],
        (),
        {},
        [1, [2.5, (None, "x")]],
        {"a": 1, 2: (3,), (4, 5): {"tensor": "not one"}},
        list(range(LONG + 3)),
        tuple(0.1 * i for i in range(LONG + 3)),
        [True] * (LONG + 1),
        [1] * LONG + [2**64],
        [1] * LONG + [1.0],
    ],
    ids=repr,
)
def test_values_come_back_with_their_types(value, tmp_path):
    got = back(value, tmp_path)
    assert got == value
    assert repr(got) == repr(value)  # 1 == 1.0 == True, so types too


@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.uint8, torch.bool]
)
@pytest.mark.parametrize("shape", [(), (0,), (3, 5), (SMALL + 1,), (2, SMALL)])
def test_tensors_come_back_bit_for_bit(dtype, shape, tmp_path):
    tensor = (torch.randn(shape) * 3).to(dtype)
    got = back({"a": [tensor, tensor + tensor]}, tmp_path)["a"]
    assert (got[0].dtype, got[0].shape) == (dtype, tensor.shape)
    assert torch.equal(got[0], tensor)
    assert torch.equal(got[1], tensor + tensor)


def test_odd_floats_and_layouts(tmp_path):
    odd = torch.tensor([math.nan, -0.0, math.inf, 1e-45])
    strided = torch.arange(12.0).view(3, 4).T
    got = back([odd, strided, math.nan, -0.0], tmp_path)
    assert torch.equal(got[0].view(torch.int32), odd.view(torch.int32))
    assert torch.equal(got[1], strided)
    assert math.isnan(got[2])
    assert math.copysign(1, got[3]) == -1


def test_small_tensors_share_one(tmp_path):
    back([torch.ones(3), torch.ones(4), torch.ones(SMALL)], tmp_path)
    with safe_open(tmp_path / "tensors.safetensors", framework="pt") as file:
        assert sorted(file.keys()) == ["shared/F32", "tensor/0"]
        assert file.get_tensor("shared/F32").shape == (7,)


def test_tensors_on_one_memory_come_back_each_by_itself(tmp_path):
    whole = torch.arange(3.0 * SMALL)
    got = back([whole, whole, whole[SMALL:], whole.view(3, SMALL).T], tmp_path)
    assert torch.equal(got[1], whole)
    assert torch.equal(got[2], whole[SMALL:])
    assert torch.equal(got[3], whole.view(3, SMALL).T)
    got[0].zero_()
    assert torch.equal(got[1], whole)


def test_a_large_state_is_parted_into_files(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "PART", 10 * SMALL)
    sizes = [SMALL, SMALL, SMALL, 4 * SMALL, SMALL]  # float32: 4 bytes each
    value = [torch.randn(size) for size in sizes] + [torch.ones(3)]
    got = back(value, tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(got, value, strict=True))
    files = {p.name: p.stat().st_size // (4 * SMALL) for p in tmp_path.glob("tensors*")}
    assert files == {
        "tensors.safetensors": 2,
        "tensors_1.safetensors": 1,
        "tensors_2.safetensors": 4,
        "tensors_3.safetensors": 1,
    }


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES])
def test_an_error_of_the_disk_is_known_whoever_wrote(number):
    with pytest.raises(OSError, match=os.strerror(number)) as raised, os_errors():
        raise SafetensorError(f"Error while serializing: I/O error: … (os error {number}) at path")
    assert raised.value.errno == number
    with pytest.raises(SafetensorError, match="invalid header"), os_errors():
        raise SafetensorError("invalid header")


def test_the_records_of_a_rollout_batch(tmp_path):
    row = TrainRow((1, 2), (3, 4, 5), -0.25, old_logprobs=torch.randn(3))
    said = Completion("hi", (3, 4, 5), (-0.1, -0.2, -0.3), "stop", 7)
    example = Example("id", "q", "a", {"when": object()})
    trajectory = Trajectory(4, 2, example, "q:", (1, 2), said, Reward(1.0, {"format": 1.0}))
    got_row, got = back((row, trajectory), tmp_path)
    assert (got_row.prompt_ids, got_row.response_ids) == ((1, 2), (3, 4, 5))
    assert (got_row.advantage, got_row.ref_logprobs) == (-0.25, None)
    assert torch.equal(got_row.old_logprobs, row.old_logprobs)
    assert got.completion == said
    assert (got.example.question, got.example.extra) == ("q", {})
    assert got.reward == trajectory.reward


@pytest.mark.parametrize(
    "value", [object(), {1, 2}, lambda: 0, torch.ones(2, dtype=torch.complex64), np.array([{}])]
)
def test_what_cannot_be_kept_is_refused_by_name(value):
    with pytest.raises(TypeError, match="cannot be kept in a checkpoint"):
        EncodedState([value])


def test_generators_go_on_where_they_were(tmp_path):
    def draw():
        return random.random(), np.random.rand(), torch.rand(3).tolist()

    seed_everything(5)
    draw()
    state = back(generators(), tmp_path)
    expected = draw()
    seed_everything(6)
    set_generators(state)
    assert draw() == expected


def test_weights_are_what_training_changes():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model[0].weight.requires_grad_(False)
    policy = SimpleNamespace(model=model)
    saved = {name: value.clone() for name, value in weights(policy).items()}
    assert sorted(saved) == [
        "0.bias", "1.bias", "1.num_batches_tracked", "1.running_mean", "1.running_var", "1.weight",
    ]  # fmt: skip
    with torch.no_grad():
        model[0].bias.add_(1)
    load_weights(policy, saved)
    assert torch.equal(model[0].bias, saved["0.bias"])
    with pytest.raises(AlignkitError, match=r"does not hold the weights 0\.bias"):
        load_weights(policy, {k: v for k, v in saved.items() if k != "0.bias"})
    with pytest.raises(AlignkitError, match="weights the policy lacks, as x"):
        load_weights(policy, {**saved, "x": torch.ones(1)})


def test_tied_weights_are_saved_once_and_stay_tied():
    model = torch.nn.Sequential(torch.nn.Embedding(3, 3), torch.nn.Linear(3, 3, bias=False))
    model[1].weight = model[0].weight
    policy = SimpleNamespace(model=model)
    saved = {name: value + 1 for name, value in weights(policy).items()}
    assert list(saved) == ["0.weight"]
    load_weights(policy, saved)
    assert model[1].weight is model[0].weight
    assert torch.equal(model[1].weight, saved["0.weight"])


def test_batches_by_number_are_those_in_turn():
    epochs = Epochs(7, 3, "k")
    expected = [epochs.batch(i) for i in range(8)]
    assert [(epoch, len(at)) for epoch, at in expected[:4]] == [(1, 3), (1, 3), (1, 1), (2, 3)]
    assert [Epochs(7, 3, "k").batch(i) for i in (5, 2)] == [expected[5], expected[2]]
    assert sorted(i for epoch, at in expected if epoch == 2 for i in at) == list(range(7))


@pytest.mark.parametrize(
    ("text", "expected"), [("3h50m", 13800), ("1d", 86400), ("0.5s", 0.5), ("1m30s", 90)]
)
def test_durations(text, expected):
    assert seconds(text) == expected


@pytest.mark.parametrize("text", ["", "0s", "50", "m", "50m3h", "3 h", "-1s", "1e3s"])
def test_what_is_no_duration_is_refused(text):
    with pytest.raises(ValueError, match="is no duration"):
        seconds(text)
    with pytest.raises(ValueError, match="duration"):
        CheckpointTable(stop_after=text)


def test_when_a_checkpoint_is_due():
    by_steps, by_time = CheckpointPlan(every=3), CheckpointPlan(every="1m")
    assert [s for s in range(7) if by_steps.due(s, 0, 1e9)] == [3, 6]
    assert not by_steps.due(3, 1, 1e9)
    assert not CheckpointPlan(every=0).due(3, 0, 1e9)
    assert by_time.due(0, 2, 60.0)
    assert not by_time.due(3, 0, 59.9)


def test_the_table_is_the_plan():
    plan = CheckpointTable(every="30m", keep_best=2, goal="min", stop_after="3h50m").build()
    assert plan == CheckpointPlan(every="30m", keep_best=2, goal="min", stop_after="3h50m")
    assert CheckpointTable().build() == CheckpointPlan()
    assert [k for k, _ in CheckpointTable(metric="eval/loss").check({})] == ["metric"]
