"""Whether prompts begin with the tokenizer's beginning-of-sequence token."""

import json
import shutil

import pytest

from alignkit.engine.learning.supervised import supervised_row
from alignkit.engine.sampling.questions import make_prompt
from alignkit.engine.tokens import encode_prompt
from alignkit.errors import AlignkitError
from alignkit.protocols import Example
from alignkit_hf import HfPolicy
from alignkit_hf.policy.folder import adds_bos

BOS = "<s>"


class Template:
    stop = ()

    def render(self, question):
        return question


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """Return a function that gives the tiny model a tokenizer with a beginning of sequence."""

    def make(*, adds, named=True, through="template"):
        path = shutil.copytree(tiny_folder, tmp_path / "model")
        rules = json.loads((path / "tokenizer.json").read_text())
        last = max([t["id"] for t in rules["added_tokens"]] + [*rules["model"]["vocab"].values()])
        bos = {t["content"]: t["id"] for t in rules["added_tokens"]}.get(BOS, last + 1)
        plain = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
        rules["added_tokens"].append({"id": bos, "content": BOS, "special": True, **plain})
        template = {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": BOS, "type_id": 0}},
                       {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}},
                     {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {BOS: {"id": BOS, "ids": [bos], "tokens": [BOS]}},
        }  # fmt: skip
        if adds:
            rules["post_processor"] = template
        (path / "tokenizer.json").write_text(json.dumps(rules))
        config = json.loads((path / "tokenizer_config.json").read_text())
        config["bos_token"] = BOS if named else None
        (path / "tokenizer_config.json").write_text(json.dumps(config))
        return path, bos

    return make


@pytest.mark.parametrize(
    ("bos", "adds", "begun"),
    [("auto", True, True), ("auto", False, False), ("always", False, True), ("never", True, False)],
)
def test_prompts_begin_as_the_key_says(folder, bos, adds, begun):
    path, token = folder(adds=adds)
    policy = HfPolicy(path=str(path), bos=bos).build()
    first = (token,) if begun else ()
    plain = tuple(policy.tokenizer.encode("2+2?", add_special_tokens=False))
    example = Example("0", "2+2?", "4")
    assert encode_prompt(policy, "2+2?") == (*first, *plain)
    assert make_prompt(0, 0, example, Template(), policy).ids == (*first, *plain)
    row = supervised_row(example, "4", Template(), policy, "never")
    assert row.prompt_ids == (*first, *plain)
    assert row.response_ids == tuple(policy.tokenizer.encode("4", add_special_tokens=False))
    assert len(encode_prompt(policy, f"{BOS}2+2?")) == 1 + len(plain)  # it is there already


def test_as_the_tokenizer_does_is_what_auto_does(folder):
    path, _ = folder(adds=True)
    policy = HfPolicy(path=str(path)).build()
    assert encode_prompt(policy, "a b") == tuple(policy.tokenizer("a b")["input_ids"])


def test_the_plan_says_so(folder):
    path, _ = folder(adds=True)
    key = "beginning of sequence"
    assert HfPolicy(path=str(path)).facts({})[key].startswith("prompts get it")
    assert HfPolicy(path=str(path), bos="never").facts({})[key].startswith("never")
    assert adds_bos(path) is True
    assert adds_bos(path / "nowhere") is None


def test_models_that_begin_with_nothing_are_as_before(tiny_folder):
    policy = HfPolicy(path=str(tiny_folder)).build()
    assert policy.bos_ids == ()
    assert adds_bos(tiny_folder) is False
    assert HfPolicy(path=str(tiny_folder)).facts({})["beginning of sequence"].startswith("none")


def test_always_needs_such_a_token(tiny_folder):
    policy = HfPolicy(path=str(tiny_folder), bos="always").build()
    with pytest.raises(AlignkitError, match="the tokenizer has no beginning-of-sequence token"):
        encode_prompt(policy, "x")


def test_training_in_bfloat16_is_warned_of():
    facts = HfPolicy(path="a/b", dtype="bfloat16").facts({})
    assert 'implementation = "kahan"' in facts["warning"]
    assert "warning" not in HfPolicy(path="a/b", autocast="bfloat16").facts({})
