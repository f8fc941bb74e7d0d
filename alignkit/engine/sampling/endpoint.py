"""Asks a model through an OpenAI-compatible endpoint, within limits, and remembers replies."""

from __future__ import annotations

import hashlib
import json
import logging
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

from alignkit.engine.sampling.posting import NoAnswerError, Poster
from alignkit.errors import AlignkitError

logger = logging.getLogger("alignkit")

RETRIED = frozenset({408, 409, 425, 429, *range(500, 600)})
"""HTTP statuses of failures that may pass; any other means that the recipe must be corrected."""
FREE = frozenset({409, 425, 429, 503})
"""Those of them with which a server refuses before it has made a token."""
LONGEST_WAIT = 60.0
"""Most seconds between two attempts, even if the server asks for more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Limits on how an endpoint is asked."""

    timeout: float
    """Seconds an attempt may take in all."""
    retries: int
    """Attempts after the first."""
    backoff: float
    """Seconds before the first of them; each further wait is twice as long."""
    requests_per_minute: float
    """Attempts begun per minute; 0 = no limit."""
    token_budget: int
    """Prompt and reply tokens in all; 0 = no limit."""
    concurrency: int = 1
    """Requests open at the same time."""


class Reply(str):
    """What the model replied."""

    finish_reason: str
    """"stop" or "length"; "" if the endpoint said neither."""

    def __new__(cls, text: str, finish_reason: object = "") -> Reply:
        """Make a reply of its text; a reason that is not known counts as none."""
        made = super().__new__(cls, text)
        made.finish_reason = str(finish_reason) if finish_reason in ("stop", "length") else ""
        return made


class Cache:
    """Replies by question, in a file to which each reply is added as soon as it arrives."""

    def __init__(self, path: Path | None) -> None:
        self._path, self._lock = path, threading.Lock()
        self._found: dict[str, Reply] = {}
        for line in path.read_bytes().splitlines() if path and path.exists() else ():
            with suppress(ValueError, KeyError, TypeError):  # a kill may have cut the last line
                row = json.loads(line)
                reply = Reply(str(row["reply"]), row.get("finish_reason"))
                self._found[str(row["key"])] = reply

    def get(self, key: str) -> Reply | None:
        """Return the reply, None if there is none yet."""
        return self._found.get(key)

    def put(self, key: str, reply: Reply) -> None:
        """Keep a reply; a newline first ends a line that a kill may have left half written."""
        with self._lock:
            self._found[key] = reply
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                row = {"key": key, "reply": reply, "finish_reason": reply.finish_reason}
                with self._path.open("a", encoding="utf-8") as file:
                    file.write("\n" + json.dumps(row) + "\n")


class Budget:
    """Tokens that may still be spent.

    A request reserves its maximum until its real cost is known."""

    def __init__(self, tokens: int) -> None:
        self._left: float = tokens or float("inf")
        self._lock, self._said = threading.Lock(), False

    def hold(self, tokens: int) -> bool:
        """Reserve tokens; False, and nothing reserved, if fewer are left: said the first time."""
        with self._lock:
            if tokens > self._left:
                if not self._said:
                    logger.warning("token_budget is spent: %d left, %d needed", self._left, tokens)
                self._said = True
                return False
            self._left -= tokens
            return True

    def give_back(self, tokens: int) -> None:
        """Give back what was reserved and not spent; negative if more was spent."""
        with self._lock:
            self._left += tokens


class Pace:
    """Spaces requests evenly in time."""

    def __init__(self, per_minute: float) -> None:
        self._gap = 60 / per_minute if per_minute else 0.0
        self._next, self._lock = 0.0, threading.Lock()

    def turn(self) -> float:
        """Take the next turn; return the seconds until it."""
        with self._lock:
            start = max(self._next, time.monotonic())
            self._next = start + self._gap
        return max(start - time.monotonic(), 0)


Text = str | Sequence[Mapping[str, Any]]
"""What is asked: the text of a user, or messages."""


class Endpoint:
    """A model behind ``URL/chat/completions``; may be asked from several threads."""

    def __init__(
        self,
        url: str,
        model: str,
        max_tokens: int,
        key: str,
        limits: Limits,
        cache: Cache,
        temperature: float = 0.0,
    ) -> None:
        self._url, self._limits, self._cache = f"{url.rstrip('/')}/chat/completions", limits, cache
        self._most = max_tokens
        self._body = {"model": model, "max_tokens": max_tokens, "temperature": temperature}
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        largest = 2**20 + 2**10 * max_tokens  # bytes; far above what so many tokens are
        self._poster = Poster(self._url, headers, timeout=limits.timeout, largest=largest)
        self._budget, self._pace = Budget(limits.token_budget), Pace(limits.requests_per_minute)
        self._pool = ThreadPoolExecutor(limits.concurrency, "endpoint")

    def ask_all(
        self, texts: Sequence[Text], *, stop: Sequence[str] = (), samples: Sequence[int] = ()
    ) -> list[Reply | None]:
        """Return the reply to each text, None where there was none; see :meth:`ask`.

        ``samples`` numbers the texts that are asked several times, as they stand. A text that is
        there twice with one number is asked once.
        """
        numbers = samples or [0] * len(texts)
        asked: dict[str, Future[Reply | None]] = {}
        keys = [json.dumps(pair) for pair in zip(texts, numbers, strict=True)]
        for key, text, number in zip(keys, texts, numbers, strict=True):
            if key not in asked:
                asked[key] = self._pool.submit(self.ask, text, number, stop)
        return [asked[key].result() for key in keys]

    def ask(self, text: Text, sample: int = 0, stop: Sequence[str] = ()) -> Reply | None:
        """Return the reply, or None if there was none within the limits.

        AlignkitError where the endpoint refuses for good, as for a wrong key or model.
        """
        messages = [{"role": "user", "content": text}] if isinstance(text, str) else [*text]
        more = ({"stop": [*stop]} if stop else {}) | ({"seed": sample} if sample else {})
        body: dict[str, Any] = {**self._body, "messages": messages, **more}
        key = hashlib.sha256(json.dumps([self._url, body]).encode()).hexdigest()
        if (known := self._cache.get(key)) is not None:
            return known
        reply = self._asked(body, text if isinstance(text, str) else json.dumps(messages))
        if reply is not None:
            self._cache.put(key, reply)
        return reply

    def _asked(self, body: Mapping[str, Any], said: str) -> Reply | None:
        """Make attempts within the limits, until one gives a reply or the endpoint is closed."""
        most = len(whole(said).encode()) + self._most
        for attempt in range(self._limits.retries + 1):
            if not self._budget.hold(most):
                return None
            reply, used, wait = self._attempt(body, most)
            self._budget.give_back(most - used)
            if reply is not None:
                return reply
            pause = min(max(wait, self._limits.backoff * 2**attempt), LONGEST_WAIT)
            if attempt == self._limits.retries or self._poster.closed.wait(pause):
                return None
        return None

    def _attempt(self, body: Mapping[str, Any], most: int) -> tuple[Reply | None, int, float]:
        """Return the reply, the tokens it took, and the seconds the server asks to wait.

        A failure counts with ``most`` tokens unless the server refused before any were made.
        """
        if self._poster.closed.wait(self._pace.turn()):
            return None, 0, 0.0
        try:
            payload = whole(json.dumps(body, ensure_ascii=False)).encode()
            status, headers, content = self._poster.post(payload)
        except NoAnswerError:
            return None, most, 0.0
        if status in RETRIED:
            return None, 0 if status in FREE else most, seconds_asked(headers.get("retry-after"))
        if status != 200:
            raise AlignkitError(
                f"{self._url} answered {status}: {content[:200]!r}; check url, model and key_from"
            )
        return *_read(content, most), 0.0

    def close(self) -> None:
        """End open requests, connections and threads; calling it twice is fine."""
        self._poster.close()
        self._pool.shutdown(wait=True, cancel_futures=True)
        self._poster.release()


def _read(content: bytes, most: int) -> tuple[Reply | None, int]:
    """Return the reply of an answer, None if it has none, and the tokens used, ``most`` if unsaid.

    More than ``most`` counts in full: a server's own prompt around ours takes tokens too.
    """
    try:
        answer = json.loads(content)
        choice = answer["choices"][0]
        reply = choice["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError):
        return None, most
    usage = answer.get("usage")
    used = usage.get("total_tokens") if isinstance(usage, dict) else None
    counted = used if type(used) is int and used >= 0 else most
    if not isinstance(reply, str):
        return None, counted
    return Reply(whole(reply), choice.get("finish_reason")), counted


def whole(text: str) -> str:
    """Return the text with every half of a surrogate pair, which no UTF-8 has, replaced.

    >>> whole("\\ud83d!")
    '�!'
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def seconds_asked(text: str | None) -> float:
    """Return the seconds of a Retry-After header, a number or a date; 0 for none and nonsense."""
    with suppress(ValueError, TypeError, OverflowError):
        if text and text.isascii():
            if text.strip().isdigit():
                return float(text)
            when = parsedate_to_datetime(text)
            aware = when if when.tzinfo else when.replace(tzinfo=UTC)
            return max((aware - datetime.now(UTC)).total_seconds(), 0.0)
    return 0.0
