"""Gradient checkpointing that packed rows survive.

A checkpointed layer runs a second time in the backward pass, after the forward pass and what
was set up for it are over. Packed rows need their blocks there again, so each layer's call
takes along the blocks it ran with. (The backward pass of CUDA tensors runs on a thread of its
own, which sees no context variable of the caller's: another reason to take them along.)
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from typing import Any
from weakref import ref

from torch import nn

from alignkit.engine.forward.packable import RECOMPUTES
from alignkit.engine.forward.packed import Block, active_blocks, attending


def checkpoint_layers(model: Any) -> None:
    """Recompute each layer of a transformers ``model`` in the backward pass, while it trains."""
    owner = ref(model)  # the layers hold what is made here: no cycle through them

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        found, blocks = owner(), active_blocks()
        if blocks is None or found is None:
            return nullcontext(), nullcontext()
        return nullcontext(), _Again(found, blocks)

    model.gradient_checkpointing_enable({"use_reentrant": False, "context_fn": contexts})
    RECOMPUTES.add(model)


class _Again(AbstractContextManager[None]):
    """``attending``, to be entered as often as a backward pass is made."""

    def __init__(self, model: nn.Module, blocks: Sequence[Block]) -> None:
        self.model, self.blocks = model, blocks
        self.entered: list[ExitStack] = []

    def __enter__(self) -> None:
        stack = ExitStack()
        stack.enter_context(attending(self.model, self.blocks))
        self.entered.append(stack)

    def __exit__(self, *_: object) -> None:
        self.entered.pop().close()
