"""Which passes a model supports, found by trying them on the model itself.

Packed rows are fastest, then rows padded side by side; each row alone is correct for any causal
model. A pass is used if its log-probs equal those of each row alone. If a trial fails, by an error
in the model's own code too, the next simpler pass is tried.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, WeakSet

import torch
from torch import Tensor, nn

from alignkit.engine.forward import passes
from alignkit.engine.forward.attention import UnsupportedAttentionError
from alignkit.engine.forward.checkpointing import is_checkpointed
from alignkit.engine.forward.spans import windows
from alignkit.engine.forward.trial import apart, compute_dtype, once_per_model
from alignkit.engine.forward.varlen import ATTENDED
from alignkit.engine.tokens import TrainRow
from alignkit.errors import AlignkitError

if TYPE_CHECKING:
    from alignkit.protocols import Policy

RECOMPUTES: WeakSet[nn.Module] = WeakSet()
"""Checkpointed models whose layers keep their blocks for the backward pass; see ``recomputing``."""

REASONS: WeakKeyDictionary[nn.Module, dict[str, str]] = WeakKeyDictionary()
"""Why a model does not support a pass, by the name of the pass."""

PACKED, PADDED = "packed", "padded"
"""Names of the passes that not every model supports."""

_PAD = 6
"""Stands for padding in the rows below."""
_SHAPES = (
    ((1, 2, 3), (4, 5, _PAD, 7)),
    ((1, 2, 3), (6, 4)),
    ((5, 3), (2, 1, 4)),
    ((1, 2, 3), (7, 3, 1, 6, 2, 5, 4, 1, 7, 6, 5)),
)


def can_pack(model: nn.Module) -> bool:
    """Whether ``model`` gives the same results for packed rows as for each row alone; tried once.

    It must attend through transformers' interface, to all of a row. Plain checkpointing runs
    attention again in the backward pass, where the blocks are no longer set; the checkpointing of
    ``recomputing`` keeps them.
    """
    if reason := _unfit(model):
        return _refused(model, PACKED, reason)
    return _packs(model)


def can_pad(model: nn.Module) -> bool:
    """Whether padding on the right leaves a row's results unchanged; tried once per model.

    Raises:
        AlignkitError: a token's logits change with the tokens that follow it.
    """
    from transformers import PreTrainedModel

    return not isinstance(model, PreTrainedModel) or _pads(model)


def _unfit(model: nn.Module) -> str:
    """Return why packing rows of ``model`` is not even tried, "" if it is."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        return "it is not a model of transformers"
    if is_checkpointed(model) and model not in RECOMPUTES:
        return "it recomputes layers in a way of its own"
    config = model.config.get_text_config()
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    if kinds != {"full_attention"}:
        return f"its layers are of the kinds {', '.join(sorted(kinds))}"
    if config._attn_implementation not in ("sdpa", "eager", "flash_attention_2"):
        return f"its attention is {config._attn_implementation}"
    longest = getattr(config, "max_position_embeddings", None)
    if any(not isinstance(longest, int) or size < longest for size in windows(config)):
        return "it attends within a window"
    return ""


@once_per_model
def _packs(model: nn.Module) -> bool:
    """Compare packed rows with the rows one by one, to the rounding of the compute type."""
    return _agrees(model, PACKED, passes.packed)


@once_per_model
def _pads(model: nn.Module) -> bool:
    _refuse_foresight(model)

    def padded(model: nn.Module, rows: Sequence[TrainRow]) -> passes.Found:
        return passes.padded(model, rows, pad_id=0)

    return _agrees(model, PADDED, padded)


def _agrees(
    model: nn.Module, name: str, taken: Callable[[nn.Module, Sequence[TrainRow]], passes.Found]
) -> bool:
    """Whether the pass ``taken`` gives the log-probs of each row alone.

    In float64 gradients are compared too. Norm layers that round to float32 inside (Qwen's,
    Llama's) round the gradient of a shared prompt once, and those of its copies one by one. That is
    no less exact, but float64 is used to compare to the last digits, so such a model's rows are not
    packed in float64.
    """
    rows = trial_rows(model)
    precise = compute_dtype(next(model.parameters())) == torch.float64
    try:
        with torch.set_grad_enabled(precise):
            got, want = taken(model, rows)[0], passes.alone(model, rows)[0]
            if got.requires_grad:
                got, want = (torch.cat([x, slope(model, x)]) for x in (got, want))
    except torch.OutOfMemoryError:
        raise
    except UnsupportedAttentionError as error:
        return _refused(model, name, f"its attention wants {error}")
    except Exception as error:  # noqa: BLE001 - a model's own code may raise anything
        return _refused(model, name, f"{type(error).__name__}: {error}")
    share = apart(got, want)
    return share <= _tolerance(model) or _refused(model, name, f"log-probs differ by {share:.2g}")


def chosen(policy: Policy) -> str:
    """Describe which pass the policy's rows use, with which attention, and why no faster one.

    Raises:
        AlignkitError: the policy's model is not causal.
    """
    model = policy.model
    with policy.autocast():
        if can_pack(model):
            dtype = compute_dtype(next(model.parameters()))
            found = {ATTENDED[m][dtype] for m in model.modules() if dtype in ATTENDED.get(m, {})}
            return f"packed, shared prompts once; attention by {'; '.join(sorted(found))}"
        taken = "padded to the longest" if can_pad(model) else "each alone"
    known = REASONS.get(model, {})
    reasons = [f"not {name}: {known[name]}" for name in (PACKED, PADDED) if name in known]
    return "; ".join([taken, *reasons])


def _refused(model: nn.Module, name: str, reason: str) -> bool:
    REASONS.setdefault(model, {})[name] = reason
    return False


def _refuse_foresight(model: nn.Module) -> None:
    """Raise AlignkitError if a token's logits change with the tokens that follow."""
    rows = trial_rows(model)
    shorter = [TrainRow(row.prompt_ids, row.response_ids[:2]) for row in rows]
    with torch.no_grad():
        got, want = passes.alone(model, shorter)[0], passes.alone(model, rows)[0]
    ends = torch.tensor([0, *(len(row.response_ids) for row in rows[:-1])]).cumsum(0)  # (rows,)
    first = torch.stack([ends, ends + 1], 1).flatten().to(want.device)
    if not apart(got, want[first]) <= _tolerance(model):
        raise AlignkitError(
            f"cannot learn with a {type(model).__name__}: its logits change with the tokens that "
            "follow, so it is no causal language model; choose one that is"
        )


def _tolerance(model: nn.Module) -> float:
    dtype = compute_dtype(next(model.parameters()))
    return {torch.float64: 1e-10, torch.float32: 1e-3}.get(dtype, 0.1)


def trial_rows(model: Any) -> list[TrainRow]:
    """Return rows to try, with padding ids among them, as some models skip those in positions."""
    vocabulary = len(model.get_input_embeddings().weight)
    pad = getattr(model.config.get_text_config(), "pad_token_id", None)

    def within(ids: Sequence[int]) -> tuple[int, ...]:
        return tuple((pad if i == _PAD and isinstance(pad, int) else i) % vocabulary for i in ids)

    return [TrainRow(within(prompt), within(response)) for prompt, response in _SHAPES]


def slope(model: nn.Module, values: Tensor) -> Tensor:
    """Return the gradient of some sum of ``values`` by the trainable weights, flattened."""
    weights = torch.linspace(-1, 1, values.numel(), dtype=values.dtype, device=values.device)
    trainable = [p for p in model.parameters() if p.requires_grad]
    grads = torch.autograd.grad(
        values.flatten() @ weights, trainable, allow_unused=True, materialize_grads=True
    )
    return torch.cat([grad.flatten() for grad in grads])
