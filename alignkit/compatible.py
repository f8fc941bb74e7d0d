"""Whether a third party's distribution fits the running alignkit, by its stated requirements."""

from __future__ import annotations

from importlib.metadata import Distribution, version

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


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
            return f"requires {line}, but alignkit {ours} is installed"
    return ""
