"""Reports weights that are not finite when a model is loaded, not when its samples go wrong."""

from __future__ import annotations

import torch
from torch import nn

from alignkit.errors import AlignkitError


def refuse_not_finite(model: nn.Module, name: str) -> None:
    """Raise AlignkitError naming the first weights that hold NaN or an infinity."""
    for weight, tensor in model.named_parameters():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        ends = torch.stack(tensor.detach().aminmax())  # (2,), and NaN if one is in it
        if not ends.isfinite().all():
            raise AlignkitError(
                f"{name}: the weights {weight} hold numbers that are not finite; the file is "
                f"damaged, or the training that wrote it had diverged"
            )
