"""Who answers at an address: a vLLM server of a tested release, made ready for training, or not."""

from __future__ import annotations

import socket
import ssl

from alignkit.errors import AlignkitError
from alignkit_vllm import machine
from alignkit_vllm.http import Client, StrangerError

QUICK = 30.0
"""Seconds that a request may take which needs no work of the engine."""

START = "Start the server with: python -m alignkit_vllm.serve MODEL"


def meet(client: Client, peer: str) -> tuple[str, int]:
    """Return the name of the model that the healthy server ``peer`` serves, and its length.

    Raises:
        UnreachableError: the server went away.
        AlignkitError: it is no vLLM server, or one of another release.
    """
    try:
        release = str(client.get("/version", QUICK)["version"])
        tested = machine.Installed("vllm", release).tested
        model = client.get("/v1/models", QUICK)["data"][0]
        found = str(model["id"]), int(model["max_model_len"])
    except (LookupError, TypeError, ValueError, StrangerError) as error:
        why = str(error) if isinstance(error, StrangerError) else repr(error)
        raise StrangerError(f"{peer} does not answer as vLLM does ({why}).\n  {START}") from error
    if not tested:
        raise AlignkitError(
            f"{peer} runs vLLM {release}; versions {machine.TESTED}.x are tested: install one of "
            f"these where the server runs"
        )
    return found


def hopeless(error: AlignkitError) -> str:
    """Return why no waiting brings the server within reach, "" if it may yet come.

    No host of that name, or no encryption as asked for.
    """
    cause = error.__cause__
    unknown = isinstance(cause, socket.gaierror) and cause.errno == socket.EAI_NONAME
    return str(cause) if unknown or isinstance(cause, ssl.SSLError) else ""
