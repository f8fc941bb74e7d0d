"""init_vllm and load_policy_into_vllm_instance on a real vLLM, where one for CPUs is installed.

``tests/vllm_env.sh FOLDER`` makes the environment to run it in.
"""

from importlib.util import find_spec

import pytest
import torch

import alignkit_cs336 as cs336

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="written for vLLM's CPU build"),
    pytest.mark.filterwarnings("ignore"),  # vLLM's own
]

# The second is longer than a block of the engine's prefix cache (128 on CPUs): a cache that is kept
# over a change of weights shows.
PROMPTS = ([5, 6, 7], [5 + i % 80 for i in range(300)])


def largest_difference(llm, model):
    """Compare vLLM's log-probs of what it says with the model's."""
    from vllm import SamplingParams

    greedy = SamplingParams(temperature=0, max_tokens=8, logprobs=0)
    requests = llm.generate([{"prompt_token_ids": p} for p in PROMPTS], greedy, use_tqdm=False)
    worst = 0.0
    for prompt, request in zip(PROMPTS, requests, strict=True):
        output = request.outputs[0]
        ids = torch.tensor([[*prompt, *output.token_ids]])
        scores = torch.log_softmax(model(input_ids=ids).logits[0].float(), -1).detach()
        for place, token in enumerate(output.token_ids):
            ours = float(scores[len(prompt) - 1 + place, token])
            worst = max(worst, abs(ours - output.logprobs[place][token].logprob))
    return worst


def saved_model(tiny_folder, folder, **changes):
    """Save a model with heads of 32: vLLM's attention for CPUs refuses those of 8."""
    from transformers import AutoConfig, AutoTokenizer, Qwen2ForCausalLM

    config = AutoConfig.from_pretrained(tiny_folder)
    config.update({"hidden_size": 128, **changes})
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(config)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(folder)
    return model


@pytest.mark.parametrize("tied", [False, True])
def test_weights_reach_vllm(tiny_folder, tmp_path, tied):
    model = saved_model(tiny_folder, tmp_path, tie_word_embeddings=tied, initializer_range=0.3)
    llm = cs336.init_vllm(str(tmp_path), device="cpu", seed=0)
    assert largest_difference(llm, model) < 1e-4
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    assert largest_difference(llm, model) > 0.1  # old weights: the sync below has work to do
    cs336.load_policy_into_vllm_instance(policy=model, llm=llm)
    assert largest_difference(llm, model) < 1e-4


def test_evaluate_and_log_with_real_outputs(tiny_folder, tmp_path):
    from vllm import SamplingParams

    def judge(response, truth):
        return {"reward": 0.0, "format_reward": 0.0, "answer_reward": 0.0}

    model = saved_model(tiny_folder, tmp_path)
    llm = cs336.init_vllm(str(tmp_path), device="cpu", seed=0)
    params = SamplingParams(temperature=1.0, max_tokens=5, min_tokens=5)
    found = cs336.log_generations(llm, judge, ["a", "bc"], ["1", "2"], params, model=model)
    assert found["metrics"]["response_length"] == 5
    assert found["metrics"]["truncated"] == 1
    # A random model is nearly uniform over its vocabulary of 262.
    assert 5.3 < found["metrics"]["token_entropy"] < 5.57


def test_evaluate_vllm_judges_what_the_engine_says(tiny_folder, tmp_path):
    from vllm import SamplingParams

    saved_model(tiny_folder, tmp_path, initializer_range=0.3)
    llm = cs336.init_vllm(str(tmp_path), device="cpu", seed=0)
    prompts, greedy = ["one", "two", "three"], SamplingParams(temperature=0, max_tokens=8)
    said = [request.outputs[0] for request in llm.generate(prompts, greedy, use_tqdm=False)]

    def judge(response, truth):
        right = float(response == truth)
        return {"reward": right, "format_reward": 1.0, "answer_reward": right}

    truths = [said[0].text, "something else", said[2].text]
    found = cs336.evaluate_vllm(llm, judge, prompts, greedy, truths)
    assert [row["response"] for row in found["rows"]] == [output.text for output in said]
    assert found["metrics"]["answer_reward"] == pytest.approx(2 / 3)
    assert found["metrics"]["response_length"] == pytest.approx(
        sum(len(output.token_ids) for output in said) / 3
    )


def test_the_server_of_2026_samples_from_the_weights_it_was_synced_to(tiny_folder, tmp_path):
    """In a process of its own; greedily, so that its text can be compared with the model's."""
    from transformers import AutoTokenizer
    from vllm import SamplingParams

    from alignkit_cs336.spring2026 import VLLMServer, evaluate_vllm

    model = saved_model(tiny_folder, tmp_path, initializer_range=0.3)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    greedy = SamplingParams(temperature=0, max_tokens=6, min_tokens=6)

    def said():
        return server.generate_completions(["one", "two", "three"], greedy, batch_size=2)

    def wanted(prompt):
        ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
        how = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6}
        return tokenizer.decode(model.generate(ids, **how)[0, ids.shape[1] :])

    with VLLMServer(str(tmp_path), gpu=0, seed=0, gpu_memory_utilization=0.5) as server:
        before = said()
        assert before == [wanted(p) for p in ("one", "two", "three")]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.1 * torch.randn_like(parameter))
        server.init_weight_sync(model)
        assert said() == before
        server.sync_policy_weights()
        assert said() == [wanted(p) for p in ("one", "two", "three")] != before

        def judge(response, truth):
            right = float(response == truth)
            return {"reward": right, "format_reward": 1.0, "answer_reward": right}

        found = evaluate_vllm(server, judge, ["one", "two"], greedy, [wanted("one"), "no"])
        assert found["metrics"]["answer_reward"] == 0.5
