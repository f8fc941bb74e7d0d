"""The list of known plugins: a TOML file with a table ``[[plugin]]`` for each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tomli
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from alignkit.errors import AlignkitError, did_you_mean, shown
from alignkit.kinds import HOOKS
from alignkit.plugins import Registry
from alignkit.text_table import aligned

_GITHUB = re.compile(r"https://github\.com/[\w.-]+/[\w.-]+")
NONE_YET = (
    "this list has no plugin yet. What is installed: alignkit list-plugins\n"
    'How a plugin is published and listed: the guide to plugins, under "Publishing it"'
)


class Known(BaseModel):
    """A plugin that somebody published."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    """The plugin's name, as in ``alignkit list-plugins``."""
    package: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    """The distribution's name on the package index."""
    kinds: Annotated[tuple[str, ...], Field(min_length=1)]
    """The hooks it implements."""
    summary: Annotated[str, Field(min_length=1, max_length=120)]
    """One sentence about it."""
    url: Annotated[str, Field(pattern=r"^https://\S+$")]
    """Where its code is."""

    @property
    def badge(self) -> str:
        """Address of the badge of its workflow ``conformance.yml``; "" away from GitHub."""
        found = _GITHUB.match(self.url)
        return f"{found[0]}/actions/workflows/conformance.yml/badge.svg" if found else ""


def read(path: Path) -> list[Known]:
    """Return the plugins of a list by name; AlignkitError says what is wrong with it."""
    try:
        table = tomli.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeError, tomli.TOMLDecodeError) as error:
        said = getattr(error, "strerror", None) or error
        raise AlignkitError(f"{shown(path)} is no list of plugins: {said}") from error
    tables = table.pop("plugin", [])
    if not isinstance(tables, list):
        raise AlignkitError(f"{shown(path)} is no list of plugins: write [[plugin]] for each")
    found, problems = [], [f"unknown table {key!r}" for key in table]
    for number, item in enumerate(tables, 1):
        try:
            found.append(Known.model_validate(item))
        except ValidationError as error:
            problems += _faults(f"plugin {number}", error)
    problems += [f"{p.name}: unknown kind {k!r}" for p in found for k in p.kinds if k not in HOOKS]
    names = [p.name for p in found]
    problems += [f"{name} is listed twice" for name in sorted(set(names)) if names.count(name) > 1]
    if problems:
        raise AlignkitError(f"{shown(path)} is no list of plugins: {'; '.join(problems)}")
    return sorted(found, key=lambda p: p.name)


def _faults(where: str, error: ValidationError) -> list[str]:
    """Return what is wrong with a table, a line for each key."""
    return [
        f"{where}: {'.'.join(map(str, fault['loc'])) or 'it'}: {fault['msg']} "
        f"(got {fault['input']!r:.60})"
        for fault in error.errors(include_url=False)
    ]


def fitting(known: Sequence[Known], text: str, kind: str | None) -> list[Known]:
    """Return the plugins that offer ``kind`` and have ``text`` in what is said of them.

    AlignkitError if none of several does.
    """
    words = text.lower()
    found = [
        p
        for p in known
        if (kind is None or kind in p.kinds)
        and words in f"{p.name} {p.package} {' '.join(p.kinds)} {p.summary}".lower()
    ]
    if known and not found:
        raise AlignkitError(f"none of the {len(known)} known plugins fits")
    return found


def listing(known: Sequence[Known], registry: Registry) -> str:
    """Return the plugins as a table, with version and state of those that are installed."""
    if not known:
        return NONE_YET
    have = {canonicalize_name(p.dist): f"{p.version}, {p.status}" for p in registry.plugins}
    rows = [
        [p.name, ", ".join(p.kinds), have.get(canonicalize_name(p.package), "-"), p.summary, p.url]
        for p in known
    ]
    table = aligned(["PLUGIN", "KINDS", "INSTALLED", "SUMMARY", "AT"], rows)
    return f"{table}\nalignkit install NAME installs one"


def page(known: Sequence[Known]) -> str:
    """Return the plugins as a table in Markdown, each with its badge."""
    rows = [
        f"| [{p.name}]({p.url}) | {', '.join(p.kinds)} | {p.summary.replace('|', chr(92) + '|')} | "
        f"{f'![conformance]({p.badge})' if p.badge else ''} |"
        for p in known
    ]
    return "\n".join(["| plugin | kinds | summary | conformance |", "|---|---|---|---|", *rows])


def requirement(known: Sequence[Known], text: str, *, unlisted: bool) -> Requirement:
    """Return what to install for a plugin's or a package's name, which a version may follow.

    Raises AlignkitError for a name that is not listed, unless ``unlisted``: a package runs its code
    when it is installed, and a name that is nearly right may be somebody else's.
    """
    try:
        given = Requirement(text)
    except InvalidRequirement as error:
        raise AlignkitError(f"{text!r:.80} cannot be the name of a plugin: {error}") from error
    for plugin in known:
        if canonicalize_name(given.name) in map(canonicalize_name, (plugin.name, plugin.package)):
            if given.url:
                raise AlignkitError(f"{plugin.name} is listed without an address; leave it out")
            if given.marker:
                raise AlignkitError(f"{plugin.name} is installed here; leave {given.marker} out")
            extras = f"[{','.join(sorted(given.extras))}]" if given.extras else ""
            return Requirement(f"{plugin.package}{extras}{given.specifier}")
    if unlisted:
        return given
    guess = did_you_mean(given.name, [p.name for p in known] + [p.package for p in known])
    raise AlignkitError(
        f"no plugin {given.name!r} is listed.{guess} `alignkit plugins` lists those that are; "
        "--unlisted installs any package"
    )
