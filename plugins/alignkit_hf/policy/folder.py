"""What a local model folder lacks, found without loading it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from alignkit_hf.policy.damaged import cut_off, pointers
from alignkit_hf.policy.refused import refusal
from alignkit_hf.policy.vocabulary import adds_bos, too_many_tokens

__all__ = ["adds_bos", "folder_problems", "unreadable"]

_WEIGHTS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt")


def has_tokenizer(folder: Path) -> bool:
    """Whether a local folder holds a tokenizer, or the model is not local."""
    return not folder.is_dir() or any((folder / name).is_file() for name in _TOKENIZERS)


def folder_problems(path: str) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with ``path``, if that is a local folder, each with its recipe key."""
    folder = Path(path)
    if folder.is_file():
        yield "path", f"{path} is a file; give the folder that holds config.json"
    elif folder.is_dir():
        yield from (("path", problem) for problem in _problems(folder))
    elif folder.is_absolute() or path.startswith("."):
        yield "path", f"there is no folder {path}"


def chat_template(path: str) -> str | None:
    """Return the chat template of a local folder's tokenizer, "" if it has none.

    None where that is not known: the model is not local, or names several templates.
    """
    folder = Path(path)
    if not folder.is_dir() or (folder / "additional_chat_templates").is_dir():
        return None
    try:
        if (file := folder / "chat_template.jinja").is_file():
            return file.read_text(encoding="utf-8")
        settings = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        found = settings.get("chat_template", "")
    except (OSError, ValueError, AttributeError):
        return None
    return found if isinstance(found, str) else None


def unreadable(folder: Path) -> str | None:
    """Return which files of a model folder are not whole and what to do, None if all seem to be."""
    return _only_pointers(folder) or _cut_off(folder)


def _only_pointers(folder: Path) -> str | None:
    if named := ", ".join(pointers(folder)):
        return (
            f"{folder}: weights cannot be read: only pointers of git LFS are there for {named}; "
            f"fetch the files with git lfs pull"
        )
    return None


def _cut_off(folder: Path) -> str | None:
    found = "; ".join(cut_off(folder))
    return f"{folder}: weights cannot be read: {found}; copy them anew" if found else None


def _problems(folder: Path) -> Iterator[str]:
    try:
        found = _only_pointers(folder)
        others: list[str | None] = (
            [found] if found else [*_missing_files(folder)] or [_cut_off(folder)]
        )
    except OSError as error:
        others = [f"{folder} cannot be read: {error}"]
    yield from filter(None, others)
    if not any(others) and (wrong := too_many_tokens(folder)):
        yield f"{folder}: {wrong}"


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
