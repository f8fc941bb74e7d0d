"""A low-rank adapter: what trains, what is sampled from, what is saved, what the reference is."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from alignkit import AlignkitError
from alignkit.engine.forward.frozen import FrozenPolicy, detached_logprobs
from alignkit.engine.forward.packable import can_pack
from alignkit.engine.learning.learner import Learner
from alignkit.engine.learning.objective import Objective
from alignkit.engine.learning.supervised import nll
from alignkit.engine.tokens import TrainRow
from alignkit_hf import HfPolicy, HfRollout, Lora
from alignkit_normalizers import TokenMean
from alignkit_optimizers import AdamW

pytest.importorskip("peft", reason="the extra lora is not installed")
IDS = torch.tensor([[1, 5, 9, 30, 2]])
ROWS = [TrainRow((1, 5), (9, 30, 2)), TrainRow((1, 5), (7, 7)), TrainRow((8,), (40, 41, 42))]


@pytest.fixture(scope="module")
def folder(tiny_folder, tmp_path_factory):
    """The tiny model with matrices six times as large: what layers compute decides tokens."""
    policy = HfPolicy(path=str(tiny_folder), device="cpu").build()
    with torch.no_grad():
        for parameter in policy.model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(6)
    policy.save(made := tmp_path_factory.mktemp("opinions"))
    return made


def build(folder, dtype="float32", checkpointing=False, **lora):
    torch.manual_seed(0)
    params = HfPolicy(
        path=str(folder), device="cpu", dtype=dtype, gradient_checkpointing=checkpointing
    )
    return params.build(lora=Lora(**lora).build())


def train(policy, steps=3):
    learner = Learner(policy, AdamW(lr=0.02).build(), token_budget=64, total_steps=9)
    objective = Objective.of(nll, TokenMean().build())
    return [learner.step(ROWS, objective)["loss"] for _ in range(steps)]


def logits(model):
    with torch.no_grad():
        return model(IDS, use_cache=False).logits


def test_only_the_adapter_trains_and_it_starts_as_nothing(folder):
    policy = build(folder, rank=4)
    plain = HfPolicy(path=str(folder), device="cpu").build()
    assert torch.equal(logits(policy.model), logits(plain.model))
    trainable = {n: p.numel() for n, p in policy.model.named_parameters() if p.requires_grad}
    # Hidden 32, MLP 64, 4 heads of 8 and 2 for keys and values, 2 layers; rank 4 x (in + out):
    # q, o: 64 each; k, v: 32 + 16 = 48 each; gate, up, down: 96 each.
    assert sum(trainable.values()) == 2 * 4 * (2 * 64 + 2 * 48 + 3 * 96)
    assert all(".lora_" in name for name in trainable)
    before = {n: p.clone() for n, p in policy.model.named_parameters() if not p.requires_grad}
    losses = train(policy, 5)
    assert losses[-1] < losses[0] - 0.1
    after = dict(policy.model.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_packed_rows_and_checkpointing_go_with_it(folder):
    plain = build(folder)
    assert can_pack(plain.model)
    recomputing = build(folder, checkpointing=True)
    assert can_pack(recomputing.model)
    assert train(recomputing) == pytest.approx(train(plain), rel=1e-6)


@pytest.mark.parametrize(("dtype", "apart"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_rollouts_use_merged_weights_as_of_the_last_sync(folder, dtype, apart):
    policy = build(folder, dtype)
    backend = HfRollout(max_tokens=8).build()
    backend.start(policy)
    train(policy)
    stale = backend.generate([[1, 5]], backend.sampling)[0][0]
    assert stale.weight_version == 0
    backend.sync(policy)
    (group,) = backend.generate([[1, 5]], backend.sampling)
    (fresh,) = group
    assert fresh.weight_version == 3
    row = TrainRow((1, 5), fresh.token_ids)
    (want,) = detached_logprobs(policy, [row], token_budget=64, temperature=1.0)
    assert torch.tensor(fresh.logprobs) == pytest.approx(want, abs=apart)
    moved = detached_logprobs(
        FrozenPolicy.of(policy, copied=True), [row], token_budget=64, temperature=1.0
    )
    assert (moved[0] - want).abs().max() > 5 * apart  # the adapter does something here


def test_the_reference_is_the_model_without_the_adapter_at_no_memory(folder):
    policy = build(folder)
    start = logits(policy.model)
    frozen = FrozenPolicy.of(policy, copied=True)
    train(policy)
    assert not torch.allclose(logits(policy.model), start, atol=1e-3)
    assert torch.equal(logits(frozen.model), start)
    owned = {p.data_ptr() for p in policy.model.parameters()}
    assert all(p.data_ptr() in owned for p in frozen.model.parameters())


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is:FutureWarning")  # peft's use
def test_saved_merged_and_apart(folder, tmp_path):
    import peft

    policy = build(folder, rank=4, alpha=12.0)
    train(policy)
    policy.save(tmp_path / "final")
    want = logits(policy.model)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "final")
    assert torch.allclose(logits(merged), want, atol=1e-5)
    assert not any("lora" in name for name in load_file(tmp_path / "final/model.safetensors"))
    base = AutoModelForCausalLM.from_pretrained(folder)
    alone = peft.PeftModel.from_pretrained(base, tmp_path / "final" / "adapter")
    assert torch.allclose(logits(alone), want, atol=1e-5)
    assert not torch.allclose(logits(AutoModelForCausalLM.from_pretrained(folder)), want)
    size = (tmp_path / "final" / "adapter" / "adapter_model.safetensors").stat().st_size
    assert size < (tmp_path / "final" / "model.safetensors").stat().st_size


def test_weights_go_to_other_engines_merged_under_checkpoint_names(folder):
    policy = build(folder)
    train(policy)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    found = dict(policy.weights())
    assert found.keys() == plain.state_dict().keys()
    plain.load_state_dict(found)
    assert torch.allclose(logits(plain), logits(policy.model), atol=1e-5)


def test_a_policy_of_any_kind_that_trains_an_adapter_is_sampled_from_merged(folder):
    class Foreign:
        """A policy that offers what the contract has of adapters, and nothing of this package's."""

        adapter = object()

        def __init__(self, policy):
            self.own = policy

        def __getattr__(self, name):
            return getattr(self.own, name)

        base = property(lambda self: self.own.base)

        def weights(self):
            return self.own.weights()

    told = []
    for offer in (lambda policy: policy, Foreign):
        policy, backend = build(folder), HfRollout(max_tokens=8).build()
        backend.start(offer(policy))
        train(policy)
        backend.sync(backend._policy)
        told.append(backend.generate([[1, 5]], backend.sampling)[0][0])
    assert told[0].logprobs == told[1].logprobs


def test_target_layers(folder):
    policy = build(folder, target=("q_proj", "v_proj"))
    assert {n.rpartition(".")[2] for n in policy.adapter.layers} == {"q_proj", "v_proj"}
    with pytest.raises(AlignkitError, match=r"policy.lora.target = \('nothing',\)"):
        build(folder, target=("nothing",)).model  # noqa: B018


def test_the_state_of_a_model_with_an_adapter_goes_back_in(folder):
    policy = build(folder)
    train(policy)
    state = copy.deepcopy(policy.model.state_dict())
    want = logits(policy.model)
    again = build(folder)
    again.model.load_state_dict(state)
    assert torch.equal(logits(again.model), want)


def test_peft_absent_is_said_with_its_remedy(monkeypatch):
    monkeypatch.setattr("alignkit_hf.policy.params.find_spec", lambda _: None)
    assert list(Lora().missing()) == [
        "[policy.lora] needs the package peft: pip install 'alignkit[lora]'"
    ]


def test_vllm_is_sent_merged_weights(folder):
    from alignkit_vllm.weights import named_weights

    policy = build(folder)
    train(policy)
    plain = AutoModelForCausalLM.from_pretrained(folder)
    sent = dict(named_weights(policy, torch.float32))
    missing = plain.load_state_dict(sent, strict=False).missing_keys
    assert set(missing) <= {"lm_head.weight"}  # tied: it comes as the embedding
    assert torch.allclose(logits(plain), logits(policy.model), atol=1e-5)
