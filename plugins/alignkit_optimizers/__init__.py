"""Built-in optimizers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit import Component, Params, hookimpl
from alignkit.footprint import GRADIENTS, OPTIMIZER, ModelSizes, Workload
from alignkit.protocols import Optimizer

Beta = Annotated[float, Field(ge=0, lt=1)]


class AdamW(Params[Optimizer]):
    """Adam with decoupled weight decay (arXiv:1711.05101), a schedule, and gradient clipping."""

    lr: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate."""

    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.95)
    """Decay rates of the running mean and the running square of the gradient, each in [0, 1)."""

    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the running square."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Each step subtracts the share lr * weight_decay from every parameter."""

    max_grad_norm: Annotated[float, Field(gt=0, allow_inf_nan=True)] = 1.0
    """Gradients are scaled down to this global L2 norm; ``inf`` = never."""

    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the learning rate after warm-up, until the last optimizer step."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps over which the rate rises linearly to lr; the last of them uses lr."""

    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of lr that the linear and cosine schedules end at: the last optimizer step uses it. A
    share of 0 would be reached one step after the last, since a step at a rate of 0 does
    nothing."""

    implementation: Literal["fused", "foreach", "8bit", "offload", "kahan"] = "fused"
    """How the two running means are kept and updated. "fused": in the weights' type, all weights
    in one kernel (on CPU and CUDA; elsewhere torch's default). "foreach": the same without that
    kernel. "8bit": one byte per number with a scale per block of 256 (arXiv:2110.02861), about 2
    bytes a weight instead of 8 in float32; tensors of fewer than 4,096 weights stay in float32.
    "offload": in the CPU's memory, brought to the device one tensor at a time. "kahan": in float32,
    and bfloat16 weights keep what rounding takes from them in a second bfloat16 number, so that
    updates too small for them add up (arXiv:2010.06192)."""

    def missing(self) -> Iterable[str]:
        """Name bitsandbytes if it is asked for but not installed."""
        if self.implementation == "8bit" and find_spec("bitsandbytes") is None:
            yield (
                'implementation = "8bit" needs the package bitsandbytes: '
                "pip install 'alignkit[8bit]'"
            )

    def memory(
        self, tables: Mapping[str, Any], sizes: ModelSizes, workload: Workload
    ) -> Mapping[str, float | None]:
        """Count two numbers of state a weight, or two bytes, or none on the device."""
        lost = 2 if sizes.trained_number == 2 else 0  # what rounding takes from a 16-bit weight
        kept = {"8bit": 2, "offload": 0, "kahan": 8 + lost}.get(
            self.implementation, 2 * sizes.trained_number
        )
        return {
            GRADIENTS: sizes.trained * sizes.trained_number,
            OPTIMIZER: sizes.trained * kept,
        }

    def build(self) -> Optimizer:
        from alignkit_optimizers.adamw import ScheduledAdamW

        return ScheduledAdamW(**self.model_dump())


@hookimpl
def optimizer() -> Iterator[Component[Optimizer]]:
    """Offer the built-in optimizers."""
    yield Component("adamw", AdamW)
