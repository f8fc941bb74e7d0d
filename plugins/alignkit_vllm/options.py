"""How an engine is started: its model folder, vLLM's options, and its GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch

from alignkit.protocols import Policy
from alignkit_vllm import machine
from alignkit_vllm.settings import VllmSettings

IPC = {"backend": "ipc"}
"""``weight_transfer_config`` of an engine on the policy's card; for others the server sets it."""


def engine_options(keys: VllmSettings, policy: Policy, dtype: torch.dtype) -> dict[str, Any]:
    """Return vLLM's engine options, as ``vllm.LLM`` and the server's flags name them."""
    room = min(keys.max_model_len or policy.max_length, policy.max_length)
    options: dict[str, Any] = {
        "load_format": "dummy",  # random; the first sync sets every weight, which is checked
        "dtype": str(dtype).removeprefix("torch."),
        "max_model_len": room if room < 2**31 - 1 else None,
        "max_num_seqs": keys.max_num_seqs,
        "seed": 0,
    }
    if _device(policy).type == "cuda":
        return options | _on_gpus(keys)
    return options | {
        "enforce_eager": True,
        # vLLM 0.32 fails on CPUs when it splits the prompt of a request that has a seed.
        "enable_chunked_prefill": False,
        "max_num_batched_tokens": max(4096, room if room < 2**31 - 1 else 0),
        "distributed_executor_backend": "uni",
        "kv_cache_memory_bytes": int(keys.kv_cache_gib * 2**30),
    }


def _on_gpus(keys: VllmSettings) -> dict[str, Any]:
    share = 0.85 if keys.mode == "device" else 0.45
    return {
        "gpu_memory_utilization": keys.gpu_memory_utilization or share,
        "tensor_parallel_size": keys.tensor_parallel_size,
        "enforce_eager": keys.enforce_eager,
    }


def transfer_options(policy: Policy, visible: Sequence[str] | None) -> dict[str, Any]:
    """Return the options of weight transfer for an engine process on the devices ``visible``.

    CUDA IPC for an engine on the policy's card only; for others :mod:`alignkit_vllm.serve` sets
    NCCL.
    """
    device = _device(policy)
    if device.type != "cuda" or visible is None or len(visible) != 1:
        return {}
    here = machine.visible_here()[device.index or 0 :][:1]
    return {"weight_transfer_config": IPC} if here == machine.in_full(visible) else {}


def arithmetic(options: Mapping[str, Any]) -> dict[str, str]:
    """Return environment variables that make an engine compute in full precision.

    vLLM's float32 attention is written in Triton, which by default rounds float32 factors to TF32's
    10 bits. Log-probs would then be wrong by about 1e-3.
    """
    return {"TRITON_F32_DEFAULT": "ieee"} if options["dtype"] == "float32" else {}


def visible_devices(keys: VllmSettings, policy: Policy) -> Sequence[str] | None:
    """Return CUDA_VISIBLE_DEVICES for the engine's process, None to leave it as it is.

    With mode "device" it is the GPUs that the recipe names or the last ones, with "server" the
    policy's and those after it.
    """
    device, count = _device(policy), keys.tensor_parallel_size * keys.engines
    if keys.mode == "device" and keys.devices:
        return keys.devices
    if device.type != "cuda":
        return None
    if keys.mode == "device":
        return machine.visible_here()[-count:]
    first = device.index or 0
    return machine.visible_here()[first : first + count] or None


def shares(visible: Sequence[str] | None, engines: int) -> list[Sequence[str] | None]:
    """Return the devices of each of ``engines`` engines, None if no devices are chosen.

    >>> shares(["1", "2", "3", "4"], 2)
    [['1', '2'], ['3', '4']]
    """
    if visible is None or engines == 1:
        return [visible] * engines
    each = len(visible) // engines
    return [visible[i * each : (i + 1) * each] for i in range(engines)]


def _device(policy: Policy) -> torch.device:
    found: torch.device = next(policy.model.parameters()).device
    return found


def compute_dtype(policy: Policy, wanted: str) -> torch.dtype:
    """Return the engine's type: ``wanted``, or for "auto" that of the policy's matrix products."""
    if wanted != "auto":
        dtype = getattr(torch, wanted)
        assert isinstance(dtype, torch.dtype)
        return dtype
    parameter = next(policy.model.parameters())
    context: AbstractContextManager[Any] = policy.autocast() or nullcontext()
    with context:
        if torch.is_autocast_enabled(parameter.device.type):
            return torch.get_autocast_dtype(parameter.device.type)
    return parameter.dtype


def describe(policy: Policy, folder: Path, dtype: torch.dtype) -> None:
    """Write the policy's configuration and tokenizer, without weights, for an engine to read.

    They come from the model in memory, so the revision is the same and nothing is downloaded. An
    engine that computes in a ``dtype`` of 16 bits on a GPU is configured to give float32 logits, as
    the learner's head does: logits rounded to 16 bits would make the log-probs of both differ more
    than all layers do.
    """
    config: Any = policy.model.config
    config = type(config).from_dict(config.to_dict())
    if _device(policy).type == "cuda" and dtype.itemsize == 2:
        config.head_dtype = "float32"  # vLLM's name for it
    config.architectures = [_class_name(policy)]
    config.save_pretrained(folder)
    policy.tokenizer.save_pretrained(folder)


def _class_name(policy: Policy) -> str:
    """Return the name of the model's class, without FSDP's prefix."""
    name = type(policy.model).__name__
    declared = getattr(policy.model.config, "architectures", None) or []
    return str(declared[0]) if declared and name not in declared else name.removeprefix("FSDP")
