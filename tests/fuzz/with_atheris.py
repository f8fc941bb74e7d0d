"""Coverage-guided fuzzing: ``python tests/fuzz/with_atheris.py recipes -runs=20000``, or ``rows``.

Needs ``pip install -e '.[fuzz]'``. What follows the target's name are libFuzzer's options. It
ends with a traceback, and the input in a file crash-…, at the first case that is a finding.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["alignkit", "alignkit_data", "tomli"]):
    import targets


def recipes(folder: Path):
    """Fuzz recipes with an overlay and an override, each cut off the input by its length."""
    load = targets.Recipes(folder)

    def one(data: bytes) -> None:
        given = atheris.FuzzedDataProvider(data)
        override = [given.ConsumeUnicode(30)] if given.ConsumeBool() else []
        overlay = given.ConsumeBytes(given.ConsumeIntInRange(0, 200)) or None
        load(given.ConsumeBytes(sys.maxsize), overlay, override)

    return one


def rows(folder: Path):
    """Fuzz data files."""
    return targets.Rows(folder)


def corpus(target: str, folder: Path) -> str:
    """Write the house's own recipes, or good rows, for the fuzzer to start from."""
    folder.mkdir()
    texts = (
        targets.TEXTS if target == "recipes" else [targets.ROW, b"[" + targets.ROW.strip() + b"]"]
    )
    for number, text in enumerate(texts):
        # FuzzedDataProvider takes numbers from the end: no override, no overlay.
        (folder / str(number)).write_bytes(text + (b"\0" * 8 if target == "recipes" else b""))
    return str(folder)


if __name__ == "__main__":
    target = {"recipes": recipes, "rows": rows}[sys.argv[1]]
    memory = Path("/dev/shm")  # a file a case: disks under load stall for longer than a case takes
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as made:
        (Path(made) / "work").mkdir()
        one = target(Path(made) / "work")
        start = corpus(sys.argv[1], Path(made) / "corpus")
        atheris.Setup([sys.argv[0], *sys.argv[2:], start], one)
        atheris.Fuzz()
