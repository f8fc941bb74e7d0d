"""The keys of ``[rollout] use = "vllm"``, and which of them go together."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import Field

from alignkit.engine.sampling.rollout_table import SamplingParams
from alignkit.errors import AlignkitError
from alignkit_vllm.guard import key_for

Seconds = Annotated[float, Field(gt=0)]

WORK = 2 * 2**30
"""Bytes that an engine takes for a batch's activations, CUDA graphs and CUDA itself; an estimate
for models of a few billion weights."""


class VllmSettings(SamplingParams):
    """A recipe's settings of a vLLM engine; see ``VllmRollout``."""

    mode: Literal["colocate", "device", "server"] = "colocate"
    """Where the engine runs: "colocate" in this process, on the policy's device, asleep while the
    policy trains; "device" in a process of its own on ``devices``; "server" behind ``url``, or,
    without it, in a process of its own on the policy's device. Under torchrun "device" starts its
    engines once on each machine, for all ranks there; all ranks ask the server at ``url``; without
    it each rank has an engine, or each ``tensor_parallel_size`` of them, over their devices."""

    devices: tuple[str, ...] = ()
    """With mode "device": indices, UUIDs or MIG ids of the engines' GPUs, ``tensor_parallel_size``
    times ``engines`` of them. Empty takes the last visible ones."""

    engines: Annotated[int, Field(ge=1)] = 1
    """With mode "device": number of engines that sample side by side, each with the whole model on
    GPUs of its own. For a model that fits on one card, several engines are faster than one engine
    split over as many cards."""

    url: Annotated[str, Field(pattern=r"^https?://[^/\s@]+/?$")] | None = None
    """With mode "server": a server that runs already, as "http://host:8000". Start it with ``python
    -m alignkit_vllm.serve MODEL`` and set ALIGNKIT_VLLM_KEY to the key it prints. The key is sent
    only to this machine and to the hosts in ALIGNKIT_VLLM_HOSTS, separated by commas."""

    weights: Literal["auto", "socket"] = "auto"
    """How the policy's weights are sent to an engine in another process. "auto": by CUDA IPC on the
    policy's card, by NCCL to other cards, also of other machines, and over a socket without CUDA.
    "socket": always over a socket, which is slower, but needs a token to connect."""

    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of each GPU's memory that the engine may take. Unset: 0.85 on GPUs of its own, 0.45
    where the policy is on the same one. No effect on CPUs."""

    kv_cache_gib: Annotated[float, Field(gt=0)] = 0.25
    """Size of the key-value cache on CPUs, in GiB; on GPUs ``gpu_memory_utilization`` sets it."""

    max_model_len: Annotated[int, Field(ge=2)] | None = None
    """Most tokens of prompt and response together. Unset: the policy's limit. A response is
    cut here (finish_reason "length")."""

    max_num_seqs: Annotated[int, Field(ge=1)] = 256
    """Most responses decoded at once."""

    tensor_parallel_size: Annotated[int, Field(ge=1)] = 1
    """GPUs that the model is split over; above 1 with mode "device" or "server" only."""

    enforce_eager: bool = False
    """Use no CUDA graphs: a faster start, but slower decoding. Without effect on CPUs."""

    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type in which the engine holds weights and computes; "auto" is the type of the policy's
    matrix products (its ``autocast``, or else its ``dtype``)."""

    sleep: bool = True
    """With mode "colocate" on a GPU: free the engine's memory after each batch of responses. The
    weights are copied from the policy again before the next one."""

    check_every: Annotated[int, Field(ge=0)] = 20
    """Syncs between checks that the engine holds the policy's weights (some columns of them, and
    a probe: 64 tokens sampled after a text). The first two, at the start and after the first
    update, are always checked; 0 checks only these."""

    max_logprob_gap: Annotated[float, Field(gt=0)] | None = None
    """A check stops the run if the probe's log-probs by engine and policy differ by more than this,
    in nats per token on average. Unset: 0.01 for float32; in 16 bits, where rounding alone exceeds
    that, only max_rollout_kl decides."""

    max_rollout_kl: Annotated[float, Field(gt=0)] = 0.015
    """A check stops the run if the probe's estimate of KL(engine ‖ policy), in nats per token, is
    above this. ``train/rollout_kl`` in the metrics is the same estimate for a step's responses."""

    start_timeout: Seconds = 900.0
    """Deadline for starting the engine, in seconds; after it the run stops and says what hung."""

    sync_timeout: Seconds = 300.0
    """Deadline for one transfer of weights, in seconds."""

    generate_timeout: Seconds = 3600.0
    """Deadline for one batch of responses, in seconds."""

    heartbeat: Seconds = 60.0
    """A stage that takes longer reports its progress at intervals of this many seconds."""

    max_restarts: Annotated[int, Field(ge=0)] = 2
    """With an engine in a process of its own: how often it may be restarted in one run after it
    died. A server at ``url`` that fails is waited for as often, and then sent the weights again."""

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Refuse fields that do not go together."""
        yield from super().check(tables)
        if self.temperature > 2 or 0 < self.temperature < 0.01:
            yield "temperature", f"vLLM takes 0 or 0.01 to 2, not {self.temperature:g}"
        if self.url is not None and self.mode != "server":
            yield "url", f'is not used with mode = "{self.mode}"; set mode = "server"'
        yield from self._port_problems()
        if self.mode == "colocate" and self.tensor_parallel_size > 1:
            yield (
                "tensor_parallel_size",
                'mode "colocate" runs on the policy\'s one device; set mode = "device"',
            )
        yield from self._device_problems()
        if self.max_model_len is not None and self.max_tokens >= self.max_model_len:
            yield (
                "max_model_len",
                f"{self.max_model_len} leaves no room for a prompt beside max_tokens = "
                f"{self.max_tokens}; set it to at least {2 * self.max_tokens}",
            )

    def _port_problems(self) -> Iterator[tuple[str, str]]:
        try:
            _ = urlsplit(self.url or "").port
            key_for(self.url or "", os.environ)
        except (ValueError, AlignkitError) as error:
            yield "url", f"{error}"

    def _device_problems(self) -> Iterator[tuple[str, str]]:
        wanted = self.tensor_parallel_size * self.engines
        if self.engines > 1 and self.mode != "device":
            yield "engines", f'more than one needs mode = "device", not "{self.mode}"'
        if self.devices and self.mode != "device":
            yield "devices", f'is not used with mode = "{self.mode}"; set mode = "device"'
        elif self.devices and len(self.devices) != wanted:
            several = f" and engines = {self.engines}" if self.engines > 1 else ""
            number = str(wanted) if several else "as many"
            yield (
                "devices",
                f"names {len(self.devices)} GPUs for tensor_parallel_size = "
                f"{self.tensor_parallel_size}{several}; give {number}",
            )
