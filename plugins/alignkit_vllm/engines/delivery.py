"""Weights for a server: by vLLM's own transfer where that works, otherwise over a socket."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

import torch

from alignkit.errors import AlignkitError
from alignkit_vllm.engines.client import QUICK, Client, UnreachableError, event_loop
from alignkit_vllm.engines.process import free_port
from alignkit_vllm.watchdog import say
from alignkit_vllm.weights import named_weights, ranks
from alignkit_vllm.weights.sockets import Sender
from alignkit_vllm.weights.transfer import Place, Source, Transfer, gpu_of, way

if TYPE_CHECKING:
    from alignkit.protocols import Policy


class Delivery:
    """Brings the policy's weights to the workers of one server."""

    def __init__(self, client: Client, workers: int, timeout: float) -> None:
        """``timeout`` is for one delivery, in seconds."""
        self.client, self.workers, self.timeout = client, workers, timeout
        self._transfer: Transfer | None = None
        self._over_socket = False

    def bring(self, policy: Policy, dtype: torch.dtype, version: str) -> None:
        """Give all workers the policy's weights, labelled as ``version``."""
        transfer = self._joined(policy, dtype)
        if transfer is None:
            self._send(policy, dtype, version)
            return
        self._call("alignkit_hold", "")  # should it fail half-way, nobody takes it for whole
        transfer.send()
        self._call("alignkit_hold", version)

    def close(self) -> None:
        """Leave the workers; a delivery in progress ends."""
        if self._transfer is not None:
            self._transfer.close()

    def _joined(self, policy: Policy, dtype: torch.dtype) -> Transfer | None:
        """Return vLLM's transfer to this server, None where weights go over a socket."""
        if self._transfer is None and not self._over_socket:
            self._transfer = self._join(Source(policy, dtype))
            self._over_socket = self._transfer is None
        if self._transfer is not None:
            self._transfer.source.policy = policy
        return self._transfer

    def _join(self, source: Source) -> Transfer | None:
        if not (gpu := gpu_of(source.policy)) or not self.client.is_here():
            return None
        places = [Place(**found) for found in self._call("alignkit_place")]
        if (how := way(gpu, ranks(), places)) == "socket":
            return None
        try:
            return Transfer(how, source, self._post, workers=len(places), port=free_port())
        except (AlignkitError, ImportError, OSError, RuntimeError, ValueError) as error:
            say(f"weights go over a socket, as vLLM's transfer by {how} cannot be set up: {error}")
            return None

    def _post(self, path: str, body: Mapping[str, Any] | None) -> Any:
        return self.client.post(path, body, self.timeout)

    def _call(self, method: str, *args: str) -> list[Any]:
        return self.client.call_workers(method, args, QUICK)

    def _send(self, policy: Policy, dtype: torch.dtype, version: str) -> None:
        """Have the workers fetch the weights from a socket."""
        client, limit = self.client, self.timeout
        host = "127.0.0.1" if client.is_here() else client.local_address()
        with closing(Sender(self.workers, host, limit)) as sender, event_loop() as beside:
            args = (host, str(sender.port), sender.token, str(limit), version)
            fetched = beside.start_task_soon(client.ask_workers, "alignkit_fetch", args, limit)
            fetched.add_done_callback(lambda _: sender.close())  # nobody comes any more
            try:
                with torch.no_grad():
                    sender.send(named_weights(policy, dtype))
            except OSError as error:
                why = fetched.exception(5) or UnreachableError(f"{client.url}: {error!r}")
                raise why from error
            fetched.result()
