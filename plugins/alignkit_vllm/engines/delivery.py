"""Sends weights to servers: by vLLM's own transfer where that works, otherwise over a socket."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import torch

from alignkit.errors import AlignkitError
from alignkit_vllm.engines.client import QUICK, Client, UnreachableError, event_loop
from alignkit_vllm.engines.process import free_port
from alignkit_vllm.routes import WORDS, Place, Route, chosen
from alignkit_vllm.watchdog import say
from alignkit_vllm.weights import named_weights, ranks
from alignkit_vllm.weights.peers import Peers
from alignkit_vllm.weights.sockets import Sender
from alignkit_vllm.weights.transfer import Source, Transfer, gpu_of

if TYPE_CHECKING:
    from alignkit.protocols import Policy


class Delivery:
    """Sends the policy's weights to the workers of one server, or of several at once."""

    def __init__(
        self, clients: Sequence[Client], workers: int, timeout: float, *, wanted: str = "auto"
    ) -> None:
        """``workers`` is the number in each server; ``timeout`` is for one delivery, in seconds.

        ``wanted`` is the key ``rollout.weights``.
        """
        self.clients, self.workers, self.timeout = list(clients), workers, timeout
        self.wanted = wanted
        self.route: Route | None = None
        """How weights are sent, None before the first delivery."""
        self._transfer: Transfer | None = None

    def joined(self, policy: Policy, dtype: torch.dtype) -> bool:
        """Set up vLLM's transfer to the servers, once; return whether weights are sent by it."""
        if self.route is None:
            self.route = self._choose(policy)
            if self.route.way != "socket":
                self._transfer = self._join(Source(policy, dtype), self.route)
        if self._transfer is not None:
            self._transfer.source.policy = policy
        return self._transfer is not None

    def bring(self, policy: Policy, dtype: torch.dtype, version: str) -> None:
        """Send the policy's weights, labelled ``version``, to all workers."""
        if not self.joined(policy, dtype):
            for client in self.clients:
                self._send(client, policy, dtype, version)
            return
        assert self._transfer is not None
        self._hold("")  # until all weights have arrived, no version is held
        self._transfer.send()
        self._hold(version)

    def close(self) -> None:
        """Disconnect from the workers; a delivery in progress ends."""
        if self._transfer is not None:
            self._transfer.close()

    def _choose(self, policy: Policy) -> Route:
        gpu = gpu_of(policy)
        if not gpu or self.wanted == "socket":  # the servers need not be asked
            return chosen(gpu, [], wanted=self.wanted)
        servers = [self._places(client) for client in self.clients]
        return chosen(gpu, servers, ranks=ranks(policy))

    def _join(self, source: Source, route: Route) -> Transfer | None:
        posts = [partial(client.post, timeout=self.timeout) for client in self.clients]
        address = _address(self.clients)
        try:
            peers = Peers(posts, [self.workers] * len(posts))
            return Transfer(route.way, source, peers, address=address, port=free_port(address))
        except (AlignkitError, ImportError, OSError) as error:
            why = f"vLLM's transfer by {WORDS[route.way]} cannot be set up: {error}"
            say(f"{why}; weights are sent over a socket instead")
            self.route = Route("socket", why)
            return None

    def _places(self, client: Client) -> list[Place]:
        return [Place(**found) for found in client.call_workers("alignkit_place", [], QUICK)]

    def _hold(self, version: str) -> None:
        for client in self.clients:
            client.call_workers("alignkit_hold", [version], QUICK)

    def _send(self, client: Client, policy: Policy, dtype: torch.dtype, version: str) -> None:
        """Make the workers fetch the weights from a socket."""
        limit, host = self.timeout, _address([client])
        with closing(Sender(self.workers, host, limit)) as sender, event_loop() as beside:
            args = (host, str(sender.port), sender.token, str(limit), version)
            fetched = beside.start_task_soon(client.ask_workers, "alignkit_fetch", args, limit)
            fetched.add_done_callback(lambda _: sender.close())  # no worker will connect any more
            try:
                with torch.no_grad():
                    sender.send(named_weights(policy, dtype))
            except OSError as error:
                why = fetched.exception(5) or UnreachableError(f"{client.url}: {error!r}")
                raise why from error
            fetched.result()


def _address(clients: Sequence[Client]) -> str:
    """Return the address under which all servers reach this machine."""
    away = (client for client in clients if not client.is_here())
    return next((client.local_address() for client in away), "127.0.0.1")
