"""The supplement's functions: packed instruction data, preference pairs, answers read from text."""

import gzip
import json
import math

import pytest
import torch

import alignkit_cs336 as cs336

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


@pytest.mark.parametrize("letter", "ABCD")
@pytest.mark.parametrize(
    "form",
    [
        r"\boxed{@}", r"\boxed{\text{@}}", r"\boxed{\textbf{(@)}}", r"$\boxed{\mathrm{@}}$",
        r"So \boxed{@}.", r"The answer is \boxed{@}.", r"\boxed{(@)}", r"\boxed{@.}",
        r"\boxed{@: its text}", r"The answer is not E, but \boxed{@}", "**@**", "(@)", "**(@)**",
        "The answer is **@**.", "The answer is (@).", "The answer is **(@)**", "Answer: $@$",
        r"The answer is \text{@}", "The answer is <b>@</b>", r"\boxed{@} that is \boxed{(@)}",
    ],
)  # fmt: skip
def test_mmlu_letters_in_boxes_and_bold(form, letter):
    row = {"choices": ["first thing", "second thing", "third thing", "last thing"]}
    assert cs336.parse_mmlu_response(row, form.replace("@", letter)) == letter


@pytest.mark.parametrize(
    "output",
    [
        r"\boxed{A} or \boxed{B}", r"\boxed{A or B}", r"\boxed{A, B}", r"\boxed{E}", r"\boxed{7}",
        r"\boxed{AB}", "The answer is A or B.", "The answer is (A) and (C)", "A/B",
        r"\boxed{(A) or (B)}",
    ],
)  # fmt: skip
def test_mmlu_several_letters_or_none_are_no_choice(output):
    row = {"choices": ["first thing", "second thing", "third thing", "last thing"]}
    assert cs336.parse_mmlu_response(row, output) is None


def test_mmlu_wording_in_a_box():
    row = {"choices": ["10", "12", "A DNA virus", "B"]}
    said = {r"\boxed{12}": "B", r"\boxed{\text{A DNA virus}}": "C", r"\boxed{1}": None}
    for output, letter in said.items():
        assert cs336.parse_mmlu_response(row, output) == letter


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
