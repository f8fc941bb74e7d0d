"""Continuous batching: one call's responses, from waiting through running to finished.

Running responses sit in rows 0 .. B - 1 of the cache. When some finish, rows from the end take
their places, so that views of the first B rows are always all that runs; waiting responses then
join at the end. A group's prompt passes through the model once, when its first response joins.

The uniform draws do not depend on the batch, but matrix products round differently in batches of
different shapes. A draw that falls within that rounding of the border between two tokens may go
either way: 2 of 43,000 tokens of a random two-layer model in float32, when all its responses ran
at once and when 20 did. The same call repeated always gives the same tokens.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alignkit.protocols import Completion, Sampling
from alignkit_hf.fast.cache import Prompt, RowCache
from alignkit_hf.fast.forward import Forward
from alignkit_hf.sampling.choose import draw
from alignkit_hf.sampling.records import Request, Response, requests
from alignkit_hf.sampling.texts import Texts

_REFILL = 8
"""Waiting responses join when one row in this many is free."""

_BUNDLES = 32
"""Most times that finished groups are returned before the last; each time costs a walk over the
model, and under autocast a cast of its weights."""


@dataclass(slots=True)
class _Group:
    """One prompt and its responses ``first`` .. ``first + n - 1``."""

    request: Request
    first: int
    left: int
    """Responses that have not finished."""
    joined: int = 0
    """Responses that have left the queue."""
    logits: Tensor | None = None
    """(V,) for the first token, until all responses have joined."""
    prompt_held: Prompt | None = None

    @property
    def slot(self) -> int:
        return self.prompt_held.slot if self.prompt_held else -1


@dataclass(slots=True)
class _Rows:
    """State of the rows, each (rows,) int64."""

    response: Tensor
    """Which response runs here."""
    position: Tensor
    """Position of the token drawn last."""
    drawn: Tensor
    """Tokens drawn so far."""
    limit: Tensor
    token: Tensor
    """The id drawn last."""
    stream: Tensor

    @classmethod
    def empty(cls, rows: int, device: torch.device) -> _Rows:
        return cls(*(torch.zeros(rows, dtype=torch.long, device=device) for _ in range(6)))

    def columns(self) -> tuple[Tensor, ...]:
        return self.response, self.position, self.drawn, self.limit, self.token, self.stream


class Decoding:
    """One call of ``generate``."""

    def __init__(self, forward: Forward, texts: Texts, how: Sampling, budget: int) -> None:
        self.forward, self.texts, self.how, self.budget = forward, texts, how, budget
        self.device = forward.device
        policy = forward.policy
        self.version = policy.version
        self.eos = torch.tensor(sorted(policy.eos_ids), dtype=torch.long, device=self.device)
        self.stops = texts.stops(how.stop)
        if self.stops is not None:
            self.may_end = self.stops.may_end.to(self.device)
        self.running = 0
        self.cache: RowCache | None = None
        self.complete: list[int] = []
        """Groups that are finished and not yet handed out."""

    def run(self, prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[Completion]]]:
        """Yield each prompt's index and ``how.n`` completions soon after the last is finished.

        While the caller runs, the model and torch's modes are as the caller left them.
        """
        self.forward.refresh()
        try:
            yield from self._run(prompts)
        finally:
            self.forward.release()

    def _run(self, prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[Completion]]]:
        n = self.how.n
        asked = requests(prompts, self.how, self.forward.policy.max_length)
        self.groups = [_Group(request, first=i * n, left=n) for i, request in enumerate(asked)]
        self._allocate(self.groups)
        self.complete = [i for i, request in enumerate(asked) if not request.limit]
        queue = deque(group for group in self.groups if group.request.limit)
        bundle = -(-len(self.groups) // _BUNDLES)
        while queue or self.running or self.complete:
            with self.forward.ready():
                while (queue or self.running) and len(self.complete) < bundle:
                    if self._can_join(queue):
                        self._join(queue)
                    else:
                        self._step()
            complete, self.complete = self.complete, []
            yield from ((i, self._completions(self.groups[i])) for i in complete)

    # ------------------------------------------------------------ setting up

    def _allocate(self, groups: list[_Group]) -> None:
        responses = len(groups) * self.how.n
        self.ids = torch.zeros(responses, self.how.max_tokens, dtype=torch.long, device=self.device)
        self.logprobs = torch.zeros(responses, self.how.max_tokens, device=self.device)
        self.lengths = [0] * responses
        self.cut: dict[int, str] = {}
        self.ended: set[int] = set()
        asked = [group.request for group in groups if group.request.limit]
        if asked:
            longest = max(request.longest for request in asked)
            self.cache_type = self.forward.cache_type(responses, longest)
            sizes = [(len(request.prompt), request.limit) for request in asked]
            self.plan = self.cache_type.plan(n=self.how.n, sizes=sizes, budget=self.budget)
            self.state = _Rows.empty(self.plan.rows, self.device)

    # ------------------------------------------------------------ joining

    def _can_join(self, queue: deque[_Group]) -> bool:
        """Return whether enough rows are free to pay for a prompt pass."""
        free = self.plan.rows - self.running
        if not queue or free < max(1, self.plan.rows // _REFILL):
            return False
        return queue[0].prompt_held is not None or self.cache is None or self.cache.room() > 0

    def _join(self, queue: deque[_Group]) -> None:
        """Fill the free rows from the queue and draw the newcomers' first tokens."""
        start, free = self.running, self.plan.rows - self.running
        room = self.cache.room() if self.cache else self.plan.prompts or len(queue)
        seats: list[tuple[_Group, int]] = []
        while queue and free and (room or queue[0].prompt_held):
            group = queue[0]
            count = min(free, self.how.n - group.joined)
            seats.append((group, count))
            free -= count
            room -= group.prompt_held is None
            if group.joined + count == self.how.n:
                queue.popleft()
        self._prefill([group for group, _ in seats if group.prompt_held is None])
        seats.sort(key=lambda seat: seat[0].slot)  # rows lie as their prompts do
        logits = [self._seat(group, count) for group, count in seats]
        self._draw(torch.cat(logits), slice(start, self.running))

    def _prefill(self, groups: list[_Group]) -> None:
        for i, logits, kv in self.forward.prompts([group.request.prompt for group in groups]):
            if self.cache is None:
                self.cache = self.forward.new_cache(self.cache_type, self.plan, kv)
            groups[i].logits, groups[i].prompt_held = logits, self.cache.hold(kv)

    def _seat(self, group: _Group, count: int) -> Tensor:
        """Give the group's next ``count`` responses a row; return their logits (count, V)."""
        assert self.cache is not None
        assert group.prompt_held is not None
        assert group.logits is not None
        rows = slice(self.running, self.running + count)
        self.running += count
        samples = range(group.joined, group.joined + count)
        group.joined += count
        self.cache.seat(group.prompt_held, rows)
        state = self.state
        state.response[rows] = torch.tensor([group.first + s for s in samples], device=self.device)
        streams = [group.request.streams[s] for s in samples]
        state.stream[rows] = torch.tensor(streams, device=self.device)
        state.position[rows] = len(group.request.prompt) - 1
        state.limit[rows] = group.request.limit
        state.drawn[rows] = 0
        logits = group.logits.expand(count, -1)
        if group.joined == self.how.n:
            group.logits = None
            self.cache.seated(group.prompt_held)
        return logits

    # ------------------------------------------------------------ running

    def _step(self) -> None:
        """Feed every running row its last token and draw the next."""
        assert self.cache is not None
        rows, state = slice(0, self.running), self.state
        logits = self.forward.decode(
            state.token[rows], state.position[rows], state.drawn[rows], self.cache
        )
        self._draw(logits, rows)

    def _draw(self, logits: Tensor, rows: slice) -> None:
        """Draw a token for each of ``rows`` and remove the rows that it ends."""
        state = self.state
        drawn, response = state.drawn[rows], state.response[rows]
        token, logprob = draw(logits, state.stream[rows], drawn, self.how, self.eos)
        self.ids[response, drawn] = token
        self.logprobs[response, drawn] = logprob
        state.token[rows] = token
        state.drawn[rows] += 1
        state.position[rows] += 1
        self._leave([rows.start + i for i in self._finished(rows)])

    def _finished(self, rows: slice) -> list[int]:
        """Return which of ``rows``, counted from the first, the last token ended."""
        token, drawn = self.state.token[rows], self.state.drawn[rows]
        ended = torch.isin(token, self.eos)
        done = ended | (drawn == self.state.limit[rows])
        if self.stops is not None:
            may = self.may_end[token] & (drawn >= self.how.min_tokens) & ~ended
            stopped = [i for i in may.nonzero()[:, 0].tolist() if self._stops(rows.start + i)]
            done[stopped] = True
            ended[stopped] = True
        finished: list[int] = done.nonzero()[:, 0].tolist()
        if finished:
            response = self.state.response[rows][finished].tolist()
            self.ended.update(
                r for r, e in zip(response, ended[finished].tolist(), strict=True) if e
            )
            for r, length in zip(response, drawn[finished].tolist(), strict=True):
                self.lengths[r] = length
        return finished

    def _stops(self, row: int) -> bool:
        response = int(self.state.response[row])
        assert self.stops is not None
        text = self.stops.cut(self.ids[response, : int(self.state.drawn[row])].tolist())
        if text is not None:
            self.cut[response] = text
        return text is not None

    def _leave(self, finished: list[int]) -> None:
        """Close the gaps that finished rows leave with rows from the end."""
        if not finished:
            return
        assert self.cache is not None
        self._release(self.state.response[finished].tolist())
        gone = set(finished)
        kept = self.running - len(gone)
        target = [row for row in finished if row < kept]
        if target:
            source = [row for row in range(kept, self.running) if row not in gone]
            self.cache.move(source, target)
            for column in self.state.columns():
                column[target] = column[source]
        self.running = kept

    def _release(self, responses: list[int]) -> None:
        """Drop the prompts whose last responses these are; their groups are complete."""
        assert self.cache is not None
        for response in responses:
            index = response // self.how.n
            group = self.groups[index]
            group.left -= 1
            if group.left:
                continue
            self.complete.append(index)
            if group.prompt_held is not None:
                self.cache.drop(group.prompt_held)

    # ------------------------------------------------------------ results

    def _completions(self, group: _Group) -> list[Completion]:
        responses = range(group.first, group.first + self.how.n)
        lengths = [self.lengths[r] for r in responses]
        block = slice(responses.start, responses.stop), slice(0, max(lengths))
        ids, logprobs = self.ids[block].tolist(), self.logprobs[block].tolist()
        if not math.isfinite(sum(map(sum, logprobs))):
            self.forward.forget()  # NaN in a cache that is kept would reach later calls
        eos_ids = self.forward.policy.eos_ids
        return [
            Response(
                ids[k][: lengths[k]], logprobs[k][: lengths[k]], r in self.ended, self.cut.get(r)
            ).completion(self.texts, eos_ids, self.version)
            for k, r in enumerate(responses)
        ]
