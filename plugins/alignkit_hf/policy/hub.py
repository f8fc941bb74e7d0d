"""Whether a model that is not a local folder is available from the Hugging Face Hub.

transformers retries for more than a minute before it fails; one request is enough to recognise a
misspelt name or a Hub that cannot be reached.
"""

from __future__ import annotations

from pathlib import Path

from alignkit.errors import AlignkitError

TIMEOUT = 15.0
"""Seconds to wait for the Hub's answer."""


def cached(name: str, revision: str | None) -> bool:
    """Whether the Hub's local cache holds the model's configuration."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json", revision=revision), str)


def not_in_cache(name: str, revision: str | None) -> str:
    """Return why ``name`` is not available offline, ``""`` if it is or the Hub may be asked."""
    if Path(name).exists():
        return ""
    from huggingface_hub import constants
    from huggingface_hub.errors import HFValidationError

    if not constants.HF_HUB_OFFLINE:
        return ""
    try:
        if cached(name, revision):
            return ""
    except HFValidationError as error:
        return f"there is no folder {name}, and it is no name on the Hub: {error}"
    return (
        f"there is no folder {name}, it is not in the local cache of the Hub, and HF_HUB_OFFLINE "
        "is set: give a folder written by save_pretrained"
    )


def refuse_unreachable(name: str, revision: str | None) -> None:
    """Raise AlignkitError unless ``name`` is there, in the cache, or on a Hub that answers."""
    if Path(name).exists():
        return
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url

    if reason := not_in_cache(name, revision):
        raise AlignkitError(reason)
    if constants.HF_HUB_OFFLINE or cached(name, revision):
        return
    try:
        get_hf_file_metadata(hf_hub_url(name, "config.json", revision=revision), timeout=TIMEOUT)
    except Exception as error:  # the client's own types differ between its versions
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AlignkitError(
            f"there is no folder {name}, and the Hub does not give it: {reason}\n"
            "  Give a folder written by save_pretrained, or a Hub name that is in the local cache "
            "or can be downloaded from here."
        ) from error
