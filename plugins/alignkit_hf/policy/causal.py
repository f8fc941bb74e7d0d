"""The model being trained: a transformers causal LM with its tokenizer."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from alignkit.engine.forward.compiling import compile_layers
from alignkit.engine.forward.recomputing import checkpoint_layers
from alignkit.engine.forward.spans import length_bound
from alignkit.engine.forward.threads import fit_threads
from alignkit.engine.learning.masters import keep_masters
from alignkit.engine.ranks.shards import whole_of
from alignkit.errors import AlignkitError
from alignkit_hf.policy.cards import refuse_unseen_cards, usable
from alignkit_hf.policy.finite import refuse_not_finite
from alignkit_hf.policy.folder import has_tokenizer
from alignkit_hf.policy.hub import refuse_unreachable
from alignkit_hf.policy.loading import loading, quiet, reading, refuse_more_tokens, savable
from alignkit_hf.policy.refused import refusal

if TYPE_CHECKING:
    from torch import Tensor

    from alignkit_hf.policy.lora import Adapter
    from alignkit_hf.policy.params import LoraSpec, PolicyParams


NO_LIMIT = 2**31 - 1
"""``max_length`` of models whose positions have no bound."""


class CausalPolicy:
    """A transformers model and tokenizer, each loaded at its first use.

    Two things differ from what ``from_pretrained`` returns. Weights get the recipe's dtype, not
    the checkpoint's. Dropout is off, because rollouts and updates must see the same function.
    """

    def __init__(self, params: PolicyParams, lora: LoraSpec | None = None) -> None:
        self.params, self.lora = params, lora
        self.version = 0
        self._adapter: Adapter | None = None

    @property
    def name(self) -> str:
        """Folder or Hub name the weights came from."""
        return self.params.path

    @property
    def parallel(self) -> Literal["auto", "replicate", "shard"]:
        """How several ranks hold the model."""
        return self.params.parallel

    @cached_property
    def device(self) -> torch.device:
        """Where the model lives."""
        if self.params.device != "auto":
            return usable(self.params.device)
        rank = os.environ.get("LOCAL_RANK", "0")
        return torch.device(f"cuda:{rank}" if torch.cuda.is_available() else "cpu")

    def refuse_unsupported(self) -> None:
        """Raise AlignkitError if the model cannot be used here, as far as shows without weights.

        Loads the configuration, and the tokenizer if there is one.
        """
        refuse_unreachable(self.name, self.params.revision)
        if self.params.device == "auto":
            refuse_unseen_cards()
        settings = self.config.to_dict()
        if has_tokenizer(Path(self.name)):
            _ = self.tokenizer
        if reason := refusal(settings):
            raise AlignkitError(f"{self.name}: {reason}")
        kind = self._class
        recomputes = getattr(kind, "supports_gradient_checkpointing", True)
        if self.params.gradient_checkpointing and not recomputes:
            raise AlignkitError(
                f"{self.name}: gradient_checkpointing = true is not known to {kind.__name__}"
            )

    @property
    def _class(self) -> Any:
        """What transformers makes of the configuration; None for code of the checkpoint's own."""
        return AutoModelForCausalLM._model_mapping.get(type(self.config), None)

    @cached_property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The tokenizer, loaded without the weights."""
        with loading(self.name, "tokenizer"):
            return AutoTokenizer.from_pretrained(self.name, **self._source)  # nosec B615 # has revision

    @cached_property
    def config(self) -> Any:
        """The model's transformers configuration, loaded without the weights."""
        with loading(self.name, "configuration"):
            return AutoConfig.from_pretrained(self.name, **self._source)  # nosec B615 # has revision

    @cached_property
    def generation_config(self) -> GenerationConfig:
        """The checkpoint's generation settings; an absent file gives what the config implies."""
        if Path(self.name).is_dir() and not (Path(self.name) / "generation_config.json").is_file():
            return GenerationConfig.from_model_config(self.config)
        with loading(self.name, "generation config"):
            return GenerationConfig.from_pretrained(self.name, revision=self._source["revision"])

    @cached_property
    def model(self) -> PreTrainedModel:
        """The torch module on its device, weights in the recipe's dtype."""
        with loading(self.name, "model"), reading(self.name):
            loaded: Any = AutoModelForCausalLM.from_pretrained(  # nosec B615 # _source has revision
                self.name,
                dtype=torch.float32 if self.params.masters else getattr(torch, self.params.dtype),
                attn_implementation=self._kernel(),
                output_loading_info=True,
                **self._source,
            )
        model: PreTrainedModel = loaded[0]
        report: dict[str, Any] = loaded[1]
        refuse_more_tokens(self.tokenizer, model, self.name)
        if report["missing_keys"]:
            raise AlignkitError(
                f"{self.name}: the checkpoint lacks weights of {type(model).__name__}, such as "
                f"{min(report['missing_keys'])}; they would stay random"
            )
        nn.Module.to(model, self.device)
        refuse_not_finite(model, self.name)
        fit_threads(model)
        _switch_off_dropout(model)
        if self.lora is not None:
            self._adapter = _adapted(model, self.lora, self.name)
        if self.params.masters:
            keep_masters(model)
            model.config.dtype = torch.bfloat16
        model.train(self.params.gradient_checkpointing)
        if self.params.gradient_checkpointing:
            checkpoint_layers(model)
        if self._compiles(model):
            compile_layers(model)
        return model

    def _compiles(self, model: PreTrainedModel) -> bool:
        on_gpu = self.device.type == "cuda" or self.params.compile == "always"
        return on_gpu and self.params.compiles(model.num_parameters())

    @property
    def peak_tflops(self) -> float | None:
        """The device's peak as the recipe gives it, in 10^12 operations a second."""
        return self.params.peak_tflops

    @property
    def adapter(self) -> Adapter | None:
        """The low-rank adapter in the model; if there is one, only it is trained."""
        return self._adapter if self.model is not None else None

    @property
    def base(self) -> PreTrainedModel | None:
        """The model without its adapter, on the same weights; None where there is no adapter."""
        return self.adapter.base if self.adapter else None

    def weights(self) -> Iterator[tuple[str, Tensor]]:
        """Yield every weight by its checkpoint name, the adapter merged into those it changes."""
        if self.adapter:
            yield from self.adapter.weights()
        else:
            yield from self.model.state_dict().items()

    @cached_property
    def eos_ids(self) -> frozenset[int]:
        """Every id that ends a response; empty if neither model nor tokenizer names one."""
        for source in (self.generation_config, self.config, self.tokenizer):
            ids = getattr(source, "eos_token_id", None)
            if ids is not None:
                return frozenset([ids] if isinstance(ids, int) else ids)
        return frozenset()

    def end_at(self, ids: Iterable[int], /) -> None:
        """Add to ``eos_ids``, also in the generation settings that are saved."""
        more = [i for i in ids if i not in self.eos_ids]
        self.eos_ids = self.eos_ids.union(more)
        self.generation_config.eos_token_id = sorted(self.eos_ids)

    @cached_property
    def bos_ids(self) -> tuple[int, ...]:
        """What prompts begin with: the beginning-of-sequence id, or nothing."""
        bos = self.tokenizer.bos_token_id
        if self.params.bos == "never" or (bos is None and self.params.bos == "auto"):
            return ()
        if not isinstance(bos, int):
            raise AlignkitError(
                f'{self.name}: policy.bos = "always", but the tokenizer has no '
                f"beginning-of-sequence token"
            )
        by_itself = self.tokenizer("a")["input_ids"][:1] == [bos]
        return (bos,) if self.params.bos == "always" or by_itself else ()

    @cached_property
    def pad_id(self) -> int:
        """The tokenizer's pad id, the model's, or any end-of-sequence id; padding is masked."""
        for source in (self.tokenizer, self.generation_config, self.config):
            pad = getattr(source, "pad_token_id", None)
            if isinstance(pad, int) and pad >= 0:
                return pad
        return min(self.eos_ids, default=0)

    @property
    def max_length(self) -> int:
        """Prompt and response tokens the model takes together.

        Where positions change with the length of the whole row, only as many as leave the positions
        unchanged.
        """
        limit = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        whole = limit if isinstance(limit, int) and limit > 0 else NO_LIMIT
        return min(whole, length_bound(self.config) or whole)

    def autocast(self) -> AbstractContextManager[Any]:
        """Return the context forward passes run in."""
        if self.params.autocast == "none":
            return nullcontext()
        return torch.autocast(self.device.type, dtype=torch.bfloat16)

    def save(self, folder: Path) -> None:
        """Write weights (safetensors), config, generation config and tokenizer to ``folder``.

        A low-rank adapter is merged into the weights, and also written by itself, to
        ``adapter/`` within the folder.
        """
        with quiet():
            model: Any = self.adapter.merged_model() if self.adapter else whole_of(self.model)
            model.generation_config = savable(self.generation_config)
            model.save_pretrained(folder)
            self.tokenizer.save_pretrained(folder)
            if self.adapter:
                self.adapter.save(folder / "adapter")

    def _kernel(self) -> str:
        """Return the attention to load the model with; "auto" takes what its class supports."""
        known = self.params.attention != "auto" or getattr(self._class, "_supports_sdpa", True)
        return self.params.kernel() if known else "eager"

    @property
    def _source(self) -> dict[str, Any]:
        return {
            "revision": self.params.revision or "main",
            "trust_remote_code": self.params.trust_remote_code,
        }


def _adapted(model: PreTrainedModel, spec: LoraSpec, name: str) -> Adapter:
    """Put an adapter into ``model``; peft is imported only where one is asked for.

    peft loads bitsandbytes where it is there, which warns of kernels that nothing here uses.
    """
    getLogger("bitsandbytes.backends.cpu.ops").setLevel(ERROR)
    from alignkit_hf.policy.lora import Adapter

    return Adapter(model, spec, name)


def _switch_off_dropout(model: nn.Module) -> None:
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            module.attention_dropout = 0.0  # type: ignore[assignment]
