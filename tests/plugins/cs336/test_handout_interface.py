"""The assignment's functions: names, keywords, and hand-worked numbers."""

import gzip
import inspect
import json
import math
import types

import pytest
import torch

import alignkit_cs336 as cs336
from alignkit import AlignkitError


@pytest.fixture(scope="module")
def model(tiny_folder):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float64)


@pytest.fixture(scope="module")
def tokenizer(tiny_folder):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_folder)


def f64(values):
    return torch.tensor(values, dtype=torch.float64)


def close(got, want, atol=1e-12):
    torch.testing.assert_close(got, f64(want), rtol=0, atol=atol)


SIGNATURES = {
    "tokenize_prompt_and_output": "prompt_strs output_strs tokenizer",
    "compute_entropy": "logits",
    "get_response_log_probs": "model input_ids labels return_token_entropy=False",
    "masked_normalize": "tensor mask dim=None normalize_constant=1.0",
    "masked_mean": "tensor mask dim=None",
    "sft_microbatch_train_step": "policy_log_probs response_mask gradient_accumulation_steps "
    "normalize_constant=1.0",
    "compute_group_normalized_rewards": "reward_fn rollout_responses repeated_ground_truths "
    "group_size advantage_eps normalize_by_std",
    "compute_naive_policy_gradient_loss": "raw_rewards_or_advantages policy_log_probs",
    "compute_grpo_clip_loss": "advantages policy_log_probs old_log_probs cliprange",
    "grpo_microbatch_train_step": "policy_log_probs response_mask gradient_accumulation_steps "
    "loss_type raw_rewards=None advantages=None old_log_probs=None cliprange=None",
    "get_packed_sft_dataset": "tokenizer dataset_path seq_length shuffle",
    "iterate_batches": "dataset batch_size shuffle",
    "parse_mmlu_response": "mmlu_example model_output",
    "parse_gsm8k_response": "model_output",
    "compute_per_instance_dpo_loss": "lm lm_ref tokenizer beta prompt response_chosen "
    "response_rejected",
    "r1_zero_reward_fn": "response ground_truth",
    "question_only_reward_fn": "response ground_truth",
    "init_vllm": "model_id device seed gpu_memory_utilization=0.85",
    "load_policy_into_vllm_instance": "policy llm",
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_names_and_keywords(name):
    parameters = inspect.signature(getattr(cs336, name)).parameters.values()
    shown = [p.name if p.default is p.empty else f"{p.name}={p.default}" for p in parameters]
    assert shown == SIGNATURES[name].split()


def test_longer_interfaces_begin_with_the_handouts():
    starts = {
        "compute_policy_gradient_loss": "policy_log_probs loss_type raw_rewards advantages "
        "old_log_probs cliprange",
        "evaluate_vllm": "vllm_model reward_fn prompts eval_sampling_params",
    }
    for name, wanted in starts.items():
        names = list(inspect.signature(getattr(cs336, name)).parameters)
        assert names[: len(wanted.split())] == wanted.split()


# ---------------------------------------------------------------- tokens and scores


def test_tokenize_with_a_real_tokenizer(tokenizer):
    got = cs336.tokenize_prompt_and_output(
        prompt_strs=["Q: ", "Q"], output_strs=["ab", "<answer>"], tokenizer=tokenizer
    )
    pad = tokenizer.pad_token_id
    q, colon, space, a, b, tag = tokenizer.convert_tokens_to_ids(
        ["Q", ":", "Ġ", "a", "b", "<answer>"]
    )
    assert got["input_ids"].tolist() == [[q, colon, space, a], [q, tag, pad, pad]]
    assert got["labels"].tolist() == [[colon, space, a, b], [tag, pad, pad, pad]]
    assert got["response_mask"].int().tolist() == [[0, 0, 1, 1], [1, 0, 0, 0]]


def test_an_empty_output_has_an_empty_mask(tokenizer):
    got = cs336.tokenize_prompt_and_output(["ab", "a"], ["", "b"], tokenizer)
    assert got["response_mask"].int().tolist() == [[0], [1]]


def test_entropy_by_hand():
    # (1/4, 3/4): ln 4 - 3/4 ln 3; uniform over 2 and over 3.
    logits = f64([[[0, math.log(3), -math.inf], [5, 5, -math.inf], [1e6, 1e6, 1e6]]])
    got = cs336.compute_entropy(logits)
    close(got, [[math.log(4) - 0.75 * math.log(3), math.log(2), math.log(3)]])


def test_response_log_probs_equal_full_log_softmax(model):
    ids = torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])
    labels = ids.roll(-1, dims=1)
    full = torch.log_softmax(model(input_ids=ids).logits, -1)
    got = cs336.get_response_log_probs(model, ids, labels, return_token_entropy=True)
    assert set(got) == {"log_probs", "token_entropy"}
    want = full.gather(-1, labels[..., None])[..., 0]
    torch.testing.assert_close(got["log_probs"], want, rtol=0, atol=1e-10)
    entropy = -(full.exp() * full).sum(-1)
    torch.testing.assert_close(got["token_entropy"], entropy, rtol=0, atol=1e-10)
    assert got["log_probs"].requires_grad
    assert set(cs336.get_response_log_probs(model, ids, labels)) == {"log_probs"}


def test_response_log_probs_of_any_module_with_logits():
    class Bigram(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Embedding(5, 5)

        def forward(self, input_ids, **_):
            return type("Output", (), {"logits": self.table(input_ids)})

    bigram, ids = Bigram(), torch.tensor([[1, 2, 3]])
    got = cs336.get_response_log_probs(bigram, ids, ids)["log_probs"]
    want = torch.log_softmax(bigram.table.weight, -1)[[1, 2, 3], [1, 2, 3]][None]
    torch.testing.assert_close(got, want)


# ---------------------------------------------------------------- masked sums

TENSOR = f64([[1, 2, 30], [4, 50, 60]])
MASK = torch.tensor([[1, 1, 0], [1, 0, 0]])


def test_masked_mean_by_hand():
    close(cs336.masked_mean(TENSOR, MASK, dim=1), [1.5, 4])
    close(cs336.masked_mean(TENSOR, MASK, dim=0)[:2], [2.5, 2])
    close(cs336.masked_mean(TENSOR, MASK), 7 / 3)
    assert cs336.masked_mean(TENSOR, MASK, dim=0)[2].isnan()
    assert cs336.masked_mean(TENSOR, torch.zeros_like(MASK)).isnan()


def test_masked_normalize_by_hand():
    close(cs336.masked_normalize(TENSOR, MASK, dim=1, normalize_constant=2.0), [1.5, 2])
    close(cs336.masked_normalize(TENSOR, MASK, dim=0), [5, 2, 0])
    close(cs336.masked_normalize(TENSOR, MASK.bool(), normalize_constant=7), 1)


@pytest.mark.parametrize("function", [cs336.masked_mean, cs336.masked_normalize])
def test_masked_values_do_not_leak(function):
    dirty = torch.where(MASK.bool(), TENSOR, math.nan)
    assert function(dirty, MASK, dim=1).isfinite().all()


def test_the_worked_example_of_the_handout():
    """Ratio 1, advantage 2, responses of 4 and 7 tokens, at most 7."""
    mask = torch.arange(7) < torch.tensor([[4], [7]])
    for function, values, gradients in (
        (cs336.masked_mean, [2, 2], [0.25, 1 / 7]),
        (
            lambda x, m, dim: cs336.masked_normalize(x, m, dim, normalize_constant=7.0),
            [8 / 7, 2],
            [1 / 7, 1 / 7],
        ),
    ):
        ratio = torch.ones(2, 7, dtype=torch.float64, requires_grad=True)
        per_row = function(ratio * 2, mask, dim=1)
        close(per_row.detach(), values)
        per_row.mean().backward()
        close(ratio.grad[:, 0], gradients)
        assert not ratio.grad[0, 4:].any()


# ---------------------------------------------------------------- steps

LOG_PROBS = f64([[-1, -2, -3], [-4, -5, -6]])


def test_sft_step_by_hand():
    log_probs = LOG_PROBS.clone().requires_grad_()
    loss, _ = cs336.sft_microbatch_train_step(
        policy_log_probs=log_probs,
        response_mask=MASK,
        gradient_accumulation_steps=2,
        normalize_constant=10.0,
    )
    # ((1 + 2) / 10 + 4 / 10) / 2 rows / 2 steps. Without the mean over rows: 0.35.
    assert loss.item() == pytest.approx(0.175, abs=1e-12)
    close(log_probs.grad, [[-1 / 40, -1 / 40, 0], [-1 / 40, 0, 0]])


def test_gradients_of_micro_batches_add_up():
    whole, parts = (LOG_PROBS.clone().requires_grad_() for _ in range(2))
    cs336.sft_microbatch_train_step(whole, MASK, 1, 3.0)
    for i in range(2):
        cs336.sft_microbatch_train_step(parts[i : i + 1], MASK[i : i + 1], 2, 3.0)
    close(parts.grad, whole.grad.tolist())


def reward(response, truth):
    return {"reward": float(response == truth), "format_reward": 1.0, "answer_reward": 0.5}


def test_group_means_without_std():
    got, raw, metadata = cs336.compute_group_normalized_rewards(
        reward, ["a", "b", "b", "b"], ["a", "b", "c", "c"], 2, 1e-6, normalize_by_std=False
    )
    assert raw.tolist() == [1, 1, 0, 0]
    assert got.tolist() == [0, 0, 0, 0]
    got, _, metadata = cs336.compute_group_normalized_rewards(
        reward, ["a", "b", "c", "c"], ["a", "c", "c", "c"], 2, 1e-6, normalize_by_std=False
    )
    assert got.tolist() == [0.5, -0.5, 0, 0]
    assert metadata["mean_reward"] == 0.75
    assert metadata["mean_format_reward"] == 1
    assert metadata["signal"] == 0.5


def test_one_response_a_group_is_an_error():
    for by_std in (True, False):
        with pytest.raises(ValueError, match="at least 2"):
            cs336.compute_group_normalized_rewards(reward, ["a"], ["a"], 1, 1e-6, by_std)


def test_more_responses_than_truths_is_an_error():
    with pytest.raises(ValueError, match="zip"):
        cs336.compute_group_normalized_rewards(reward, ["a", "a"], ["a"], 2, 1e-6, True)


OLD = LOG_PROBS - f64([[math.log(1.5), 0, math.log(0.5)]])
ADVANTAGES = f64([[2], [-1]])


@pytest.mark.parametrize(
    ("loss_type", "want"),
    [
        ("no_baseline", [[3, 6, 9], [28, 35, 42]]),  # rewards 3 and 7
        ("reinforce_with_baseline", [[2, 4, 6], [-4, -5, -6]]),
        ("grpo_clip", [[-2.4, -2, -1], [1.5, 1, 0.8]]),
        ("grpo_no_clip", [[-3, -2, -1], [1.5, 1, 0.5]]),
        ("no_clip", [[-3, -2, -1], [1.5, 1, 0.5]]),  # a registered name
        # Mean log ratio ln(0.75) / 3: s = 0.908560; 2 * 0.908560, and 0.95 * -1 is the smaller.
        ("gspo", [[-2 * 0.75 ** (1 / 3)] * 3, [0.95] * 3]),
    ],
)
def test_policy_gradient_losses_by_hand(loss_type, want):
    got, metadata = cs336.compute_policy_gradient_loss(
        policy_log_probs=LOG_PROBS,
        loss_type=loss_type,
        raw_rewards=f64([[3], [7]]),
        advantages=ADVANTAGES,
        old_log_probs=OLD,
        cliprange=0.05 if loss_type == "gspo" else 0.2,
    )
    close(got, want)
    assert ("clip_fraction" in metadata) is (loss_type in ("grpo_clip", "gspo"))


def test_single_losses_by_hand():
    close(
        cs336.compute_naive_policy_gradient_loss(ADVANTAGES, LOG_PROBS), [[2, 4, 6], [-4, -5, -6]]
    )
    got, metadata = cs336.compute_grpo_clip_loss(ADVANTAGES, LOG_PROBS, OLD, 0.2)
    close(got, [[-2.4, -2, -1], [1.5, 1, 0.8]])
    close(metadata["clip_fraction"], [[1, 0, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss_type": "no_baseline", "advantages": ADVANTAGES}, "needs raw_rewards"),
        ({"loss_type": "grpo_clip", "raw_rewards": ADVANTAGES}, "needs advantages"),
        ({"loss_type": "grpo_clip", "advantages": ADVANTAGES}, "needs cliprange"),
        (
            {"loss_type": "grpo_clip", "advantages": ADVANTAGES, "cliprange": 0.2},
            "needs old_log_probs",
        ),
    ],
)
def test_what_a_loss_lacks_is_named(given, message):
    with pytest.raises(ValueError, match=message):
        cs336.compute_policy_gradient_loss(LOG_PROBS, **given)


def test_an_unknown_loss_is_named_with_a_guess():
    with pytest.raises(LookupError, match="Did you mean 'grpo_clip'"):
        cs336.compute_policy_gradient_loss(LOG_PROBS, "grpo_clp", advantages=ADVANTAGES)


# ---------------------------------------------------------------- packed data


@pytest.fixture
def rows_file(tmp_path):
    rows = [{"prompt": f"p{i} {{x}}", "response": f"r{i}\n"} for i in range(3)]
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    return path


DOCUMENT = (
    "Below is an instruction that describes a task. Write a response that appropriately "
    "completes the request.\n\n### Instruction:\np0 {{x}}\n\n### Response:\nr0\n"
).replace("{{x}}", "{x}")


def unpacked(items):
    return torch.cat([items[0]["input_ids"][:1], *(item["labels"] for item in items)]).tolist()


def test_documents_in_the_alpaca_template(tokenizer, rows_file):
    items = cs336.get_packed_sft_dataset(tokenizer, rows_file, 7, shuffle=False)
    ids = unpacked(items)
    end = ids.index(tokenizer.eos_token_id)
    assert tokenizer.decode(ids[:end]) == DOCUMENT
    assert tokenizer.decode(ids[end + 1 :]).startswith("Below is an instruction")
    assert ids.count(tokenizer.eos_token_id) >= 2
    assert all(item["input_ids"].shape == item["labels"].shape == (7,) for item in items)


def test_gz_is_read_too(tokenizer, rows_file, tmp_path):
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(rows_file.read_bytes()))
    a, b = (cs336.get_packed_sft_dataset(tokenizer, p, 7, False) for p in (rows_file, packed))
    assert unpacked(a) == unpacked(b)


def test_shuffle_moves_whole_documents(tokenizer, rows_file):
    first = set()
    for seed in range(8):
        torch.manual_seed(seed)
        items = cs336.get_packed_sft_dataset(tokenizer, rows_file, 7, shuffle=True)
        text = tokenizer.decode(unpacked(items))
        assert text.startswith("Below")
        first.add(text[text.index("### Instruction:\n") + 17 :][:2])
    assert first == {"p0", "p1", "p2"}


def test_past_the_end_is_an_index_error(tokenizer, rows_file):
    items = cs336.get_packed_sft_dataset(tokenizer, rows_file, 7, False)
    with pytest.raises(IndexError):
        items[len(items)]
    assert torch.equal(items[-1]["labels"], items[len(items) - 1]["labels"])


def test_a_row_without_a_response_is_named_by_line(tokenizer, tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"prompt": "a", "response": "b"}\n{"prompt": "a"}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl:2: a row needs"):
        cs336.get_packed_sft_dataset(tokenizer, path, 7, False)


def test_batches_of_one_epoch(tokenizer, rows_file):
    items = cs336.get_packed_sft_dataset(tokenizer, rows_file, 20, False)
    batches = cs336.iterate_batches(dataset=items, batch_size=4, shuffle=False)
    sizes = [len(batch["input_ids"]) for batch in batches]
    assert len(batches) == len(sizes) == -(-len(items) // 4)
    assert sum(sizes) == len(items)
    assert len(items) % 4  # so the last batch is a partial one
    torch.manual_seed(0)
    shuffled = torch.cat([b["labels"] for b in cs336.iterate_batches(items, 4, shuffle=True)])
    plain = torch.stack([item["labels"] for item in items])
    assert not torch.equal(shuffled, plain)
    assert sorted(shuffled.tolist()) == sorted(plain.tolist())


# ---------------------------------------------------------------- preference


def test_dpo_loss_by_the_long_way(model, tokenizer):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(1)
    reference = AutoModelForCausalLM.from_config(model.config).double()

    def sequence(lm, response):
        text = DOCUMENT.replace("p0 {x}", "Hi").replace("r0\n", response)
        ids = torch.tensor([[*tokenizer.encode(text), tokenizer.eos_token_id]])
        full = torch.log_softmax(lm(input_ids=ids).logits[0, :-1], -1)
        return full.gather(1, ids[0, 1:, None]).sum()

    def delta(response):
        return sequence(model, response) - sequence(reference, response)

    want = -torch.nn.functional.logsigmoid(0.5 * (delta("yes") - delta("nope")))
    got = cs336.compute_per_instance_dpo_loss(
        lm=model,
        lm_ref=reference,
        tokenizer=tokenizer,
        beta=0.5,
        prompt="Hi",
        response_chosen="yes",
        response_rejected="nope",
    )
    assert got.item() == pytest.approx(want.item(), abs=1e-10)
    model.zero_grad()
    got.backward()
    assert any(p.grad is not None and p.grad.any() for p in model.parameters())
    assert all(p.grad is None for p in reference.parameters())
    model.zero_grad()


def test_dpo_loss_against_itself_is_ln_2(model, tokenizer):
    loss = cs336.compute_per_instance_dpo_loss(model, model, tokenizer, 0.3, "a", "b", "c")
    assert loss.item() == pytest.approx(math.log(2), abs=1e-12)


# ---------------------------------------------------------------- parsing and rewards

MMLU = {
    "subject": "virology",
    "question": "How many are known?",
    "options": ["100", "1", "10", "unknown"],
    "answer": "A",
}


@pytest.mark.parametrize(
    ("output", "letter"),
    [
        ("The correct answer is B. There is only one.", "B"),
        ("The correct answer is 10000 of them.", None),  # begins with the option 10, and is not it
        ("The correct answer is 10.", "C"),
        ("The correct answer is 10.5.", None),
        ("The answer is (D)", "D"),
        ("**Answer:** C", "C"),
        ("Answer: **C**", "C"),
        ("answer is: unknown", "D"),
        ("B", "B"),
        ("C) ten", "C"),
        ("A virus is a thing. The correct answer is D.", "D"),
        ("A virus is a thing.", None),
        ("The correct answer is E.", None),
        ("I do not know.", None),
        ("", None),
        ("The answer is Because", None),
        ("The correct answer is A. Next question: the correct answer is B.", "A"),
    ],
)
def test_mmlu_letters(output, letter):
    assert cs336.parse_mmlu_response(mmlu_example=MMLU, model_output=output) == letter


def test_mmlu_wordings_that_begin_with_a_letter():
    cells = {"choices": ["T-cells", "Phagocytes", "B-cells", "A DNA virus"], "answer": "C"}
    assert cs336.parse_mmlu_response(cells, "The correct answer is B-cells.") == "C"
    assert cs336.parse_mmlu_response(cells, "The correct answer is A DNA virus.") == "D"
    assert cs336.parse_mmlu_response(cells, "The correct answer is B.") == "B"


def test_every_real_mmlu_option_is_read(shared_data):
    """By its letter always; by its wording unless two options read the same."""
    lines = (shared_data / "mmlu" / "test_25_per_subject.jsonl").read_text().splitlines()
    read = 0
    for row in map(json.loads, lines):
        for letter, wording in zip("ABCD", row["choices"], strict=True):
            said = f"The correct answer is {letter}. It is {wording}."
            assert cs336.parse_mmlu_response(row, said) == letter
            got = cs336.parse_mmlu_response(row, f"The correct answer is {wording}.")
            read += got == letter or row["choices"].count(wording) > 1
    assert read == 4 * len(lines)


def test_every_real_gsm8k_answer_is_read(shared_data):
    for line in (shared_data / "gsm8k" / "test.jsonl").read_text().splitlines():
        solution = json.loads(line)["answer"]
        gold = solution.rpartition("####")[2].strip().replace(",", "")
        assert cs336.parse_gsm8k_response(solution) == gold


@pytest.mark.parametrize(
    ("output", "number"),
    [
        ("She sold 48/2 = 24 clips. In all 48+24 = 72 clips.", "72"),
        ("It costs $1,234.50.", "1234.50"),
        ("from 5 to -3", "-3"),
        ("48-24", "24"),
        ("x - 24", "24"),
        ("(3)-7", "7"),
        ("It fell to −12.5 degrees", "-12.5"),
        ("1,2,3", "3"),
        ("1,000,000 people", "1000000"),
        ("12,34", "34"),
        ("a third is .33", ".33"),
        ("The answer is 7.", "7"),
        ("50%", "50"),
        ("none at all", None),
        ("", None),
    ],
)
def test_gsm8k_numbers(output, number):
    assert cs336.parse_gsm8k_response(model_output=output) == number


def test_rewards():
    right = "2 + 2 </think> <answer> 4 </answer>"
    assert cs336.r1_zero_reward_fn(response=right, ground_truth="4") == {
        "format_reward": 1.0,
        "answer_reward": 1.0,
        "reward": 1.0,
    }
    wrong = cs336.r1_zero_reward_fn(right, "5")
    assert (wrong["format_reward"], wrong["answer_reward"], wrong["reward"]) == (1, 0, 0)
    assert cs336.r1_zero_reward_fn("4", "4")["format_reward"] == 0
    assert cs336.r1_zero_reward_fn(right, ["5", "4"])["reward"] == 1
    assert cs336.r1_zero_reward_fn(right, 4)["reward"] == 1
    assert cs336.question_only_reward_fn(r"so \boxed{4}", "4")["reward"] == 1
    assert cs336.question_only_reward_fn("so 4", "4")["reward"] == 0


# ---------------------------------------------------------------- vLLM


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


def test_log_probs_of_a_module_that_is_not_of_transformers():
    """Whatever maps ids to an object with logits can be scored, as in a student's own tests."""

    class Bigram(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.table = torch.nn.Parameter(torch.tensor([[0.0, 0.0], [0.0, math.log(3.0)]]))

        def forward(self, input_ids):
            return types.SimpleNamespace(logits=self.table[input_ids])

    found = cs336.get_response_log_probs(
        Bigram(), torch.tensor([[0, 1]]), torch.tensor([[1, 0]]), return_token_entropy=True
    )
    # Row 0 is uniform over two: log 1/2. Row 1 has odds 1 to 3: log 1/4.
    torch.testing.assert_close(found["log_probs"], torch.tensor([[math.log(0.5), math.log(0.25)]]))
    spread = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    torch.testing.assert_close(found["token_entropy"], torch.tensor([[math.log(2), spread]]))


def test_a_wide_cliprange_clips_nothing_from_above_or_below():
    ratio = torch.tensor([[0.01, 1.0, 9.0]])
    loss, metadata = cs336.compute_grpo_clip_loss(
        torch.tensor([[2.0]]), ratio.log(), torch.zeros(1, 3), cliprange=10.0
    )
    torch.testing.assert_close(loss, -2.0 * ratio)
    assert metadata["clip_fraction"].sum() == 0
