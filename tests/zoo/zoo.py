"""Every case of the zoo, each in a process of its own, and the table of what became of it.

``python tests/zoo/zoo.py [TYPE ...]`` prints a JSON line for each case, of all model types or of
those named; ``python tests/zoo/zoo.py --table FILE ...`` writes README.md beside it from such
lines.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ["HF_HUB_OFFLINE"] = "1"
sys.path.insert(0, str(Path(__file__).parent))

from check import Verdict, check
from sizes import known_types, tiny
from table import write_table
from variants import VARIANTS

UNBUILT = {
    "blt": "its parts have sizes of their own, billions of weights at the least",
    "cohere_compass_text": "its configuration names no kind of layer that its model knows",
    "dbrx": "the installed transformers cannot make its configuration",
    "fuyu": "a vision model, large at its smallest",
    "gemma3n": "needs the package timm",
    "gemma4_assistant": "has no vocabulary of its own: a helper of another model",
    "gemma4_unified_assistant": "has no vocabulary of its own: a helper of another model",
    "musicgen": "made of three other models",
    "musicgen_melody": "made of three other models",
    "phi4_multimodal": "a vision model, large at its smallest",
    "reformer": "its sizes depend on each other in ways not worked out here",
    "zamba": "its sizes depend on each other in ways not worked out here",
    "zamba2": "its sizes depend on each other in ways not worked out here",
}
"""Types of which no tiny model can be made, and why."""

_LIMIT = 120
"""Seconds that a case may take."""


def cases(only: list[str] | None = None) -> Iterator[tuple[str, str, dict]]:
    """Yield the model type, the name of the variant and its settings."""
    for kind in only or known_types():
        yield kind, "", {}
        for name, settings in VARIANTS.get(kind, {}).items():
            yield kind, name, settings


def judged(kind: str, settings: dict) -> Verdict:
    """Return the verdict on a case, whatever happens in it."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(read)
        _child(kind, settings, write)
    os.close(write)
    with os.fdopen(read) as pipe:
        said = pipe.read()
    _, status = os.waitpid(child, 0)
    if not said:
        return Verdict(wrong=f"no answer: ended with {os.waitstatus_to_exitcode(status)}")
    return Verdict(**json.loads(said))


def _child(kind: str, settings: dict, write: int) -> None:
    with suppress(BaseException):
        signal.alarm(_LIMIT)
        found = _verdict(kind, settings)
        os.write(write, json.dumps(asdict(found)).encode())
    os._exit(0)


def _verdict(kind: str, settings: dict) -> Verdict:
    import torch
    from transformers import logging

    warnings.simplefilter("ignore")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    try:
        config = tiny(kind, **settings)
        with torch.device("meta"):
            from transformers import AutoModelForCausalLM

            AutoModelForCausalLM.from_config(config)
    except Exception as error:  # noqa: BLE001
        return Verdict(decode="not built", wrong=f"{type(error).__name__}: {error}"[:160])
    try:
        with tempfile.TemporaryDirectory() as folder:
            return check(config, Path(folder))
    except Exception as error:  # noqa: BLE001
        at = traceback.extract_tb(error.__traceback__)
        where = [f"{Path(f.filename).name}:{f.lineno}" for f in at][-4:]
        said = str(error).splitlines()
        return Verdict(
            wrong=f"crash: {type(error).__name__}: {said[0][:120] if said else ''} at {where}"
        )


def main(only: list[str]) -> None:
    """Print a line for each case."""
    for kind, name, settings in cases(only):
        if kind not in UNBUILT:
            line = {"kind": kind, "variant": name, **asdict(judged(kind, settings))}
            print(json.dumps(line), flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--table"]:
        write_table([Path(name) for name in sys.argv[2:]])
    else:
        main(sys.argv[1:])
