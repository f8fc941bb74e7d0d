"""Install a package in the environment that alignkit runs in."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from shlex import join

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from alignkit.errors import AlignkitError


def command(wanted: Requirement) -> list[str]:
    """Return pip's command line, or that of uv for an environment without pip."""
    if find_spec("pip"):
        return [sys.executable, "-m", "pip", "install", str(wanted)]
    if uv := shutil.which("uv"):
        return [uv, "pip", "install", "--python", sys.executable, str(wanted)]
    raise AlignkitError(
        f"{sys.executable} has no pip, and there is no uv; `{sys.executable} -m ensurepip` adds pip"
    )


def shown(words: Sequence[str]) -> str:
    """Return a command line as it is typed in a shell."""
    return f"$ {join(words)}"


def installed(words: Sequence[str], package: str) -> str:
    """Run the command; return what the package offers now. AlignkitError if it cannot be used."""
    done = subprocess.run(words, check=False)  # nosec B603 # a list of words, no shell
    if done.returncode:
        raise AlignkitError(f"that failed with status {done.returncode}; nothing else was done")
    listed = subprocess.run(  # nosec B603 # as above; a new process sees what is new
        [sys.executable, "-m", "alignkit", "list-plugins", "--json"],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    wanted = canonicalize_name(package)
    plugins = [p for p in json.loads(listed.stdout) if canonicalize_name(p["dist"]) == wanted]
    if not plugins:
        raise AlignkitError(f"{package} is installed, but it has no plugin for alignkit")
    if bad := [p for p in plugins if p["status"] != "active"]:
        raise AlignkitError(f"{bad[0]['name']} is {bad[0]['status']}: {bad[0]['detail']}")
    return "\n".join(_offered(plugin) for plugin in plugins)


def _offered(plugin: dict[str, object]) -> str:
    provides = plugin["provides"]
    assert isinstance(provides, dict)
    names = [f"{kind} {', '.join(found)}" for kind, found in provides.items()]
    return f"{plugin['name']} {plugin['version']} offers {'; '.join(names)}"
