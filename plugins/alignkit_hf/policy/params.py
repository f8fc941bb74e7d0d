"""The recipe fields of the policy and of its adapter. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from alignkit import Params
from alignkit.component import PathOrName
from alignkit.footprint import MASTERS, WEIGHTS, ModelSizes, Workload, learning
from alignkit.model_shape import parameters_by_name, shape_at
from alignkit.protocols import Policy
from alignkit_hf.policy.folder import chat_template, folder_problems
from alignkit_hf.policy.hub import not_in_cache
from alignkit_hf.policy.vocabulary import adds_bos, names_eos

_BYTES = {"float32": 4, "bfloat16": 2}

LARGE = 200_000_000
"""Fewest weights of a model whose layers are compiled on CUDA without being asked for."""


@dataclass(frozen=True, slots=True)
class LoraSpec:
    """What low-rank adapter to train."""

    rank: int
    alpha: float
    target: str | tuple[str, ...]


class Lora(Params[LoraSpec]):
    """Train a low-rank adapter instead of the weights (arXiv:2106.09685).

    An adapted layer computes W x + (alpha / rank) B A x; only A and B train, in float32.
    Rollouts use merged weights, ``final/`` holds them, and ``final/adapter/`` the adapter alone,
    as peft loads it. A reference without a table of its own is the model without the adapter
    and takes no memory.
    """

    rank: Annotated[int, Field(ge=1)] = 16
    """Rows of A and columns of B."""

    alpha: Annotated[float, Field(gt=0)] = 32.0
    """The adapter's output is scaled by alpha / rank."""

    target: str | Annotated[tuple[str, ...], Field(min_length=1)] = "all-linear"
    """Names of the layers to adapt, such as ["q_proj", "v_proj"], or a regular expression that
    their whole path matches; "all-linear" is all linear layers but the output head."""

    def missing(self) -> Iterable[str]:
        if find_spec("peft") is None:
            yield "[policy.lora] needs the package peft: pip install 'alignkit[lora]'"

    def build(self) -> LoraSpec:
        return LoraSpec(self.rank, self.alpha, self.target)


class PolicyParams(Params[Policy]):
    """Which model, in what type and where; the plugin's own table adds only ``build``."""

    path: PathOrName
    """Folder with config, weights and tokenizer, relative to the recipe file, or a Hub name."""

    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type the weights are held and updated in, whatever the checkpoint's own is."""

    masters: bool = False
    """Update float32 masters of bfloat16 weights (arXiv:1710.03740): passes compute in bfloat16
    throughout, updates and the gradients of micro-batches add up in float32. Faster than float32
    weights with autocast, as nothing is cast, and less exact between the products of matrices;
    ``final/`` holds bfloat16, checkpoints the masters. Needs dtype = "bfloat16"."""

    autocast: Literal["none", "bfloat16"] = "none"
    """Type of matrix products in forward and backward passes; "none" uses the weights' own."""

    device: Annotated[str, Field(pattern=r"^(auto|cpu|cuda(:\d+)?)$")] = "auto"
    """"cpu", "cuda" or "cuda:N"; "auto" is the process's CUDA device, or else the CPU."""

    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    """Attention kernel; "auto" is sdpa, whatever is installed: on CUDA in 16 bits that is
    FlashAttention, as it comes with torch. flash_attention_2 is that of the package flash-attn, for
    packed rows too; it needs 16-bit activations (dtype or autocast bfloat16)."""

    gradient_checkpointing: bool = False
    """Recompute each layer in the backward pass: less memory, about a third more time."""

    compile: Literal["auto", "always", "never"] = "auto"
    """Whether layers and the output head are compiled (torch.compile) where log-probs are computed:
    what lies between two products of matrices is one kernel then. "auto" does on a CUDA device, for
    at least 200 million weights. Compiling takes about a minute at the start. Layers that give
    other numbers than plain ones, beyond rounding, stay plain; the manifest says which run. No
    effect on sampling, and none on layers that are cut over processes."""

    parallel: Literal["auto", "replicate", "shard"] = "auto"
    """How several processes of ``torchrun`` hold the model. "replicate": each has all of it, its
    gradients and its optimizer. "shard": each has a part of every layer (FSDP2), and one whole copy
    without gradients, which rollouts sample from. "auto" replicates, unless weights, gradients and
    AdamW (16 bytes a weight) take more than 60 % of a CUDA card. No effect in one process."""

    peak_tflops: Annotated[float, Field(gt=0)] | None = None
    """Peak speed of the device, in 10^12 floating-point operations a second, for ``train/mfu``.
    Unset: the bf16 peak of a known CUDA card; on others there is no such metric."""

    bos: Literal["auto", "always", "never"] = "auto"
    """Whether prompts begin with the tokenizer's beginning-of-sequence token: "auto" does as the
    tokenizer does by itself, since models that were trained with it (Llama, Gemma, Mistral) expect
    it. A prompt that already has it gets no second one."""

    trust_remote_code: bool = False
    """Run Python code that comes with the checkpoint. Only for sources you trust."""

    revision: Annotated[str, Field(min_length=1)] | None = None
    """Branch, tag or commit of a Hub repository; unset takes its main branch."""

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Look for the files of a local folder."""
        yield from folder_problems(self.path)
        if self.masters:
            yield from self._no_masters(tables)
        if self.parallel == "shard" and "lora" in tables:
            yield "parallel", 'an adapter is not cut over processes; "replicate" gives each all'
        if self.attention == "flash_attention_2" and not self._half():
            yield "attention", 'flash_attention_2 needs dtype = "bfloat16" or autocast = "bfloat16"'

    def _no_masters(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        if self.dtype != "bfloat16":
            yield "masters", 'float32 masters are for weights of dtype = "bfloat16"'
        if self.autocast != "none":
            yield "autocast", "there is nothing to cast with masters = true: passes are in bfloat16"
        if "lora" in tables:
            yield "masters", "an adapter is in float32 already"
        if self.parallel == "shard":
            yield "parallel", 'masters are not cut over processes; "replicate" gives each all'

    def chat_template(self) -> str | None:
        """Return the template in the model's folder; see ``NamesTemplate``."""
        return chat_template(self.path)

    def missing(self) -> Iterable[str]:
        """Name flash-attn if it is asked for but not installed."""
        if self.attention == "flash_attention_2" and find_spec("flash_attn") is None:
            command = "pip install wheel setuptools && pip install --no-build-isolation flash-attn"
            yield f"flash_attention_2 needs the package flash-attn: {command}"

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        """Say which attention kernel runs, and so when the checkpoint's own code does."""
        facts = {
            "attention": self.kernel(),
            "rows": self._packing(),
            "beginning of sequence": self._beginning(),
        }
        if self.compile == "always" or (self.compile == "auto" and self._on_cuda()):
            size = "" if self.compile == "always" else " and it has 200 million weights"
            facts["layers"] = f"compiled if a trial of the model allows it{size}"
        if absent := not_in_cache(self.path, self.revision):
            facts["model"] = absent
        if names_eos(Path(self.path)) is False:
            facts["end of sequence"] = (
                "none is named, so responses end only at a stop string of [prompt] or after "
                "rollout.max_tokens; add eos_token_id to generation_config.json"
            )
        if self.dtype == "bfloat16" and not self.masters:
            facts["warning"] = (
                "weights in bfloat16 do not move by small updates (at a rate of 1e-5, 1.0 stays "
                '1.0): use dtype = "float32" with autocast = "bfloat16", or an optimizer that '
                'makes up for it (adamw: implementation = "kahan")'
            )
        if self.trust_remote_code:
            facts["trust_remote_code"] = f"code of {self.path} runs"
        return facts

    def _beginning(self) -> str:
        if self.bos != "auto":
            return f"{self.bos} (bos)"
        known = adds_bos(Path(self.path))
        if known is None:
            return "as the tokenizer does by itself"
        return "prompts get it, as the tokenizer adds it" if known else "none, as for the tokenizer"

    def sizes(self, tables: Mapping[str, Any]) -> ModelSizes | None:
        """Read the model's sizes from its configuration, or their sum from its name."""
        shape, number = shape_at(self.path), _BYTES[self.dtype]
        count = shape.parameters if shape else parameters_by_name(self.path)
        lora: Lora | None = tables.get("lora")
        if not count or (lora and not shape):
            return None
        half, again = number == 4 and self._half(), self.gradient_checkpointing
        plain = number != 2 or again or self.parallel == "shard" or not self.compiles(count)
        return ModelSizes(
            parameters=count,
            trained=shape.adapter(lora.rank) if lora and shape else count,
            number=number,
            trained_number=4 if lora or self.masters else number,  # adapters are in float32
            activations=shape.activations(number, checkpointing=again, half=half)
            if shape
            else None,
            compiled=shape.activations(2, checkpointing=False, compiled=True)
            if shape and not plain
            else None,
            cache=shape.cache(number) if shape else None,
            backward=6 if again else 4,
            recomputed=again,
            adapted=lora is not None,
            on_gpu=self.device.startswith("cuda"),
            half=half,
            embedding=shape.vocabulary * shape.hidden if shape else 0,
            vocabulary=shape.vocabulary if shape else 0,
            layers=shape.layers if shape else 0,
            layer=shape.layer if shape else 0,
        )

    def compiles(self, weights: int) -> bool:
        """Whether layers of a model with that many weights are to be compiled on a CUDA device."""
        return self.compile == "always" or (self.compile == "auto" and weights >= LARGE)

    def memory(
        self, tables: Mapping[str, Any], sizes: ModelSizes, workload: Workload
    ) -> Mapping[str, float | None]:
        """Count the weights, and what a whole micro-batch takes where one is learned from."""
        beside = learning(sizes, workload.micro_batch) if workload.micro_batch else {}
        masters = {MASTERS: 4.0 * sizes.trained} if self.masters else {}
        return {WEIGHTS: sizes.parameters * sizes.number, **masters, **beside}

    def code(self) -> Iterable[Path | str]:
        """Name the checkpoint's Python files, or the repository they will come from."""
        if not self.trust_remote_code:
            return
        files = sorted(Path(self.path).rglob("*.py"))
        yield from files
        if not files:
            yield f"{self.path} at {self.revision or 'main'}, whatever Python files it holds"

    def kernel(self) -> str:
        """Return the name of the attention kernel, as transformers calls it."""
        return "sdpa" if self.attention == "auto" else self.attention

    def _packing(self) -> str:
        """Say how rows are computed, before a trial of the model can tell."""
        owner = "flash-attn" if self.attention == "flash_attention_2" else "torch"
        kernel = f"{owner}'s variable-length kernel"
        cuda = self._on_cuda()
        if not self._half():
            by = f"torch's usual kernels, as {kernel} needs 16 bits"
        elif cuda is None:
            by = f"{kernel} on a CUDA device, or else torch's usual ones"
        else:
            by = kernel if cuda else f"torch's usual kernels, as {kernel} needs a CUDA device"
        return f"packed if a trial of the model allows it; attention by {by}"

    def _on_cuda(self) -> bool | None:
        """Whether the device is a CUDA one; None where only torch, not loaded yet, could tell."""
        if self.device != "auto":
            return self.device != "cpu"
        torch = sys.modules.get("torch")
        return None if torch is None else bool(torch.cuda.is_available())

    def _half(self) -> bool:
        return "bfloat16" in (self.dtype, self.autocast)
