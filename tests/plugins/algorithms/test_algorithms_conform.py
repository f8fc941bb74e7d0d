"""The built-in algorithms pass the checks that plugins run against themselves."""

import atexit
import json
import shutil
import tempfile
from pathlib import Path

from alignkit.testing import conformance, tiny_model


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

test_conforms = conformance(
    "algorithms",
    waive={"preference_loss/kto/keeps_pairs_independent": "reference point of the whole batch"},
    params={
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
        "algorithm/dpo": SUPERVISED | {"n_steps": 3, "reward": REWARD, "data": _preferences()},
    },
)
