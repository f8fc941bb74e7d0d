"""Every training algorithm logs tokens a second, the share of the peak, and peak memory."""

import pytest

from alignkit.engine.learning.supervised import supervised_row
from alignkit.engine.observing.metering import shape_of, work_of
from alignkit.protocols import Example
from alignkit_algorithms.dpo import Dpo
from alignkit_algorithms.expert_iteration import ExpertIteration
from alignkit_algorithms.grpo import Grpo
from alignkit_algorithms.sft import Sft
from alignkit_hf import HfPolicy

PEAK = 0.01  # 10^12 operations a second
SAMPLED = {"n_steps": 2, "rollout_batch_size": 16, "group_size": 4, "train_batch_size": 16}
PAIRS = [Example(f"id{i}", f"q{i}", "", {"good": f"{i}yes", "bad": f"no{i}"}) for i in range(4)]


def sampled(toys):
    return {"reward": toys.first_is_ascii, "backend": toys.backend(), "data": toys.questions()}


def grpo(toys):
    how = {"advantage": toys.group_mean, "loss": toys.loss("reinforce")}
    return Grpo(**SAMPLED), {**sampled(toys), **how, "normalizer": toys.normalizer()}


def expert_iteration(toys):
    keys = ExpertIteration(**SAMPLED)
    return keys, {**sampled(toys), "normalizer": toys.normalizer("token_mean")}


def sft(toys):
    keys = Sft(n_steps=2, train_batch_size=4, response_column="good")
    return keys, {"data": PAIRS, "normalizer": toys.normalizer("token_mean")}


def dpo(toys):
    keys = Dpo(n_steps=2, train_batch_size=4, chosen_column="good", rejected_column="bad")
    return keys, {"data": PAIRS}


@pytest.mark.parametrize("make", [grpo, expert_iteration, sft, dpo])
def test_logged_every_step(make, toys, tiny_folder, tmp_path):
    keys, given = make(toys)
    policy = HfPolicy(path=str(tiny_folder), device="cpu", peak_tflops=PEAK).build()
    given |= {"policy": policy, "prompt": toys.Template(), "optimizer": toys.adamw()}
    rows = toys.carry_out(toys.assemble(keys, **given), tmp_path)
    for row in (r for r in rows if r["step"]):
        assert row["train/tokens_per_second"] > 0
        assert 0 < row["train/mfu"] < 1
        assert row["memory/peak_mib"] > 50


def test_a_step_of_fine_tuning_by_hand(toys, tiny_folder, tmp_path):
    keys, given = sft(toys)
    policy = HfPolicy(path=str(tiny_folder), device="cpu", peak_tflops=PEAK).build()
    given |= {"policy": policy, "prompt": toys.Template(), "optimizer": toys.adamw()}
    row = toys.carry_out(toys.assemble(keys, **given), tmp_path)[-1]
    batch = [supervised_row(e, e.extra["good"], toys.Template(), policy, "auto") for e in PAIRS]
    seconds = row["time/update"]
    assert row["train/tokens_per_second"] == pytest.approx(sum(r.length for r in batch) / seconds)
    flops = sum(shape_of(policy.model).flops(work_of(batch, shared=True)))
    assert row["train/mfu"] == pytest.approx(flops / seconds / (PEAK * 1e12))
