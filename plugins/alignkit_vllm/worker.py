"""Code that vLLM imports and runs in the engine's workers, on whatever machine these are.

Methods are called through vLLM's ``collective_rpc``. Over HTTP their arguments are strings, and
their results lists and dictionaries.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from alignkit_vllm.weights.sockets import receive

COLUMNS = 4
"""Columns of a weight matrix that a check compares."""
ROWS = 64
"""Rows of each of them."""
_HEAD = "ParallelLMHead"


class Extension:
    """Added to vLLM's worker class (``worker_extension_cls``)."""

    model_runner: Any
    device: torch.device
    parallel_config: Any
    vllm_config: Any
    reload_weights: Any
    """The worker's own method, which sets vLLM's configuration first; its runner's does not."""
    finish_weight_update: Any

    def alignkit_load(self, weights: Iterable[tuple[str, Tensor]], version: str) -> None:
        """Load ``weights`` in place."""
        self.alignkit_held = ""  # until all are loaded, no version is held
        self.reload_weights(weights_iterator=iter(weights))
        _retie(self.model_runner.get_model())
        self.alignkit_held = version

    def alignkit_fetch(self, host: str, port: str, token: str, timeout: str, version: str) -> None:
        """Connect to the trainer and load the weights it sends."""
        self.alignkit_load(receive(host, int(port), token, float(timeout)), version)

    def alignkit_place(self) -> dict[str, Any]:
        """Return the fields of a :class:`~alignkit_vllm.routes.Place`."""
        config, transfer = self.parallel_config, self.vllm_config.weight_transfer_config
        on_gpu = self.device.type == "cuda"
        return {
            "gpu": str(torch.cuda.get_device_properties(self.device).uuid) if on_gpu else "",
            "transfer": transfer.backend if transfer else "",
            "workers": config.world_size * config.data_parallel_size,
        }

    def alignkit_hold(self, version: str) -> None:
        """Record the version of the weights that vLLM's own transfer brought; "" before it begins.

        If the update before this one was interrupted, it is ended first; otherwise a half-loaded
        layer of it would count as loaded.
        """
        if not version and getattr(self, "alignkit_begun", False):
            self._weight_update_active = True
            self.finish_weight_update()
        self.alignkit_begun, self.alignkit_held = not version, version

    def alignkit_version(self) -> str:
        """Return the version of the weights held; "" before the first."""
        held: str = getattr(self, "alignkit_held", "")
        return held

    def alignkit_columns(self) -> dict[str, Any]:
        """Return some columns of some weight matrices, see :func:`columns`.

        Returns no columns if the matrices are split over several workers.
        """
        model = self.model_runner.get_model()
        whole = self.parallel_config.tensor_parallel_size == 1
        packed = getattr(model, "packed_modules_mapping", None) or {}
        return {
            "packed": {name: list(parts) for name, parts in packed.items()},
            "columns": columns(model) if whole else {},
            "dtype": str(next(model.parameters()).dtype).removeprefix("torch."),
        }


def _retie(model: nn.Module) -> None:
    """Give a tied output head the new embedding.

    On CPUs the head holds a packed copy, which reloading does not update (vLLM 0.32); on GPUs both
    share one tensor and there is nothing to do.
    """
    head, embedding = _head(model), _embedding(model)
    config = getattr(model, "config", None)
    tied = getattr(config, "tie_word_embeddings", False)
    if not tied or head is None or embedding is None or head is embedding:
        return
    if next(embedding.parameters()).device.type == "cpu":
        head.weight = embedding.weight
        head.quant_method.process_weights_after_loading(head)


def columns(model: nn.Module) -> dict[str, list[list[float]]]:
    """Return columns of weight matrices by module name: the modules' outputs for one-hot inputs.

    The module is run, so it does not matter how its weights are packed; one-hot inputs cause no
    rounding. The modules are the first, the middle and the last linear layer, the output head, and
    the embedding, of which rows are taken. Of each column or row some numbers are returned, chosen
    by :func:`spread`.
    """
    linear = [(name, module) for name, module in model.named_modules() if _is(module, "LinearBase")]
    chosen = dict(linear[i] for i in {0, len(linear) // 2, len(linear) - 1} if linear)
    head = _head(model)
    chosen |= {name: m for name, m in model.named_modules() if m is head}
    found = {name: _by_column(module) for name, module in chosen.items()}
    embedding = _embedding(model)
    for name, module in model.named_modules():
        if module is embedding:
            found[name] = _by_row(module)
    return found


def spread(size: int, count: int) -> list[int]:
    """Return up to ``count`` indices below ``size``, evenly spread.

    >>> spread(100, 4)
    [0, 33, 66, 99]
    """
    return sorted({round(i * (size - 1) / max(count - 1, 1)) for i in range(count)})


def _by_column(layer: Any) -> list[list[float]]:
    head = _is_head(layer)  # padded: its own output size is not the vocabulary's
    inputs = layer.embedding_dim if head else layer.input_size
    outputs = layer.org_vocab_size if head else layer.output_size
    parameter = next(layer.parameters(), torch.empty(0))
    at = spread(inputs, COLUMNS)
    one_hot = torch.zeros(len(at), inputs, dtype=parameter.dtype, device=parameter.device)
    one_hot[range(len(at)), at] = 1
    with torch.inference_mode():
        values = layer.quant_method.apply(layer, one_hot, bias=None)
    rows: list[list[float]] = values[:, spread(outputs, ROWS)].float().tolist()
    return rows


def _by_row(embedding: Any) -> list[list[float]]:
    at = spread(embedding.org_vocab_size, ROWS)
    device = next(embedding.parameters()).device
    with torch.inference_mode():
        values = embedding(torch.tensor(at, device=device))
    rows: list[list[float]] = values[:, spread(values.shape[1], COLUMNS)].T.float().tolist()
    return rows


def _embedding(model: nn.Module) -> Any:
    return next((m for m in _all(model, "VocabParallelEmbedding") if not _is_head(m)), None)


def _head(model: nn.Module) -> Any:
    return next(_all(model, _HEAD), None)


def _all(model: nn.Module, kind: str) -> Iterator[nn.Module]:
    return (module for module in model.modules() if _is(module, kind))


def _is_head(module: nn.Module) -> bool:
    return _is(module, _HEAD)


def _is(module: nn.Module, kind: str) -> bool:
    """Whether a module is of the vLLM class with this name; vLLM is not imported for that."""
    return any(base.__name__ == kind for base in type(module).__mro__)
