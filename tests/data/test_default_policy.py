"""The shipped policy: an exact and cheap tokenizer, high ability, and a form left to chance."""

import json
import unicodedata
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

DATA = Path(__file__).resolve().parents[2] / "data"


@pytest.fixture(scope="module")
def policy():
    from alignkit_hf import HfPolicy

    return HfPolicy(path=str(DATA / "tiny_policy"), device="cpu").build()


@pytest.fixture(scope="module")
def template():
    from alignkit_prompts import R1Zero

    return R1Zero().build()


@pytest.fixture(scope="module")
def held_out():
    from alignkit_data import Jsonl

    examples = Jsonl(path=DATA / "problems" / "test.jsonl").build()
    return [examples[i] for i in range(256)]


def ids(policy, text):
    from alignkit.engine.tokens import encode

    return encode(policy.tokenizer, text)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(text=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_in_normal_form_comes_back_exactly(policy, text):
    text = unicodedata.normalize("NFC", text)  # as every Qwen2 tokenizer does
    assert policy.tokenizer.decode(ids(policy, text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        r"$\frac{1}{2}$ of  12,345.6 is\n\n\t\boxed{6172.8} .",
        "Œuvre 漢字 🙂 naïve ½",
        "<think></think><answer>7</answer> </think>  <answer> 7 </answer>",
        "A conversation between User and Assistant. Not the template.\nUser: a\nAssistant: b",
    ],
)
def test_texts_unlike_the_problems_come_back_exactly(policy, text):
    tokenizer = policy.tokenizer
    assert tokenizer.decode(ids(policy, text), skip_special_tokens=True) == text


def test_the_prompt_costs_three_tokens_beside_the_question(policy, template, held_out):
    lengths = [len(ids(policy, template.render(e.question))) for e in held_out]
    assert max(lengths) < 50
    for example, length in zip(held_out, lengths, strict=True):
        assert length == 3 + len(ids(policy, " " + example.question))
        text = template.render(example.question)
        assert policy.tokenizer.decode(ids(policy, text)) == text


def test_digits_are_tokens_of_their_own(policy):
    pieces = [policy.tokenizer.decode([i]) for i in ids(policy, " 7 + 123 = 130 .")]
    assert pieces == [" 7", " +", " 1", "2", "3", " =", " 1", "3", "0", " ."]


def test_the_policy_ends_its_responses_and_takes_long_prompts(policy):
    assert policy.eos_ids == {policy.tokenizer.eos_token_id}
    assert policy.pad_id not in policy.eos_ids
    assert policy.max_length >= 2048
    assert len(policy.tokenizer) == policy.model.config.vocab_size


def test_zero_shot_it_answers_as_asked_some_of_the_time(policy, template, held_out):
    """At temperature 1 between 15 and 40 %; standard error of 256 is 3 points."""
    from alignkit.protocols import Sampling
    from alignkit_hf import HfRollout
    from alignkit_rewards import R1Zero

    backend = HfRollout().build()
    backend.start(policy)
    prompts = [ids(policy, template.render(e.question)) for e in held_out]
    drawn = backend.generate(prompts, Sampling(max_tokens=64, stop=tuple(template.stop)))
    backend.close()
    responses = [completion.text for (completion,) in drawn]
    rewards = R1Zero().build()(responses, held_out)
    assert 0.15 <= sum(r.parts["answer"] for r in rewards) / 256 <= 0.40
    assert all(completion.finish_reason == "stop" for (completion,) in drawn)
    assert max(len(completion.token_ids) for (completion,) in drawn) < 48


def test_its_arithmetic_is_right_when_the_form_is(policy, template, rows):
    """The mean probability of the whole right response, once it is to be a tagged one."""
    import torch

    from alignkit.engine.forward.logprobs import response_logprobs
    from alignkit.engine.tokens import TrainRow

    (tag,) = ids(policy, " </think>")
    right = [
        TrainRow(ids(policy, template.render(pair["question"])), ids(policy, pair["chosen"]))
        for pair in rows("preferences/test.jsonl")[:256]
    ]
    with torch.no_grad():
        logprobs, _, mask = response_logprobs(policy, right, with_entropy=False)
    for row, places in zip(right, mask, strict=True):
        places[row.response_ids.index(tag)] = False
    sure = torch.where(mask, logprobs, 0).sum(1).exp()  # (B,)
    assert sure.mean() > 0.9
    assert torch.where(~mask, logprobs, 0).sum(1).exp().mean() < 0.5  # the tag's own chance


def test_the_maker_teaches_and_repeats_itself(maker, monkeypatch, tmp_path, data):
    """The same seed gives the same bytes, more steps give others; the tokenizer is as shipped."""
    module = maker("policy")
    monkeypatch.setattr(module, "ROWS_PER_STEP", 8)
    for name, steps in {"two": 2, "again": 2, "one": 1}.items():
        module.make(tmp_path / name, held_out=set(), steps=steps, seed=0)
    two, again, one = (
        (tmp_path / name / "model.safetensors").read_bytes() for name in ("two", "again", "one")
    )
    assert two == again
    assert two != one
    made, shipped = (
        json.loads((folder / "tokenizer.json").read_text())
        for folder in (tmp_path / "two", data / "tiny_policy")
    )
    for part in ("model", "added_tokens", "pre_tokenizer", "normalizer", "decoder"):
        assert made[part] == shipped[part]


def test_training_never_sees_a_held_out_question(maker):
    texts = maker("policy")._texts
    first = texts(set(), Random(1))
    prompts = [next(first)[0] for _ in range(50)]
    bare = [p for p in prompts if "User" not in p]
    without = texts(set(bare), Random(1))
    assert bare
    assert not set(bare) & {next(without)[0] for _ in range(200)}
