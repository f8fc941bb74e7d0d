"""Algorithms stopped in the middle of a step and resumed: the same numbers, nothing twice."""

import pytest
import torch

from alignkit.engine.evaluation.eval_table import EvalPlan, EvalSet
from alignkit.engine.learning.reference_table import Reference
from alignkit.engine.training.checkpoint_table import CheckpointPlan
from alignkit.execution import Run
from alignkit.lifecycle.checkpoints import Store
from alignkit.protocols import Example
from alignkit_algorithms.dpo import Dpo
from alignkit_algorithms.sft import Sft

PARTLY = {"n_steps": 3, "rollout_batch_size": 8, "group_size": 4, "train_batch_size": 4}


@pytest.fixture
def grpo(toys):
    keys = {**PARTLY, "epochs_per_rollout_batch": 2, "shuffle": True}
    return lambda **parts: toys.grpo(keys, **{"reference": Reference(0.1, "k3", None), **parts})


@pytest.fixture
def dpo(toys):
    def make(**parts):
        pairs = [Example(f"{i}", f"q{i}", f"a{i}#", {"rejected": f"b{i}#"}) for i in range(8)]
        given = {"policy": toys.policy(), "data": pairs, "prompt": toys.Template()}
        given |= {"optimizer": toys.adamw(), "validation": pairs[:2]}
        keys = Dpo(train_batch_size=4, n_steps=3, validate_every=1)
        return toys.assemble(keys=keys, **{**given, **parts})

    return make


@pytest.fixture
def sft(toys):
    def make(**parts):
        data = [Example(f"{i}", f"q{i}", f"a{i}#") for i in range(8)]
        given = {"policy": toys.policy(), "data": data, "prompt": toys.Template()}
        given |= {"normalizer": toys.normalizer("token_mean"), "optimizer": toys.adamw()}
        return toys.assemble(keys=Sft(train_batch_size=2), **{**given, **parts})

    return make


@pytest.fixture
def resumes_exactly(toys, ended, tmp_path):
    """End a run before its n-th update; gone on with, it gives the numbers of one that was not."""

    def check(make, before, resumed=None):
        whole, resumed = make(), resumed or make()
        rows = toys.carry_out(whole, tmp_path / "whole")
        ended(make(), tmp_path / "cut", before=before)
        start, _, got = toys.go_on(resumed, tmp_path / "cut")
        assert toys.timeless(got) == toys.timeless(rows)
        assert torch.equal(toys.weights(resumed.parts.policy), toys.weights(whole.parts.policy))
        return start, got, whole

    return check


def test_a_rollout_batch_in_use_is_gone_on_with_and_not_sampled_again(
    grpo, watched, resumes_exactly, tmp_path
):
    # The 7th of 3 steps of 4 updates: the third of step 2.
    start, _, _ = resumes_exactly(grpo, 7, grpo(backend=watched))
    assert (start.mark.step, start.mark.part) == (1, 4)  # batch, its log πref, and two updates
    sampled = [version for what, version in watched.calls if what == "generate"]
    assert sampled == [8]  # step 3 alone, by the weights of 8 updates
    for file in ("rollouts/step_000003.jsonl", "final/model.safetensors"):
        assert (tmp_path / "cut" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


@pytest.mark.parametrize("before", [1, 2, 3])
def test_the_reference_of_dpo_stays_the_starting_policy(dpo, resumes_exactly, before):
    start, got, _ = resumes_exactly(dpo, before)
    assert start.mark.step == before - 1
    assert got[-1]["eval/margin"] > 0  # under a reference of the resumed weights it would be 0


@pytest.mark.parametrize("before", [1, 2, 3])
def test_a_resumed_dpo_asks_its_reference_nothing(dpo, toys, ended, tmp_path, before):
    """Its log-probs come back from the checkpoint: the model of the reference is never loaded."""

    class Gone:
        name = "gone"

        @property
        def model(self):
            raise AssertionError("the reference was asked again")

        tokenizer = eos_ids = pad_id = max_length = model

    rows = toys.carry_out(dpo(reference=toys.policy()), tmp_path / "whole")
    ended(dpo(reference=toys.policy()), tmp_path / "cut", before=before)
    _, _, got = toys.go_on(dpo(reference=Gone()), tmp_path / "cut")
    assert toys.timeless(got) == toys.timeless(rows)


def test_an_end_before_anything_is_saved_begins_anew(grpo, toys, tmp_path):
    rows = toys.carry_out(grpo(), tmp_path / "whole")
    (tmp_path / "cut").mkdir()
    run = Run(tmp_path / "cut", {})
    run.log(0, {"x": 1.0})
    run.close("failed")
    start, _, got = toys.go_on(grpo(), tmp_path / "cut")
    assert start.checkpoint is None
    assert toys.timeless(got) == toys.timeless(rows)


def test_a_run_ended_after_its_last_step_still_returns_its_metrics(sft, toys, tmp_path):
    toys.carry_out(sft(checkpoint=CheckpointPlan(every=4)), tmp_path / "run")
    (final,) = Store(tmp_path / "run/checkpoints").paths()
    assert final.name == "step_000004"
    resumed = sft()
    _, result, rows = toys.go_on(resumed, tmp_path / "run")
    assert len(rows) == 5  # row 0 and the four steps, none twice
    assert result["train/loss"] == rows[-1]["train/loss"]
    assert (tmp_path / "run/final/model.safetensors").is_file()


def test_the_best_by_its_evaluation_is_kept_with_a_model_to_load(sft, toys, tmp_path):
    from transformers import AutoModelForCausalLM

    scores = iter([0.2, 0.9, 0.4, 0.1, 0.3])

    def judge(responses, examples):
        from alignkit.protocols import Reward

        score = next(scores)
        return [Reward(score, {"format": 1.0, "answer": score}) for _ in responses]

    plan = CheckpointPlan(every=0, keep_last=1, keep_best=1)
    evaluated = EvalPlan({"": EvalSet(data=toys.questions(2))}, every=1)
    subject = sft(checkpoint=plan, plan=evaluated, reward=judge, backend=toys.backend())
    rows = toys.carry_out(subject, tmp_path)
    assert [row["eval/answer_reward"] for row in rows] == [0.2, 0.9, 0.4, 0.1, 0.3]
    (best,) = Store(tmp_path / "checkpoints").paths()
    assert best.name == "step_000001"
    AutoModelForCausalLM.from_pretrained(best / "model")


def test_models_stay_at_the_steps_asked_for_also_when_resumed(sft, toys, tmp_path):
    from transformers import AutoModelForCausalLM

    def make():
        plan = CheckpointPlan(every=1, keep_last=1, keep_every=2)
        return sft(checkpoint=plan)

    toys.carry_out(make(), tmp_path / "whole")
    toys.end_after(3, make(), tmp_path / "cut")
    models = {
        name: sorted(p.name for p in (tmp_path / name / "models").iterdir())
        for name in ("whole", "cut")
    }
    assert models == {"whole": ["step_000002", "step_000004"], "cut": ["step_000002"]}
    toys.go_on(make(), tmp_path / "cut")
    for step in models["whole"]:
        found = [
            AutoModelForCausalLM.from_pretrained(tmp_path / name / "models" / step).state_dict()
            for name in ("whole", "cut")
        ]
        assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
    final = AutoModelForCausalLM.from_pretrained(tmp_path / "whole" / "final").state_dict()
    same = [torch.equal(final[name], found[0][name]) for name in final]
    assert all(same)  # step 4 is the last
    first = AutoModelForCausalLM.from_pretrained(tmp_path / "whole/models/step_000002")
    assert not all(torch.equal(final[name], x) for name, x in first.state_dict().items())


@pytest.mark.parametrize("implementation", ["fused", "foreach", "8bit", "offload"])
def test_every_optimizer_goes_on_exactly(sft, toys, resumes_exactly, implementation):
    if implementation == "8bit":
        pytest.importorskip("bitsandbytes")
    resumes_exactly(lambda: sft(optimizer=toys.adamw(implementation=implementation)), 3)


def test_adapters_go_on_exactly_and_are_all_that_is_saved(dpo, toys, resumes_exactly):
    pytest.importorskip("peft")
    from alignkit_hf import HfPolicy, Lora

    def make():
        lora = Lora(rank=2, target="all-linear").build()
        return dpo(policy=HfPolicy(path=str(toys.folder)).build(lora=lora))

    start, _, whole = resumes_exactly(make, 3)
    adapters = sum(p.numel() for p in whole.parts.policy.model.parameters() if p.requires_grad)
    size = (start.checkpoint / "tensors.safetensors").stat().st_size
    assert size < 12 * adapters + 20_000  # float32 weights and two moments, generators, header


def test_what_a_component_remembers_is_remembered(grpo, toys, ended, tmp_path):
    rows = toys.carry_out(grpo(advantage=toys.Rising()), tmp_path / "whole")
    ended(grpo(advantage=toys.Rising()), tmp_path / "cut", before=6)
    advantage = toys.Rising()
    _, _, got = toys.go_on(grpo(advantage=advantage), tmp_path / "cut")
    assert toys.timeless(got) == toys.timeless(rows)
    assert advantage.count == 24
