"""A language model's sizes, and what can be computed from them alone. Imports no torch.

They are read from a transformers configuration: the object, or the ``config.json`` of a folder.
Decoders of the common kind are known (Llama, Qwen, Mistral and their like): grouped-query
attention, and a gated MLP or a mixture of such experts in every layer.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""Names in configurations for the number of a layer's experts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShape:
    """The sizes of a decoder; 0 for one that its configuration does not give."""

    layers: int
    heads: int
    """Of the queries."""
    kv_heads: int
    """Of the keys and of the values."""
    head_size: int
    hidden: int = 0
    inner: int = 0
    """Inner size of the MLP; of one expert, where there are experts."""
    vocabulary: int = 0
    tied: bool = False
    """Whether the output head shares the embedding's weights."""
    experts: int = 0
    """Of a layer; 0 = one MLP that every token goes through."""
    experts_per_token: int = 0
    """How many of them compute each token."""

    @classmethod
    def read(cls, config: object) -> ModelShape | None:
        """Read the sizes from a configuration: an object, or the mapping in ``config.json``.

        Of an object with several models, the text model's are read. None if the number of layers,
        the number of heads or the size of a head is missing.
        """
        get = _reader(config)
        layers, heads, hidden = map(
            get, ("num_hidden_layers", "num_attention_heads", "hidden_size")
        )
        size = get("head_dim") or (heads and hidden and hidden // heads)
        if not (layers and heads and size):
            return None
        experts = next(filter(None, map(get, _EXPERTS)), 0)
        return cls(
            layers=layers,
            heads=heads,
            kv_heads=get("num_key_value_heads") or heads,
            head_size=size,
            hidden=hidden or 0,
            inner=(experts and get("moe_intermediate_size")) or get("intermediate_size") or 0,
            vocabulary=get("vocab_size") or 0,
            tied=bool(get("tie_word_embeddings")),
            experts=experts,
            experts_per_token=get("num_experts_per_tok") or 0,
        )

    @property
    def query(self) -> int:
        """Query heads times head size."""
        return self.heads * self.head_size

    @property
    def kv(self) -> int:
        """Key-value heads times head size."""
        return self.kv_heads * self.head_size

    @property
    def parameters(self) -> int | None:
        """Number of parameters, including biases of the attention's inputs but no others.

        None where the configuration lacks a size they depend on.
        """
        h = self.hidden
        if not (h and self.inner and self.vocabulary):
            return None
        return self.vocabulary * h * (1 if self.tied else 2) + self.layers * self.layer + h

    @property
    def layer(self) -> int:
        """Number of parameters of a layer, as far as its sizes are given."""
        h, k, q = self.hidden, self.kv, self.query
        mlp = 3 * h * self.inner
        if self.experts:
            mlp = self.experts * (mlp + h)  # and the router
        return (h + 1) * (q + 2 * k) + q * h + mlp + 2 * h

    def cache(self, number: int) -> int:
        """Return bytes of the key-value cache per token, ``number`` bytes each."""
        return 2 * self.layers * self.kv * number

    def adapter(self, rank: int) -> int:
        """Return the parameters of low-rank adapters of that rank on all linear layers.

        Experts have none: their weights are in one tensor, not in linear layers.
        """
        h, k, q, m = self.hidden, self.kv, self.query, self.inner
        mlp = 0 if self.experts else 3 * (h + m)
        return self.layers * rank * (2 * (h + q) + 2 * (h + k) + mlp)

    def activations(
        self, number: int, *, checkpointing: bool, half: bool = False, compiled: bool = False
    ) -> float:
        """Return bytes kept for the backward pass per token, for weights of ``number`` bytes.

        Of a layer 8 h + 3 k + 4 m numbers; h hidden size, k key-value heads times head size, m
        inner size of the MLP. Of 16-bit weights some in norms are wide: 2.3 bytes on average,
        measured. ``half``: matrix products of float32 weights are in 16 bits; norms and residuals,
        4 h numbers of a layer, stay wide. With ``checkpointing`` h numbers a layer, and one layer.
        ``compiled`` layers of 16-bit weights keep 6 h + 2 k + 3 m: what torch's partitioner keeps.
        """
        inner = self.inner * (self.experts_per_token or 1 if self.experts else 1)
        kept = 2.3 if number == 2 else number
        layer = (8 * self.hidden + 3 * self.kv + 4 * inner) * kept
        if compiled and number == 2:
            layer = 2 * (6 * self.hidden + 2 * self.kv + 3 * inner)
        if half:
            layer = 4 * (4 * self.hidden) + 2 * (7 * self.hidden + 3 * self.kv + 4 * inner)
        between = self.hidden * (4 if half else kept)
        return self.layers * between + layer if checkpointing else self.layers * layer


def _reader(config: object) -> Callable[[str], Any]:
    if isinstance(config, Mapping):
        return config.get
    text_config = getattr(config, "get_text_config", None)
    found = text_config() if text_config else config
    return lambda name: getattr(found, name, None)


KNOWN = {
    "Qwen/Qwen2.5-Math-1.5B": ModelShape(
        layers=28, heads=12, kv_heads=2, head_size=128, hidden=1536, inner=8960,
        vocabulary=151_936, tied=True,
    ),
    "Qwen/Qwen2.5-Math-7B": ModelShape(
        layers=28, heads=28, kv_heads=4, head_size=128, hidden=3584, inner=18_944,
        vocabulary=152_064,
    ),
}  # fmt: skip
"""Models of the shipped recipes, by their name on the Hub, known without a download."""


def shape_at(path: str) -> ModelShape | None:
    """Return the sizes of a model in a folder or in the Hub's cache, or of one that is known.

    None if it is none of these, or its number of parameters cannot be told from them.
    """
    home = Path(os.environ.get("HF_HOME", Path.home() / ".cache" / "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    cached = (cache / f"models--{path.replace('/', '--')}" / "snapshots").glob("*/config.json")
    found = [f for f in (Path(path) / "config.json", *sorted(cached)) if f.is_file()]
    shape = (
        ModelShape.read(json.loads(found[0].read_text(encoding="utf-8")))
        if found
        else KNOWN.get(path)
    )
    return shape if shape and shape.parameters else None


def parameters_by_name(path: str) -> int | None:
    """Return how many parameters a model's name says it has.

    >>> parameters_by_name("Qwen/Qwen2.5-Math-1.5B"), parameters_by_name("data/tiny_policy")
    (1500000000, None)
    """
    said = re.search(r"(\d+(?:\.\d+)?)([BbMm])(?![a-z])", Path(path).name)
    return said and round(float(said[1]) * (1e9 if said[2] in "Bb" else 1e6))
