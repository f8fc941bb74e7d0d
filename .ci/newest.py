"""Print what alignkit and its tests need, without the upper bounds of pyproject.toml.

The bounds keep an installation at the newest set of torch, transformers and vLLM that was tested
together. The set beyond them is tried in an environment of its own::

    .venv/bin/pip install $(python3 .ci/newest.py) && .venv/bin/pip install --no-deps -e .
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_UPPER = re.compile(r",<[^,;]+|<[^,;]+,?")


def newest(root: Path = ROOT) -> list[str]:
    """Return the requirements of the package and of its extra ``test``, without upper bounds."""
    with (root / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["test"]]
    return [_UPPER.sub("", line) for line in needed]


if __name__ == "__main__":
    print(*newest(), sep="\n")
