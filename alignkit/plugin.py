"""One plugin, as it was found, and what it offers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from alignkit.component import Component

OURS = "alignkit"
"""The distribution whose plugins take precedence in names."""


@dataclass
class Plugin:
    """One entry point of the ``alignkit`` group, loaded or not."""

    name: str
    dist: str
    version: str
    module: str
    status: Literal["active", "disabled", "broken", "incompatible", "conflict"] = "active"
    detail: str = ""
    """Why the plugin is not active, or another remark about it."""
    traceback: str = ""
    provides: dict[str, list[str]] = field(default_factory=dict)
    """Component names by kind."""
    file: Path | None = None
    """The plugin's file, if it is a file and not an installed package."""


Offer = tuple[Plugin, Component[Any]]
Offers = dict[tuple[str, str], list[Offer]]
