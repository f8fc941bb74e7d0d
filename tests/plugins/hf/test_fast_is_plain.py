"""Every fast path gives what the plain sampler gives, token by token, however it is asked.

Both draw by the same keys, so ids are the same, and log-probs to 1e-5 in float32. Products round
differently in other shapes, so a draw within rounding of the border between two tokens, or a
token within rounding of the border of top_p, may fall the other way. That is checked: logits
moved by as much as rounding moves them must give the other outcome, and the rest of that response
is not compared. It may happen to one response of a call.
"""

from dataclasses import replace
from itertools import chain, product
from string import ascii_lowercase
from typing import NamedTuple

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.protocols import Sampling
from alignkit_hf.fast import products
from alignkit_hf.fast import sampler as fast
from alignkit_hf.fast.cache import RowCache
from alignkit_hf.fast.sampler import FastSampler
from alignkit_hf.fast.shared import SharedCache
from alignkit_hf.fast.static import StaticForward
from alignkit_hf.sampling.choose import draw
from alignkit_hf.sampling.plain import PlainSampler
from alignkit_hf.sampling.records import requests
from alignkit_hf.sampling.texts import Texts


class Path(NamedTuple):
    """A way to decode."""

    cache: type = SharedCache
    fuses: bool = False
    packs: bool = True
    static: bool = False


PATHS = {
    "own forward, prompts in rows": Path(RowCache),
    "own forward, prompts shared": Path(SharedCache),
    "fused, prompts in rows": Path(RowCache, fuses=True),
    "fused, prompts shared": Path(SharedCache, fuses=True),
    "fused, weights as they lie": Path(SharedCache, fuses=True, packs=False),
    "fixed shapes": Path(static=True),
}


class Subject:
    """One policy, its plain sampler and fast ones."""

    def __init__(self, policy, vocabulary):
        self.policy = policy
        self.texts = Texts(policy.tokenizer, vocabulary)
        self.plain = PlainSampler(policy, self.texts, 2**18)
        self.samplers = {}

    def fast(self, path):
        """Return the sampler of a path, which is made sure to be the one that is taken."""
        if path not in self.samplers:
            with pytest.MonkeyPatch.context() as patch:
                if path.static:
                    patch.setattr(fast, "Forward", StaticForward)
                self.samplers[path] = FastSampler(self.policy, self.texts, 2**18, cuda_graphs=False)
            forward = self.samplers[path].forward
            if path.static:
                assert forward.usable
            else:
                assert forward.fuses or not path.fuses
                assert forward.works_with is SharedCache or path.cache is RowCache
                forward.fuses, forward.works_with = path.fuses, path.cache
        return self.samplers[path]

    def sampled(self, path, prompts, how, budget):
        sampler = self.fast(path)
        sampler.kv_cache_tokens = budget
        with pytest.MonkeyPatch.context() as patch:
            if not path.packs:
                patch.setattr(products, "_PACKED_BYTES", 0)
            return in_order(sampler.stream(prompts, how))


def in_order(stream):
    return [group for _, group in sorted(stream, key=lambda item: item[0])]


def compare(subject, prompts, how, got, want, *, apart=1e-5, noise=3e-5):
    """Assert that responses are the same; return how many differ from a border on."""
    found = 0
    asked = requests(prompts, how, subject.policy.max_length)
    for request, a_group, b_group in zip(asked, got, want, strict=True):
        for stream, a, b in zip(request.streams, a_group, b_group, strict=True):
            places = zip(a.token_ids, a.logprobs, b.token_ids, b.logprobs, strict=False)
            other = next(
                (i for i, (x, p, y, q) in enumerate(places) if x != y or abs(p - q) > apart), None
            )
            if other is None:
                assert a.token_ids == b.token_ids
                assert (a.text, a.finish_reason) == (b.text, b.finish_reason)
            else:
                outcome = a.token_ids[other], a.logprobs[other]
                before = [*request.prompt, *b.token_ids[:other]]
                assert on_a_border(subject, before, other, stream, how, outcome, noise)
                found += 1
    return found


def on_a_border(subject, ids, drawn, stream, how, outcome, noise):
    """Whether logits moved by as much as rounding moves them give ``outcome``."""
    policy = subject.policy
    with torch.no_grad(), policy.autocast():
        logits = policy.model(torch.tensor([ids]), use_cache=False).logits[0, -1].float()
    torch.manual_seed(0)
    moved = logits + noise * torch.randn(256, len(logits))
    tokens, logprobs = draw(
        moved,
        torch.full((256,), stream),
        torch.full((256,), drawn),
        how,
        torch.tensor(sorted(policy.eos_ids), dtype=torch.long),
    )
    near = (logprobs - outcome[1]).abs() < 10 * noise
    return bool(((tokens == outcome[0]) & near).any())


@pytest.fixture(scope="module")
def subject(tiny_policy):
    """The tiny Qwen2; one id in 16 ends a response."""
    policy = tiny_policy()
    torch.manual_seed(1)
    for parameter in policy.model.parameters():
        if parameter.ndim == 1:  # biases and norms
            parameter.data += 0.3 * torch.randn_like(parameter)
    policy.__dict__["eos_ids"] = policy.eos_ids | frozenset(range(0, 256, 16))
    return Subject(policy, 262)


STOPS = [(), tuple(ascii_lowercase), tuple(map("".join, product(ascii_lowercase, repeat=2)))]
"""None, letters that one token in ten is, pairs of them that one in a hundred completes."""

prompt_lists = st.lists(
    st.lists(st.integers(0, 261), min_size=1, max_size=24), min_size=1, max_size=5
)


@st.composite
def samplings(draw):
    most = draw(st.integers(1, 24))
    return Sampling(
        n=draw(st.integers(1, 5)),
        temperature=draw(st.sampled_from([0, 0.3, 1, 1.7])),
        top_p=draw(st.sampled_from([1, 0.9, 0.5, 0.01])),
        top_k=draw(st.sampled_from([0, 1, 5, 50])),
        min_p=draw(st.sampled_from([0, 0.05, 0.5])),
        max_tokens=most,
        min_tokens=draw(st.integers(0, most)),
        stop=draw(st.sampled_from(STOPS)),
        seed=draw(st.integers(0, 2**40)),
        step=draw(st.integers(0, 1000)),
    )


budgets = st.sampled_from([2**18, 300, 120, 1])
"""Tokens in the cache: all responses at once, or rows that are refilled, or one at a time."""


@pytest.mark.parametrize("name", PATHS)
@settings(max_examples=25)
@given(prompts=prompt_lists, how=samplings(), budget=budgets)
def test_any_path_however_it_is_asked(subject, name, prompts, how, budget):
    how = replace(how, prompt_keys=tuple(3 * i + 1 for i in range(len(prompts))))
    want = in_order(subject.plain.stream(prompts, how))
    got = subject.sampled(PATHS[name], prompts, how, budget)
    assert compare(subject, prompts, how, got, want) <= 1


MODELS = {
    "some layers with a window": (
        "qwen2",
        "sdpa",
        {"sliding_window": 12, "use_sliding_window": True, "max_window_layers": 1},
    ),
    "all layers with a window, eager": ("mistral", "eager", {"sliding_window": 12}),
    "norms on heads": ("qwen3", "sdpa", {"noise": 0.3}),
    "capped scores and logits": ("gemma2", "eager", {"head_dim": 8, "sliding_window": 12}),
    "learned positions": ("gpt2", "sdpa", {}),
    "experts": ("mixtral", "sdpa", {"num_local_experts": 4}),
    "sinks": ("gpt_oss", "eager", {"head_dim": 8, "num_local_experts": 4, "sliding_window": 12}),
}


@pytest.mark.parametrize("name", MODELS)
def test_any_model_that_a_fast_path_serves(name, prompts, random_policy):
    """Uneven prompts past the window, responses of many lengths, rows refilled as they end."""
    kind, attention, settings = MODELS[name]
    policy = random_policy(kind, attention, **settings)
    policy.eos_ids = frozenset(range(0, 256, 16))
    subject = Subject(policy, 256)
    how = Sampling(n=3, max_tokens=30, min_tokens=2, seed=5, temperature=0.9, top_p=0.97)
    want = in_order(subject.plain.stream(prompts, how))
    assert len({len(c.token_ids) for c in chain(*want)}) > 5
    for budget in (2**18, 150, 1):
        sampler = FastSampler(policy, subject.texts, budget, cuda_graphs=False)
        sampler.qualify(60)
        got = in_order(sampler.stream(prompts, how))
        assert compare(subject, prompts, how, got, want) <= 1


@pytest.mark.parametrize(
    ("path", "keys"),
    [
        ("own forward, prompts in rows", {"dtype": "bfloat16"}),
        ("own forward, prompts shared", {"dtype": "bfloat16"}),
        ("fused, prompts shared", {"dtype": "bfloat16"}),
        ("own forward, prompts in rows", {"autocast": "bfloat16"}),
        ("own forward, prompts shared", {"autocast": "bfloat16"}),
        ("fixed shapes", {"dtype": "bfloat16"}),
    ],
    ids=str,
)
def test_in_bfloat16_to_its_rounding(tiny_policy, prompts, path, keys):
    """Eight bits move logits of up to 20 by 0.1, so about half of these responses turn off."""
    subject = Subject(tiny_policy(**keys), 262)
    how = Sampling(n=4, max_tokens=12, seed=5)
    want = in_order(subject.plain.stream(prompts, how))
    got = subject.sampled(PATHS[path], prompts, how, 150)
    assert compare(subject, prompts, how, got, want, apart=0.3, noise=0.1) <= 15
