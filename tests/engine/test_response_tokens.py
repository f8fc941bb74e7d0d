"""Responses are tokenized as they follow their prompts, whatever the tokenizer puts first."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from alignkit.engine.learning.supervised import supervised_row
from alignkit.engine.observing.inspector import first_batch
from alignkit.engine.tokens import TrainRow, adds_space, encode, encode_response
from alignkit.protocols import Example

TEXTS = ["Count : two cats and 52 dogs . </answer> 0 1 2 3 4 6 7 8 9 , is\n"] * 20
KINDS = ("metaspace", "split metaspace", "prepended", "byte-level with a space")


def sentencepiece(kind):
    """Make a small tokenizer that puts a space before every text."""
    core = Tokenizer(models.BPE(unk_token="<unk>"))
    if kind == "prepended":  # as Llama 2 is converted
        core.normalizer = normalizers.Sequence(
            [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        )
        space = decoders.Replace("▁", " ")
        core.decoder = decoders.Sequence([space, decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    elif kind == "byte-level with a space":
        core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
        core.decoder = decoders.ByteLevel()
    else:
        split = kind == "split metaspace"
        core.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=split)
        core.decoder = decoders.Metaspace(prepend_scheme="always", split=split)
    core.train_from_iterator(
        TEXTS, trainers.BpeTrainer(vocab_size=120, special_tokens=["<unk>", "</s>"])
    )
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module", params=KINDS)
def tokenizer(request):
    return sentencepiece(request.param)


def row(tokenizer, prompt, response):
    policy = SimpleNamespace(tokenizer=tokenizer, eos_ids={1}, name="m")
    template = SimpleNamespace(stop=(), render=lambda question: question)
    return supervised_row(Example("0", prompt, "x"), response, template, policy, "never")


PROMPTS = st.sampled_from(
    ["two", "cats :", "Count : two cats :\n", "dogs ", "52", "</answer>", "is"]
)


@given(prompt=PROMPTS, response=st.text("two cas52.\n", min_size=1, max_size=8))
def test_the_text_of_prompt_and_response_is_that_of_the_tokens(tokenizer, prompt, response):
    made = row(tokenizer, prompt, response)
    assert made.prompt_ids == encode(tokenizer, prompt)
    together = tokenizer.decode([*made.prompt_ids, *made.response_ids])
    assert together == tokenizer.decode(encode(tokenizer, prompt)) + response


def test_the_response_has_no_space_in_front_but_its_own(tokenizer):
    assert adds_space(tokenizer)
    made = row(tokenizer, "Count :\n", "5")
    assert tokenizer.convert_ids_to_tokens(list(made.response_ids)) == ["5"]
    own = row(tokenizer, "Count :", " 5")
    assert "".join(tokenizer.convert_ids_to_tokens(list(own.response_ids))) in ("▁5", "Ġ5")


def test_the_first_batch_shows_what_follows_the_prompt(tokenizer):
    made = row(tokenizer, "two cats:", "5")
    assert first_batch([made], tokenizer).endswith("two cats:⟦5⟧")
    apart = TrainRow(made.prompt_ids, encode(tokenizer, "5"))
    assert first_batch([apart], tokenizer).endswith("two cats:⟦ 5⟧")


EMBEDDED = Path(__file__).resolve().parents[2] / "data" / "tiny_policy"


@pytest.fixture(scope="module", params=["bytes", "embedded"])
def other(request, tiny_folder):
    """A tokenizer that puts nothing in front."""
    folder = {"bytes": tiny_folder, "embedded": EMBEDDED}[request.param]
    return AutoTokenizer.from_pretrained(folder)


@given(prompt=st.text(max_size=9), response=st.text(max_size=9))
def test_other_tokenizers_give_the_same_ids_as_before(other, prompt, response):
    assert not adds_space(other)
    assert encode_response(other, prompt, response) == encode(other, response)
