"""A policy that answers texts through a rollout backend, as an endpoint does."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace

from alignkit.engine.asking import ask
from alignkit.engine.prompting import prompt_of
from alignkit.engine.sampling.generating import BACKEND, generated
from alignkit.engine.sampling.opening import number
from alignkit.engine.sampling.rollouts import with_stops
from alignkit.protocols import Example, Policy, PromptTemplate, RolloutBackend


@dataclass(frozen=True, slots=True)
class AsItIs:
    """The prompt is the text."""

    stop: tuple[str, ...] = ()

    def render(self, question: str) -> str:
        """Return the text."""
        return question


class LocalModel:
    """Answers texts one batch at a time; the backend is started when it is first asked."""

    def __init__(
        self, policy: Policy, backend: RolloutBackend, template: PromptTemplate | None = None
    ) -> None:
        self._policy, self._backend, self._template = policy, backend, template or AsItIs()
        self._lock, self._started, self._closed = threading.Lock(), False, False
        self._known: dict[str, str] = {}

    def ask_all(self, texts: Sequence[str]) -> list[str | None]:
        """Return the reply to each text, None where the text leaves the policy no room for one.

        A text's reply depends on the text alone, not on those it is asked with.
        """
        with self._lock:
            new = [text for text in dict.fromkeys(texts) if text not in self._known]
            self._known |= self._replies(new)
            return [self._known.get(text) for text in texts]

    def _replies(self, texts: Sequence[str]) -> dict[str, str]:
        template, policy = self._template, self._policy
        asked = {t: prompt_of(Example(t[:80], t, ""), template, policy)[1] for t in texts}
        fitting = {t: ids for t, ids in asked.items() if len(ids) < policy.max_length}
        if not fitting:
            return {}
        if not self._started:
            ask(BACKEND, self._backend, self._backend.start, policy)
            self._started = True
        keys = tuple(number(text) for text in fitting)
        how = replace(with_stops(self._backend.sampling, template), n=1, prompt_keys=keys)
        groups = generated(self._backend, list(fitting.values()), how, policy)
        return {text: group[0].text for text, group in zip(fitting, groups, strict=True)}

    def close(self) -> None:
        """Release the backend; calling it twice is fine."""
        if self._started and not self._closed:
            self._closed = True
            ask(BACKEND, self._backend, self._backend.close)
