"""Packed rows: each trained token is trained once, in windows of the length asked for."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alignkit.engine.tokens import TrainRow
from alignkit.errors import AlignkitError
from alignkit.protocols import Example
from alignkit.testing import run_cli
from alignkit_algorithms.packing import on_all_tokens, windows
from alignkit_algorithms.sft import Sft

IDS = st.lists(st.integers(0, 99), min_size=1, max_size=9)
DOCUMENTS = st.lists(
    st.tuples(IDS, st.lists(st.tuples(st.integers(0, 99), st.booleans()), max_size=9)),
    min_size=1,
    max_size=6,
)


def document(prompt, response):
    ids, given_ = (tuple(x) for x in zip(*response, strict=True)) if response else ((), ())
    return TrainRow(tuple(prompt), ids, given=given_)


@given(DOCUMENTS, st.integers(1, 12))
def test_every_trained_token_is_in_one_window_after_what_precedes_it(drawn, length):
    documents = [document(*d) for d in drawn]
    stream = [i for d in documents for i in (*d.prompt_ids, *d.response_ids)]
    learned = [
        at
        for at, trained in enumerate(
            t for d in documents for t in (*[False] * len(d.prompt_ids), *[not g for g in d.given])
        )
        if trained
    ]
    cut = windows(documents, length)
    assert all(1 <= len(w.response_ids) <= length for w in cut)
    assert all(w.trained_ids for w in cut)
    assert [i for w in cut for i in w.trained_ids] == [stream[at] for at in learned]
    every = windows([on_all_tokens(TrainRow(tuple(stream), ()))], length)
    assert {(w.prompt_ids, w.response_ids) for w in cut} <= {
        (w.prompt_ids, w.response_ids) for w in every
    }
    assert [i for w in every for i in w.trained_ids] == stream[1:]


def test_windows_by_hand():
    """Documents 1 2 | 3 9 and 4 | 5 6 9; windows of 3 share their border token as input."""
    documents = [TrainRow((1, 2), (3, 9)), TrainRow((4,), (5, 6, 9))]
    found = windows(documents, 3)
    assert [(w.prompt_ids, w.response_ids, w.given) for w in found] == [
        ((1,), (2, 3, 9), (True, False, False)),
        ((9,), (4, 5, 6), (True, False, False)),
        ((6,), (9,), (False,)),
    ]
    # A window that begins anew after the border would never predict the token 4's follower's kin.
    assert [w.trained_ids for w in found] == [(3, 9), (5, 6), (9,)]


def test_the_windows_are_those_of_the_assignments_packed_data(tiny_folder, tmp_path):
    """Same documents in order, same inputs and labels, but for the shorter window at the end."""
    from alignkit_cs336 import get_packed_sft_dataset
    from alignkit_hf import HfPolicy

    rows = [{"prompt": f"Say {n}.", "response": "x" * n} for n in (3, 70, 150)]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    policy = HfPolicy(path=str(tiny_folder)).build()
    packed = get_packed_sft_dataset(policy.tokenizer, path, 64, False)
    ids = packed.ids.tolist()
    end = policy.tokenizer.eos_token_id
    documents, start = [], 0
    for at in [i for i, token in enumerate(ids) if token == end]:
        documents.append(on_all_tokens(TrainRow(tuple(ids[start : at + 1]), ())))
        start = at + 1
    found = windows(documents, 64)
    # Documents are joined with their first token as a prompt; it is read, and not learned, except
    # in the assignment's data, which learns it.
    whole = windows([on_all_tokens(TrainRow(tuple(ids), ()))], 64)
    for item, window in zip(packed, whole, strict=False):
        assert item["input_ids"].tolist() == [*window.prompt_ids, *window.response_ids[:-1]]
        assert item["labels"].tolist() == list(window.response_ids)
    assert len(whole) == len(packed) + 1
    firsts = sum(len(w.response_ids) - len(w.trained_ids) for w in found)
    assert firsts == len(documents) - 1


def rows_of(*responses):
    return [Example(f"id{i}", f"q{i}", "7", {"trace": r}) for i, r in enumerate(responses)]


@pytest.fixture
def sft(toys):
    def make(data, keys, **parts):
        given_ = {
            "keys": Sft(**{"response_column": "trace", **keys}),
            "policy": toys.policy(),
            "data": data,
            "prompt": toys.Template(),
            "normalizer": toys.normalizer("token_mean"),
            "optimizer": toys.Sgd(0.0),
        }
        return toys.assemble(**{**given_, **parts})

    return make


@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_the_loss_of_one_packed_window_is_that_of_the_whole_text(sft, toys, tmp_path, loss_on):
    data = rows_of("ab#", "cdef#")
    keys = {"pack_to": 64, "loss_on": loss_on, "shuffle": False, "append_eos": "always"}
    subject = sft(data, keys, validation=data)
    start, row = toys.carry_out(subject, tmp_path)
    policy = subject.parts.policy
    ids, labels = [], []
    for example in data:
        prompt = policy.tokenizer.encode(f"{example.question}:")
        response = [*policy.tokenizer.encode(example.extra["trace"]), policy.tokenizer.eos_token_id]
        ids += prompt + response
        learned = prompt[1:] + response if loss_on == "all" else response
        labels += [-100] * (len(prompt + response) - len(learned)) + learned
    with torch.no_grad():
        want = policy.model(input_ids=torch.tensor([ids]), labels=torch.tensor([labels])).loss
    assert row["train/loss"] == pytest.approx(float(want), abs=1e-5)
    assert row["train/rows"] == 1
    # The rate is 0, so the loss on the same rows as validation is the same before and after.
    for measured in (start, row):
        assert measured["eval/loss"] == pytest.approx(float(want), abs=1e-5)
        assert measured["eval/n_tokens"] == sum(label != -100 for label in labels)
    assert start["data/windows"] == 1


def test_long_rows_are_cut_and_not_left_out(sft, toys, tmp_path, steps):
    data = rows_of("x" * 1500, "y" * 30)
    rows = toys.carry_out(sft(data, {"pack_to": 256, "train_batch_size": 3}), tmp_path)
    assert rows[0]["data/too_long"] == 0
    assert rows[0]["data/windows"] == -(-(1500 + 30 + 2 * (3 + 1) - 1) // 256)
    trained = [i for batch in steps for row in batch for i in row.trained_ids]
    assert len(trained) == 1500 + 30 + 2  # and an end each


def test_documents_are_joined_in_another_order_for_another_seed(sft, toys, tmp_path, steps):
    data = rows_of(*[c * 9 for c in "abcdefgh"])
    for seed in (0, 0, 1):
        toys.carry_out(sft(data, {"pack_to": 1000, "seed": seed}), tmp_path / str(len(steps)))
    first, again, other = (batch[0].response_ids for batch in steps)
    assert first == again != other


def test_windows_longer_than_the_policy_reads_are_refused(sft, toys, tmp_path):
    with pytest.raises(AlignkitError, match="pack_to = 1025 is more than the 1024 tokens"):
        toys.carry_out(sft(rows_of("a#"), {"pack_to": 1025}), tmp_path)
    toys.carry_out(sft(rows_of("a#"), {"pack_to": 1024}), tmp_path / "b")


def test_validation_is_measured_when_it_is_due(sft, toys, tmp_path):
    data = rows_of("a#", "b#", "c#", "d#", "e#")
    keys = {"train_batch_size": 1, "validate_every": 2}
    rows = toys.carry_out(sft(data, keys, validation=rows_of("z#")), tmp_path)
    assert [row["step"] for row in rows if "eval/loss" in row] == [0, 2, 4, 5]


def test_validate_every_without_validation_is_refused():
    found = dict(Sft(validate_every=3).check({}))
    assert found["validate_every"] == "there is nothing to validate on; add a table [validation]"


@pytest.mark.slow  # 20 s
@pytest.mark.parametrize("loss_on", ["response", "all"])
def test_instruction_tuning_halves_the_validation_loss(tmp_path, loss_on):
    recipe = Path(__file__).parents[3] / "recipes" / "instruction_sft.toml"
    settings = [f"loss_on={loss_on}", "n_steps=12", "data.limit=768", "validation.limit=60"]
    flags = [part for setting in settings for part in ("-s", setting)]
    result = run_cli("run", recipe, *flags, "--out", tmp_path / "run")
    assert result.status == 0, result.stderr
    rows = [json.loads(x) for x in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    found = [row["eval/loss"] for row in rows if "eval/loss" in row]
    assert rows[0]["data/windows"] > 100
    assert found[-1] < found[0] / 2
