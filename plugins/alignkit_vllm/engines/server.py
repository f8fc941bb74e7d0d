"""An engine behind HTTP, in a process that this run starts or on a server that runs already."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from alignkit.errors import AlignkitError
from alignkit_vllm import machine, memory
from alignkit_vllm.engines import Engine
from alignkit_vllm.engines.client import (
    QUICK,
    Client,
    StrangerError,
    UnreachableError,
    hopeless,
    meet,
)
from alignkit_vllm.engines.completions import Completions
from alignkit_vllm.engines.delivery import Delivery
from alignkit_vllm.engines.process import Child, arguments, free_port
from alignkit_vllm.guard import KEY, key_for, new_key
from alignkit_vllm.options import IPC, arithmetic
from alignkit_vllm.requests import Answer, Request
from alignkit_vllm.watchdog import say

if TYPE_CHECKING:
    from alignkit.protocols import Policy


class ServerEngine(Engine):
    """vLLM's OpenAI-compatible server, as ``alignkit_vllm.serve`` starts it."""

    def __init__(
        self,
        *,
        url: str | None,
        visible: Sequence[str] | None,
        options: Mapping[str, Any],
        timeouts: tuple[float, float, float],
        max_restarts: int,
        weights: str = "auto",
        key: str | None = None,
    ) -> None:
        """Without ``url`` a server is started with vLLM's ``options`` on the GPUs ``visible``.

        ``key`` is that of the server at ``url``; None takes it from the environment.
        ``timeouts`` are the seconds for a start, a sync and a batch; ``weights`` is the key
        ``rollout.weights``.
        """
        self.url = url
        self.visible = visible
        self.options = dict(options)
        self.weights = weights
        self.start_timeout, self.sync_timeout, self.generate_timeout = timeouts
        self.restarts_left = max_restarts
        self.peer = f"the vLLM server {url}" if url else "the vLLM server of this run"
        self._unhealthy = ""
        self._launches = 0
        self._max_len = 0  # until the server has answered
        self._child: Child | None = None
        self._talk_by(Client(url or "", key_for(url or "", os.environ) if key is None else key))

    def _talk_by(self, client: Client) -> None:
        options = self.options
        self.client = client
        self._delivery = together([self])
        self._completions = Completions(
            client,
            at_once=options.get("max_num_seqs", 256),
            timeout=self.generate_timeout,
            is_dead=lambda: self._child is not None and not self._child.alive,
        )

    def start(self, folder: Path, policy: Policy) -> None:
        self.begin(folder, policy)
        self._await()

    def begin(self, folder: Path, policy: Policy) -> None:
        """Start the server without waiting for it; :meth:`wait` does."""
        self._folder = folder
        self._needs = memory.needs_of(policy, self.options)
        if self.url is None:
            self._look_at_memory()
            self._launch()

    def wait(self) -> None:
        """Wait until a server that was begun is healthy."""
        self._await()

    def _look_at_memory(self) -> None:
        share = self.options.get("gpu_memory_utilization")
        for found in map(machine.memory_of, self.visible or ()):
            if share is not None and found is not None:
                memory.require(*found, share, self._needs)

    def _launch(self) -> None:
        port = free_port()
        key = new_key()
        self._talk_by(Client(f"http://127.0.0.1:{port}", key))
        self.peer = f"the vLLM server of this run, {self.client.url}"
        env = {"VLLM_LOGGING_STREAM": "ext://sys.stderr", KEY: key}
        exact = arithmetic(self.options)
        env |= {name: os.environ.get(name, value) for name, value in exact.items()}
        if self.options.get("weight_transfer_config") == IPC:
            env["VLLM_ALLOW_INSECURE_SERIALIZATION"] = "1"  # memory handles, only with the key
        if self.visible is not None:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(self.visible)
        command = [str(self._folder), "--host=127.0.0.1", f"--port={port}"]
        self._launches += 1  # each server has its own log, so that only its own errors are shown
        log = self._folder / f"server-{self._launches}.log"
        self._child = Child([*command, *arguments(self.options)], log, env)

    def _await(self) -> None:
        """Wait until the server is healthy, at most until the stage's deadline."""
        pause = 0.2
        while True:
            try:
                self.client.get("/health", QUICK)
                self._completions.model, self._max_len = meet(self.client, self.peer)
                break
            except (UnreachableError, StrangerError) as error:
                self._see_why(error)
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
        self._unhealthy = ""

    def _see_why(self, error: AlignkitError) -> None:
        """Raise AlignkitError if the server will never answer; else record why it does not yet."""
        if self._child is None:
            if not self._max_len and (why := hopeless(error)):
                raise AlignkitError(f"{self.peer} cannot be reached: {why}") from error
            if isinstance(error, StrangerError):
                raise error
            if not self._unhealthy:
                say(f"{self.peer} does not answer: {error}; waiting for it")
        elif not self._child.alive:
            if "address already in use" not in self._child.log_text().lower():
                raise self._died("ended while starting") from error
            say(f"{self.peer}: another process took the port; trying another port")
            self._launch()
        self._unhealthy = f"not healthy: {error}"

    def _died(self, when: str) -> AlignkitError:
        assert self._child is not None
        gpu = machine.memory_of(self.visible[0]) if self.visible else None
        advice = memory.explain(self._child.log_text(), self.options, self._needs, gpu)
        return AlignkitError(
            f"{self.peer} {when} (exit status {self._child.process.poll()})"
            f"{f'; {advice}' if advice else ''}; the end of its log:\n{self._child.log_end()}"
        )

    def recover(self, lost: Exception) -> None:
        """Restore a lost server: start a new one, or wait for the one at the URL to return."""
        if self.restarts_left == 0:
            if self._child is None:
                raise AlignkitError(f"{self.peer} failed, and max_restarts is used up: {lost}")
            raise self._died("died, and max_restarts is used up") from lost
        self.restarts_left -= 1
        self._delivery.close()
        if self._child is None:
            say(f"{self.peer} failed ({lost}); waiting for it ({self.restarts_left} times more)")
            self._talk_by(self.client)
        else:
            say(f"{self.peer} died; starting another ({self.restarts_left} restarts left)")
            self._child.kill()
            self._launch()
        self._await()

    def max_len(self) -> int:
        return self._max_len

    def hang_up(self) -> None:
        """Close the connections of a stream in progress, which then raises LostError."""
        self._completions.hang_up()

    def close(self) -> None:
        self._completions.hang_up()
        self._delivery.close()
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def kill(self) -> None:
        if self._child is not None:
            self._child.kill()

    def log_end(self) -> str:
        """End the server, and return its threads' stacks; for one at ``url`` only disconnect."""
        self._completions.hang_up()
        self._delivery.close()
        if self._child is None:
            return ""
        self._child.dump_stacks()
        return f"the end of {self.peer}'s log:\n{self._child.log_end()}"

    def computed(self) -> Mapping[str, str]:
        route = self._delivery.route
        return {"weights": str(route)} if route else {}

    def load(self, policy: Policy, dtype: torch.dtype, version: str) -> None:
        self._delivery.bring(policy, dtype, version)
        self.reset()

    def reset(self) -> None:
        """Drop the prefix cache."""
        for pause in (0.0, 0.1, 1.0, 5.0):  # blocks of the last batch may not be free yet
            time.sleep(pause)
            if self.client.post("/reset_prefix_cache", None, QUICK)["success"]:
                return
        raise AlignkitError(
            f"{self.peer} did not drop its prefix cache; let no other program use the server"
        )

    def holds(self) -> str:
        found = set(self.client.call_workers("alignkit_version", [], QUICK))
        return str(found.pop()) if len(found) == 1 else ""

    def columns(self) -> Mapping[str, Any]:
        columns: Mapping[str, Any] = self.client.call_workers("alignkit_columns", [], QUICK)[0]
        return columns

    def stream(self, requests: Sequence[Request]) -> Generator[tuple[int, list[Answer]]]:
        return self._completions.stream(requests)

    def progress(self) -> str:
        left = self._completions.left
        return self._unhealthy or (f"{left} prompts unfinished" if left else "")


def together(engines: Sequence[ServerEngine]) -> Delivery:
    """Return one delivery for all ``engines``, which have the same options."""
    first = engines[0]
    workers = first.options.get("tensor_parallel_size", 1)
    clients = [engine.client for engine in engines]
    return Delivery(clients, workers, first.sync_timeout, wanted=first.weights)
