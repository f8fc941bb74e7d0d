"""Check names that become files or folders, whether from recipes, data or commands."""

from __future__ import annotations

import hashlib
import re
from fnmatch import fnmatchcase
from pathlib import Path

from alignkit.errors import AlignkitError

LONGEST = 255
"""Maximum length of a file name on common file systems, in bytes."""
_DEVICE = re.compile(r"\A(?i:CON|PRN|AUX|NUL|CONIN\$|CONOUT\$|(?:COM|LPT)[0-9¹²³]) *(?:\.|\Z)")
_FAULTS = {
    re.compile(r"[/\\]"): "a separator", re.compile(r"\A\."): "a dot at its start",
    re.compile(r"\.\Z"): "a dot at its end", re.compile(r"\A | \Z"): "a space at an end",
    _DEVICE: "a device's name",
}  # fmt: skip


def name_problem(name: str, *, room: int = 0, reserved: str = "") -> str:
    r"""Return why ``name`` cannot be the name of a file or folder, ``""`` if it can.

    ``room`` is the number of bytes reserved for a suffix, ``reserved`` a pattern of names with
    another meaning. Device names of Windows (``NUL``, ``com1.txt``) are refused too, because runs
    are copied between machines.

    >>> [name_problem(n) for n in ("math", "../up", "end.", "nul.txt", "")]
    ['', 'a separator', 'a dot at its end', "a device's name", 'no character']
    """
    if not name:
        return "no character"
    if fnmatchcase(name, reserved):
        return f"the form {reserved}, which is reserved"
    found = (said for fault, said in _FAULTS.items() if fault.search(name))
    return _unwritable(name, LONGEST - room) or next(found, "")


def path_problem(path: Path) -> str:
    """Return why ``path`` cannot be written in any folder, ``""`` if it can."""
    return next(filter(None, (_unwritable(part, LONGEST) for part in path.parts)), "")


def _unwritable(name: str, most: int) -> str:
    if not name.isprintable():
        return f"a character that cannot be shown: {next(c for c in name if not c.isprintable())!r}"
    size = len(name.encode())
    return f"{size} bytes, more than {most}" if size > most else ""


def checked_name(name: str, what: str, *, room: int = 0) -> str:
    """Return ``name``; AlignkitError if it cannot be the name of ``what``."""
    if problem := name_problem(name, room=room):
        raise AlignkitError(refused(name, what, problem))
    return name


def refused(name: str, what: str, problem: str) -> str:
    """Return the message that refuses a name because of ``problem``."""
    short = name if len(name) <= 60 else f"{name[:57]}..."
    return f"{short!r} cannot be the name of {what}: it has {problem}"


def file_name(text: str, *, room: int = 0) -> str:
    """Return a valid file name made from any text; shortened if it is too long.

    >>> file_name("eval/pass@1"), file_name("../../etc"), file_name("NUL"), file_name("")
    ('eval_pass@1', '_.._etc', '_NUL', '_')
    """
    name = re.sub(r"[^\w.,=+@-]+", "_", text).strip(".")
    name = f"_{name}" if not name or _DEVICE.search(name) else name
    if len(name.encode()) <= LONGEST - room:
        return name
    mark = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: LONGEST - room - 9].decode(errors='ignore')}-{mark}"
