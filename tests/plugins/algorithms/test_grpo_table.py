"""The keys of GRPO: what is refused, and what a dry run says of them."""

from alignkit.component import slots_of
from alignkit.docs import field_docs
from alignkit.engine.learning.reference_table import ReferenceTable
from alignkit.kinds import KINDS
from alignkit_algorithms.grpo import Grpo


def test_batch_sizes_that_do_not_divide_are_named_with_a_remedy():
    keys = Grpo(rollout_batch_size=30, group_size=8, train_batch_size=20)
    assert dict(keys.check({})) == {
        "group_size": "group_size = 8 (responses per prompt) must divide rollout_batch_size = 30; "
        "for instance group_size = 6, or rollout_batch_size = 32",
        "train_batch_size": "train_batch_size = 20 (responses per optimizer step) must divide "
        "rollout_batch_size = 30; for instance train_batch_size = 15, or rollout_batch_size = 40",
    }
    assert not list(Grpo().check({}))


def test_a_train_batch_above_the_rollout_batch_is_refused():
    ((key, message),) = Grpo(rollout_batch_size=16, train_batch_size=32).check({})
    assert key == "train_batch_size"
    assert message.endswith("train_batch_size = 16, or rollout_batch_size = 32")


def test_greedy_rollouts_are_refused(toys):
    from alignkit_hf import HfRollout

    ((key, message),) = Grpo().check({"rollout": HfRollout(temperature=0.0)})
    assert key == "rollout.temperature"
    assert "nothing to learn from" in message


def test_refills_without_dropping_are_refused():
    ((key, _),) = Grpo(max_refills=2).check({})
    assert key == "max_refills"


def test_records_offered_to_losses():
    assert Grpo().provides({}) == {"old_logprobs", "rollout_logprobs"}
    with_reference = Grpo().provides({"reference": ReferenceTable()})
    assert with_reference == {"old_logprobs", "rollout_logprobs", "ref_logprobs"}


def test_facts_say_how_far_off_policy():
    from alignkit_hf import HfRollout

    keys = {"n_steps": 3, "rollout_batch_size": 16, "group_size": 4, "train_batch_size": 8}
    facts = Grpo(**keys, epochs_per_rollout_batch=2).facts({"rollout": HfRollout(max_tokens=10)})
    assert facts == {
        "rollout batch": "4 prompts × 4 responses = 16 responses",
        "optimizer steps per rollout batch": "4 of 8 responses",
        "optimizer steps in all": "12",
        "off-policy": "yes: the last update of a rollout batch is 3 updates behind",
        "response tokens per step, at most": "16 × 10 = 160",
        "response tokens in all, at most": "480",
    }
    assert Grpo().facts({})["off-policy"].startswith("no")


def test_tables_and_documentation():
    slots = slots_of(Grpo, KINDS)
    assert {n for n, s in slots.items() if not s.required} == {
        "environment",
        "reference",
        "eval",
        "checkpoint",
        "trackers",
        "watch",
    }
    assert all(field_docs(Grpo).values())
    assert all(field_docs(ReferenceTable).values())
