"""DPO: the exact gradient of the published loss, and preferences that generalise."""

import json
import math
from pathlib import Path

import pytest
import torch

from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective
from alignkit.engine.learning.rows import Rows
from alignkit.engine.tokens import TrainRow
from alignkit.errors import AlignkitError
from alignkit.protocols import Example
from alignkit.testing import run_cli
from alignkit_algorithms.dpo import (
    Dpo,
    differentiated,
    pair_mean,
    paired,
    preference_metrics,
    weighted_likelihood,
)
from alignkit_algorithms.pairs import DpoLoss, IpoLoss, KtoLoss, OrpoLoss, SimpoLoss
from alignkit_algorithms.preference import dpo as dpo_loss
from dpo_pairs import pairs


def preferences(count, first=0):
    """The response with an "a" is preferred to the one with a "b"."""
    return [
        Example(f"id{i}", f"q{i}", f"a{i % 3}#", {"rejected": f"b{i % 5}#"})
        for i in range(first, first + count)
    ]


@pytest.fixture
def dpo(toys):
    def make(keys=None, **parts):
        given = {
            "keys": Dpo(**{"train_batch_size": 4, **(keys or {})}),
            "policy": toys.policy(),
            "data": preferences(8),
            "prompt": toys.Template(),
            "optimizer": toys.adamw(3e-3),
        }
        return toys.assemble(**{**given, **parts})

    return make


def whole(model, row):
    ids = torch.tensor([[*row.prompt_ids, *row.response_ids]])
    log_p = torch.log_softmax(model(input_ids=ids).logits[0], -1)
    first = len(row.prompt_ids) - 1
    return sum(log_p[first + i, token] for i, token in enumerate(row.response_ids))


def test_a_step_is_the_gradient_of_the_published_loss(toys):
    """The two-pass step against autograd through -log σ(β (Δchosen - Δrejected)), float64."""
    policy, other = toys.policy(), toys.policy()
    policy.model.double()
    other.model.double()
    rows = [
        TrainRow((3, 4), (5, 6, 7)), TrainRow((3, 4), (8,)),
        TrainRow((9,), (10, 11)), TrainRow((9,), (12, 13, 14, 15)),
        TrainRow((9, 2), (10,)), TrainRow((9, 2), (13,)),
    ]  # fmt: skip
    ref = [1.0, -0.5, -3.0, -1.0, 4.0, 4.0]  # chosen, rejected and so on: gaps 1.5, -2, 0
    before = toys.weights(policy)
    learner = Learner(policy, toys.Sgd(1.0), token_budget=1, total_steps=1)
    theta = [float(whole(policy.model, row).detach()) for row in rows]
    out, A = differentiated(DpoLoss(beta=0.7).build(), paired(Rows(rows=rows), theta, ref))
    batch = Rows(rows=rows).weighted(A).whole
    learner.step(batch.rows, Objective.of(weighted_likelihood, pair_mean))
    metrics = preference_metrics(out)

    losses = []
    for chosen, rejected, gap in zip(rows[::2], rows[1::2], (1.5, -2.0, 0.0), strict=True):
        found = whole(other.model, chosen) - whole(other.model, rejected)
        losses.append(-torch.nn.functional.logsigmoid(0.7 * (found - gap)))
    loss = torch.stack(losses).mean()
    grads = torch.autograd.grad(loss, list(other.model.parameters()))
    expected = before - torch.cat([g.flatten() for g in grads])
    torch.testing.assert_close(toys.weights(policy), expected, rtol=0, atol=1e-10)
    assert (expected - before).abs().max() > 1e-3
    assert metrics["loss"] == pytest.approx(float(loss.detach()), abs=1e-6)


def test_preferences_generalise_to_held_out_pairs(dpo, toys, tmp_path):
    subject = dpo(
        {"n_steps": 20, "validate_every": 8, "train_batch_size": 8},
        data=preferences(24),
        validation=preferences(30, first=24),
    )
    rows = toys.carry_out(subject, tmp_path)
    measured = {row["step"]: row["eval/preference_accuracy"] for row in rows if "eval/loss" in row}
    assert list(measured) == [0, 8, 16, 20]
    assert measured[0] == 0.5  # policy = reference: all margins 0
    assert rows[0]["eval/loss"] == pytest.approx(math.log(2))
    assert rows[0]["eval/n_pairs"] == 30
    assert measured[20] > 0.95
    assert rows[1]["train/loss"] == pytest.approx(math.log(2))
    assert rows[-1]["train/loss"] < 0.5
    assert rows[-1]["train/margin"] > 0
    assert (tmp_path / "final/model.safetensors").is_file()


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_margins_of_the_first_step_are_ties_however_rows_are_cut(dpo, toys, tmp_path, size):
    data = [
        Example(f"id{i}", f"q{i}" * (1 + i % 4), "ab" * (1 + i) + "#", {"rejected": "ba" * i + "#"})
        for i in range(9)
    ]
    rows = toys.carry_out(dpo({"train_batch_size": size, "token_budget": 64}, data=data), tmp_path)
    assert rows[1]["train/preference_accuracy"] == 0.5
    assert rows[1]["train/margin"] == 0
    assert rows[2]["train/margin"] != 0


def test_the_reference_is_the_starting_policy_unless_named(dpo, toys, tmp_path):
    other = toys.policy()
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.5)
    rows = toys.carry_out(dpo(reference=other), tmp_path)
    assert rows[1]["train/margin"] != 0
    assert rows[1]["train/preference_accuracy"] not in (0.5,)


def test_margins_are_sums_over_whole_responses(dpo, toys, tmp_path):
    policy, other = toys.policy(), toys.policy()
    with torch.no_grad():
        for parameter in other.model.parameters():
            parameter.mul_(1.5)
    pair = Example("id", "q", "abc#", {"rejected": "b#"})
    encode = policy.tokenizer.encode
    rows = [TrainRow(tuple(encode("q:")), tuple(encode(text))) for text in ("abc#", "b#")]
    with torch.no_grad():
        ours, theirs = (
            float(whole(p.model, rows[0]) - whole(p.model, rows[1])) for p in (policy, other)
        )
    subject = dpo({"beta": 0.3}, policy=policy, reference=other, data=[pair])
    found = toys.carry_out(subject, tmp_path)[1]["train/margin"]
    assert found == pytest.approx(0.3 * (ours - theirs), abs=1e-5)
    assert abs(found) > 1e-3


def test_metrics_by_hand():
    m = torch.tensor([2.0, 0.0, -1.0], dtype=torch.float64)
    got = preference_metrics(dpo_loss(pairs(m, torch.zeros(3), (1, 1, 1), (1, 1, 1)), beta=1.0))
    assert got["preference_accuracy"] == 0.5  # right, half, wrong
    assert got["margin"] == pytest.approx(1 / 3)
    # log(1 + e^-2), log 2, log(1 + e)
    assert got["loss"] == pytest.approx((0.126928011 + 0.693147181 + 1.313261688) / 3, abs=1e-8)


def test_steps_passes_and_counts(dpo, toys, tmp_path, monkeypatch):
    sizes = []
    step = Learner.step
    monkeypatch.setattr(
        Learner, "step", lambda self, rows, how: sizes.append(len(rows)) or step(self, rows, how)
    )
    long = Example("long", "q", "a" * 2000, {"rejected": "b"})
    rows = toys.carry_out(dpo({"epochs": 2}, data=[*preferences(6), long]), tmp_path)
    assert sizes == [8, 4, 8, 4]  # responses: pairs are never torn apart between steps
    assert (rows[0]["data/rows"], rows[0]["data/used"]) == (7, 6)
    assert [row["train/epoch"] for row in rows[1:]] == [1, 1, 2, 2]


def test_pairs_may_lie_within_objects_and_be_taken_as_they_stand(dpo, toys, tmp_path, monkeypatch):
    """The same run as with plain columns, in the order of the rows."""
    from alignkit.engine.learning.supervised import Epochs

    batches, batch = [], Epochs.batch

    def noted(self, number):
        batches.append(batch(self, number))
        return batches[-1]

    monkeypatch.setattr(Epochs, "batch", noted)
    plain = preferences(8)
    nested = [
        Example(e.id, e.question, "x", {"pair": {"good": e.answer, "bad": e.extra["rejected"]}})
        for e in plain
    ]
    keys = {"epochs": 2, "shuffle": False}
    columns = {"chosen_column": "pair.good", "rejected_column": "pair.bad"}
    want = toys.timeless(toys.carry_out(dpo(keys, data=plain), tmp_path / "plain"))
    got = toys.timeless(toys.carry_out(dpo({**keys, **columns}, data=nested), tmp_path / "nested"))
    assert got == want
    assert [rows for _, rows in batches] == [[0, 1, 2, 3], [4, 5, 6, 7]] * 4


def test_a_missing_column_is_found_while_building(dpo):
    with pytest.raises(AlignkitError, match="'id0': column 'worse' must hold a text"):
        dpo({"rejected_column": "worse"})


def test_the_same_seed_gives_the_same_numbers(dpo, toys, tmp_path):
    first = toys.timeless(toys.carry_out(dpo(), tmp_path / "a"))
    assert first == toys.timeless(toys.carry_out(dpo(), tmp_path / "b"))
    assert first != toys.timeless(toys.carry_out(dpo({"seed": 1}), tmp_path / "c"))


def test_problems_the_table_names():
    assert not list(Dpo().check({}))
    assert [k for k, _ in Dpo(epochs=2, n_steps=5).check({})] == ["n_steps"]
    assert [k for k, _ in Dpo().check({"eval": 1})] == ["eval"]
    assert [k for k, _ in Dpo(validate_every=5).check({})] == ["validate_every"]
    assert not list(Dpo(validate_every=5).check({"validation": 1}))
    assert Dpo(train_batch_size=4).facts({})["optimizer step"] == "4 pairs = 8 responses"


@pytest.mark.parametrize(
    "table", [IpoLoss(tau=0.5), SimpoLoss(), OrpoLoss(), KtoLoss(beta=0.5)], ids=repr
)
def test_every_loss_learns_preferences_that_generalise(table, dpo, toys, tmp_path):
    subject = dpo(
        {"n_steps": 20, "validate_every": 20, "train_batch_size": 8},
        data=preferences(24),
        validation=preferences(30, first=24),
        loss=table.build(),
    )
    rows = toys.carry_out(subject, tmp_path)
    assert rows[-1]["eval/preference_accuracy"] > 0.9
    assert rows[-1]["train/loss"] < rows[1]["train/loss"]


def test_dpo_as_a_table_is_dpo_without_one(dpo, toys, tmp_path):
    plain = toys.carry_out(dpo({"beta": 0.3}), tmp_path / "a")
    chosen = toys.carry_out(dpo(loss=DpoLoss(beta=0.3).build()), tmp_path / "b")
    assert toys.timeless(plain) == toys.timeless(chosen)


def test_beta_beside_a_loss_is_refused():
    assert [k for k, _ in Dpo(beta=0.3).check({"loss": 1})] == ["beta"]
    assert not list(Dpo().check({"loss": 1}))


@pytest.mark.slow  # a minute
def test_the_hh_recipe_ranks_held_out_pairs_and_keeps_the_best(tmp_path):
    recipe = Path(__file__).parents[3] / "recipes" / "dpo_hh.toml"
    result = run_cli("run", recipe, "--out", tmp_path / "run")
    assert result.status == 0, result.stderr
    rows = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    name = "eval/preference_accuracy"
    found = {r["step"]: r[name] for r in rows if name in r}
    assert rows[0]["data/used"] == 1024
    assert rows[0]["eval/n_pairs"] == 200
    assert list(found.values())[-1] > 0.8
    best = max(found, key=found.__getitem__)
    kept = tmp_path / f"run/checkpoints/step_{best:06}"
    assert (kept / "model/model.safetensors").is_file()
