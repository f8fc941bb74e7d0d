"""An engine in this process, on the policy's device."""

from __future__ import annotations

import gc
import logging
import os
import warnings
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignkit.engine.observing.silence import silenced
from alignkit.errors import AlignkitError
from alignkit.lifecycle import ranks
from alignkit_vllm import machine, memory
from alignkit_vllm.engines import Engine
from alignkit_vllm.options import arithmetic
from alignkit_vllm.requests import Answer, Request
from alignkit_vllm.routes import IN_PROCESS
from alignkit_vllm.weights import named_weights

if TYPE_CHECKING:
    from alignkit.protocols import Policy

ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the worker is in this process, where weights are
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # the learner uses the same threads
}
"""Environment variables set before vLLM is imported, unless the user set them."""


class LocalEngine(Engine):
    """``vllm.LLM`` with its one worker in the trainer's process."""

    peer = "the vLLM engine in this process"

    def __init__(self, options: Mapping[str, Any], *, sleep: bool) -> None:
        """``options`` are ``vllm.LLM``'s; with ``sleep`` memory is freed between batches."""
        self.options = dict(options)
        self.sleep = sleep
        self._llm: Any = None
        self._asleep = False
        self._before: tuple[int, int] | None = None
        self._needs: memory.Needs | None = None

    def start(self, folder: Path, policy: Policy) -> None:
        device = next(policy.model.parameters()).device
        self._on_gpu = device.type == "cuda"
        self._refuse(device)
        self._needs = memory.needs_of(policy, self.options)
        for name, value in {**ENVIRONMENT, **arithmetic(self.options)}.items():
            os.environ.setdefault(name, value)
        machine.spell_out_visible_devices()
        if self._on_gpu:
            self._before = self._look_at_memory(self._needs)
        options = {**self.options, **(self._gpu_options() if self._on_gpu else {})}
        with _settings_kept(), self._advice_on_oom(self._before), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # vLLM's own, about its dependencies
            vllm: Any = import_module("vllm")
            logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])
            logging.getLogger("vllm.logging_utils.dump_input").setLevel(logging.CRITICAL)
            self._llm = vllm.LLM(
                model=str(folder),
                worker_extension_cls="alignkit_vllm.worker.Extension",
                logprobs_mode="processed_logprobs",
                generation_config="vllm",
                disable_log_stats=True,
                **options,
            )

    def _advice_on_oom(self, before: tuple[int, int] | None = None) -> AbstractContextManager[None]:
        return memory.advice_on_oom(self.options, self._needs, before)

    def _refuse(self, device: torch.device) -> None:
        if ranks.size() > 1:  # vLLM's own process group, of this process alone, may be there
            raise AlignkitError(
                'mode = "colocate" works for a trainer of one process only; with several ranks set '
                'mode = "server" or "device" in [rollout]'
            )
        if device.type == "cuda" and device.index not in (None, 0):
            raise AlignkitError(
                f"vLLM takes the first GPU it sees, but the policy is on {device}: start with "
                f"CUDA_VISIBLE_DEVICES={machine.visible_here()[device.index :][:1] or device.index}"
            )

    def _look_at_memory(self, needs: memory.Needs) -> tuple[int, int]:
        found = memory.here()
        if found is None:
            raise AlignkitError("the policy is on a CUDA device, and torch finds none")
        memory.require(*found, self.options["gpu_memory_utilization"], needs)
        return found

    def _gpu_options(self) -> dict[str, Any]:
        return {"enable_sleep_mode": self.sleep}

    def load(self, policy: Policy, dtype: torch.dtype, version: str) -> None:
        with torch.no_grad(), self._advice_on_oom():
            if self._asleep:
                torch.cuda.empty_cache()  # frees what the learner no longer uses
                self._llm.wake_up(tags=["weights"])
            self._rpc("alignkit_load", (named_weights(policy, dtype), version))
            if self._asleep:
                self._llm.wake_up(tags=["kv_cache"])
        self._asleep = False
        self.reset()

    def computed(self) -> Mapping[str, str]:
        return {"weights": str(IN_PROCESS)}

    def reset(self) -> None:
        """Drop the prefix cache."""
        if not self._llm.reset_prefix_cache():
            raise AlignkitError(
                "the vLLM engine did not drop its prefix cache, as some responses are unfinished; "
                "resume the run to start a new engine"
            )

    def holds(self) -> str:
        return "" if self._asleep else str(self._rpc("alignkit_version")[0])

    def columns(self) -> Mapping[str, Any]:
        columns: Mapping[str, Any] = self._rpc("alignkit_columns")[0]
        return columns

    def stream(self, requests: Sequence[Request]) -> Generator[tuple[int, list[Answer]]]:
        prompts = [{"prompt_token_ids": list(request.prompt)} for request in requests]
        engine: Any = self._llm.llm_engine
        with self._advice_on_oom():
            ids = self._llm.enqueue(prompts, _sampling(requests), use_tqdm=False)
        # An id is the request's name in the outputs, a dash, and a suffix.
        places = {str(name).partition("-")[0]: i for i, name in enumerate(ids)}
        try:
            while places:
                with self._advice_on_oom():
                    outputs = engine.step()
                for found in outputs:
                    if found.finished:
                        place = places.pop(found.request_id)
                        yield place, [_answer(output) for output in found.outputs]
        finally:
            if places:  # the caller stopped before the end
                engine.abort_request([ids[i] for i in places.values()], internal=True)

    def progress(self) -> str:
        engine = getattr(self._llm, "llm_engine", None)
        return f"{engine.get_num_unfinished_requests()} responses unfinished" if engine else ""

    def rest(self) -> None:
        if self.sleep and self._on_gpu and not self._asleep:
            self._llm.sleep(level=2)
            self._asleep = True

    def max_len(self) -> int:
        return int(self._llm.llm_engine.model_config.max_model_len)

    def close(self) -> None:
        llm, self._llm = self._llm, None
        if llm is None:
            return
        if self._asleep:
            _wake(llm)
            self._asleep = False
        llm.llm_engine.engine_core.shutdown()
        del llm
        with silenced("vllm"):
            import_module("vllm.distributed.parallel_state").cleanup_dist_env_and_memory()
        gc.collect()

    def _rpc(self, method: str, args: tuple[Any, ...] = ()) -> list[Any]:
        results: list[Any] = self._llm.collective_rpc(method, args=args)
        return results


def _sampling(requests: Sequence[Request]) -> list[Any]:
    """Return a ``vllm.SamplingParams`` for each request."""
    vllm: Any = import_module("vllm.sampling_params")
    return [
        vllm.SamplingParams(
            n=request.n,
            logprobs=0,
            flat_logprobs=True,
            detokenize=bool(request.options.get("stop")),
            output_kind=vllm.RequestOutputKind.FINAL_ONLY,
            **request.options,
        )
        for request in requests
    ]


def _answer(output: Any) -> Answer:
    return Answer(
        token_ids=tuple(output.token_ids),
        logprobs=tuple(output.logprobs.logprobs),
        text=output.text,
        ended=output.finish_reason != "length",
        stop_string=isinstance(output.stop_reason, str),
    )


def _wake(llm: Any) -> None:
    """Wake a sleeping engine before it is shut down: it can free only memory that it holds.

    If there is no room to wake it, its memory stays lost until the process ends.
    """
    torch.cuda.empty_cache()
    try:
        llm.wake_up()
    except (RuntimeError, torch.OutOfMemoryError) as error:
        warnings.warn(f"the vLLM engine could not be woken to be shut down: {error}", stacklevel=3)


@contextmanager
def _settings_kept() -> Iterator[None]:
    """Restore the settings that vLLM's worker changes in this process, where the trainer runs too.

    They are the precision of float32 products and, on CPUs, the number of threads.
    """
    threads, set_threads = torch.get_num_threads(), torch.set_num_threads
    precision = torch.get_float32_matmul_precision()
    try:
        yield
    finally:
        torch.set_num_threads = set_threads
        torch.set_num_threads(threads)
        if torch.get_float32_matmul_precision() != precision:
            torch.set_float32_matmul_precision(precision)
