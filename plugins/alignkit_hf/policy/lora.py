"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), by peft.

The adapted model stays the transformers model it was, with some of its linear layers wrapped,
so everything that learns from it works as before and sees few trainable weights. Beside it are
*twins*: models of the same structure that hold the same tensors and no adapter. One stands for
the model before training and costs no memory. Another, with merged weights W + (alpha / rank) BA
of its own in the adapted layers, is what responses are sampled from and what is saved.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors.torch import save_file
from torch import Tensor

from alignkit.errors import AlignkitError
from alignkit_hf.policy.twins import adapted_twin, twin

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from alignkit_hf.policy.params import LoraSpec

_PREFIX = "base_model.model."
"""Prefix that peft adds to the names of a wrapped model's weights."""


class Adapter:
    """The adapter in one model."""

    def __init__(self, model: PreTrainedModel, spec: LoraSpec, source: str) -> None:
        """Put a new adapter into ``model``; ``source`` is where its weights came from.

        All other weights are frozen. B starts at zero, so the model computes what it did. The
        adapter is in float32 even where the model is in bfloat16: its updates are small.
        """
        self.model = model
        self.base = twin(model.requires_grad_(False))
        """The model without the adapter, on the same tensors."""
        targets = spec.target if isinstance(spec.target, str) else list(spec.target)
        self.config = LoraConfig(
            r=spec.rank,
            lora_alpha=spec.alpha,  # type: ignore[arg-type, unused-ignore]
            target_modules=targets,
            base_model_name_or_path=source,
            task_type="CAUSAL_LM",
        )
        try:
            inject_adapter_in_model(self.config, model)
        except ValueError as error:
            raise AlignkitError(f"policy.lora.target = {spec.target!r}: {error}") from error
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()
        self.layers: dict[str, Any] = {
            name: module for name, module in model.named_modules() if isinstance(module, LoraLayer)
        }

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every weight of the merged model by the name it has in a checkpoint."""
        adapted = {f"{name}.weight": layer for name, layer in self.layers.items()}
        for name, value in self.base.state_dict().items():
            yield name, _merged(adapted[name]) if name in adapted else value

    def merged_model(self) -> PreTrainedModel:
        """Return a model without adapters that computes what the adapted one does."""
        return adapted_twin(self.base, self.weights())

    def save(self, folder: Path) -> None:
        """Write the adapter alone, as peft's ``from_pretrained`` loads it."""
        folder.mkdir(parents=True, exist_ok=True)
        found = get_peft_model_state_dict(self.model)
        state = {f"{_PREFIX}{k}": v.detach().cpu().contiguous() for k, v in found.items()}
        save_file(state, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        config = copy.deepcopy(self.config)
        config.inference_mode = True
        config.save_pretrained(str(folder))


@torch.no_grad()
def _merged(layer: Any) -> Tensor:
    """Return W + (alpha / rank) BA of an adapted layer, in the type of W."""
    base: Tensor = layer.get_base_layer().weight
    (adapter,) = layer.active_adapters
    delta: Tensor = layer.get_delta_weight(adapter)
    return (base.to(delta.dtype) + delta).to(base.dtype)
