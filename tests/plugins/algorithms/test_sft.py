"""Supervised fine-tuning: which rows, which tokens, which numbers."""

from itertools import count
from types import SimpleNamespace

import pytest
import torch

from alignkit.engine.evaluation.eval_table import EvalPlan, EvalSet
from alignkit.engine.learning.supervised import Epochs, eos_id, steps_in, supervised_row
from alignkit.errors import AlignkitError
from alignkit.protocols import Example, Reward
from alignkit_algorithms.sft import Sft


def rows_of(*responses, gold="7"):
    return [
        Example(f"id{i}", f"q{i % 5}", gold, {"trace": response})
        for i, response in enumerate(responses)
    ]


def ends_in_gold(responses, examples):
    return [
        Reward(float(r.endswith(f"{e.answer}#"))) for r, e in zip(responses, examples, strict=True)
    ]


@pytest.fixture
def sft(toys):
    def make(data, keys=None, **parts):
        given = {
            "keys": Sft(**{"response_column": "trace", **(keys or {})}),
            "policy": toys.policy(),
            "data": data,
            "prompt": toys.Template(),
            "normalizer": toys.normalizer("token_mean"),
            "optimizer": toys.adamw(1e-2),
        }
        return toys.assemble(**{**given, **parts})

    return make


def test_the_loss_is_the_cross_entropy_of_the_response(sft, toys, tmp_path):
    data = rows_of("ab#", "cdef#")
    subject = sft(data, optimizer=toys.Sgd(0.0))
    metrics = toys.carry_out(subject, tmp_path)[1]
    total, tokens = 0.0, 0
    for example in data:
        prompt = subject.parts.policy.tokenizer.encode(f"{example.question}:")
        response = subject.parts.policy.tokenizer.encode(example.extra["trace"])
        ids = torch.tensor([prompt + response])
        labels = torch.tensor([[-100] * len(prompt) + response])
        with torch.no_grad():
            mean = subject.parts.policy.model(input_ids=ids, labels=labels).loss
        total += float(mean) * len(response)
        tokens += len(response)
    assert tokens == 3 + 5
    assert metrics["train/loss"] == pytest.approx(total / tokens, abs=1e-5)
    assert metrics["train/nll"] == pytest.approx(total / tokens, abs=1e-5)


def test_it_learns_the_response(sft, toys, tmp_path):
    plan = EvalPlan({"": EvalSet(data=rows_of("x"), temperature=0.0)}, every=20)
    subject = sft(
        rows_of(*["a7#"] * 5),
        {"n_steps": 30, "train_batch_size": 5},
        plan=plan,
        reward=ends_in_gold,
        backend=toys.backend(max_tokens=6),
    )
    rows = toys.carry_out(subject, tmp_path)
    assert [row["step"] for row in rows if "eval/reward" in row] == [0, 20, 30]
    assert (rows[0]["eval/reward"], rows[-1]["eval/reward"]) == (0.0, 1.0)
    assert rows[-1]["train/loss"] < 0.1 * rows[1]["train/loss"]
    assert (tmp_path / "final/model.safetensors").is_file()


def test_weights_are_handed_over_before_each_evaluation(sft, toys, tmp_path, watched):
    plan = EvalPlan({"": EvalSet(data=rows_of("x"))}, every=2)
    keys = {"n_steps": 3, "train_batch_size": 1}
    subject = sft(rows_of("a#"), keys, plan=plan, backend=watched, reward=ends_in_gold)
    toys.carry_out(subject, tmp_path)
    expected = [("start", 0), ("generate", 0), ("sync", 2), ("generate", 2), ("sync", 3)]
    assert watched.calls == [*expected, ("generate", 3), ("close", 3)]


def test_passes_and_partial_batches(sft, toys, tmp_path, steps):
    data = rows_of("a#", "b#", "c#", "d#", "e#")
    rows = toys.carry_out(sft(data, {"epochs": 2, "train_batch_size": 2}), tmp_path)
    assert [row.get("train/epoch") for row in rows] == [None, 1, 1, 1, 2, 2, 2]
    assert [len(batch) for batch in steps] == [2, 2, 1, 2, 2, 1]
    for epoch in (steps[:3], steps[3:]):
        assert len({row.response_ids for batch in epoch for row in batch}) == 5
    assert [len(b) for b in steps] == [row["train/rows"] for row in rows[1:]]


def test_steps_can_be_counted_instead(sft, toys, tmp_path, steps):
    optimizer = toys.Sgd()
    keys = {"n_steps": 4, "train_batch_size": 2}
    toys.carry_out(sft(rows_of("a#", "b#", "c#"), keys, optimizer=optimizer), tmp_path)
    assert [len(batch) for batch in steps] == [2, 1, 2, 1]
    assert optimizer.total_steps == 4


def test_what_is_left_out_is_counted(sft, toys, tmp_path, steps):
    data = rows_of("a7#", "b8#", "x" * 2000 + "7#", "c7#", "d7#", "a7#")
    # Row 5 repeats row 0: same question q0, same response. Row 1 is wrong, row 2 too long.
    keys = {"keep_correct_only": True, "n_examples": 2}
    rows = toys.carry_out(sft(data, keys, reward=ends_in_gold), tmp_path)
    counts = {k: v for k, v in rows[0].items() if k.startswith("data/")}
    assert counts == {
        "data/rows": 6,
        "data/unique": 5,
        "data/wrong": 1,
        "data/too_long": 1,
        "data/used": 2,
    }
    assert [len(batch) for batch in steps] == [2]


def test_the_subset_depends_on_the_seed(sft, toys, tmp_path, steps):
    data = rows_of(*[f"{c}#" for c in "abcdefghijkl"])
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        toys.carry_out(sft(data, {"seed": seed, "n_examples": 6}), tmp_path / name)
    first, again, other = ([row.response_ids for row in batch] for batch in steps)
    assert first == again
    assert set(first) != set(other)


def test_nothing_left_is_an_error(sft, toys, tmp_path):
    subject = sft(rows_of("a8#"), {"keep_correct_only": True}, reward=ends_in_gold)
    message = "nothing to train on: 1 rows, 1 of them different, 1 wrong, 0 too long, 0 used"
    with pytest.raises(AlignkitError, match=message):
        toys.carry_out(subject, tmp_path)


def test_a_missing_column_is_found_while_building(sft):
    data = [*rows_of("a#"), Example("id9", "q", "7", {"note": 1})]
    with pytest.raises(
        AlignkitError, match=r"'id9': column 'trace' must hold a text, got no such column.*note"
    ):
        sft(data)


@pytest.mark.parametrize("name", ["deep.er.text", "deep.er", "dotted.name"])
def test_a_dot_in_a_column_leads_into_objects_unless_a_column_has_the_whole_name(name):
    from alignkit.engine.learning.supervised import column

    extra = {"deep": {"er": {"text": "inner#"}}, "deep.er": "whole#", "dotted.name": "named#"}
    want = {"deep.er.text": "inner#", "deep.er": "whole#", "dotted.name": "named#"}
    assert column(Example("0", "q", "7", extra), name) == want[name]
    with pytest.raises(AlignkitError, match=r"'deep\.er\.no' must hold a text, got no such column"):
        column(Example("0", "q", "7", extra), "deep.er.no")
    with pytest.raises(AlignkitError, match=r"'deep' must hold a text, got \{"):
        column(Example("0", "q", "7", extra), "deep")


def test_responses_may_lie_within_objects(sft, toys, tmp_path, steps):
    data = [Example(f"id{i}", f"q{i}", "7", {"out": {"text": f"a{i}#"}}) for i in range(3)]
    toys.carry_out(sft(data, {"response_column": "out.text"}), tmp_path)
    got = {bytes(row.response_ids) for batch in steps for row in batch}
    assert len(got) == 3


@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_come_as_they_stand_or_in_an_order_drawn_anew(sft, toys, tmp_path, steps, shuffle):
    data = rows_of(*(f"a{i}#" for i in range(9)))
    keys = {"shuffle": shuffle, "epochs": 2, "train_batch_size": 4}
    toys.carry_out(sft(data, keys), tmp_path)
    tokenizer = toys.policy().tokenizer
    texts = [tokenizer.decode(row.response_ids) for batch in steps for row in batch]
    assert sorted(texts[:9]) == sorted(texts[9:])
    whole = [example.extra["trace"] for example in data]
    assert (texts == whole * 2) is not shuffle
    assert (texts[:9] == texts[9:]) is not shuffle


def test_the_answer_is_the_response_unless_a_column_is_named(sft, toys, tmp_path, steps):
    data = [Example("0", "q", "answer#", {"trace": "trace#"})]
    toys.carry_out(sft(data, {"response_column": ""}), tmp_path)
    decoded = toys.policy().tokenizer.decode(steps[0][0].response_ids)
    assert decoded == "answer#"


@pytest.mark.parametrize(
    ("eos", "response", "added"),
    [
        ("auto", "a#", False),
        ("auto", "a# \n", False),
        ("auto", "a", True),
        ("always", "a#", True),
        ("never", "a", False),
    ],
)
def test_how_responses_end(toys, eos, response, added):
    policy = toys.policy()
    row = supervised_row(Example("0", "q", ""), response, toys.Template(), policy, eos)
    own = tuple(policy.tokenizer.encode(response))
    assert row.response_ids == (*own, policy.tokenizer.eos_token_id) if added else own
    assert len(row.response_ids) == len(own) + added
    assert row.prompt_ids == tuple(policy.tokenizer.encode("q:"))


def test_a_template_without_stops_needs_the_eos(toys):
    policy = toys.policy()
    row = supervised_row(Example("0", "q", ""), "a#", toys.Template(stop=()), policy, "auto")
    assert row.response_ids[-1] == policy.tokenizer.eos_token_id


def test_batches_of_epochs():
    batches = map(Epochs(5, 2, "key").batch, count())
    first, second = [[next(batches) for _ in range(3)] for _ in range(2)]
    assert [epoch for epoch, _ in first + second] == [1, 1, 1, 2, 2, 2]
    for epoch in (first, second):
        assert sorted(i for _, at in epoch for i in at) == [0, 1, 2, 3, 4]
    assert [at for _, at in first] != [at for _, at in second]
    assert (steps_in(5, 2, 3), steps_in(4, 2, 3)) == (9, 6)


@pytest.mark.parametrize("slot", ["data", "validation"])
@pytest.mark.parametrize("use", ["sft", "dpo"])
def test_an_order_of_the_data_is_refused_where_it_would_have_no_effect(use, slot):
    from alignkit_algorithms.dpo import Dpo

    table = {"sft": Sft, "dpo": Dpo}[use]()
    asked = {slot: SimpleNamespace(order="given")}
    wrong = [key for key, _ in table.check(asked) if key.endswith("order")]
    assert wrong == [f"{slot}.order"]
    assert "order" not in str(list(table.check({slot: SimpleNamespace(order="shuffled")})))


def test_problems_the_table_names():
    assert not list(Sft().check({}))
    assert [k for k, _ in Sft(epochs=2, n_steps=3).check({})] == ["n_steps"]
    assert [k for k, _ in Sft().check({"eval": object()})] == ["eval"]
    problems = list(Sft(keep_correct_only=True).check({}))
    assert [key for key, _ in problems] == ["keep_correct_only"] * 2
    assert "[reward]" in problems[0][1]
    assert "response_column" in problems[1][1]
    assert not list(Sft(keep_correct_only=True, response_column="x").check({"reward": 1}))


def test_evaluation_without_what_it_needs_is_refused_while_building(sft, toys):
    plan = EvalPlan({"": EvalSet(data=rows_of("x"))})
    with pytest.raises(AlignkitError, match=r"needs a table \[rollout\]"):
        sft(rows_of("a#"), plan=plan, reward=ends_in_gold)
    with pytest.raises(AlignkitError, match="has no reward"):
        sft(rows_of("a#"), plan=plan, backend=toys.backend())


def test_which_id_ends_a_response():
    def policy(own, *eos):
        tokenizer = SimpleNamespace(eos_token_id=own)
        return SimpleNamespace(tokenizer=tokenizer, eos_ids=frozenset(eos), name="p")

    assert eos_id(policy(3, 3, 9)) == 3
    assert eos_id(policy(3, 7, 9)) == 7  # the model never stops at the tokenizer's id
    assert eos_id(policy(3)) == 3
    with pytest.raises(AlignkitError, match="p has no end-of-sequence id"):
        eos_id(policy(None))
