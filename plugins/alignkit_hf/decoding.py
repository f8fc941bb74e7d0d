"""Continuous batching: one call's responses, from waiting through running to finished.

Running responses sit in rows 0 .. B - 1 of the cache. When some finish, rows from the end take
their places, so that views of the first B rows are always all that runs; waiting responses then
join at the end. A group's prompt passes through the model once, when its first response joins.

The uniform draws do not depend on the batch, but matrix products round differently in batches of
different shapes. A draw that falls within that rounding of the border between two tokens may go
either way: 2 of 43,000 tokens of a random two-layer model in float32, when all its responses ran
at once and when 20 did. The same call repeated gives the same tokens always.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignkit.protocols import Completion, Sampling
from alignkit_hf.choose import choose
from alignkit_hf.draws import stream, uniforms

if TYPE_CHECKING:
    from alignkit_hf.cache import Prompt, RowCache
    from alignkit_hf.forward import Forward
    from alignkit_hf.stops import StopStrings, Texts

_REFILL = 8
"""Waiting responses join when one row in this many is free."""

_BUNDLES = 32
"""Most times that groups are handed out before the last; each time costs a walk over the model,
and under autocast a cast of its weights."""


@dataclass(slots=True)
class _Group:
    """One prompt and its responses ``first`` .. ``first + n - 1``."""

    prompt: Sequence[int]
    first: int
    limit: int
    """Tokens a response may have."""
    streams: list[int]
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

    def __init__(
        self,
        forward: Forward,
        texts: Texts,
        stops: StopStrings | None,
        how: Sampling,
        budget: int,
    ) -> None:
        self.forward, self.texts, self.stops, self.how = forward, texts, stops, how
        self.budget = budget
        self.device = forward.device
        policy = forward.policy
        self.version = policy.version
        self.eos = torch.tensor(sorted(policy.eos_ids), dtype=torch.long, device=self.device)
        self.running = 0
        self.cache: RowCache | None = None
        self.complete: list[int] = []
        """Groups that are finished and not yet handed out."""

    def run(self, prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[Completion]]]:
        """Yield each prompt's index and ``how.n`` completions soon after the last is finished.

        While the caller has the turn, the model and torch's modes are as the caller left them.
        """
        self.forward.refresh()
        try:
            yield from self._run(prompts)
        finally:
            self.forward.release()

    def _run(self, prompts: Sequence[Sequence[int]]) -> Iterator[tuple[int, list[Completion]]]:
        self.groups = self._groups(prompts)
        self._allocate(self.groups)
        self.complete = [i for i, group in enumerate(self.groups) if not group.limit]
        queue = deque(group for group in self.groups if group.limit)
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

    def _groups(self, prompts: Sequence[Sequence[int]]) -> list[_Group]:
        how, room = self.how, self.forward.policy.max_length
        keys = how.prompt_keys or range(len(prompts))
        return [
            _Group(
                prompt=prompt,
                first=i * how.n,
                limit=max(0, min(how.max_tokens, room - len(prompt))),
                left=how.n,
                streams=[stream(how.seed, how.step, key, s) for s in range(how.n)],
            )
            for i, (prompt, key) in enumerate(zip(prompts, keys, strict=True))
        ]

    def _allocate(self, groups: list[_Group]) -> None:
        responses = len(groups) * self.how.n
        self.ids = torch.zeros(responses, self.how.max_tokens, dtype=torch.long, device=self.device)
        self.logprobs = torch.zeros(responses, self.how.max_tokens, device=self.device)
        self.lengths = [0] * responses
        self.cut: dict[int, str] = {}
        self.ended: set[int] = set()
        sizes = [(len(group.prompt), group.limit) for group in groups if group.limit]
        if sizes:
            self.cache_type = self.forward.cache_type(responses, max(map(sum, sizes)))
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
        for i, logits, kv in self.forward.prompts([group.prompt for group in groups]):
            if self.cache is None:
                self.cache = self.cache_type(self.plan, kv)
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
        state.stream[rows] = torch.tensor([group.streams[s] for s in samples], device=self.device)
        state.position[rows] = len(group.prompt) - 1
        state.limit[rows] = group.limit
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
        position, drawn = state.position[rows], state.drawn[rows]
        held = drawn if self.plan.prompts else position + 1
        logits = self.forward.decode(
            state.token[rows], position, drawn, int(held.max()), self.cache
        )
        self._draw(logits, rows)

    def _draw(self, logits: Tensor, rows: slice) -> None:
        """Draw a token for each of ``rows`` and let those leave that it ends."""
        state, how = self.state, self.how
        drawn, response = state.drawn[rows], state.response[rows]
        logits = logits.float()
        if how.min_tokens and len(self.eos):
            early = (drawn < how.min_tokens)[:, None]
            no_end = logits[:, self.eos].masked_fill(early, -torch.inf)
            logits = logits.index_copy(1, self.eos, no_end)
        token, logprob = choose(logits, uniforms(state.stream[rows], drawn), how)
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
            may = self.stops.may_end[token] & (drawn >= self.how.min_tokens) & ~ended
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
        block = slice(group.first, group.first + self.how.n), slice(0, max(lengths))
        ids, logprobs = self.ids[block].tolist(), self.logprobs[block].tolist()
        return [
            self._completion(r, ids[k][:length], logprobs[k][:length])
            for k, (r, length) in enumerate(zip(responses, lengths, strict=True))
        ]

    def _completion(self, response: int, ids: list[int], logprobs: list[float]) -> Completion:
        text = self.cut.get(response)
        if text is None:
            eos = self.forward.policy.eos_ids
            text = self.texts.decode(ids[:-1] if ids and ids[-1] in eos else ids)
        return Completion(
            text=text,
            token_ids=tuple(ids),
            logprobs=tuple(logprobs),
            finish_reason="stop" if response in self.ended else "length",
            weight_version=self.version,
        )
