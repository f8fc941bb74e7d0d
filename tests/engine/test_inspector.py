"""The first batch is shown, and one that is never finite is kept for study."""

import json
import math
from dataclasses import replace

import pytest
import torch

from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective
from alignkit.engine.observing.inspector import Inspector, first_batch
from alignkit.engine.tokens import TrainRow
from alignkit.errors import AlignkitError
from alignkit.protocols import LossOutput
from alignkit_hf import HfPolicy


class Sgd:
    max_grad_norm = math.inf

    def start(self, parameters, *, total_steps):
        optimizer = torch.optim.SGD(list(parameters), lr=1.0)
        return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)


def token_mean(per_token, mask, /, *, totals):
    return torch.where(mask, per_token, 0).sum() / totals.tokens


LIKELIHOOD = Objective.of(lambda x: LossOutput(per_token=-x.logprobs), token_mean)


@pytest.fixture
def policy(tiny_folder):
    return HfPolicy(path=str(tiny_folder)).build()


@pytest.fixture
def text(policy):
    return lambda words: tuple(policy.tokenizer.encode(words, add_special_tokens=False))


def test_the_first_batch_shows_a_sample_with_its_trained_tokens(policy, run, text):
    rows = [
        TrainRow(text("1+1?"), (), advantage=2.0),
        TrainRow(text("2+2?\x1b[2J"), text("four\n"), advantage=-0.5),
    ]
    inspector = Inspector(run, policy.tokenizer, limit=5)
    inspector.before(rows)
    inspector.before(rows)
    # prompt: 2+2? is 4 bytes, the escape sequence 4; the answer is 5 bytes, one token each
    assert run.lines == [
        "first batch: 2 rows; one of them, its trained tokens (5 of 13, advantage -0.5) "
        "between ⟦ and ⟧\n2+2?\\x1b[2J⟦four\n⟧"
    ]


def test_a_batch_without_a_trained_token_says_so(policy, text):
    shown = first_batch([TrainRow(text("x"), ())], policy.tokenizer)
    assert "NO ROW HOLDS A TRAINED TOKEN\nx⟦⟧" in shown


def test_long_texts_are_shortened_around_the_place_where_training_begins(policy, text):
    shown = first_batch([TrainRow(text("a" * 1000), text("b" * 1000))], policy.tokenizer)
    assert shown.endswith("\n…" + "a" * 400 + "⟦" + "b" * 400 + "…⟧")


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_steps_that_are_not_finite_change_nothing_and_stop_the_run_in_the_end(
    policy, run, text, broken
):
    class Loss:
        """A loss that is infinite with a finite gradient, or finite with an infinite one."""

        on = True

        def __call__(self, x):
            if not self.on:
                return LossOutput(per_token=-x.logprobs)
            if broken == "loss":
                return LossOutput(per_token=-x.logprobs + math.inf)
            return LossOutput(per_token=(x.logprobs - x.logprobs.detach()).abs().sqrt())

    loss = Loss()
    learner = Learner(
        policy, Sgd(), token_budget=512, total_steps=9,
        inspector=Inspector(run, policy.tokenizer, limit=3),
    )  # fmt: skip
    how = Objective.of(loss, token_mean)
    rows = [TrainRow(text("1+1?"), text("2"), advantage=1.0)]
    before = [p.detach().clone() for p in learner.parameters]
    assert [learner.step(rows, how)["skipped_steps"] for _ in range(2)] == [1.0, 1.0]
    assert all(torch.equal(a, b) for a, b in zip(before, learner.parameters, strict=True))
    loss.on = False
    assert learner.step(rows, how)["skipped_steps"] == 0.0  # the row of failures is broken
    loss.on = True
    moved = [p.detach().clone() for p in learner.parameters]
    assert not all(torch.equal(a, b) for a, b in zip(before, moved, strict=True))
    assert [learner.step(rows, how)["skipped_steps"] for _ in range(2)] == [1.0, 1.0]
    with pytest.raises(AlignkitError, match="3 optimizer steps in a row had no finite loss"):
        learner.step(rows, how)
    assert all(torch.equal(a, b) for a, b in zip(moved, learner.parameters, strict=True))
    assert learner.skipped_steps == 5
    told = [line for line in run.lines if line.startswith("an optimizer step was skipped")]
    assert len(told) == 2  # once for each time it began
    (saved,) = (run.dir / "nonfinite/batch.jsonl").read_text().splitlines()
    row = json.loads(saved)
    assert (row["prompt"], row["response"], row["advantage"]) == ("1+1?", "2", 1.0)
    assert tuple(row["response_ids"]) == text("2")


def test_zero_puts_up_with_any_number_of_them(policy, run, text):
    learner = Learner(
        policy, Sgd(),
        token_budget=512, total_steps=9, inspector=Inspector(run, policy.tokenizer, limit=0),
    )  # fmt: skip
    how = Objective.of(lambda x: LossOutput(per_token=x.logprobs * math.nan), token_mean)
    for _ in range(7):
        learner.step([TrainRow(text("1+1?"), text("2"))], how)
    assert learner.skipped_in_a_row == 7


def test_ratio_percentiles_do_not_depend_on_the_cut(policy, text):
    rows = [TrainRow(text("a"), text("b" * n)) for n in (3, 50, 47)]

    def measured(budget):
        learner = Learner(policy, Sgd(), token_budget=budget, total_steps=1)
        old = learner.logprobs(rows)
        # Of 100 tokens the ratio of one is e^3, of two e^-2, else 1: nearest rank 99 of 100 is the
        # second largest, so p99 = 1 (a maximum would be e^3), and p99 of the inverse e^2.
        old[1][7] -= 3.0
        old[0][0] += 2.0
        old[2][5] += 2.0
        given = [replace(r, old_logprobs=o) for r, o in zip(rows, old, strict=True)]
        found = learner.step(given, LIKELIHOOD)
        for p in learner.parameters:  # put the step back
            p.grad = None
        return found["ratio_p99"], found["ratio_inverse_p99"]

    state = {k: v.clone() for k, v in policy.model.state_dict().items()}
    whole = measured(10_000)
    policy.model.load_state_dict(state)
    assert whole == pytest.approx((1.0, math.exp(2.0)), rel=1e-4)
    assert measured(60) == pytest.approx(whole, rel=1e-4)


def test_without_old_logprobs_there_is_no_ratio(policy, text):
    learner = Learner(policy, Sgd(), token_budget=512, total_steps=1)
    assert "ratio_p99" not in learner.step([TrainRow(text("a"), text("b"))], LIKELIHOOD)
