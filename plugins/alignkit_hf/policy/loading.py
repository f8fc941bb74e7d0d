"""Load and save a model with transformers: quietly, and with a remedy for what goes wrong."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError  # nosec B403 # an error's type, nothing is unpickled
from typing import TYPE_CHECKING

from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError
from transformers.utils import logging

from alignkit.errors import AlignkitError
from alignkit_hf.policy.folder import unreadable
from alignkit_hf.policy.vocabulary import beyond

if TYPE_CHECKING:
    from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

_SAMPLING_FLAGS = ("temperature", "top_p", "top_k", "min_p", "typical_p")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and warnings off the terminal."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _cached(name: str) -> Path | None:
    """Return the folder of a Hub model in the local cache, if it is there."""
    found = try_to_load_from_cache(name, "config.json")
    return Path(found).parent if isinstance(found, str) else None


@contextmanager
def loading(name: str, what: str) -> Iterator[None]:
    """Turn what transformers raises about files into a message with a remedy."""
    try:
        with quiet():
            yield
    except (OSError, ValueError, ImportError) as error:
        reason = " ".join(str(error).split())
        raise AlignkitError(
            f"cannot load the {what} of {name!r}: {reason}\n"
            "  Give a folder written by save_pretrained, or a Hub name that is in the local cache "
            "or can be downloaded from here."
        ) from error


@contextmanager
def reading(name: str) -> Iterator[None]:
    """Report which file of weights is damaged, if one is."""
    try:
        yield
    except (SafetensorError, UnpicklingError, EOFError, RuntimeError, OSError) as error:
        folder = Path(name) if Path(name).exists() else _cached(name)
        reason = unreadable(folder) if folder and folder.is_dir() else None
        if isinstance(error, OSError | RuntimeError) and not reason:
            raise
        raise AlignkitError(reason or f"{name}: weights cannot be read: {error}") from error


def refuse_more_tokens(
    tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, name: str
) -> None:
    """Raise AlignkitError if the tokenizer gives ids, not of special tokens, without embedding."""
    table = model.get_input_embeddings()
    size = getattr(table, "num_embeddings", None)
    if not isinstance(size, int) or len(tokenizer) <= size:
        return
    special = set(tokenizer.all_special_ids)
    ids = set(tokenizer.get_vocab().values()) - special
    ids -= {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    if max(ids, default=0) >= size:
        raise AlignkitError(f"{name}: {beyond(max(ids) + 1, size)}")


def savable(config: GenerationConfig) -> GenerationConfig:
    """Drop sampling flags that a greedy generation config ignores; transformers won't save them."""
    config = copy.deepcopy(config)
    if not config.do_sample:
        for flag in _SAMPLING_FLAGS:
            setattr(config, flag, None)
    return config
