"""The version that is being built: from the tag, and where there is none from what is at hand.

1. ``PKG-INFO`` beside pyproject.toml, in an sdist: the version it was made with.
2. The newest tag ``vX.Y.Z`` that the commit has or follows: ``0.2.0`` at the tag itself, and
   ``0.2.1.dev5+gCOMMIT`` five commits later.
3. Neither, as in a clone without tags or an archive of the files: the newest version that
   ``CHANGELOG.md`` lists, or the first, so that plugins' requirements are still met.

``python .ci/version.py`` prints it; ``python .ci/version.py --notes v0.2.0`` prints what the
changelog says of a release, and fails where that is nothing, or the version is not the tag's.
"""

from __future__ import annotations

import re
import subprocess
import sys
from email.parser import HeaderParser
from pathlib import Path

from packaging.version import Version

ROOT = Path(__file__).resolve().parents[1]
FIRST = "0.1.0"
_RELEASE = re.compile(r"^## \[(\d+\.\d+\.\d+[^\]]*)\] - \d{4}-\d{2}-\d{2}$", re.MULTILINE)


def version(root: Path = ROOT) -> str:
    """Return the version of the files in ``root``."""
    return _of_sdist(root) or _of_tag(root) or (*released(root), FIRST)[0]


def released(root: Path = ROOT) -> list[str]:
    """Return the versions that the changelog lists, newest first."""
    return _RELEASE.findall(_changelog(root))


def notes(tag: str, root: Path = ROOT) -> str:
    """Return what the changelog says of a tag's release; ValueError if it is not ready for it."""
    wanted, found = tag.removeprefix("v"), version(root)
    if found != wanted:
        raise ValueError(f"the tag is {tag}, but these files have version {found}")
    if released(root)[:1] != [wanted]:
        raise ValueError(f"CHANGELOG.md does not begin with `## [{wanted}] - YYYY-MM-DD`")
    before, _, rest = _changelog(root).partition(f"## [{wanted}]")
    text = re.split(r"^## \[", rest.partition("\n")[2], maxsplit=1, flags=re.MULTILINE)[0].strip()
    if not text or before.partition("## [Unreleased]")[2].strip():
        raise ValueError(f"CHANGELOG.md has changes that are not under {wanted}, or none that are")
    return text


def _changelog(root: Path) -> str:
    path = root / ".github" / "CHANGELOG.md"
    return path.read_text(encoding="utf-8") if path.is_file() else ""


def _of_sdist(root: Path) -> str:
    path = root / "PKG-INFO"
    if not path.is_file():
        return ""
    return HeaderParser().parsestr(path.read_text(encoding="utf-8"))["Version"] or ""


def _of_tag(root: Path) -> str:
    if not (root / ".git").exists():  # a folder inside somebody else's checkout
        return ""
    words = ["git", "-C", str(root), "describe", "--tags", "--long", "--match", "v[0-9]*"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # no git, or no tag
        return ""
    tag, commits, commit = done.stdout.strip().rsplit("-", 2)
    found = Version(tag)
    if commits == "0":
        return str(found)
    if found.is_prerelease:
        return f"{found}.post{commits}+{commit}"
    return f"{found.major}.{found.minor}.{found.micro + 1}.dev{commits}+{commit}"


if __name__ == "__main__":
    try:
        print(notes(sys.argv[2]) if sys.argv[1:2] == ["--notes"] else version())
    except ValueError as error:
        sys.exit(str(error))
