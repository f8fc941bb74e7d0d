"""The table of a reward that is a function of the user's own."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from alignkit import Params, RecipePath
from alignkit.errors import shown
from alignkit.protocols import RewardFn
from alignkit_rewards.helpers import helpers


class Python(Params[RewardFn]):
    """A function of your own: ``function(response: str, example: Example) -> float``.

    It may also return a Reward, or a mapping of numbers with the key ``reward``. The file may
    import modules and packages that lie beside it.
    """

    file: RecipePath
    """The Python file."""

    function: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*$")] = "reward"
    """Name of the function in it."""

    batched: bool = False
    """Call it once with lists of responses and examples; it returns one reward for each."""

    workers: Annotated[int, Field(ge=0, le=256)] = 0
    """Processes that call it while more responses are generated, each with the file's variables of
    its own. 0 = the training process, one call after the other."""

    timeout: Annotated[float, Field(gt=0)] | None = None
    """Seconds a call may take before its process is ended, where there are workers; None = as long
    as it takes."""

    late: float = 0.0
    """Reward of the responses whose call took longer than ``timeout``, which show as the part
    ``timed_out``."""

    def build(self) -> RewardFn:
        if self.workers:
            from alignkit_rewards.script_pool import Script, ScriptPool

            keys = self.model_dump(exclude={"workers"})
            return ScriptPool(Script(**keys), self.workers)
        from alignkit_rewards.script import ScriptReward, load_function

        function = load_function(self.file, self.function)
        return ScriptReward(function, self.file, self.function, batched=self.batched)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if self.timeout is not None and not self.workers:
            yield "timeout", "a call in the training process cannot be ended; set workers to 1"
        if self.late and self.timeout is None:
            yield "late", "without a timeout no call is late"
        try:
            tree = ast.parse(self.file.read_bytes(), filename=str(self.file))
        except (OSError, SyntaxError, ValueError) as error:
            yield "file", f"cannot be read as Python: {error}"
            return
        if not any(self.function in _bound_names(node) for node in tree.body):
            yield "function", f"{self.file.name} defines no {self.function!r} at its top level"
        try:
            helpers(self.file)
        except (OSError, SyntaxError, ValueError) as error:
            where = getattr(error, "filename", None)
            file = f"{shown(Path(where))}, which it imports, " if where else "what it imports "
            yield "file", f"{file}cannot be read as Python: {error}"

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        from alignkit_rewards.script import file_hash

        return {"sha256 of the reward file": file_hash(self.file)}

    def code(self) -> Iterable[Path]:
        yield self.file
        try:
            yield from helpers(self.file)
        except (OSError, SyntaxError, ValueError):
            return  # check() has said so


def _bound_names(node: ast.stmt) -> set[str]:
    """Return the names a top-level statement may bind; all it mentions, to err on the safe side."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {node.name}
    aliases = {(a.asname or a.name) for a in ast.walk(node) if isinstance(a, ast.alias)}
    return aliases | {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
