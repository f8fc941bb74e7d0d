"""The rollout backend: an engine whose weights are updated with the policy's."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import torch

from alignkit.engine.forward.frozen import PolicyView
from alignkit.engine.ranks import here
from alignkit.engine.ranks.shards import shards_of
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Policy, Sampling
from alignkit_vllm import check, machine
from alignkit_vllm.engines import Engine, LostError
from alignkit_vllm.engines.fleet import Fleet
from alignkit_vllm.engines.local import LocalEngine
from alignkit_vllm.engines.server import ServerEngine, together
from alignkit_vllm.engines.shared import Addresses, SharedEngine, sharers
from alignkit_vllm.options import (
    compute_dtype,
    describe,
    engine_options,
    shares,
    transfer_options,
    visible_devices,
)
from alignkit_vllm.requests import Answer, Request, blank, completions, requests
from alignkit_vllm.settings import VllmSettings
from alignkit_vllm.watchdog import Watchdog

CHECKED = 2
"""Number of syncs that are always checked: at the start, and after the first update."""


class VllmBackend:
    """Samples with vLLM. It keeps the engine, and the version of its weights, between calls."""

    def __init__(self, keys: VllmSettings) -> None:
        self.keys = keys
        self.sampling: Sampling = keys.sampling()
        self.version = -1
        """``Policy.version`` of the weights in the engine."""
        self.syncs = 0
        self.gaps: list[float] = []
        """Each check's mean absolute difference of log-probs, policy and engine, nats per token."""
        self.kls: list[float] = []
        """Each check's estimate of KL(engine ‖ policy), nats per token."""
        self._engine: Engine | None = None
        self._token = secrets.token_hex(4)

    # ------------------------------------------------------------ protocol

    def start(self, policy: Policy, /) -> None:
        """Start the engine on the policy's architecture and give it the policy's weights."""
        self.close()
        policy = _whole(policy)
        if self.keys.url is None:
            machine.require()
        self._folder = tempfile.TemporaryDirectory(prefix="alignkit-vllm-")
        self._dtype = compute_dtype(policy, self.keys.dtype)
        folder = Path(self._folder.name)
        describe(policy, folder, self._dtype)
        self._engine = engine = self._make_engine(policy)
        self._watch = Watchdog(lambda: engine.peer, self.keys.heartbeat)
        self._watch.on_expiry, self._watch.on_exit = engine.log_end, engine.kill
        with self._watch.stage("start of the engine", self.keys.start_timeout, engine.progress):
            engine.start(folder, policy)
        self.sync(policy)

    def sync(self, policy: Policy, /) -> None:
        """Copy the policy's weights into the engine and drop what it cached for the old ones.

        The weights of a sharded policy are gathered by all ranks here and nowhere else: an engine
        that is lost later gets them from this rank's copy.
        """
        policy = _whole(policy)
        self._hold(policy, fresh=True)
        every = self.keys.check_every
        if self.syncs < CHECKED or (every and self.syncs % every == 0):
            self._check(policy)
        self.syncs += 1

    def hold(self) -> None:
        """Do nothing: the engine keeps the weights of the last sync.

        An engine that dies while the policy learns is restarted with newer weights. Its responses
        then carry another version than expected, which stops the run.
        """

    def generate(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, /
    ) -> list[list[Completion]]:
        """Return ``sampling.n`` completions for each prompt, in order.

        A prompt that leaves no room below the engine's length gives completions without tokens,
        finish_reason "length".
        """
        groups = dict(self.stream(prompts, sampling))
        return [groups[i] for i in range(len(prompts))]

    def stream(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, /
    ) -> Iterator[tuple[int, list[Completion]]]:
        """Yield what ``generate`` returns, each prompt's with its index, as groups finish.

        Requests that the engine does not accept raise AlignkitError at the call, not later.
        """
        room = self._running().max_len()
        return self._groups(list(requests(prompts, sampling, self._policy, room)), sampling.n)

    def _groups(
        self, asked: Sequence[Request | None], n: int
    ) -> Iterator[tuple[int, list[Completion]]]:
        tokenizer = self._policy.tokenizer
        places = [i for i, request in enumerate(asked) if request is not None]
        for i, request in enumerate(asked):
            if request is None:
                yield i, blank(n, self.version)
        found = self._answers(self._policy, [r for r in asked if r is not None])
        with closing(found):
            for place, answers in found:
                yield places[place], completions(answers, n, tokenizer, self.version)
        self._running().rest()

    def close(self) -> None:
        """End the engine and its processes."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
            self._folder.cleanup()

    @property
    def computed(self) -> Mapping[str, str]:
        """How weights are sent to the engine, for the run's manifest."""
        return self._engine.computed() if self._engine else {}

    # ------------------------------------------------------------ inside

    def _running(self) -> Engine:
        if self._engine is None:
            raise AlignkitError("the vllm rollout backend was not started: call start(policy)")
        return self._engine

    def _make_engine(self, policy: Policy) -> Engine:
        keys = self.keys
        options = engine_options(keys, policy, self._dtype)
        if keys.mode == "colocate":
            return LocalEngine(options, sleep=keys.sleep)
        among = sharers(keys)
        if len(among) == 1:
            return self._servers(policy, options)
        own = self._servers(policy, options) if here().rank == among[0] else None
        return SharedEngine(among, own, partial(self._reached, options))

    def _servers(self, policy: Policy, options: Mapping[str, Any]) -> ServerEngine | Fleet:
        """Return the engines that this rank starts, or the server at ``url``."""
        return _fleet(
            self._server(self.keys.url, visible, {**options, **transfer_options(policy, visible)})
            for visible in shares(visible_devices(self.keys, policy), self.keys.engines)
        )

    def _reached(self, options: Mapping[str, Any], addresses: Addresses) -> ServerEngine | Fleet:
        """Return engines that another rank has."""
        return _fleet(self._server(url, None, options, key) for url, key in addresses)

    def _server(
        self,
        url: str | None,
        visible: Sequence[str] | None,
        options: Mapping[str, Any],
        key: str | None = None,
    ) -> ServerEngine:
        keys = self.keys
        return ServerEngine(
            url=url,
            key=key,
            visible=visible,
            options=options,
            weights=keys.weights,
            timeouts=(keys.start_timeout, keys.sync_timeout, keys.generate_timeout),
            max_restarts=keys.max_restarts,
        )

    def _answers(
        self, policy: Policy, asked: Sequence[Request]
    ) -> Generator[tuple[int, list[Answer]]]:
        """Ask the engine; if it is lost before the end, ask again for the missing answers."""
        engine, limit = self._running(), self.keys.generate_timeout
        left = dict(enumerate(asked))
        while left:
            self._hold(policy)
            places = list(left)
            with closing(engine.stream(list(left.values()))) as answers:
                try:
                    for i, found in self._watch.each("generation", limit, answers, engine.progress):
                        del left[places[i]]
                        yield places[i], found
                except LostError as lost:
                    self._revive(lost)

    def _hold(self, policy: Policy, *, fresh: bool = False) -> None:
        """Make sure that the engine holds the policy's weights; restart a lost engine.

        With ``fresh`` the weights are copied even if the engine holds this version already.
        """
        while True:
            try:
                if fresh or self._running().holds() != self._name(self.version):
                    self._load(policy)
                return
            except LostError as lost:
                self._revive(lost)

    def _revive(self, lost: AlignkitError) -> None:
        engine, limit = self._running(), self.keys.start_timeout
        with self._watch.stage("restart of the engine", limit, engine.progress):
            engine.recover(lost)

    def _load(self, policy: Policy) -> None:
        version = policy.version
        self._policy = policy
        with self._watch.stage(f"sync of weights {version}", self.keys.sync_timeout):
            self._running().load(policy, self._dtype, self._name(version))
        self.version = version

    def _name(self, version: int) -> str:
        """Return the engine's label for these weights, which no other run uses."""
        return f"{self._token}/{version}"

    def _check(self, policy: Policy) -> None:
        """Raise WeightsError unless the engine computes with the policy's weights."""
        engine = self._running()
        with self._watch.stage("check of the weights", self.keys.sync_timeout):
            seen = engine.columns()
            check.compare_columns(policy, seen)
        request = check.probe(policy, engine.max_len())
        ((_, (answer,)),) = self._answers(policy, [request])
        found = check.apart(policy, request, answer)
        self.gaps.append(found.gap)
        self.kls.append(found.kl)
        bound = self.keys.max_logprob_gap or check.bound_for(getattr(torch, seen["dtype"]))
        check.require_small(found, bound, self.keys.max_rollout_kl)


def _fleet(servers: Iterable[ServerEngine]) -> ServerEngine | Fleet:
    several = list(servers)
    return several[0] if len(several) == 1 else Fleet(several, together=together)


def _whole(policy: Policy) -> Policy:
    """Return the policy with its present weights whole on this rank, gathered if it is sharded."""
    shards = shards_of(policy.model)
    if shards is None:
        return policy
    shards.gather()
    return PolicyView(policy, shards.whole, policy.version)
