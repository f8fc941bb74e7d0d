"""Registering a plugin must be light: listing and checking recipes load every plugin."""

from __future__ import annotations

import json
import os
import subprocess
import sys

HEAVY = frozenset(
    {
        "accelerate", "datasets", "deepspeed", "flash_attn", "jax", "math_verify", "matplotlib",
        "numpy", "pandas", "peft", "ray", "scipy", "sklearn", "sympy", "tensorboard",
        "tensorflow", "torch", "transformers", "triton", "vllm", "wandb",
    }
)  # fmt: skip
"""Packages that take a noticeable time to import, or that not every machine has."""

_SCRIPT = """
import json, sys
from importlib.metadata import entry_points
from alignkit import plugins
from alignkit.component import Params
others = {e.name for e in entry_points(group="alignkit")} - {sys.argv[1]}
registry = plugins.load(others)
for offers in registry.offers.values():
    for plugin, component in offers:
        component.params.model_json_schema()
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def is_light(plugin: str) -> None:
    """Listing and describing the plugin imports no heavy package (in a process of its own)."""
    path = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(  # nosec B603 # a list of words, no shell
        [sys.executable, "-c", _SCRIPT, plugin],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": path, "ALIGNKIT_DISABLE_PLUGINS": ""},
    )
    assert done.returncode == 0, f"loading plugin {plugin!r} alone fails:\n{done.stderr}"
    heavy = sorted(HEAVY & set(json.loads(done.stdout.splitlines()[-1])))
    assert not heavy, (
        f"registering plugin {plugin!r} imports {', '.join(heavy)}; import these inside build(), "
        "or in a sibling module that build() imports"
    )
