"""Sends the requests of one transfer to several servers at the same time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

Body = Mapping[str, Any] | None
Post = Callable[[str, Body], Any]
"""Posts JSON to a path of one server; raises AlignkitError if that fails."""


class Peers:
    """Sends vLLM's requests of a weight update to several servers."""

    def __init__(self, posts: Sequence[Post], workers: Sequence[int]) -> None:
        """``workers`` is the number of workers of each server, in the order of ``posts``."""
        self.posts, self.workers = list(posts), list(workers)
        self.error: BaseException | None = None
        """The error of the first request that failed, or the reason for giving up."""
        self._lock = Lock()
        self._waiting: list[SimpleQueue[BaseException | None]] = []

    def ask(self, path: str, json: Body = None) -> None:
        """Post to all servers at once; return when all have answered, or raise the first error.

        After an error, requests to the other servers are not waited for.
        """
        answers: SimpleQueue[BaseException | None] = SimpleQueue()
        with self._lock:
            if self.error is not None:
                raise self.error
            self._waiting.append(answers)
        for number, post in enumerate(self.posts):
            given = (post, f"/{path}", self._own(json, number), answers)
            name = f"alignkit asks for {path}"
            Thread(target=_post, args=given, name=name, daemon=True).start()
        try:
            for _ in self.posts:
                if (error := answers.get()) is not None:
                    raise error
        except BaseException as error:
            self.give_up(error)
            raise
        finally:
            self._waiting.remove(answers)

    def give_up(self, why: BaseException) -> None:
        """Make every wait for an answer, in any thread, raise ``why``."""
        with self._lock:
            self.error = self.error or why
            for answers in self._waiting:
                answers.put(why)

    def _own(self, json: Body, number: int) -> Body:
        """Return the request for one server, with the offset of its workers' ranks."""
        info = json.get("init_info", {}) if json else {}
        if "rank_offset" not in info:
            return json
        offset = info["rank_offset"] + sum(self.workers[:number])
        return {**(json or {}), "init_info": {**info, "rank_offset": offset}}


def _post(post: Post, path: str, body: Body, answers: SimpleQueue[BaseException | None]) -> None:
    try:
        post(path, body)
    except BaseException as error:  # noqa: BLE001 # the waiting thread raises it, whatever it is
        answers.put(error)
    else:
        answers.put(None)
