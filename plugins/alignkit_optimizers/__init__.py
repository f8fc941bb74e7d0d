"""Built-in optimizers: adamw, rmsprop, muon."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit import Component, Params, hookimpl
from alignkit.footprint import GRADIENTS, OPTIMIZER, ModelSizes, Workload
from alignkit.protocols import Optimizer

Beta = Annotated[float, Field(ge=0, lt=1)]


class _Adam(Params[Optimizer]):
    """Keys of AdamW's update."""

    lr: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate."""

    betas: Annotated[tuple[Beta, Beta], Field(strict=False)] = (0.9, 0.95)
    """Decay rates of the running mean and the running square of the gradient, each in [0, 1)."""

    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the running square."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Each step subtracts the share lr * weight_decay from every parameter."""


class _Scheduled(Params[Optimizer]):
    """Keys of every built-in optimizer: the schedule of its learning rate, gradient clipping."""

    max_grad_norm: Annotated[float, Field(gt=0, allow_inf_nan=True)] = 1.0
    """Gradients are scaled down to this global L2 norm; ``inf`` = never."""

    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Course of the learning rate after warm-up, until the last optimizer step."""

    warmup_steps: Annotated[int, Field(ge=0)] = 0
    """Optimizer steps over which the rate rises linearly to lr; the last of them uses lr."""

    warmup_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """The same as a share of all optimizer steps, rounded up, such as 0.03."""

    min_lr_ratio: Annotated[float, Field(ge=0, le=1)] = 0.0
    """Share of lr that the linear and cosine schedules end at: the last optimizer step uses it. A
    share of 0 would be reached one step after the last, since a step at a rate of 0 does
    nothing."""

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if self.warmup_steps and self.warmup_ratio:
            yield "warmup_ratio", "warmup_steps says already how long the warm-up is; give one"


class AdamW(_Scheduled, _Adam):
    """Adam with decoupled weight decay (arXiv:1711.05101), a schedule, and gradient clipping."""

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


class RmsProp(_Scheduled):
    """RMSprop (Tieleman and Hinton 2012, lecture 6.5): the gradient over its running root mean
    square. DPO was published with it (arXiv:2305.18290, appendix B)."""

    lr: Annotated[float, Field(gt=0)] = 1e-5
    """Peak learning rate."""

    alpha: Beta = 0.99
    """Decay rate of the running square of the gradient."""

    eps: Annotated[float, Field(gt=0)] = 1e-8
    """Added to the root of the running square."""

    momentum: Beta = 0.0
    """Decay rate of a running sum of the updates; 0 = none."""

    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    """Each step subtracts the share lr * weight_decay from every parameter."""

    def memory(
        self, tables: Mapping[str, Any], sizes: ModelSizes, workload: Workload
    ) -> Mapping[str, float | None]:
        """Count one number of state a weight, two with momentum."""
        return _in_weights(sizes, 2 if self.momentum else 1)

    def build(self) -> Optimizer:
        from alignkit_optimizers.torch_optim import ScheduledRmsProp

        return ScheduledRmsProp(**self.model_dump())


class Muon(_Scheduled, _Adam):
    """Momentum made orthogonal, for the matrices inside the model; AdamW for all other weights.

    Jordan et al. 2024, https://kellerjordan.github.io/posts/muon. Embeddings, the output head and
    vectors are AdamW's, with ``betas`` and ``eps``. The updates of matrices are scaled to the size
    of AdamW's (Liu et al. 2025, arXiv:2502.16982, equation 4), so one ``lr`` serves both.
    """

    momentum: Beta = 0.95
    """Decay rate of the running mean of a matrix's gradient, which is used with Nesterov's
    correction."""

    def memory(
        self, tables: Mapping[str, Any], sizes: ModelSizes, workload: Workload
    ) -> Mapping[str, float | None]:
        """Count two numbers of state a weight, the most there can be: matrices have one."""
        return _in_weights(sizes, 2)

    def build(self) -> Optimizer:
        from alignkit_optimizers.torch_optim import ScheduledMuon

        return ScheduledMuon(**self.model_dump())


def _in_weights(sizes: ModelSizes, numbers: int) -> dict[str, float | None]:
    """Return the bytes of gradients and of state, so many numbers a weight in its own type."""
    each = sizes.trained * sizes.trained_number
    return {GRADIENTS: each, OPTIMIZER: numbers * each}


@hookimpl
def optimizer() -> Iterator[Component[Optimizer]]:
    """Offer the built-in optimizers."""
    yield Component("adamw", AdamW)
    yield Component("rmsprop", RmsProp)
    yield Component("muon", Muon)
