"""VLLMServer, with the backend that needs no vLLM in vLLM's place."""

import copy
from types import SimpleNamespace

import pytest
import torch

from alignkit import AlignkitError
from alignkit_cs336 import components, server
from alignkit_cs336.spring2026 import VLLMServer, evaluate_vllm

PROMPTS = ["1+1=", "Say something:", "?"]


def params(**changes):
    """What vLLM's SamplingParams say; top_k -1 is its word for all."""
    given = {"n": 1, "temperature": 1.0, "top_p": 1.0, "top_k": -1, "max_tokens": 6, "stop": None}
    return SimpleNamespace(**{**given, **changes})


GREEDY = params(temperature=0.0)


@pytest.fixture
def asked(monkeypatch):
    """Put the hf backend in place of vllm's; return what vllm's would have been built with."""
    found = {}

    def make(kind, name, **parameters):
        if name == "vllm/vllm":
            found.update(parameters)
            return components.make(kind, "hf/hf")
        return components.make(kind, name, **parameters)

    monkeypatch.setattr(server, "make", make)
    return found


@pytest.fixture
def running(asked, tiny_folder):
    with VLLMServer(str(tiny_folder), gpu=0, seed=3, gpu_memory_utilization=0.4) as found:
        yield found


def shaken(model, seed=1):
    """Return a copy of the model with other weights."""
    other = copy.deepcopy(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return other


def test_completions_come_in_order_whatever_the_batch_size(running):
    whole = running.generate_completions(PROMPTS, GREEDY)
    assert len(whole) == 3
    for size in (1, 2, 3):
        assert running.generate_completions(PROMPTS, GREEDY, batch_size=size) == whole
    alone = [running.generate_completions([p], GREEDY)[0] for p in PROMPTS]
    assert alone == whole


def test_several_completions_of_one_prompt_stand_together(running):
    found = running.generate_completions(PROMPTS, params(n=2, temperature=0.0))
    assert found[::2] == found[1::2] == running.generate_completions(PROMPTS, GREEDY)


def test_calls_draw_anew_and_servers_of_one_seed_alike(asked, tiny_folder):
    def two_calls(seed):
        with VLLMServer(str(tiny_folder), 0, seed, 0.5) as one:
            return [one.generate_completions(PROMPTS, params()) for _ in range(2)]

    first, second = two_calls(7)
    assert first != second
    assert two_calls(7) == [first, second]
    assert two_calls(8) != [first, second]


def test_a_parameters_seed_counts_before_the_servers(asked, tiny_folder):
    with VLLMServer(str(tiny_folder), 0, 1, 0.5) as a, VLLMServer(str(tiny_folder), 0, 2, 0.5) as b:
        seeded = params(seed=5)
        assert a.generate_completions(PROMPTS, seeded) == b.generate_completions(PROMPTS, seeded)


def test_lengths_and_stop_strings_are_kept_to(running):
    requests = running.generate(PROMPTS, params(max_tokens=3, min_tokens=3))
    assert [len(r.outputs[0].token_ids) for r in requests] == [3] * 3
    text = running.generate_completions(["abc"], GREEDY)[0]
    stop = text[0]
    assert running.generate_completions(["abc"], params(temperature=0.0, stop=stop)) == [stop]


@pytest.mark.parametrize("name", ["presence_penalty", "frequency_penalty", "repetition_penalty"])
def test_what_it_cannot_do_is_refused(running, name):
    with pytest.raises(AlignkitError, match=f"does not sample with {name}"):
        running.generate_completions(PROMPTS, params(**{name: 1.5}))


def test_weights_arrive_when_they_are_synced(running, asked, tiny_folder):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_folder)
    before = running.generate_completions(PROMPTS, GREEDY)
    trained, other = shaken(model), shaken(model, seed=2)
    running.init_weight_sync(trained)
    running.sync_policy_weights()
    after = running.generate_completions(PROMPTS, GREEDY)
    assert after != before
    running.sync_policy_weights(model)
    assert running.generate_completions(PROMPTS, GREEDY) == before
    running.sync_policy_weights(other)
    assert running.generate_completions(PROMPTS, GREEDY) not in (before, after)
    running.sync_policy_weights()  # what init_weight_sync said
    assert running.generate_completions(PROMPTS, GREEDY) == after


def test_a_policy_in_torch_compile_is_unwrapped(running, tiny_folder):
    from transformers import AutoModelForCausalLM

    model = shaken(AutoModelForCausalLM.from_pretrained(tiny_folder))
    running.sync_policy_weights(model)
    plain = running.generate_completions(PROMPTS, GREEDY)
    wrapped = torch.nn.Module()
    wrapped._orig_mod = model
    running.sync_policy_weights(wrapped)
    assert running.generate_completions(PROMPTS, GREEDY) == plain


def test_it_is_evaluated_like_vllm(running):
    def judge(response, truth):
        return {"reward": float(response == truth), "format_reward": 1.0, "answer_reward": 0.0}

    said = running.generate_completions(PROMPTS, GREEDY)
    found = evaluate_vllm(running, judge, PROMPTS, GREEDY, [said[0], "no", said[2]])
    assert found["metrics"]["reward"] == pytest.approx(2 / 3)
    assert [row["response"] for row in found["rows"]] == said


@pytest.mark.parametrize(
    ("current", "gpu", "want"),
    [
        (0, 1, {"mode": "device", "devices": ("1",)}),
        (1, 1, {"mode": "server"}),
        (None, 0, {"mode": "server"}),
    ],
    ids=["own GPU", "the policy's GPU", "no GPU"],
)
def test_where_the_engine_runs(monkeypatch, current, gpu, want):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: current is not None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current)
    placed = VLLMServer("model", gpu, 0, 0.4)._placed()
    assert placed == {**want, "gpu_memory_utilization": 0.4}
    components.schema("rollout_backend", "vllm/vllm")(**placed)


@pytest.mark.parametrize(
    "call",
    [
        lambda s: s.generate_completions(["a"], GREEDY, 1),
        lambda s: s.init_weight_sync(None),
        lambda s: s.sync_policy_weights(),
    ],
    ids=["generate", "init", "sync"],
)
def test_before_the_start_the_remedy_is_named(call):
    with pytest.raises(AlignkitError, match=r"call start\(\) first"):
        call(VLLMServer("model", 0, 0, 0.5))


def test_a_sync_without_a_policy_is_refused(running):
    with pytest.raises(AlignkitError, match="init_weight_sync"):
        running.sync_policy_weights()


def test_stop_ends_it_and_may_come_twice(running):
    running.stop()
    running.stop()
    with pytest.raises(AlignkitError, match=r"call start\(\)"):
        running.generate_completions(["a"], GREEDY, 1)
    running.start()
    assert len(running.generate_completions(["a"], GREEDY, 1)) == 1
