"""The built-in algorithms pass the checks that plugins run against themselves."""

import atexit
import json
import shutil
import tempfile
from pathlib import Path

import pytest

from alignkit.testing import checks, conformance, tiny_model


def _preferences():
    """Write pairs to a file that lasts as long as the tests; return its table."""
    folder = Path(tempfile.mkdtemp(prefix="alignkit-pairs-"))
    atexit.register(shutil.rmtree, folder)
    path = folder / "pairs.jsonl"
    rows = [{"question": f"q{i}", "answer": "yes", "rejected": "no"} for i in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {"use": "data/jsonl", "path": str(path)}


ROLLOUT = {"use": "hf/hf", "max_tokens": 4}
EVAL = {"every": 1, "n": 3, "data": _preferences()}
SMALL = {"n_steps": 2, "rollout_batch_size": 8, "group_size": 4, "rollout": ROLLOUT, "eval": EVAL}
SUPERVISED = {"train_batch_size": 4, "rollout": ROLLOUT, "eval": EVAL}
REWARD = {"use": "rewards/r1_zero"}

PARAMS = {
    "algorithm/evaluate": {
        "data": _preferences(),
        "prompt": {"use": "prompts/question_only"},
        "reward": REWARD,
        "rollout": ROLLOUT,
    },
    "algorithm/generate": {
        "batch_size": 2,
        "samples": 2,
        "data": _preferences(),
        "policy": {"use": "hf/hf", "path": str(tiny_model())},
        "reward": REWARD,
        "rollout": ROLLOUT,
    },
    "algorithm/sft": SUPERVISED | {"reward": REWARD},
    "algorithm/expert_iteration": SMALL | {"train_batch_size": 4},
    "algorithm/grpo": SMALL | {"train_batch_size": 4, "reference": {"beta": 0.1}},
    "algorithm/distill": SMALL | {"train_batch_size": 4},
    "algorithm/dpo": SUPERVISED | {"n_steps": 3, "reward": REWARD, "data": _preferences()},
}

test_conforms = conformance(
    "algorithms",
    waive={"preference_loss/kto/keeps_pairs_independent": "reference point of the whole batch"},
    params=PARAMS,
)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["algorithm/dpo", "algorithm/grpo"])  # the others: tests/ranks
def test_two_processes_give_what_one_does(name):
    cases = checks("algorithms", PARAMS, ranks=2)
    (found,) = [case for case in cases if case.id == f"{name}/gives_the_same_on_ranks"]
    found.run()


def test_every_algorithm_is_tried_on_two_processes():
    found = {case.id for case in checks("algorithms", PARAMS, ranks=2)}
    tried = {name.rpartition("/")[0] for name in found if name.endswith("on_ranks")}
    assert tried == set(PARAMS)
