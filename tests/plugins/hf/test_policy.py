"""The hf policy: what is loaded, what falls back, what is saved."""

import json
import shutil
import subprocess
import sys

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignkit import AlignkitError
from alignkit.engine.forward.checkpointing import is_checkpointed
from alignkit_hf import HfPolicy, HfRollout


@pytest.fixture
def folder(tiny_folder, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_folder, tmp_path / "model")


def edit(path, **changes):
    data = json.loads(path.read_text())
    data.update(changes)
    path.write_text(json.dumps({k: v for k, v in data.items() if v is not None}))


def build(folder, **params):
    return HfPolicy(path=str(folder), device="cpu", **params).build()


def test_nothing_is_loaded_before_it_is_asked_for(folder):
    policy = build(folder)
    assert policy.tokenizer.eos_token == "<|endoftext|>"
    assert (policy.max_length, policy.version) == (1024, 0)
    assert policy.eos_ids == {policy.tokenizer.eos_token_id}
    assert policy.pad_id == policy.tokenizer.pad_token_id
    assert "model" not in policy.__dict__
    (folder / "model.safetensors").unlink()
    with pytest.raises(AlignkitError, match="cannot load the model of"):
        policy.model  # noqa: B018


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_get_the_recipes_type(folder, dtype):
    """A bf16 checkpoint would otherwise come as bf16 whatever one trains in."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    model.save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["dtype"] == "bfloat16"
    assert {p.dtype for p in build(folder, dtype=dtype).model.parameters()} == {
        getattr(torch, dtype)
    }


def test_autocast(folder):
    policy = build(folder, autocast="bfloat16")
    with policy.autocast():
        assert policy.model(torch.tensor([[1, 2]])).logits.dtype == torch.bfloat16
    with build(folder).autocast():
        assert not torch.is_autocast_enabled("cpu")


def test_end_ids(folder):
    edit(folder / "generation_config.json", eos_token_id=[7, 9])
    assert build(folder).eos_ids == {7, 9}
    (folder / "generation_config.json").unlink()
    edit(folder / "config.json", eos_token_id=11)
    assert build(folder).eos_ids == {11}
    edit(folder / "config.json", eos_token_id=None)
    policy = build(folder)
    assert policy.eos_ids == {policy.tokenizer.eos_token_id}


def test_a_tokenizer_without_a_pad_token(folder):
    edit(folder / "generation_config.json", pad_token_id=None, eos_token_id=[9, 7])
    edit(folder / "config.json", pad_token_id=None)
    policy = build(folder)
    policy.tokenizer.pad_token = None
    assert policy.pad_id == 7
    backend = HfRollout(max_tokens=3).build()
    backend.start(policy)
    assert len(backend.generate([[1, 2, 3], [4]], backend.sampling)) == 2


def test_saved_folder_loads(folder, tmp_path, capfd):
    edit(folder / "generation_config.json", temperature=0.7, eos_token_id=[3, 5])  # not savable
    policy = build(folder)
    with torch.no_grad():
        policy.model.lm_head.weight.add_(1.0)
    policy.save(tmp_path / "final")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    assert (tmp_path / "final" / "model.safetensors").is_file()
    assert torch.equal(model.lm_head.weight, policy.model.lm_head.weight)
    assert model.generation_config.eos_token_id == [3, 5]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "final")
    assert tokenizer.get_vocab() == policy.tokenizer.get_vocab()
    again = build(tmp_path / "final")
    assert again.eos_ids == {3, 5}
    assert list(again.params.check({})) == []


def test_loading_and_saving_print_nothing(folder, tmp_path, capfd):
    policy = build(folder)
    policy.model, policy.tokenizer, policy.generation_config  # noqa: B018
    policy.save(tmp_path / "final")
    assert capfd.readouterr() == ("", "")


def test_dropout_is_off(tmp_path, tiny_folder):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=262, n_embd=32, n_layer=2, n_head=4, n_positions=64)
    assert config.resid_pdrop == 0.1
    GPT2LMHeadModel(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_folder).save_pretrained(tmp_path)
    policy = build(tmp_path, gradient_checkpointing=True)
    assert policy.max_length == 64
    assert policy.model.training  # recomputation needs training mode
    ids = torch.arange(20)[None]
    assert torch.equal(policy.model(ids).logits, policy.model(ids).logits)
    assert policy.model.config.resid_pdrop == 0.1  # what is saved keeps it


def test_gradient_checkpointing_changes_no_gradient(folder):
    grads = []
    for on in (False, True):
        model = build(folder, gradient_checkpointing=on).model
        assert is_checkpointed(model) is on
        model(torch.arange(30)[None], use_cache=False).logits.square().mean().backward()
        grads.append(model.model.layers[0].mlp.up_proj.weight.grad)
    torch.testing.assert_close(grads[0], grads[1])


def test_missing_weights_are_an_error(folder):
    """transformers would only warn, and train from random numbers."""
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(AlignkitError, match=r"lacks weights of Qwen2.*layers\.1\.mlp\.up_proj"):
        build(folder).model  # noqa: B018


def test_unknown_hub_name(tmp_path):
    with pytest.raises(AlignkitError, match="there is no folder nobody/nothing"):
        build("nobody/nothing")


def test_a_device_that_is_not_there(folder):
    policy = HfPolicy(path=str(folder), device="cuda:99").build()
    with pytest.raises(AlignkitError, match=r"policy\.device = 'cuda:99' cannot be used here"):
        policy.model  # noqa: B018
    with pytest.raises(ValidationError):
        HfPolicy(path=str(folder), device="gpu")


# ---------------------------------------------------------------- pre-flight checks


def problems(path):
    return [message for key, message in HfPolicy(path=str(path)).check({}) if key == "path"]


def test_a_good_folder_passes(folder):
    assert problems(folder) == []
    assert problems("Qwen/Qwen2.5-Math-1.5B") == []


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("config.json", "has no config.json"),
        ("model.safetensors", "has no weights"),
        ("tokenizer.json", "has no tokenizer"),
    ],
)
def test_incomplete_folders(folder, lost, message):
    (folder / lost).unlink()
    assert [message in p for p in problems(folder)] == [True]


def test_missing_shards(folder):
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model-1.safetensors").touch()
    [message] = problems(folder)
    assert "model-2.safetensors" in message
    assert "model-1" not in message


def test_not_a_folder(folder):
    assert "is a file" in problems(folder / "config.json")[0]
    assert "there is no folder" in problems(folder / "nowhere")[0]
    assert "there is no folder" in problems("./nowhere")[0]


@pytest.mark.parametrize(
    ("keys", "cuda", "attention", "by"),
    [
        ({"dtype": "bfloat16"}, True, "sdpa", "torch's variable-length kernel"),
        ({"autocast": "bfloat16"}, True, "sdpa", "torch's variable-length kernel"),
        ({}, True, "sdpa",
         "torch's usual kernels, as torch's variable-length kernel needs 16 bits"),
        ({"dtype": "bfloat16"}, False, "sdpa",
         "torch's usual kernels, as torch's variable-length kernel needs a CUDA device"),
        ({"dtype": "bfloat16", "attention": "flash_attention_2"}, True, "flash_attention_2",
         "flash-attn's variable-length kernel"),
        ({"attention": "eager"}, False, "eager",
         "torch's usual kernels, as torch's variable-length kernel needs 16 bits"),
    ],
    ids=["bfloat16", "autocast", "float32", "on the CPU", "flash-attn", "eager"],
)  # fmt: skip
@pytest.mark.parametrize("installed", [True, False], ids=["flash-attn is there", "it is not"])
def test_the_attention_that_runs_is_a_fact(monkeypatch, installed, keys, cuda, attention, by):
    monkeypatch.setattr("alignkit_hf.policy.params.find_spec", lambda name: installed or None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    params = HfPolicy(path="a/b", **keys)
    want = f"packed if a trial of the model allows it; attention by {by}"
    for asked in (params, params.model_copy(update={"device": "cuda" if cuda else "cpu"})):
        facts = asked.facts({})
        assert (facts["attention"], facts["rows"]) == (attention, want)


def test_the_attention_waits_for_the_device_before_torch_is_loaded(monkeypatch):
    monkeypatch.delitem(sys.modules, "torch")
    facts = HfPolicy(path="a/b", dtype="bfloat16").facts({})
    assert facts["attention"] == "sdpa"
    assert facts["rows"].endswith("kernel on a CUDA device, or else torch's usual ones")


def test_what_is_installed_does_not_choose_the_attention(tiny_folder, monkeypatch):
    """A card's run with flash-attn there must be the run without it."""
    monkeypatch.setattr("alignkit_hf.policy.params.find_spec", lambda name: object())
    policy = HfPolicy(path=str(tiny_folder), autocast="bfloat16").build()
    policy.device = torch.device("cuda")
    assert policy._kernel() == "sdpa"


def test_the_model_runs_with_the_attention_that_the_facts_name(tiny_folder):
    policy = HfPolicy(path=str(tiny_folder)).build()
    assert policy.model.config._attn_implementation == "sdpa"
    assert policy.params.facts({})["attention"].startswith("sdpa")
    eager = HfPolicy(path=str(tiny_folder), attention="eager").build()
    assert eager.model.config._attn_implementation == "eager"


def test_flash_attention_wants_16_bit():
    params = HfPolicy(path="a/b", attention="flash_attention_2")
    assert [key for key, _ in params.check({})] == ["attention"]
    assert (
        list(HfPolicy(path="a/b", attention="flash_attention_2", dtype="bfloat16").check({})) == []
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"temperature": -0.1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"top_k": -1},
        {"min_p": 1.5},
        {"max_tokens": 0},
        {"min_tokens": -1},
        {"kv_cache_tokens": 0},
        {"n": 2},  # the algorithm's, not the backend's
    ],
)
def test_rollout_bounds(bad):
    with pytest.raises(ValidationError):
        HfRollout(**bad)


def test_rollout_fields_reach_the_record():
    fields = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 3,
        "min_p": 0.1,
        "max_tokens": 9,
        "min_tokens": 2,
    }
    sampling = HfRollout(**fields).build().sampling
    assert {name: getattr(sampling, name) for name in fields} == fields
    assert list(HfRollout(min_tokens=10, max_tokens=9).check({})) == [
        ("min_tokens", "is 10, above max_tokens = 9")
    ]


def test_the_plugin_module_imports_no_ml_stack():
    heavy = "{'torch', 'transformers', 'numpy'}"
    code = f"import sys, alignkit_hf; print({heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"
