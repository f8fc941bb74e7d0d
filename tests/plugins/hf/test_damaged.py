"""Model folders whose files are cut off, pointers, or do not belong together: said before a run."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignkit import AlignkitError
from alignkit.cli import main
from alignkit_hf import HfPolicy
from alignkit_hf.policy.folder import unreadable
from alignkit_hf.policy.vocabulary import names_eos, too_many_tokens

EMBEDDED = Path(__file__).resolve().parents[3] / "data" / "tiny_policy"
POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:12\nsize 3\n"


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def problems(folder):
    return [message for key, message in HfPolicy(path=str(folder)).check({}) if key == "path"]


def edit(path, **changes):
    data = json.loads(path.read_text())
    path.write_text(json.dumps({**data, **changes}))


@settings(max_examples=40)
@given(share=st.floats(0, 1, exclude_max=True))
def test_weights_cut_off_anywhere_are_named_before_the_run(tiny_folder, tmp_path_factory, share):
    folder = shutil.copytree(tiny_folder, tmp_path_factory.mktemp("cut") / "model")
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    [message] = problems(folder)
    assert message.startswith(f"{folder}: weights cannot be read: model.safetensors: it")
    assert "\n" not in message
    with pytest.raises(AlignkitError, match=r"weights cannot be read: model\.safetensors"):
        HfPolicy(path=str(folder), device="cpu").build().model  # noqa: B018


def test_one_shard_cut_off_is_named(folder):
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="50KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    shards[-1].write_bytes(shards[-1].read_bytes()[:-5])
    [message] = problems(folder)
    assert shards[-1].name in message
    assert shards[0].name not in message


@pytest.mark.parametrize("cut", [0.3, 0.9])
def test_weights_of_torch_cut_off_are_named(folder, cut):
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    path = folder / "pytorch_model.bin"
    torch.save(model.state_dict(), path)
    assert problems(folder) == []
    path.write_bytes(path.read_bytes()[: int(cut * path.stat().st_size)])
    [message] = problems(folder)
    assert message.startswith(f"{folder}: weights cannot be read: pytorch_model.bin: it ends early")


@pytest.mark.parametrize(
    "name", ["model.safetensors", "tokenizer.json", "config.json", "generation_config.json"]
)
def test_pointers_of_git_lfs_are_named(folder, name):
    (folder / name).write_text(POINTER)
    [message] = problems(folder)
    assert message == (
        f"{folder}: weights cannot be read: only pointers of git LFS are there for {name}; fetch "
        f"the files with git lfs pull"
    )


def test_whole_folders_are_let_be(folder):
    assert unreadable(folder) is None
    assert problems(folder) == []


@pytest.mark.parametrize("header", [b"{}", b'{"__metadata__": {}}', b"[]", b'{"a":1}'])
def test_headers_of_any_kind_are_no_traceback(folder, header):
    path = folder / "model.safetensors"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    assert all("\n" not in message for message in problems(folder))


# ---------------------------------------------------------------- tokens without an embedding


@pytest.mark.parametrize("count", [1, 3])
def test_more_tokens_than_embeddings_are_refused_with_both_numbers(folder, count):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    size = len(tokenizer)
    tokenizer.add_tokens([f" word{n}" for n in range(count)])
    tokenizer.save_pretrained(folder)
    says = f"the tokenizer has {size + count:,} tokens, the model embeddings for {size:,}"
    [message] = problems(folder)
    assert message.startswith(f"{folder}: {says}")
    with pytest.raises(AlignkitError, match=says):
        HfPolicy(path=str(folder), device="cpu").build().model  # noqa: B018


def test_special_tokens_beyond_the_embeddings_are_let_be(folder):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    tokenizer.save_pretrained(folder)
    assert problems(folder) == []
    assert HfPolicy(path=str(folder), device="cpu").build().model is not None


def test_sizes_are_found_where_configurations_keep_them(folder):
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    assert too_many_tokens(folder) is None
    edit(folder / "config.json", vocab_size=99_999, text_config={"vocab_size": size // 2})
    assert f"for {size // 2:,};" in too_many_tokens(folder)
    edit(folder / "tokenizer.json", model={"type": "Unigram", "vocab": [["a", 0.0]] * (size + 8)})
    assert f"has {size + 8:,} tokens" in too_many_tokens(folder)
    (folder / "tokenizer.json").unlink()
    assert too_many_tokens(folder) is None


# ---------------------------------------------------------------- no end of sequence


def without_end(folder):
    for name in ("config.json", "generation_config.json"):
        edit(folder / name, eos_token_id=None)
    edit(folder / "tokenizer_config.json", eos_token=None)
    return folder


def test_the_plan_says_that_nothing_ends_a_response(folder):
    key = "end of sequence"
    assert key not in HfPolicy(path=str(folder)).facts({})
    without_end(folder)
    assert names_eos(folder) is False
    assert "add eos_token_id to generation_config.json" in HfPolicy(path=str(folder)).facts({})[key]
    assert HfPolicy(path=str(folder), device="cpu").build().eos_ids == frozenset()
    edit(folder / "tokenizer_config.json", eos_token="<|endoftext|>")
    assert names_eos(folder) is True


def test_a_class_may_have_an_end_of_its_own(folder):
    without_end(folder)
    config = json.loads((folder / "config.json").read_text())
    del config["eos_token_id"]
    (folder / "config.json").write_text(json.dumps(config))
    assert names_eos(folder) is None


@pytest.mark.parametrize(
    ("prompt", "where"), [("r1_zero", "the stop string"), ("question_only", "rollout.max")]
)
def test_an_evaluation_says_once_that_nothing_ends_a_response(tmp_path, prompt, where):
    folder = without_end(shutil.copytree(EMBEDDED, tmp_path / "model"))
    recipe = EMBEDDED.parents[1] / "recipes" / "evaluate.toml"
    keys = [f"policy.path={folder}", f"prompt.use={prompt}", "n=2", "rollout.max_tokens=5"]
    options = [word for key in keys for word in ("-s", key)]
    done = CliRunner().invoke(main, ["run", str(recipe), *options, "--out", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    assert done.output.count("names no end-of-sequence token, so responses end only at ") == 1
    assert f"responses end only at {where}" in done.output
