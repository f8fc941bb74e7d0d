"""Whether a third party's plugin fits the running alignkit, by what it states: nothing runs."""

from __future__ import annotations

from importlib.metadata import Distribution, EntryPoint, version

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from alignkit.promises import source_of, unmet_api


def unfit(entry: EntryPoint) -> str:
    """Return why a plugin does not fit, by its requirements and its API, or ``""``."""
    return unmet_requirement(entry.dist) or unmet_api(source_of(_module(entry.value)))


def _module(value: str) -> str:
    """Return the module that an entry point names.

    >>> _module("package.hooks:plugin [extra]")
    'package.hooks'
    """
    return value.partition(":")[0].partition("[")[0].strip()


def unmet_requirement(dist: Distribution | None) -> str:
    """Return why ``dist`` does not fit the running alignkit, or ``""``."""
    ours = version("alignkit")
    for line in (dist.requires if dist else None) or ():
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            return f"its requirement {line!r} cannot be read"
        if canonicalize_name(wanted.name) == "alignkit" and not wanted.specifier.contains(
            ours, prereleases=True
        ):
            return (
                f"requires {line}, but alignkit {ours} is installed; install an alignkit that "
                f"fits, or another release of {dist.metadata['Name'] if dist else 'it'}"
            )
    return ""
