"""What a model folder's files say about its tokens, read without loading tokenizer or weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def settings_in(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file, empty if it cannot be read: loading reports why."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def adds_bos(folder: Path) -> bool | None:
    """Return whether a local tokenizer begins sequences with a token of its own; None if unknown.

    Read off its files: ``add_bos_token``, or the template that ``tokenizer.json`` ends with.
    """
    config = settings_in(folder / "tokenizer_config.json")
    rules = settings_in(folder / "tokenizer.json")
    if isinstance(config.get("add_bos_token"), bool):
        return bool(config["add_bos_token"] and config.get("bos_token"))
    if not rules:
        return None
    last = rules.get("post_processor") or {}
    steps = last.get("processors", [last])
    templates = [step for step in steps if step.get("type") == "TemplateProcessing"]
    return any("SpecialToken" in piece for t in templates for piece in t["single"][:1])


def names_eos(folder: Path) -> bool | None:
    """Return whether a local model or its tokenizer names an end of sequence; None if unknown.

    A configuration that leaves ``eos_token_id`` out takes that of its class.
    """
    config = settings_in(folder / "config.json")
    generation = settings_in(folder / "generation_config.json")
    tokenizer = settings_in(folder / "tokenizer_config.json")
    if "eos_token_id" not in config or not tokenizer:
        return None
    named = (generation.get("eos_token_id"), config["eos_token_id"], tokenizer.get("eos_token"))
    return any(value not in (None, []) for value in named)


def too_many_tokens(folder: Path) -> str | None:
    """Return what is wrong where the tokenizer gives ids that the model has no embedding for.

    Special tokens beyond the embeddings are accepted: no text becomes one unless it spells it out,
    and some models for text share the tokenizer of one for images.
    """
    config = settings_in(folder / "config.json")
    text = config.get("text_config")
    size = (text if isinstance(text, dict) else config).get("vocab_size", config.get("vocab_size"))
    ids = _ids(settings_in(folder / "tokenizer.json"))
    if not isinstance(size, int) or not ids:
        return None
    return beyond(max(ids) + 1, size) if max(ids) >= size else None


def beyond(tokens: int, embeddings: int) -> str:
    """Describe a tokenizer that is larger than the embeddings."""
    return (
        f"the tokenizer has {tokens:,} tokens, the model embeddings for {embeddings:,}; resize "
        f"the embeddings (model.resize_token_embeddings({tokens})) and save the model anew, or "
        f"take the tokenizer that belongs to it"
    )


def _ids(rules: dict[str, Any]) -> list[int]:
    """Return the ids that text can become: the vocabulary's, and added tokens' but special ones."""
    words = rules.get("model", {}).get("vocab", {})
    ids = list(words.values()) if isinstance(words, dict) else [len(words) - 1]
    added = rules.get("added_tokens") or []
    special = {token["id"] for token in added if token.get("special")}
    ids += [token["id"] for token in added]
    return [i for i in ids if isinstance(i, int) and i not in special]
