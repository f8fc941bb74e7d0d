"""Stand-ins for what a component under test is used with, and registries made in memory."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, Literal

from alignkit import plugins
from alignkit.component import Component, Params, Slot, slots_of
from alignkit.errors import AlignkitError
from alignkit.kinds import HOOKS, KINDS
from alignkit.plugin import Offer, Plugin
from alignkit.plugins import Registry
from alignkit.protocols import Example, Reward, RewardFn, Tracker, per_response
from alignkit.vetting import components_of

if TYPE_CHECKING:
    from alignkit.protocols import Run

RECORDED = "recorded.jsonl"
BUILTINS = (
    "advantages", "data", "environments", "hf", "losses", "normalizers", "optimizers", "prompts",
)  # fmt: skip
"""Plugins that stand-ins come from."""


def registry_of(
    *modules: ModuleType,
    name: str = "mine",
    builtins: bool = True,
    **components: Mapping[str, type[Params[Any]]],
) -> Registry:
    """Return a registry with one plugin made of ``modules`` or parameter classes, not installed.

    ``registry_of(loss_type={"cispo": Cispo})`` offers ``mine/cispo`` beside the components that
    are installed; ``builtins=False`` leaves those out. Modules are plugin modules with hooks.
    Raises AlignkitError for a word that is no kind, TypeError for a component with a fault.
    """
    for kind in components.keys() - set(HOOKS):
        raise AlignkitError(f"no kind {kind!r}; kinds: {', '.join(HOOKS)}")
    found: list[tuple[str, Component[Any]]] = [
        (kind, Component(word, params))
        for kind, named in components.items()
        for word, params in named.items()
    ]
    for module in modules:
        found += components_of(module)
    base = plugins.load() if builtins else Registry([], {})
    return _extended(base, Plugin(name, f"alignkit-{name}", "0.0", "in memory"), found)


def _extended(
    base: Registry, plugin: Plugin, components: Iterable[tuple[str, Component[Any]]]
) -> Registry:
    offers: dict[tuple[str, str], list[Offer]] = defaultdict(list)
    offers.update({key: list(found) for key, found in base.offers.items()})
    for kind, component in components:
        offers[kind, component.name].append((plugin, component))
        plugin.provides.setdefault(kind, []).append(component.name)
    return Registry([*base.plugins, plugin], dict(offers))


# ---------------------------------------------------------------- filling slots


def with_stand_ins(registry: Registry) -> Registry:
    """Add the kit's own plugin, ``testing``, and whatever built-in the registry lacks."""
    have = {p.name for p in registry.plugins}
    if not have.issuperset(BUILTINS):
        installed = plugins.load()
        offers = dict(registry.offers)
        for key, found in installed.offers.items():
            offers[key] = [*offers.get(key, []), *(o for o in found if o[0].name not in have)]
        registry = Registry([*registry.plugins, *installed.plugins], offers)
    own: list[tuple[str, Component[Any]]] = [
        ("reward_fn", Component("vowels", Vowels)),
        ("tracker", Component("recorder", Recorder)),
    ]
    return _extended(registry, Plugin("testing", "alignkit", "0", "alignkit_testing"), own)


def stand_in(kind: str) -> dict[str, Any]:
    """Return a recipe table that fills a slot of ``kind``: small, fast, offline."""
    tables: dict[str, dict[str, Any]] = {
        "prompt_template": {"use": "prompts/question_only"},
        "reward_fn": {"use": "testing/vowels"},
        "environment": {"use": "environments/guess", "max_turns": 2},
        "advantage": {"use": "advantages/group_mean"},
        "loss_type": {"use": "losses/reinforce"},
        "preference_loss": {"use": "algorithms/dpo"},
        "normalizer": {"use": "normalizers/masked_mean"},
        "rollout_backend": {"use": "hf/hf", "max_tokens": 8},
        "optimizer": {"use": "optimizers/adamw", "lr": 1e-3},
        "tracker": {"use": "testing/recorder"},
    }
    if kind == "policy":
        return {"use": "hf/hf", "path": str(tiny_model())}
    if kind == "dataset":
        return {"use": "data/jsonl", "path": str(tiny_rows())}
    if kind not in tables:
        raise AlignkitError(f"there is no stand-in for a {kind}; give its table in params")
    return dict(tables[kind])


def completed(
    table: Mapping[str, Any], params: type[Params[Any]], registry: Registry
) -> dict[str, Any]:
    """Return ``table`` with a stand-in in every required slot it leaves open."""
    full = dict(table)
    for slot in slots_of(params, KINDS).values():
        if slot.name in full:
            full[slot.name] = _each(full[slot.name], slot, registry)
        elif slot.required:
            full[slot.name] = _filled(slot, registry)
    return full


def _filled(slot: Slot, registry: Registry) -> Any:
    item = completed({}, slot.table, registry) if slot.table else stand_in(slot.kind)
    shapes: dict[str, Any] = {"one": item, "list": [item], "map": {"first": item}}
    return shapes[slot.arity]


def _each(value: Any, slot: Slot, registry: Registry) -> Any:
    """Complete the tables a slot was given; what is no table is left for the recipe to refuse."""
    if slot.arity == "list" and isinstance(value, list):
        return [_given(item, slot, registry) for item in value]
    if slot.arity == "map" and isinstance(value, Mapping):
        return {name: _given(item, slot, registry) for name, item in value.items()}
    return _given(value, slot, registry)


def _given(value: Any, slot: Slot, registry: Registry) -> Any:
    if not isinstance(value, Mapping):
        return value
    if slot.table:
        return completed(value, slot.table, registry)
    try:
        _, component = registry.get(slot.kind, str(value.get("use")))
    except LookupError:
        return value
    return completed(value, component.params, registry)


# ---------------------------------------------------------------- files


def _folder(prefix: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix=f"alignkit-{prefix}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def tiny_rows() -> Path:
    """Return a jsonl file of twelve sums, ``question`` and ``answer``."""
    path = _folder("rows") / "rows.jsonl"
    rows = [{"question": f"{a}+{b}=", "answer": str(a + b)} for a in (2, 5, 9) for b in range(4)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@cache
def tiny_model() -> Path:
    """Return a Hugging Face folder: a random two-layer Qwen2 over printable ASCII, float32.

    Two ids end a response, so that reading only one of them shows.
    """
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        GenerationConfig,
        PreTrainedTokenizerFast,
        Qwen2Config,
        Qwen2ForCausalLM,
    )

    folder = _folder("model")
    letters = [chr(code) for code in range(33, 127)] + ["Ġ", "Ċ"]  # as byte-level BPE writes them
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(letters)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(["<|endoftext|>", "<|im_end|>"])
    ends = [core.token_to_id(token) for token in ("<|endoftext|>", "<|im_end|>")]
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        eos_token="<|endoftext|>",  # nosec B106 # no password
        pad_token="<|endoftext|>",
    )
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512,
        bos_token_id=None, eos_token_id=ends[0], pad_token_id=ends[0], initializer_range=0.2,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)  # type: ignore[no-untyped-call]
    generation = GenerationConfig(  # type: ignore[no-untyped-call]
        eos_token_id=ends, pad_token_id=ends[0]
    )
    model.generation_config = generation
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


# ---------------------------------------------------------------- components of the kit


class Vowels(Params[RewardFn]):
    """Share of vowels among a response's letters: random models differ in it."""

    def build(self) -> RewardFn:
        def judge(response: str, example: Example) -> Reward:
            share = sum(c in "aeiou" for c in response.lower()) / max(len(response), 1)
            return Reward(share, {"vowels": share})

        return per_response(judge)


class Recorder(Params[Tracker]):
    """Writes everything a tracker receives to ``recorded.jsonl`` in the run directory."""

    def build(self) -> Tracker:
        return _Recorder()


class _Recorder:
    def start(self, run: Run, /) -> None:
        self.path = run.dir / RECORDED
        self._write("start", 0)

    def log(self, step: int, metrics: Mapping[str, float], /) -> None:
        self._write("log", step)

    def rollouts(self, step: int, name: str, rows: Sequence[Mapping[str, Any]], /) -> None:
        self._write("rollouts", step)

    def close(self, status: Literal["done", "failed"], /) -> None:
        self._write(f"close {status}", 0)

    def _write(self, event: str, step: int) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps([event, step]) + "\n")
