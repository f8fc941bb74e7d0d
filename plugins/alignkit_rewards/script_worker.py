"""The process that calls a reward function of the user's; see :mod:`alignkit_rewards.script_pool`.

A call arrives as a line of JSON: responses, examples, and the seconds it may take. It is answered
by a line of JSON.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import IO, Any, BinaryIO

from alignkit.errors import AlignkitError, TransientError
from alignkit.protocols import Completion, Example, Response, Reward
from alignkit_rewards.script import ScriptReward, load_function, place_of

READY: dict[str, Any] = {"ready": True}
LOOK_S = 1.0
"""Seconds between looks whether the parent is still there."""


def main(file: str, name: str, batched: bool, notes: int) -> None:
    """Serve until standard input closes or the parent dies.

    ``notes`` is the descriptor that takes the traceback of what ends the process.
    """
    asked, out = _own_pipes()
    faulthandler.enable(notes)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    path = Path(file)
    try:
        reward = ScriptReward(load_function(path, name), path, name, batched=batched)
    except BaseException as error:  # noqa: BLE001 - the parent says it
        _answer(out, _told(error, path))
        return
    _answer(out, READY)
    while line := asked.readline():
        _answer(out, _judged(reward, json.loads(line), notes, path))


def _own_pipes() -> tuple[BinaryIO, IO[str]]:
    """Keep the pipes to the parent for this module: what the function prints goes to stderr."""
    asked = os.fdopen(os.dup(0), "rb")
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    return asked, out


def _end_with(parent: int) -> None:
    """Kill this process, and those that it started, when the parent is gone."""
    while os.getppid() == parent:
        time.sleep(LOOK_S)
    os.killpg(0, signal.SIGKILL)


def _judged(reward: ScriptReward, call: Any, notes: int, path: Path) -> dict[str, Any]:
    responses = [_response(*given) for given in call["responses"]]
    examples = [_example(given) for given in call["examples"]]
    try:
        if call["limit"] is not None:
            faulthandler.dump_traceback_later(call["limit"], exit=True, file=notes)
        try:
            rewards = [_plain(r) for r in reward(responses, examples)]
        finally:
            faulthandler.cancel_dump_traceback_later()
    except BaseException as error:  # noqa: BLE001 - the parent raises it
        return _told(error, path)
    return {"rewards": rewards}


def _response(text: str, sampled: dict[str, Any] | None) -> str:
    if sampled is None:
        return text
    lists = {name: tuple(sampled[name]) for name in ("token_ids", "logprobs")}
    return Response.of(Completion(**{**sampled, **lists}))


def _example(given: dict[str, Any]) -> Example:
    return Example(**{**given, "also_accepted": tuple(given["also_accepted"])})


def _plain(reward: Reward) -> tuple[float, dict[str, float]]:
    return float(reward.total), {str(name): float(v) for name, v in reward.parts.items()}


def _told(error: BaseException, path: Path) -> dict[str, Any]:
    """Return what the parent is told of an error."""
    if isinstance(error, TransientError):
        return {"transient": [str(error), error.retries, error.wait]}
    if isinstance(error, AlignkitError):
        return {"error": str(error)}
    return {"error": f"{path} raised {error!r}{place_of(error, path)}"}


def _answer(out: IO[str], message: dict[str, Any]) -> None:
    out.write(json.dumps(message) + "\n")
    out.flush()
    sys.stdout.flush()
