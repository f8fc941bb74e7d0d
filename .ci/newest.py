"""Print what alignkit and its tests need, without the upper bounds of pyproject.toml.

The bounds keep an installation at the newest torch and transformers that vLLM takes too. What is
beyond them is tried in an environment of its own::

    python3 -m venv .venv-newest && .venv-newest/bin/pip install -r <(python3 .ci/newest.py)
    .venv-newest/bin/pip install --no-deps -e . && .venv-newest/bin/pytest
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_UPPER = re.compile(r",\s*<[^,;]*|<[^,;]*,?")


def newest(root: Path = ROOT) -> list[str]:
    """Return the requirements of the package and of its extra ``test``, without upper bounds."""
    with (root / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    return [without_bound(r) for r in (*project["dependencies"], *_tests(project))]


def _tests(project: dict[str, dict[str, list[str]]]) -> list[str]:
    return project["optional-dependencies"]["test"]


def without_bound(requirement: str) -> str:
    """Return a requirement without what keeps it below a version.

    >>> without_bound("torch>=2.11,<2.14; python_version<'3.14'")
    "torch>=2.11; python_version<'3.14'"
    """
    versions, *marker = requirement.split(";", 1)
    return ";".join([_UPPER.sub("", versions), *marker])


if __name__ == "__main__":
    print(*newest(), sep="\n")
