"""What a local model folder lacks, found without loading it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignkit_hf.policy.refused import refusal

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def adds_bos(folder: Path) -> bool | None:
    """Return whether a local tokenizer begins sequences with a token of its own; None if unknown.

    Read off its files: ``add_bos_token``, or the template that ``tokenizer.json`` ends with.
    """
    config, rules = _json(folder / "tokenizer_config.json"), _json(folder / "tokenizer.json")
    if isinstance(config.get("add_bos_token"), bool):
        return bool(config["add_bos_token"] and config.get("bos_token"))
    if not rules:
        return None
    last = rules.get("post_processor") or {}
    steps = last.get("processors", [last])
    templates = [step for step in steps if step.get("type") == "TemplateProcessing"]
    return any("SpecialToken" in piece for t in templates for piece in t["single"][:1])


def has_tokenizer(folder: Path) -> bool:
    """Whether a local folder holds a tokenizer, or the model is not local."""
    return not folder.is_dir() or any((folder / name).is_file() for name in _TOKENIZERS)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # loading the tokenizer says what is wrong with it
        return {}
    return found if isinstance(found, dict) else {}


def folder_problems(path: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with ``path``, if that is a local folder, each with its recipe key."""
    folder = Path(path)
    if folder.is_file():
        yield "path", f"{path} is a file; give the folder that holds config.json"
    elif folder.is_dir():
        yield from (("path", problem) for problem in _missing_files(folder))
    elif folder.is_absolute() or path.startswith("."):
        yield "path", f"there is no folder {path}"


def _missing_files(folder: Path) -> Iterator[str]:
    def has(*names: str) -> bool:
        return any((folder / name).is_file() for name in names)

    if not has("config.json"):
        yield f"{folder} has no config.json; is it a model folder (save_pretrained)?"
    elif reason := _refusal(folder / "config.json"):
        yield reason
    if not has(*_WEIGHTS):
        yield f"{folder} has no weights ({' or '.join(_WEIGHTS)})"
    try:
        lost = _missing_shards(folder)
    except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
        yield f"{folder} has an index of weights that cannot be read: {error!r}"
    else:
        if lost:
            yield f"{folder} lacks shards of the weights its index names: {', '.join(lost)}"
    if not has(*_TOKENIZERS):
        yield f"{folder} has no tokenizer ({' or '.join(_TOKENIZERS)})"


def _refusal(config: Path) -> str | None:
    try:
        settings = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return f"{config} cannot be read: {error}"
    return refusal(settings) if isinstance(settings, dict) else f"{config} holds no settings"


def _missing_shards(folder: Path) -> list[str]:
    """Return what an index of sharded weights names and the folder lacks."""
    named: set[str] = set()
    if not (folder / _WEIGHTS[0]).is_file():
        for index in folder.glob("*.index.json"):
            named |= set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    return sorted(name for name in named if not (folder / name).is_file())
