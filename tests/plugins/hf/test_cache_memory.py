"""The memory of keys and values: never read before it is written, never touched without need."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit_hf import HfRollout
from alignkit_hf.fast.cache import _CLEAN_AHEAD, Cursor, Layer, Plan, RowCache
from alignkit_hf.fast.shared import SharedCache

POLICIES = [("qwen2", SharedCache), ("qwen2", RowCache), ("mistral", RowCache)]


@pytest.fixture(scope="module")
def policies(random_policy):
    """Models, each with tokens that end a response now and then."""
    made = {
        "qwen2": random_policy("qwen2"),
        "mistral": random_policy("mistral", sliding_window=8),  # whose rows hide their start
    }
    for policy in made.values():
        policy.eos_ids = frozenset(range(0, 256, 16))
    return made


def new_memory(monkeypatch, value):
    """Let memory that is not initialised hold ``value``; return the layers made with it."""
    layers, init = [], Layer.__init__

    def noted(self, *args):
        layers.append(self)
        init(self, *args)

    monkeypatch.setattr(torch.Tensor, "new_empty", lambda like, *size: like.new_full(size, value))
    monkeypatch.setattr(Layer, "__init__", noted)
    return layers


def responses(policy, cache, prompts, budget, **how):
    backend = HfRollout(kv_cache_tokens=budget).build()
    backend.start(policy)
    backend._paths.fast.forward.works_with = cache
    sampling = backend.sampling.__class__(**how)
    return [
        [(c.token_ids, c.logprobs) for c in group] for group in backend.generate(prompts, sampling)
    ]


@pytest.mark.parametrize(("name", "cache"), POLICIES)
@settings(max_examples=5)
@given(
    lengths=st.lists(st.integers(1, 60), min_size=1, max_size=6),
    n=st.integers(1, 5),
    max_tokens=st.integers(1, 90),
    budget=st.integers(1, 700),
    seed=st.integers(0, 9),
)
def test_what_the_memory_held_does_not_matter(
    policies, name, cache, lengths, n, max_tokens, budget, seed
):
    prompts = [[(7 * i + 13 * j) % 256 for j in range(k)] for i, k in enumerate(lengths)]
    found = []
    for value in (0.0, math.nan):
        with pytest.MonkeyPatch.context() as monkeypatch:
            new_memory(monkeypatch, value)
            how = {"n": n, "max_tokens": max_tokens, "seed": seed}
            found.append(responses(policies[name], cache, prompts, budget, **how))
    assert found[0] == found[1]  # NaN equals nothing, itself included


@given(st.data())
def test_rows_hold_numbers_whoever_joins_and_leaves(data):
    """As decoding does it: newcomers may leave, and others move, before a token is stored."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        new_memory(monkeypatch, math.nan)
        plan, nowhere = Plan(rows=8, row_tokens=200), torch.empty(0, dtype=torch.long)
        cursor = Cursor(nowhere, nowhere)
        layer = Layer(plan, torch.zeros(1, 1, 2), cursor)
    held: list[list[float]] = []  # what each running row must hold
    for stored in range(data.draw(st.integers(1, 25))):
        for _ in range(data.draw(st.integers(0, 8 - len(held)))):
            prompt = [stored + 0.5] * data.draw(st.integers(0, 70))
            if prompt:
                kv = torch.tensor(prompt)[None, :, None].expand(1, -1, 2)
                layer.fill(slice(len(held), len(held) + 1), kv, kv)
            held.append(prompt)
        if not held:
            continue
        for row in data.draw(st.sets(st.integers(0, len(held) - 1), max_size=3)):
            if len(held) > 1 and row < len(held):
                if row < len(held) - 1:
                    layer.move([len(held) - 1], [row])
                    held[row] = held[-1]
                held.pop()
        cursor.rows = torch.arange(len(held))
        cursor.write = torch.tensor([len(row) for row in held])
        cursor.longest = int(cursor.write.max()) + 1
        held = [[*row, float(stored)] for row in held]
        keys, values = layer.append(torch.full((len(held), 2, 1, 2), float(stored)))
        assert keys.isfinite().all()
        assert values.isfinite().all()
        for row, expected in zip(keys[:, 0, :, 0], held, strict=True):
            assert row[: len(expected)].tolist() == expected


@pytest.mark.parametrize(("name", "cache"), POLICIES)
def test_a_few_long_responses_touch_little_memory(policies, prompts, name, cache, monkeypatch):
    layers = new_memory(monkeypatch, math.nan)
    how = {"n": 16, "max_tokens": 150, "seed": 1}
    found = responses(policies[name], cache, prompts, 2**18, **how)
    lengths = sorted((len(ids) for group in found for ids, _ in group), reverse=True)
    assert lengths[0] > 3 * sum(lengths) / len(lengths)  # few run long
    used = layers[-1].both
    assert used.shape[1] == len(lengths)  # all ran at once
    touched = int((~used.isnan()[0, :, 0, :, 0]).sum())
    own = 0 if cache is SharedCache else max(map(len, prompts))
    needed = sum(length + own + _CLEAN_AHEAD for length in lengths)
    assert touched <= needed
    assert needed < 0.5 * used.shape[1] * used.shape[3]
