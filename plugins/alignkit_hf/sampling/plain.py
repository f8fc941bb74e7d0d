"""The plain sampler: call the model, draw a token, append it, call the model again.

Every faster path must give what this gives, token by token, and a model that none of them supports
is sampled in this way. One prompt at a time, its responses side by side as rows of one length: no
padding, no mask, no position to get wrong. A row whose response has ended keeps running, unread,
until all have ended.

Where the model keeps a cache of its own that changes nothing, a call reads the newest token only.
Without one, and where rows grow longer than a window of its attention or than the length that its
positions were made for, it reads whole rows.

Shapes: B = responses side by side, T = tokens of each row so far, V = vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, cast

import torch
from torch import Tensor

from alignkit.engine.forward.spans import borders
from alignkit.engine.forward.trial import apart
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Policy, Sampling
from alignkit_hf.sampling.calls import (
    UnqualifiedError,
    cache_of,
    inference,
    last_only,
    logits_after,
    tolerance,
    tried,
    with_cache,
)
from alignkit_hf.sampling.choose import draw
from alignkit_hf.sampling.records import Request, Response, requests
from alignkit_hf.sampling.texts import Texts

_TRIAL = ((5, 3, 4, 1, 2, 3), (2, 1, 3, 5, 4, 4))
"""Rows that the model is tried out with."""
_FIRST = 3
"""Number of tokens of each row that are its prompt."""
_PADDING = 1, 3
"""Row and position of a padding token among them: some models count positions without it."""


class PlainSampler:
    """Samples by ordinary calls of the model."""

    def __init__(self, policy: Policy, texts: Texts, kv_cache_tokens: int) -> None:
        """Try the model out; ``kv_cache_tokens`` bounds the tokens in rows side by side.

        Raises:
            AlignkitError: it is not a causal language model, or its logits are not numbers.
        """
        self.policy, self.texts, self.kv_cache_tokens = policy, texts, kv_cache_tokens
        self.model = cast(Any, policy.model)
        self.device: torch.device = next(self.model.parameters()).device
        self.use_cache = False
        with inference(policy):
            want = self._trial()
            self._refuse_unfit(want)
            with tried(f"{policy.name} reads whole rows for every token, its cache is of no use"):
                if not self._agrees(self._trial(use_cache=True), want):
                    raise UnqualifiedError("logits differ with it")
                self.use_cache = True

    def stream(
        self, prompts: Sequence[Sequence[int]], how: Sampling, /
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Yield each prompt's index and ``how.n`` completions, in order."""
        version, eos_ids = self.policy.version, self.policy.eos_ids
        for index, request in enumerate(requests(prompts, how, self.policy.max_length)):
            at_once = max(1, self.kv_cache_tokens // request.longest)
            responses: list[Response] = []
            with inference(self.policy):
                for first in range(0, how.n, at_once):
                    streams = request.streams[first : first + at_once]
                    responses += self._sample(request, streams, how)
            yield index, [r.completion(self.texts, eos_ids, version) for r in responses]

    def _sample(self, request: Request, streams: Sequence[int], how: Sampling) -> list[Response]:
        """Sample one response for each of ``streams``."""
        responses = [Response() for _ in streams]
        keys = torch.tensor(streams, device=self.device)  # (B,)
        eos = torch.tensor(sorted(self.policy.eos_ids), dtype=torch.long, device=self.device)
        ids = torch.tensor([list(request.prompt)] * len(streams), device=self.device)  # (B, T)
        past = any(border < request.longest for border in borders(self.model.config))
        use_cache = self.use_cache and not past
        cache = None
        for count in range(request.limit):
            logits, cache = self._logits(ids, cache, use_cache=use_cache)  # (B, V)
            tokens, logprobs = draw(logits, keys, torch.full_like(keys, count), how, eos)  # (B,)
            ids = torch.cat([ids, tokens[:, None]], 1)  # (B, T + 1)
            for row, drawn in enumerate(zip(tokens.tolist(), logprobs.tolist(), strict=True)):
                if not responses[row].ended:
                    self._append(responses[row], *drawn, how)
            if all(response.ended for response in responses):
                break
        return responses

    def _logits(self, ids: Tensor, cache: Any, *, use_cache: bool) -> tuple[Tensor, Any]:
        """Return the logits (B, V) after ``ids`` (B, T), and the cache that has read them all."""
        if not use_cache:
            return logits_after(self.model, ids), None
        unread = ids if cache is None else ids[:, -1:]
        output = self.model(unread, **with_cache(self.model, cache), **last_only(self.model))
        if (filled := cache_of(output)) is None:
            raise UnqualifiedError("calls return no cache")
        return output.logits[:, -1], filled

    def _append(self, response: Response, token: int, logprob: float, how: Sampling) -> None:
        """Append a token, and see whether the response ends with it."""
        response.ids.append(token)
        response.logprobs.append(logprob)
        response.ended = token in self.policy.eos_ids
        stops = self.texts.stops(how.stop)
        if stops and not response.ended and len(response.ids) >= how.min_tokens:
            response.cut = stops.cut(response.ids)
            response.ended = response.cut is not None

    def _rows(self) -> Tensor:
        """Return the rows (B, T) of a trial."""
        ids = torch.tensor(_TRIAL, device=self.device)
        ids[_PADDING] = self.policy.pad_id
        return ids

    def _trial(self, *, use_cache: bool = False) -> Tensor:
        """Return the logits (B, steps, V) of stepping through the trial's rows."""
        ids, cache, found = self._rows(), None, []
        for end in range(_FIRST, ids.shape[1] + 1):
            logits, cache = self._logits(ids[:, :end], cache, use_cache=use_cache)
            found.append(logits)
        return torch.stack(found, 1)

    def _refuse_unfit(self, want: Tensor) -> None:
        """Refuse a model whose logits are not numbers or change with the tokens that follow."""
        if not want.isfinite().all():
            raise AlignkitError(f"cannot sample from {self.policy.name}: its logits are not finite")
        ids = self._rows()
        at_once = self.model(ids, use_cache=False).logits[:, _FIRST - 1 :]
        if not self._agrees(at_once, want):
            raise AlignkitError(
                f"cannot sample from {self.policy.name}: its logits change with the tokens that "
                "follow, so it is no causal language model; choose one that is"
            )

    def _agrees(self, got: Tensor, want: Tensor) -> bool:
        return apart(got, want) <= tolerance(self.model)
