"""The built-ins pass the same checks as anybody's plugin."""

import atexit
import json
from contextlib import ExitStack
from functools import cache

from alignkit.protocols import Completion, Example, Response
from alignkit.testing import conformance, tiny_model, tiny_rows
from alignkit_testing.standins import _folder
from judging_server import said, serving

EVAL = {"n": 4, "data": {"use": "data/jsonl", "path": tiny_rows()}}
JUDGED = {"prompt": {"use": "prompts/question_only"}, "reward": {"use": "testing/vowels"}}
ROLLOUT = {"use": "hf/hf", "max_tokens": 8}
SMALL = {"n_steps": 2, "rollout_batch_size": 8, "train_batch_size": 4, "group_size": 4}


def file(name, *rows):
    """Return a new file with a JSON object or a text a line."""
    path = _folder("conformance") / name
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


GSM8K = file(
    "gsm8k.jsonl",
    {"question": "Half of 48?", "answer": "It is <<48/2=24>>24.\n#### 24"},
    {"question": "1,000 + 1?", "answer": "One more.\n#### 1,001"},
)
MATH = file(
    "math.jsonl",
    {"problem": "Simplify $2/4$.", "answer": "\\frac{1}{2}", "solution": "\\boxed{\\frac{1}{2}}"},
    {"problem": "Solve $x+1=3$.", "solution": "So $x=2$: \\boxed{2}."},
)
MMLU = file(
    "mmlu.jsonl",
    {"question": "1 + 1?", "choices": ["1", "2", "3", "4"], "answer": "B", "subject": "sums"},
    {"question": "Ice is", "choices": ["hot", "cold", "dry", "red"], "answer": 1, "subject": "ice"},
)


@cache
def endpoint():
    """Serve a judge that scores a prompt by its length, as long as the tests go on."""
    stack = ExitStack()
    atexit.register(stack.close)
    scored = lambda server, text, number: said(f"Score: {len(text) % 11}")  # noqa: E731
    return stack.enter_context(serving(scored)).url


HH = file(
    "hh.jsonl",
    *(
        {
            "chosen": f"\n\nHuman: What is {n} + 1?\n\nAssistant: {n + 1}",
            "rejected": f"\n\nHuman: What is {n} + 1?\n\nAssistant: No idea.",
        }
        for n in range(3)
    ),
)
TEMPLATE = file("template.txt", "Question: {question}", "Answer:")

PAIRS = file(
    "pairs.jsonl",
    *({"question": f"{n}+1=", "answer": str(n + 1), "rejected": "no"} for n in range(4)),
)
CHATS = file(
    "chats.jsonl",
    {"messages": [{"role": "user", "content": "1+1="}, {"role": "assistant", "content": "2"}]},
    {"conversations": [{"from": "human", "value": "1+2="}, {"from": "gpt", "value": "3"}]},
    {"prompt": "1+3=", "chosen": "4", "rejected": "5"},
)
SCRIPT = file(
    "rule.py",
    "def reward(response, example):",
    "    return any(answer in response for answer in example.answers)",
)
CHOICE = Example("choice", "1 + 1?", "B", {"choices": ["1", "2", "3", "4"]})
CUT = [
    Response.of(
        Completion(text=f"{n}", token_ids=(n,), logprobs=(0.0,), finish_reason=r, weight_version=0)
    )
    for n, r in enumerate(["stop", "length", "stop"])
]
SUM = Example("sum", "What is 1 + 1?", "2")

test_advantages = conformance(
    "advantages",
    waive={"advantage/batch_std/keeps_groups_independent": "one deviation for the whole batch"},
)
test_losses = conformance("losses")
test_normalizers = conformance("normalizers")
test_optimizers = conformance("optimizers")
test_rewards = conformance(
    "rewards",
    params={
        "reward_fn/judge": {
            "url": endpoint(),
            "model": "m",
            "prompt": file("judge.txt", "{question} {response}"),
        },
        "reward_fn/length_penalty": {"free": 1, "span": 4},
        "reward_fn/overlong_shaping": {"max_length": 5, "cache": 4},
        "reward_fn/python": {"file": SCRIPT},
    },
    responses={
        "reward_fn/multiple_choice": [(text, CHOICE) for text in ("B", "C", "Neither.")],
        "reward_fn/refusal": [(text, SUM) for text in ("I cannot do that.", "Sure.", "I won't.")],
        "reward_fn/finished": [(response, SUM) for response in CUT],
        "reward_fn/repetition_penalty": [("a b c d " * n, SUM) for n in range(5)],
    },
)
test_prompts = conformance("prompts", params={"prompt_template/file": {"path": TEMPLATE}})
test_data = conformance(
    "data",
    params={
        "dataset/jsonl": {"path": tiny_rows()},
        "dataset/chat": {"path": CHATS},
        "dataset/gsm8k": {"path": GSM8K},
        "dataset/math": {"path": MATH},
        "dataset/hh": {"path": HH},
        "dataset/mmlu": {"path": MMLU},
    },
)
test_data_in_order = conformance(
    "data",
    params={
        "dataset/jsonl": {"path": tiny_rows(), "order": "given"},
        "dataset/chat": {"path": CHATS},
        "dataset/gsm8k": {"path": GSM8K, "order": "given"},
        "dataset/math": {"path": MATH, "order": "given"},
        "dataset/hh": {"path": HH},
        "dataset/mmlu": {"path": MMLU},
    },
)
test_trackers = conformance(
    "trackers", params={"tracker/jsonl": {"path": file("metrics_of_all_runs.jsonl")}}
)
test_hf = conformance("hf", params={"policy/hf": {"path": tiny_model()}})
test_algorithms = conformance(
    "algorithms",
    waive={"preference_loss/kto/keeps_pairs_independent": "reference point of the whole batch"},
    params={
        "algorithm/evaluate": {**JUDGED, **EVAL},
        "algorithm/generate": {
            "batch_size": 2,
            **JUDGED,
            "policy": {"use": "hf/hf", "path": tiny_model()},
            "rollout": ROLLOUT,
        },
        "algorithm/sft": {"train_batch_size": 4, **JUDGED, "rollout": ROLLOUT, "eval": EVAL},
        "algorithm/expert_iteration": {**SMALL, "min_reward": 0.1, "eval": EVAL},
        "algorithm/grpo": {**SMALL, "eval": EVAL},
        "algorithm/distill": {**SMALL, "eval": EVAL},
        "algorithm/dpo": {
            "train_batch_size": 2,
            "data": {"use": "data/jsonl", "path": PAIRS},
            "validation": {"use": "data/jsonl", "path": PAIRS},
        },
    },
)
test_doctor = conformance("doctor")
TESTED = Example("one", "Set x to 1.", "", {"tests": "assert x == 1"})
test_environments = conformance(
    "environments",
    responses={"reward_fn/code": [(f"```\nx = {n}\n```", TESTED) for n in range(3)]},
)
test_explain = conformance("explain")
test_grading = conformance("grading")
test_launch = conformance("launch")
test_report = conformance("report")
test_scaffold = conformance("scaffold")
test_sweep = conformance("sweep")
