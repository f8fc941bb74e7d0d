"""An engine behind HTTP: a process that this run starts, or a server that runs already."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import torch

from alignkit.errors import AlignkitError
from alignkit_vllm import machine, memory
from alignkit_vllm.guard import KEY, new_key
from alignkit_vllm.http import Client, StrangerError, UnreachableError
from alignkit_vllm.meeting import QUICK, START, hopeless, meet
from alignkit_vllm.process import Child, free_port
from alignkit_vllm.requests import Answer, Request
from alignkit_vllm.watch import say
from alignkit_vllm.weights import Sender, named_weights

if TYPE_CHECKING:
    from alignkit.protocols import Policy
    from alignkit_vllm.devices import Devices


class LostError(AlignkitError):
    """The server went away in the middle of a batch."""


class ServerEngine:
    """vLLM's OpenAI-compatible server, as ``alignkit_vllm.serve`` starts it."""

    def __init__(
        self,
        *,
        url: str | None,
        devices: Devices,
        options: Mapping[str, Any],
        timeouts: tuple[float, float, float],
        max_restarts: int,
    ) -> None:
        """``url`` None starts a server with vLLM's ``options`` on ``devices``.

        ``timeouts`` are the seconds for a start, a sync and a batch.
        """
        self.url = url
        self.devices = devices
        self.options = dict(options)
        self.start_timeout, self.sync_timeout, self.generate_timeout = timeouts
        self.restarts_left = max_restarts
        self.peer = f"the vLLM server {url}" if url else "the vLLM server of this run"
        self.workers = int(self.options.get("tensor_parallel_size", 1))
        self.concurrent = int(self.options.get("max_num_seqs", 256))
        self._unfinished = 0
        self._unhealthy = ""
        self._launches = 0
        self._child: Child | None = None
        self._client = Client(url or "", os.environ.get(KEY, ""))
        self._name = ""

    # ------------------------------------------------------------ life

    def start(self, folder: Path, policy: Policy) -> None:
        """Start a server on the model that ``folder`` describes, or find the one at the URL."""
        self._folder, self._visible = folder, self.devices(policy)
        self._needs = memory.needs_of(policy, self.options)
        if self.url is None:
            self._look_at_memory()
            self._launch()
        self._await()

    def _look_at_memory(self) -> None:
        share = self.options.get("gpu_memory_utilization")
        for found in map(machine.memory_of, self._visible or ()):
            if share is not None and found is not None:
                memory.require(*found, share, self._needs)

    def _launch(self) -> None:
        port = free_port()
        key = new_key()
        self._client = Client(f"http://127.0.0.1:{port}", key)
        self.peer = f"the vLLM server of this run, {self._client.url}"
        env = {"VLLM_LOGGING_STREAM": "ext://sys.stderr", KEY: key}
        if self._visible is not None:
            env["CUDA_VISIBLE_DEVICES"] = ",".join(self._visible)
        arguments = [str(self._folder), "--host=127.0.0.1", f"--port={port}", *self._arguments()]
        self._launches += 1  # each log is its own: what ended one server explains no other
        self._child = Child(arguments, self._folder / f"server-{self._launches}.log", env)

    def _arguments(self) -> list[str]:
        flags = {name.replace("_", "-"): value for name, value in self.options.items()}
        switches = {True: "--{}", False: "--no-{}"}
        return [
            switches[value].format(name) if isinstance(value, bool) else f"--{name}={value}"
            for name, value in flags.items()
            if value is not None
        ] + ["--uvicorn-log-level=warning"]

    def _await(self) -> None:
        """Wait until the server is healthy; how long, the stage's deadline says."""
        pause = 0.2
        while True:
            try:
                self._client.get("/health", QUICK)
                self._name, self._max_len = meet(self._client, self.peer)
                break
            except (UnreachableError, StrangerError) as error:
                self._see_why(error)
            time.sleep(pause)
            pause = min(2 * pause, 5.0)
        self._unhealthy = ""

    def _see_why(self, error: AlignkitError) -> None:
        """Raise AlignkitError if the server will never answer; else note why it does not yet."""
        if self._child is None:
            if not self._name and (why := hopeless(error)):
                raise AlignkitError(f"{self.peer} cannot be reached: {why}") from error
            if isinstance(error, StrangerError):
                raise error
            if not self._unhealthy:
                say(f"{self.peer} does not answer: {error}; waiting for it")
        elif not self._child.alive:
            if "address already in use" not in self._child.log_text().lower():
                raise self._died("ended while starting") from error
            say(f"{self.peer}: somebody else took the port; trying another")
            self._launch()
        self._unhealthy = f"not healthy: {error}"

    def _died(self, when: str) -> AlignkitError:
        assert self._child is not None
        gpu = machine.memory_of(self._visible[0]) if self._visible else None
        advice = memory.explain(self._child.log_text(), self.options, self._needs, gpu)
        return AlignkitError(
            f"{self.peer} {when} (exit status {self._child.process.poll()})"
            f"{f'; {advice}' if advice else ''}; the end of its log:\n{self._child.log_end()}"
        )

    def recover(self, lost: Exception) -> None:
        """Bring a lost server back: start one anew, or wait for the one at the URL to return."""
        if self.restarts_left == 0:
            if self._child is None:
                raise AlignkitError(f"{self.peer} failed, and max_restarts is used up: {lost}")
            raise self._died("died, and max_restarts is used up") from lost
        self.restarts_left -= 1
        if self._child is None:
            say(f"{self.peer} failed ({lost}); waiting for it ({self.restarts_left} times more)")
            self._await()
            return
        say(f"{self.peer} died; starting another ({self.restarts_left} restarts left)")
        self._child.kill()
        self._launch()
        self._await()

    def max_len(self) -> int:
        """Return the most tokens of prompt and response together."""
        return self._max_len

    def close(self) -> None:
        """End the server, if this run started it."""
        self._client.hang_up()
        child, self._child = self._child, None
        if child is not None:
            child.stop()

    def kill(self) -> None:
        """End the server at once."""
        if self._child is not None:
            self._child.kill()

    def log_end(self) -> str:
        """Return the stacks of the server's threads, or the log's last lines; ends the server."""
        if self._child is None:
            return ""
        self._child.dump_stacks()
        return f"the end of {self.peer}'s log:\n{self._child.log_end()}"

    def rest(self) -> None:
        """Do nothing: the server's memory is its own."""

    # ------------------------------------------------------------ weights

    def load(self, policy: Policy, dtype: torch.dtype, version: str) -> None:
        """Send the policy's weights; drop what was cached under other ones."""
        host = "127.0.0.1" if self._is_here() else self._client.local_address()
        sender = Sender(self.workers, host, self.sync_timeout)
        errors: list[Exception] = []

        def fetch() -> None:
            args = [host, str(sender.port), sender.token, str(self.sync_timeout), version]
            try:
                self._rpc("alignkit_fetch", args, self.sync_timeout)
            except (OSError, AlignkitError) as error:
                errors.append(error)
                sender.close()

        thread = threading.Thread(target=fetch, daemon=True)
        thread.start()
        try:
            with torch.no_grad():
                sender.send(named_weights(policy, dtype))
        except OSError as error:
            thread.join(5)
            raise errors[0] if errors else UnreachableError(f"{self.peer}: {error!r}") from error
        finally:
            sender.close()
        thread.join(self.sync_timeout)
        if errors:
            raise errors[0]
        self.reset()

    def _is_here(self) -> bool:
        return urlsplit(self._client.url).hostname in ("127.0.0.1", "localhost", "::1")

    def reset(self) -> None:
        """Drop the prefix cache."""
        for pause in (0.0, 0.1, 1.0, 5.0):  # blocks of the last batch may not be free yet
            time.sleep(pause)
            if self._client.post("/reset_prefix_cache", None, QUICK)["success"]:
                return
        raise AlignkitError(
            f"{self.peer} did not drop its prefix cache: does somebody else use it too?"
        )

    def holds(self) -> str:
        """Return the version of the weights held, "" if the workers differ."""
        found = set(self._rpc("alignkit_version", [], QUICK))
        return str(found.pop()) if len(found) == 1 else ""

    def columns(self) -> Mapping[str, Any]:
        """Return some columns of the weights, see ``worker.columns``."""
        columns: Mapping[str, Any] = self._rpc("alignkit_columns", [], QUICK)[0]
        return columns

    def _rpc(self, method: str, args: Sequence[str], timeout: float) -> list[Any]:
        body = {"method": method, "args": list(args), "timeout": timeout}
        try:
            results: list[Any] = self._client.post("/collective_rpc", body, timeout)["results"]
        except StrangerError as error:
            raise StrangerError(f"{error}\n  {START}") from error
        return results

    # ------------------------------------------------------------ responses

    def stream(self, requests: Sequence[Request]) -> Generator[tuple[int, list[Answer]]]:
        """Yield each request's place and its answers, as they are finished.

        Raises:
            LostError: the server went away.
        """
        self._unfinished = len(requests)
        over = threading.Event()
        pool = ThreadPoolExecutor(min(len(requests), self.concurrent))
        places = {pool.submit(self._complete, r, over): i for i, r in enumerate(requests)}
        try:
            for future in as_completed(places):
                try:
                    answers = future.result()
                except UnreachableError as error:
                    raise LostError(str(error)) from error
                self._unfinished -= 1
                yield places[future], answers
        finally:
            over.set()
            if self._unfinished:  # lost, hung or given up half-way
                self._client.hang_up()
            pool.shutdown(wait=True, cancel_futures=True)

    def _complete(self, request: Request, over: threading.Event) -> list[Answer]:
        body = {
            "model": self._name,
            "prompt": list(request.prompt),
            "n": request.n,
            "logprobs": 0,
            "return_token_ids": True,  # nosec B105 # no password
            **request.options,
        }
        for pause in (0.5, 2.0, None):  # a busy server may drop a connection; a dead one stays so
            try:
                answered = self._client.post("/v1/completions", body, self.generate_timeout)
                break
            except UnreachableError:
                dead = self._child is not None and not self._child.alive
                if pause is None or dead or over.wait(pause):
                    raise
        choices = sorted(answered["choices"], key=lambda choice: int(choice["index"]))
        return [_answer(choice) for choice in choices]

    def progress(self) -> str:
        """Return what is waited for: a healthy server, or how much of a batch."""
        left = f"{self._unfinished} prompts unfinished" if self._unfinished else ""
        return self._unhealthy or left


def _answer(choice: Mapping[str, Any]) -> Answer:
    return Answer(
        token_ids=tuple(choice["token_ids"]),
        logprobs=tuple(choice["logprobs"]["token_logprobs"]),
        text=choice["text"],
        ended=choice["finish_reason"] != "length",
        stop_string=isinstance(choice.get("stop_reason"), str),
    )
