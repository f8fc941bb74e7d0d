"""Which architectures are refused, judged by configuration alone; tests/zoo tries them all."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_ENCODERS = frozenset(
    {
        "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie",
        "megatron-bert", "reformer", "rembert", "roberta", "roberta-prelayernorm", "roc_bert",
        "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
    }
)  # fmt: skip
"""Types of models that attend to later tokens unless ``is_decoder`` is set."""

_FORESIGHT = "as transformers computes them, logits change with the tokens that follow"
_SPARSE = "the keys that their sparse attention picks change with the tokens beside them"
_STEADY = frozenset({"deepseek_v4"})
"""Types with an ``index_topk`` whose choice does not depend on later tokens."""

_REFUSED: Mapping[str, str] = {
    "blt": "they read bytes in patches, not tokens",
    "cpmant": _FORESIGHT,
    "emu3": "they are made for images",
    "mllama": "they are made for images",
    "prophetnet": _FORESIGHT,
    "xlm": _FORESIGHT,
    "xlnet": _FORESIGHT,
    "xmod": "they want to be told a language first",
}
"""Why models are refused, by model type."""


def refusal(settings: Mapping[str, Any]) -> str | None:
    """Return why a model of these settings, those of its config.json, is refused; None if not."""
    kind = settings.get("model_type")
    if not isinstance(kind, str):
        return None
    if kind in _ENCODERS and not settings.get("is_decoder"):
        return f"{kind} models see the tokens that follow unless is_decoder = true in config.json"
    picks = isinstance(settings.get("index_topk"), int) and kind not in _STEADY
    reason = _SPARSE if picks else _REFUSED.get(kind)
    return reason and f"{kind} models are not supported: {reason}"
