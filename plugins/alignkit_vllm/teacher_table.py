"""The keys of a policy ``use = "vllm"``: a teacher behind a server. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, cast
from urllib.parse import urlsplit

from pydantic import Field

from alignkit import AlignkitError, Params
from alignkit.protocols import Policy
from alignkit_vllm.guard import key_for

NO_ENGINE = (
    "a teacher by vLLM stands behind a server, and none is named: no engine is started for it in "
    "this process; start `python -m alignkit_vllm.serve MODEL`, on another card or machine, and "
    'give its url, or take use = "hf", which scores in this process'
)
"""What a table without ``url`` is told."""
Seconds = Annotated[float, Field(gt=0)]


class VllmTeacher(Params[Policy]):
    """A teacher or reference behind a vLLM 0.32 server: it gives log-probs and is not trained.

    For ``[teacher]`` of ``distill``, ``[reference.policy]``, and ``[reference]`` of ``dpo``, if
    the model is too large for the policy's card or is served already. The server reads each
    response with its prompt and returns the log-prob of every token (``prompt_logprobs``). Its
    tokenizer must give the policy's token ids the same meaning, which is checked before the first
    step.

    ``prompt_logprobs`` are at temperature 1, so responses have to be sampled at temperature 1. A
    server with ``--dtype=float32`` agrees with ``hf`` to 1e-4 nats. In its usual bfloat16 log-probs
    are rounded: with the embedded model by 0.03 nats on average, by more for improbable tokens.
    Their last bits depend on what else the server computes at that moment, so a run with such a
    teacher is repeated and resumed only up to rounding.
    """

    only_scores: ClassVar[bool] = True

    url: Annotated[str, Field(pattern=r"^https?://[^/\s@]+/?$")] | None = None
    """A server that runs already, as "http://host:8000"; needed. Start it with ``python -m
    alignkit_vllm.serve MODEL``, or as ``vllm serve MODEL``, with as much for ``--max-model-len`` as
    prompt and response have, and 1. Its key is that of ALIGNKIT_VLLM_KEY, which is sent only to
    this machine and to the hosts in ALIGNKIT_VLLM_HOSTS, separated by commas."""

    model: Annotated[str, Field(min_length=1)] | None = None
    """The name under which the server offers the teacher. Unset: the first model it lists."""

    at_once: Annotated[int, Field(ge=1)] = 64
    """Number of responses that are sent to the server at a time."""

    timeout: Seconds = 600.0
    """Deadline for the scores of one response, in seconds."""

    patience: Seconds = 300.0
    """How long a server that does not answer is waited for, in seconds; then the run ends. It goes
    on from its last checkpoint with ``resume``."""

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Refuse an address that is none, or that the key must not be sent to, or its absence."""
        if self.url is None:
            yield "url", NO_ENGINE
            return
        try:
            _ = urlsplit(self.url).port
            key_for(self.url, os.environ)
        except (ValueError, AlignkitError) as error:
            yield "url", f"{error}"

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        """Report where log-probs come from."""
        return {"log-probs from": f"{self.model or 'the model'} behind {self.url}"}

    def build(self) -> Policy:
        from alignkit_vllm.teacher import Teacher

        if self.url is None:
            raise AlignkitError(NO_ENGINE)
        # It scores: see alignkit.engine.forward.remote.
        return cast("Policy", Teacher(**self.model_dump()))
