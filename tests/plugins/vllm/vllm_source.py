"""vLLM's source, read and not imported: what cannot run without a GPU is checked there."""

import ast
from importlib.util import find_spec
from pathlib import Path


def text(path):
    """Return the text of a module of vLLM's."""
    root = Path(find_spec("vllm").submodule_search_locations[0])
    return (root / path).read_text(encoding="utf-8")


def methods(path, owner):
    """Return the signatures of a class's methods, read from vLLM's source, not imported."""
    tree = ast.parse(text(path))
    (found,) = [n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == owner]
    made = [n for n in found.body if isinstance(n, ast.FunctionDef)]
    return {n.name: [a.arg for a in (*n.args.args, *n.args.kwonlyargs)] for n in made}
