"""What the assignment does with a vLLM engine, on one that is made up."""

import json
from types import SimpleNamespace

import pytest
import torch

import alignkit_cs336 as cs336
from alignkit import AlignkitError


class Output:
    def __init__(self, text, token_ids, finish_reason="stop"):
        self.text, self.token_ids, self.finish_reason = text, token_ids, finish_reason


class Request:
    def __init__(self, prompt_token_ids, outputs):
        self.prompt_token_ids, self.outputs = prompt_token_ids, outputs


class FakeLlm:
    """Answers each prompt with its last character, at a length that says which it is."""

    def generate(self, prompts, sampling_params):
        assert sampling_params == "params"
        return [
            Request([5, 6], [Output(f"</think> <answer> {p[-1]} </answer>", list(range(7, 9 + i)))])
            for i, p in enumerate(prompts)
        ]


def test_evaluate_vllm(tmp_path):
    found = cs336.evaluate_vllm(
        vllm_model=FakeLlm(),
        reward_fn=cs336.r1_zero_reward_fn,
        prompts=["say 4", "say 5", "say 6"],
        eval_sampling_params="params",
        ground_truths=["4", "9", "6"],
        output_path=tmp_path / "out.jsonl",
    )
    metrics = found["metrics"]
    assert metrics["answer_reward"] == pytest.approx(2 / 3)
    assert (metrics["n_correct"], metrics["n_format_only"], metrics["n_neither"]) == (2, 1, 0)
    # Rewards 1 0 1: standard deviation (ddof 1) 0.57735 over the root of 3.
    assert metrics["answer_reward_se"] == pytest.approx(1 / 3)
    assert metrics["response_length"] == 3
    assert metrics["response_length_correct"] == 3  # 2 and 4
    assert metrics["response_length_incorrect"] == 3
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert lines[:3] == found["rows"]
    assert lines[3] == {"metrics": metrics}
    assert lines[1]["gold"] == "9"
    assert lines[1]["category"] == "format_only"


def test_evaluate_vllm_with_the_handouts_four_arguments():
    def judge(response, prompt):
        return {"reward": float(prompt[-1] in response), "format_reward": 1, "answer_reward": 1}

    found = cs336.evaluate_vllm(FakeLlm(), judge, ["say 4"], "params")
    assert found["metrics"]["reward"] == 1


def test_log_generations(model):
    said = []
    found = cs336.log_generations(
        FakeLlm(),
        cs336.r1_zero_reward_fn,
        ["say 4", "say 5"],
        ["4", "9"],
        "params",
        model=model,
        n_shown=1,
        say=said.append,
    )
    row = found["rows"][0]
    assert row["prompt"] == "say 4"
    assert row["response"] == "</think> <answer> 4 </answer>"
    assert row["gold"] == "4"
    assert (row["format_reward"], row["answer_reward"], row["reward"]) == (1, 1, 1)
    metrics = found["metrics"]
    assert metrics["response_length"] == 2.5
    assert metrics["response_length_correct"] == 2
    assert metrics["response_length_incorrect"] == 3
    entropies = []
    for ids in ([5, 6, 7, 8], [5, 6, 7, 8, 9]):
        full = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0], -1)
        entropies += (-(full.exp() * full).sum(-1))[1:-1].tolist()
    assert metrics["token_entropy"] == pytest.approx(sum(entropies) / 5, abs=1e-10)
    assert row["token_entropy"] == pytest.approx(sum(entropies[:2]) / 2, abs=1e-10)
    assert len(said) == 2  # the metrics and one row
    assert "say 4" in said[1]


@pytest.mark.parametrize(
    "call",
    [
        lambda: cs336.init_vllm("model", device="cuda:0", seed=0),
        lambda: cs336.load_policy_into_vllm_instance(policy=None, llm=None),
    ],
)
def test_without_vllm_the_remedy_is_named(call, monkeypatch):
    monkeypatch.setattr("alignkit_cs336.vllm_helpers.find_spec", lambda name: None)
    with pytest.raises(AlignkitError, match=r"needs vLLM.*pip install 'alignkit\[vllm\]'"):
        call()


def test_a_compiled_policys_weights_keep_their_names(model, monkeypatch):
    """torch.compile puts ``_orig_mod.`` before them, which vLLM would not find."""
    taken = {}

    def reload_weights(weights_iterator):
        taken.update(weights_iterator)

    runner = SimpleNamespace(model=torch.nn.Linear(1, 1), reload_weights=reload_weights)
    runner.model.config = None
    worker = SimpleNamespace(driver_worker=SimpleNamespace(worker=SimpleNamespace()))
    worker.driver_worker.worker.model_runner = runner
    llm = SimpleNamespace(
        llm_engine=SimpleNamespace(model_executor=worker), reset_prefix_cache=lambda: True
    )
    monkeypatch.setattr("alignkit_cs336.vllm_helpers.find_spec", lambda name: "there")
    compiled = torch.nn.Module()
    compiled._orig_mod = model  # what torch.compile makes of it
    assert all(name.startswith("_orig_mod.") for name in compiled.state_dict())
    cs336.load_policy_into_vllm_instance(compiled, llm)
    assert taken.keys() == model.state_dict().keys()
