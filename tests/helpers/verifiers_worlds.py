"""Environments of verifiers, and recipes with them."""

import tomllib
from pathlib import Path

import tomli_w

from alignkit.protocols import Completion, Response

ROOT = Path(__file__).resolve().parents[2]

CUT = [
    "n_steps=2", "rollout_batch_size=16", "train_batch_size=16", "group_size=4", "eval.n=8",
    "rollout.max_tokens=40",
]  # fmt: skip


def said(text, finish="stop"):
    ids = tuple(map(ord, text))
    return Response.of(Completion(text, ids, (-0.5,) * len(ids), finish, 0))


def world(name, args=None, **keys):
    from alignkit_verifiers import VerifiersParams

    return VerifiersParams(id=name, args=args or {}, **keys).build()


def recipe(folder, base, named, keys=""):
    """Write a shipped recipe with the environment, its data and its reward; return its file."""
    shipped = tomllib.loads((ROOT / "recipes" / base).read_text())
    del shipped["data"]
    for dropped in ("reward", "environment"):
        shipped.pop(dropped, None)
    text = tomli_w.dumps(shipped).replace('"../data/', f'"{ROOT}/data/')
    path = folder / "recipe.toml"
    path.write_text(f"{text}\n[data]\n{named}[environment]\n{named}{keys}")
    return path
