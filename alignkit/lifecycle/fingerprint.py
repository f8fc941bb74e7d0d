"""Checksums of what a run's numbers depend on, compared before it is resumed.

- the recipe's values, except those of trackers and of tables that are ``harmless``
- the files and folders it names, by content: they may be moved
- the code that its values load, such as a reward's file with the modules it imports
- the code of the engine and of the plugins it uses, without comments and docstrings
- versions of the packages that compute, and the hardware that does
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator, Mapping
from opcode import opmap
from pathlib import Path
from types import CodeType
from typing import Any

from alignkit.lifecycle.files import file_sum
from alignkit.recipe import Node, path_mark
from alignkit.security.recorded import recorded_values

NAME = "fingerprint.json"
UNRELATED = ("alignkit", "wandb", "pydantic")
"""Packages that compute nothing, or whose code has its own checksum."""

NOP = opmap["NOP"]

Fingerprint = dict[str, dict[str, str]]


def fingerprint(node: Node, machine: Mapping[str, Any]) -> Fingerprint:
    """Return the checksums by subject; ``machine`` holds versions and hardware."""
    recipe: dict[str, str] = {}
    files: dict[str, str] = {}
    for part in node.walk():
        if part.kind != "tracker" and not part.params.harmless:
            _values(part, recipe, files)
    return {
        "recipe": recipe,
        "file": files,
        "code": dict(sorted(_code(node))),
        "version": _versions(machine["versions"]),
        "hardware": _hardware(machine["hardware"]),
    }


def _values(node: Node, recipe: dict[str, str], files: dict[str, str]) -> None:
    if node.kind:
        recipe[".".join((*node.key, "use"))] = _sum(node.use)
    values = recorded_values(node)  # a sum of a short secret tells it
    for name, value in values.items():
        key = ".".join((*node.key, name))
        mark = path_mark(type(node.params), name)
        if mark is not None and isinstance(value, str) and Path(value).exists():
            if not mark.new:
                files[key] = _content(Path(value))
        elif value is not None:
            recipe[key] = value_sum(value)
    if code := [file_sum(file) for file in node.params.code() if isinstance(file, Path)]:
        files[".".join((*node.key, "code"))] = _sum("".join(code))


def value_sum(value: Any) -> str:
    """Return the checksum of a recipe's value."""
    return _sum(json.dumps(value, sort_keys=True))


def _content(path: Path) -> str:
    """Return a checksum of a file's bytes, or of all the files below a folder."""
    if path.is_file():
        return file_sum(path)
    inner = sorted(p for p in path.rglob("*") if p.is_file())
    return _sum("".join(f"{p.relative_to(path)}\0{file_sum(p)}\n" for p in inner))


def _code(node: Node) -> Iterator[tuple[str, str]]:
    home = Path(__file__).parents[1]
    yield from _package(home / "engine", "alignkit.engine")
    for name in {type(part.params).__module__ for part in node.walk()}:
        file = getattr(sys.modules.get(name), "__file__", None)
        root = getattr(sys.modules.get(name.partition(".")[0]), "__file__", None)
        if file is None or name.startswith("alignkit."):
            continue
        if root and Path(root).name == "__init__.py":
            yield from _package(Path(root).parent, name.partition(".")[0])
        else:
            yield name, source_sum(Path(file))


def _package(folder: Path, name: str) -> Iterator[tuple[str, str]]:
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        if path.suffix == ".py":
            inner = ".".join(path.relative_to(folder).with_suffix("").parts)
            yield f"{name}.{inner}".removesuffix(".__init__"), source_sum(path)
        elif "__pycache__" not in path.parts and path.suffix != ".md":  # a template
            yield f"{name}/{path.relative_to(folder)}", file_sum(path)


def source_sum(path: Path) -> str:
    """Return a checksum of a Python file that does not change with comments or docstrings."""
    whole = compile(path.read_bytes(), path.name, "exec", dont_inherit=True, optimize=2)
    return _sum("\n".join(_instructions(whole)))


def _instructions(code: CodeType) -> Iterator[str]:
    """Yield all of the compiled code except line numbers and the NOPs left by docstrings."""
    words = zip(code.co_code[::2], code.co_code[1::2], strict=True)
    yield bytes(byte for word in words if word[0] != NOP for byte in word).hex()
    yield repr((code.co_names, code.co_varnames, code.co_freevars, code.co_flags))
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _instructions(constant)
        else:  # a set's order is another in every process
            yield repr(sorted(map(repr, constant)) if isinstance(constant, frozenset) else constant)


def _versions(versions: Mapping[str, str]) -> dict[str, str]:
    found = {name: v for name, v in versions.items() if name not in UNRELATED}
    return found | {"python": ".".join(found["python"].split(".")[:2])}


def _hardware(hardware: Mapping[str, Any]) -> dict[str, str]:
    """Return the computing hardware: the GPUs if there are any, else processor and threads.

    Several ranks have other threads than one process, and numbers that differ by rounding.
    """
    if hardware["gpus"]:
        return {"gpus": ", ".join(hardware["gpus"])}
    kernels = hardware.get("kernels", {})  # what nobody chose is not named
    threads = "ranks" if "ranks" in hardware else "threads"
    return {**{name: str(hardware[name]) for name in ("machine", "cpu", threads)}, **kernels}


def _sum(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
