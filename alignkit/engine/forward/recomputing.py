"""Gradient checkpointing that works with packed rows and without randomness.

A checkpointed layer runs a second time in the backward pass, after the forward pass and what
was set up for it are over. Packed rows need their blocks there again, so each layer's call keeps
the blocks it ran with, and whether it ran compiled. (The backward pass of CUDA tensors runs on a
thread of its own, which does not see the caller's context variables: another reason to keep them.)

transformers recomputes layers only in training mode, which also turns on dropout and router noise.
Here a layer is in evaluation mode while it runs, both times.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any
from weakref import ref

from torch import nn

from alignkit.engine.forward.blocks import Block
from alignkit.engine.forward.checkpointing import checkpoint
from alignkit.engine.forward.compiled_head import ACTIVE
from alignkit.engine.forward.compiling import running
from alignkit.engine.forward.packable import RECOMPUTES
from alignkit.engine.forward.packed import active_blocks, attending
from alignkit.engine.forward.trial import evaluating


def checkpoint_layers(model: Any) -> None:
    """Recompute each layer of a transformers ``model`` in the backward pass, while it trains."""
    owner = ref(model)  # weak, since the layers hold `contexts`: a reference cycle otherwise

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        found = owner()
        if found is None:
            return nullcontext(), nullcontext()
        again = _Again(found, active_blocks(), compiled=ACTIVE.get())
        return _Again(found, None), again

    checkpoint(model, context_fn=contexts)
    RECOMPUTES.add(model)


class _Again(AbstractContextManager[None]):
    """Restores how a layer first ran: in evaluation mode, with its blocks, compiled or not.

    Can be entered any number of times, nested too.
    """

    def __init__(
        self, model: nn.Module, blocks: Sequence[Block] | None, *, compiled: bool = False
    ) -> None:
        self.model, self.blocks, self.compiled = model, blocks, compiled
        self.entered: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        stack.enter_context(evaluating(self.model))
        if self.compiled:
            stack.enter_context(running(self.model))
        if self.blocks is not None:
            stack.enter_context(attending(self.model, self.blocks))
        self.entered.append(stack)

    def __exit__(self, *_: object) -> None:
        self.entered.pop().close()
