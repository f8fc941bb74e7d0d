"""Operations counted by hand, and against torch's own counter."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from alignkit.engine.forward.logprobs import response_logprobs
from alignkit.engine.observing.metering import (
    Meter,
    Shape,
    Work,
    note_rows,
    peak_flops,
    shape_of,
    tabled,
    throughput,
    work_of,
)
from alignkit.engine.tokens import TrainRow

ROWS = [
    TrainRow((3, 4, 5), (6, 7, 8, 9)),
    TrainRow((3, 4, 5), (6, 2)),
    TrainRow((12, 13), (3, 4, 5)),
    TrainRow((12, 13), ()),
]


def test_sizes_by_hand():
    # Inputs 6, 4 and 4 tokens; pairs 6*7/2 + 4*5/2 + 4*5/2 = 21 + 10 + 10.
    assert work_of(ROWS, shared=False) == Work(tokens=14, responses=9, pairs=41)
    # The prompt of 3 once: 3 tokens and 3*4/2 = 6 pairs less. Not 4, as the empty row is not
    # computed and its prompt not shared.
    assert work_of(ROWS, shared=True) == Work(tokens=11, responses=9, pairs=35)


def test_operations_by_hand(tiny_policy):
    # Hidden 16, MLP 24, vocabulary 29, 2 layers, 2 heads of 8, 1 for keys and values:
    # q and o 16 x 16, k and v 16 x 8, gate, up and down 16 x 24.
    weights = 2 * (2 * 256 + 2 * 128 + 3 * 384)
    shape = shape_of(tiny_policy().model)
    assert shape == Shape(weights, weights, 29 * 16, 29 * 16, 2 * 16)
    forward, backward = shape.flops(Work(tokens=10, responses=4, pairs=55))
    assert forward == 2 * weights * 10 + 2 * 464 * 4 + 4 * 32 * 55
    assert backward == 2 * forward  # 6 per weight and token in all


def test_frozen_weights_need_no_gradient_of_their_own(tiny_policy):
    model = tiny_policy().model
    model.lm_head.requires_grad_(False)
    model.model.layers[0].requires_grad_(False)
    shape = shape_of(model)
    assert (shape.trained, shape.head_trained) == (shape.weights // 2, 0)
    forward, backward = shape.flops(Work(tokens=1, responses=0, pairs=0))
    assert backward == 1.5 * forward  # all pass the gradient on, half take one


@pytest.mark.parametrize("train", [True, False])
def test_matrix_products_are_those_that_torch_counts(tiny_policy, train):
    policy = tiny_policy()
    rows = [TrainRow((3, 4, 5, k), tuple(range(6, 16))) for k in (1, 2, 3)]
    response_logprobs(policy, rows)  # tries the model out
    shape, work = shape_of(policy.model), work_of(rows, shared=True)
    with (
        torch.set_grad_enabled(train),
        Meter().counting() as meter,
        FlopCounterMode(display=False) as counter,
    ):
        logprobs, _, mask = response_logprobs(policy, rows)
        if train:
            logprobs[mask].sum().backward()
    forward, backward = shape.flops(work)
    assert meter.flops == forward + (backward if train else 0)
    forward, backward = shape.flops(Work(work.tokens, work.responses, 0))
    uncounted = 4 * shape.head * work.responses  # torch's counter passes over addmm_
    matrices = forward + backward - uncounted if train else forward
    counts = counter.get_flop_counts()["Global"]
    products = sum(n for op, n in counts.items() if str(op) in ("aten.mm", "aten.addmm"))
    assert products == matrices


def test_a_pass_without_backward_counts_forward_only(tiny_policy):
    policy = tiny_policy()
    with Meter().counting() as meter:
        response_logprobs(policy, ROWS)
    assert meter.flops == shape_of(policy.model).flops(work_of(ROWS, shared=True))[0]
    response_logprobs(policy, ROWS)  # outside: not counted
    assert meter.flops == shape_of(policy.model).flops(work_of(ROWS, shared=True))[0]


def test_metrics(tiny_policy):
    policy = tiny_policy()
    meter = Meter(flops=3e9)
    with meter.counting():
        note_rows(ROWS)  # 7 + 5 + 5 + 2 tokens
    found = throughput(meter, 2.0, policy)
    assert found["train/tokens_per_second"] == 19 / 2
    assert found["memory/peak_mib"] > 50
    assert "train/mfu" not in found  # nobody said what this CPU can do
    policy.peak_tflops = 0.01
    assert throughput(meter, 2.0, policy)["train/mfu"] == pytest.approx(3e9 / 2 / 1e10)
    assert throughput(Meter(), 0.0, policy).keys() == {"memory/peak_mib"}


@pytest.mark.parametrize(
    ("card", "tflops"),
    [
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),  # 989 is the SXM card's
        ("NVIDIA L40S", 362),  # not L40's 181, nor L4's 121
        ("NVIDIA GeForce RTX 4090", 165),
        ("NVIDIA A10G", 70),
        ("Tesla T4", None),
    ],
)
def test_the_table_of_cards(card, tflops):
    assert tabled(card) == tflops


def test_the_policys_word_goes_before_the_table(tiny_policy):
    policy = tiny_policy()
    assert peak_flops(policy, torch.device("cpu")) is None
    policy.peak_tflops = 2.5
    assert peak_flops(policy, torch.device("cpu")) == 2.5e12
