"""Stop strings end a response exactly where they end, wherever the token boundaries are."""

import pytest
import torch

from alignkit_hf.sampling.texts import StopStrings, Texts


@pytest.fixture(scope="module")
def texts(tiny_folder):
    """The byte-level tokenizer: every byte a token, and the four tags one token each."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    return Texts(tokenizer, len(tokenizer) + 3)  # three ids that stand for nothing, as in Qwen2


def cut_at(texts, ids, *stops):
    """Feed ids one by one, as sampling does; return the text and the tokens used, or None."""
    found = StopStrings(texts, stops)
    for k in range(1, len(ids) + 1):
        if found.may_end[ids[k - 1]]:
            text = found.cut(ids[:k])
            if text is not None:
                return text, k
    return None


def encode(texts, text):
    return texts.tokenizer.encode(text, add_special_tokens=False)


def test_straddles_tokens(texts):
    ids = encode(texts, "one END two")
    assert len(ids) == 11
    assert cut_at(texts, ids, "END") == ("one END", 7)


def test_ends_inside_a_token(texts):
    ids = encode(texts, "a</answer>b")
    assert len(ids) == 3
    assert cut_at(texts, ids, "</ans") == ("a</ans", 2)


def test_begins_inside_a_token(texts):
    assert cut_at(texts, encode(texts, "x</think>y z"), "nk>y") == ("x</think>y", 3)


def test_lies_inside_a_token(texts):
    assert cut_at(texts, encode(texts, "<answer>"), "swe") == ("<answe", 1)


def test_is_a_token(texts):
    assert cut_at(texts, encode(texts, "5 </answer> 6"), "</answer>") == ("5 </answer>", 3)


def test_characters_of_several_bytes(texts):
    ids = encode(texts, "naïve → done")
    assert cut_at(texts, ids, "→ d") == ("naïve → d", 12)  # 7 + 3 bytes, then " d"
    assert cut_at(texts, ids, "ï") == ("naï", 4)
    assert cut_at(texts, ids[:7], "→") is None  # only the arrow's first byte so far


def test_the_one_that_starts_first_ends_the_text(texts):
    assert cut_at(texts, encode(texts, "<answer>"), "wer", "ans") == ("<ans", 1)


def test_special_tokens_are_not_text(texts):
    special = texts.tokenizer.eos_token_id
    ids = [*encode(texts, "go S"), special, *encode(texts, "TOP on")]
    assert cut_at(texts, ids, "STOP") == ("go STOP", 8)


def test_many_special_tokens_between(texts):
    ids = [*encode(texts, "S"), *[texts.tokenizer.eos_token_id] * 50, *encode(texts, "TOP")]
    assert cut_at(texts, ids, "STOP") == ("STOP", 54)


def test_absent(texts):
    assert cut_at(texts, encode(texts, "nothing like it </think>"), "</answer>") is None


def test_only_tokens_that_can_end_it_are_looked_at(texts):
    found = StopStrings(texts, ["</answer>"])
    ends = [texts.pieces[i] for i in found.may_end.nonzero()[:, 0].tolist()]
    assert sorted(ends) == ["</answer>", ">"]


def test_pieces_are_what_a_token_adds(texts):
    [space] = encode(texts, " ")
    assert texts.pieces[space] == " "
    assert texts.pieces[texts.tokenizer.eos_token_id] == ""
    assert texts.pieces[-1] == ""


def test_sentencepiece_like_spaces():
    """A decoder that strips the first space still yields the piece in the middle of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"▁a": 0, "▁stop": 1, "a": 2, "<unk>": 3}
    core = Tokenizer(models.WordLevel(vocab, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    texts = Texts(PreTrainedTokenizerFast(tokenizer_object=core), 4)
    assert texts.pieces[:2] == [" a", " stop"]
    assert cut_at(texts, [0, 0, 1, 0], " stop") == ("a a stop", 3)


@pytest.fixture
def ascii_policy(policy):
    """The policy without end ids, drawing from visible ASCII (ids 0 .. 93) and the tags."""
    head = policy.model.lm_head
    biased = torch.nn.Linear(head.in_features, head.out_features)
    biased.weight = head.weight
    biased.bias.data = torch.zeros(262)
    biased.bias.data[94:256] = -1e4
    policy.model.lm_head = biased
    policy.__dict__["eos_ids"] = frozenset()
    return policy


def test_sampled_responses_are_cut(ascii_policy, sample, prompts):
    """Any piece of a response's text, given as stop string, ends that response there."""
    policy, how = ascii_policy, {"n": 2, "max_tokens": 30, "seed": 4}
    [[free, _], *_] = sample(policy, prompts[:2], **how)
    assert len(free.text) > 25
    for i in range(0, len(free.text) - 3, 3):
        stop = free.text[i : i + 3]
        [[cut, _], *_] = sample(policy, prompts[:2], **how, stop=(stop,))
        assert cut.text == free.text[: free.text.index(stop) + 3]
        assert cut.finish_reason == "stop"
        count = len(cut.token_ids)
        assert cut.token_ids == free.token_ids[:count]  # the last token is kept whole
        assert cut.logprobs == pytest.approx(free.logprobs[:count], abs=1e-5)
        assert stop in policy.tokenizer.decode(cut.token_ids)
        assert stop not in policy.tokenizer.decode(cut.token_ids[:-1])


def test_no_stop_before_min_tokens(ascii_policy, sample, prompts):
    how = {"max_tokens": 30, "seed": 4}
    [[free]] = sample(ascii_policy, prompts[:1], **how)
    stop = ascii_policy.tokenizer.decode(free.token_ids[4:6])
    assert stop not in ascii_policy.tokenizer.decode(free.token_ids[:5])
    [[allowed]] = sample(ascii_policy, prompts[:1], **how, stop=(stop,), min_tokens=6)
    assert allowed.token_ids == free.token_ids[:6]  # it may end the response at min_tokens itself
    [[later]] = sample(ascii_policy, prompts[:1], **how, stop=(stop,), min_tokens=7)
    assert later.text.startswith(allowed.text)  # passed over, it stays in the text
    assert len(later.token_ids) > 6
