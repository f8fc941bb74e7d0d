"""The 2026 edition's rollout server: a vLLM engine in a process of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from alignkit import AlignkitError
from alignkit.engine.tokens import encode_prompt
from alignkit.protocols import Completion, RolloutBackend, Sampling
from alignkit_cs336.components import make

if TYPE_CHECKING:
    from types import TracebackType

_READ = ("n", "temperature", "top_p", "min_p", "max_tokens", "min_tokens")
"""Fields that vLLM's ``SamplingParams`` and ours have in common, by the same name."""
_UNREAD = {"presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0}
"""Fields of vLLM's that change the distribution and that ours lack, with what switches them off."""


class VLLMServer:
    """Samples with vLLM on one GPU; usable as a context manager.

    ``gpu`` is the CUDA index of the engine's device, of those visible to this process. Where it is
    the current device, policy and engine share it; without CUDA the engine runs on the CPU.
    ``gpu_memory_utilization`` is the share of the device's memory that the engine may take.
    """

    def __init__(
        self, model_id: str, gpu: int = 0, seed: int = 0, gpu_memory_utilization: float = 0.85
    ) -> None:
        self.model_id, self.gpu, self.seed = model_id, gpu, seed
        self.gpu_memory_utilization = gpu_memory_utilization
        self._backend: RolloutBackend | None = None
        self._policy: Any = None
        self._source: nn.Module | None = None
        self._calls = 0

    def start(self) -> None:
        """Start the engine with the weights of ``model_id`` (a folder or a Hub name)."""
        self.stop()
        dtype = "bfloat16" if torch.cuda.is_available() else "float32"
        self._policy = make("policy", "hf/hf", path=self.model_id, dtype=dtype)
        backend: RolloutBackend = make("rollout_backend", "vllm/vllm", **self._placed())
        backend.start(self._policy)
        self._backend = backend

    def _placed(self) -> dict[str, Any]:
        share = {"gpu_memory_utilization": self.gpu_memory_utilization}
        if not torch.cuda.is_available() or self.gpu == torch.cuda.current_device():
            return {"mode": "server", **share}
        return {"mode": "device", "devices": (str(self.gpu),), **share}

    def generate_completions(
        self, prompts: Sequence[str], sampling_params: Any, batch_size: int = 256
    ) -> list[str]:
        """Return ``sampling_params.n`` completions per prompt, one after another.

        ``sampling_params`` are vLLM's, or anything with fields of these names, absent ones being
        the defaults: n, temperature, top_p, top_k, min_p, max_tokens, min_tokens, stop. ``stop``
        strings stay in the text. ``batch_size`` prompts are sent at a time.
        """
        found: list[str] = []
        for start in range(0, len(prompts), batch_size):
            groups = self._sample(prompts[start : start + batch_size], sampling_params)
            found += [one.text for _, group in groups for one in group]
        return found

    def generate(self, prompts: Sequence[str], sampling_params: Any) -> list[Any]:
        """Return one request per prompt with its outputs, as evaluate_vllm reads them."""
        return [
            SimpleNamespace(prompt_token_ids=ids, outputs=outputs)
            for ids, outputs in self._sample(prompts, sampling_params)
        ]

    def _sample(
        self, prompts: Sequence[str], params: Any
    ) -> Iterator[tuple[tuple[int, ...], list[Completion]]]:
        backend, policy = self._running()
        ids = [encode_prompt(policy, text) for text in prompts]
        seed = self.seed if getattr(params, "seed", None) is None else params.seed
        sampling = _sampling(params, seed=seed, step=self._calls)
        self._calls += 1  # another call draws anew
        return zip(ids, backend.generate(ids, sampling), strict=True)

    def init_weight_sync(self, policy: nn.Module) -> None:
        """Choose the model, of the architecture of ``model_id``, whose weights are delivered."""
        self._running()
        self._source = policy

    def sync_policy_weights(self, policy: nn.Module | None = None) -> None:
        """Deliver the present weights of ``policy``, or else of init_weight_sync's, to the engine.

        What the engine cached under older weights is dropped.
        """
        backend, held = self._running()
        source = self._source if policy is None else policy
        if source is None:
            raise AlignkitError(
                "VLLMServer has no policy to take weights from: call init_weight_sync(policy) first"
            )
        self._policy = policy_now = copy(held)
        policy_now.model = getattr(source, "_orig_mod", source)  # torch.compile renames weights
        policy_now.version += 1
        backend.sync(policy_now)

    def stop(self) -> None:
        """End the engine and its process; nothing if it does not run."""
        backend, self._backend = self._backend, None
        self._policy = self._source = None
        if backend is not None:
            backend.close()

    def _running(self) -> tuple[RolloutBackend, Any]:
        if self._backend is None:
            raise AlignkitError("VLLMServer is not running: call start() first")
        return self._backend, self._policy

    def __enter__(self) -> VLLMServer:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _sampling(params: Any, *, seed: int, step: int) -> Sampling:
    """Return our record of vLLM's parameters; AlignkitError for a penalty, which ours lack."""
    for name, off in _UNREAD.items():
        if getattr(params, name, off) != off:
            raise AlignkitError(f"VLLMServer does not sample with {name}; leave it at {off:g}")
    stop = getattr(params, "stop", None) or ()
    top_k = getattr(params, "top_k", 0)
    values = {
        name: getattr(params, name) for name in _READ if getattr(params, name, None) is not None
    }
    return Sampling(
        **values,
        top_k=max(int(top_k), 0),  # vLLM's -1 is all, as 0 is
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
        seed=seed,
        step=step,
    )
