"""Continuous batching: one call's responses, from waiting through running to finished.

Running responses sit in rows 0 .. B - 1 of the cache. When some finish, rows from the end take
their places, so that views of the first B rows are always all that runs; waiting responses then
join at the end. A group's prompt passes through the model once, when its first response joins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alignkit.protocols import Completion, Sampling
from alignkit_hf.cache import RowCache
from alignkit_hf.choose import choose
from alignkit_hf.draws import stream, uniforms

if TYPE_CHECKING:
    from alignkit_hf.cache import PromptKV
    from alignkit_hf.forward import Forward
    from alignkit_hf.stops import StopStrings, Texts


@dataclass(slots=True)
class _Group:
    """One prompt and its responses ``first`` .. ``first + n - 1``."""

    prompt: Sequence[int]
    first: int
    limit: int
    """Tokens a response may have."""
    streams: list[int]
    joined: int = 0
    """Responses that have left the queue."""
    logits: Tensor | None = None
    cached: PromptKV | None = None


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

    def all(self) -> tuple[Tensor, ...]:
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
        self.longest = 0
        self.cache: RowCache | None = None

    def complete(self, prompts: Sequence[Sequence[int]]) -> list[list[Completion]]:
        """Return ``how.n`` completions per prompt."""
        groups = self._groups(prompts)
        self._allocate(groups)
        queue = [group for group in groups if group.limit > 0]
        while queue or self.running:
            if queue and self.capacity - self.running >= self.refill:
                self._join(queue)
            else:
                self._step()
        return self._results(groups)

    # ------------------------------------------------------------ setting up

    def _groups(self, prompts: Sequence[Sequence[int]]) -> list[_Group]:
        how, room = self.how, self.forward.policy.max_length
        keys = how.prompt_keys or range(len(prompts))
        return [
            _Group(
                prompt=prompt,
                first=i * how.n,
                limit=max(0, min(how.max_tokens, room - len(prompt))),
                streams=[stream(how.seed, how.step, key, s) for s in range(how.n)],
            )
            for i, (prompt, key) in enumerate(zip(prompts, keys, strict=True))
        ]

    def _allocate(self, groups: list[_Group]) -> None:
        responses = len(groups) * self.how.n
        longest = max((group.limit for group in groups), default=0)
        self.row_tokens = max((len(g.prompt) + g.limit for g in groups if g.limit), default=1)
        self.capacity = max(1, min(responses, self.budget // self.row_tokens))
        self.refill = max(1, self.capacity // 8)  # fewer free rows do not pay a prompt pass
        self.rows = _Rows.empty(self.capacity, self.device)
        self.ids = torch.zeros(responses, longest, dtype=torch.long, device=self.device)
        self.logprobs = torch.zeros(responses, longest, device=self.device)
        self.lengths = [0] * responses
        self.texts_cut: dict[int, str] = {}
        self.ended: set[int] = set()

    # ------------------------------------------------------------ joining

    def _join(self, queue: list[_Group]) -> None:
        """Fill the free rows from the queue and draw the newcomers' first tokens."""
        start = self.running
        seats: list[tuple[_Group, int]] = []
        free = self.capacity - start
        while queue and free:
            count = min(free, self.how.n - queue[0].joined)
            seats.append((queue[0], count))
            free -= count
            if queue[0].joined + count == self.how.n:
                queue.pop(0)
            else:
                break
        self._prefill([group for group, _ in seats if group.cached is None])
        logits = [self._seat(group, count) for group, count in seats]
        self._draw(torch.cat(logits), slice(start, self.running))

    def _prefill(self, groups: list[_Group]) -> None:
        found = self.forward.prompts([group.prompt for group in groups])
        for group, (logits, cached) in zip(groups, found, strict=True):
            group.logits, group.cached = logits, cached
            if self.cache is None:
                self.cache = RowCache(self.capacity, self.row_tokens, cached)

    def _seat(self, group: _Group, count: int) -> Tensor:
        """Give the group's next ``count`` responses a row; return their logits (count, V)."""
        assert self.cache is not None and group.cached is not None and group.logits is not None
        rows = slice(self.running, self.running + count)
        samples = range(group.joined, group.joined + count)
        self.cache.seat(group.cached, rows)
        state, where = self.rows, {"device": self.device}
        state.response[rows] = torch.tensor([group.first + s for s in samples], **where)
        state.stream[rows] = torch.tensor([group.streams[s] for s in samples], **where)
        state.position[rows] = len(group.prompt) - 1
        state.limit[rows] = group.limit
        state.drawn[rows] = 0
        logits = group.logits.expand(count, -1)
        self.running += count
        self.longest = max(self.longest, len(group.prompt))
        group.joined += count
        if group.joined == self.how.n:
            group.cached = group.logits = None
        return logits

    # ------------------------------------------------------------ running

    def _step(self) -> None:
        """Feed every running row its last token and draw the next."""
        assert self.cache is not None
        rows, state = slice(0, self.running), self.rows
        self.longest = int(state.position[rows].max()) + 1
        logits = self.forward.decode(
            state.token[rows], state.position[rows], self.longest, self.cache
        )
        self._draw(logits, rows)

    def _draw(self, logits: Tensor, rows: slice) -> None:
        """Draw a token for each of ``rows`` and let those leave that it ends."""
        state, how = self.rows, self.how
        drawn, response = state.drawn[rows], state.response[rows]
        logits = logits.float()
        if how.min_tokens and len(self.eos):
            early = (drawn < how.min_tokens)[:, None]
            logits = logits.index_copy(
                1, self.eos, logits[:, self.eos].masked_fill(early, -torch.inf)
            )
        token, logprob = choose(logits, uniforms(state.stream[rows], drawn), how)
        self.ids[response, drawn] = token
        self.logprobs[response, drawn] = logprob
        state.token[rows] = token
        drawn += 1  # these are views of the state
        state.position[rows] += 1
        self._leave(self._finished(rows), rows.start)

    def _finished(self, rows: slice) -> list[int]:
        """Return which of ``rows``, counted from the first, the last token ended."""
        state = self.rows
        token, drawn = state.token[rows], state.drawn[rows]
        ended = torch.isin(token, self.eos)
        done = ended | (drawn == state.limit[rows])
        if self.stops is not None:
            may = self.stops.may_end[token] & (drawn >= self.how.min_tokens) & ~ended
            stopped = [i for i in may.nonzero()[:, 0].tolist() if self._stops(rows.start + i)]
            done[stopped] = True
            ended[stopped] = True
        finished: list[int] = done.nonzero()[:, 0].tolist()
        for i in finished:
            response = int(state.response[rows.start + i])
            self.lengths[response] = int(drawn[i])
            if ended[i]:
                self.ended.add(response)
        return finished

    def _stops(self, row: int) -> bool:
        response = int(self.rows.response[row])
        assert self.stops is not None
        text = self.stops.cut(self.ids[response, : int(self.rows.drawn[row])].tolist())
        if text is not None:
            self.texts_cut[response] = text
        return text is not None

    def _leave(self, finished: list[int], start: int) -> None:
        """Close the gaps that finished rows leave with rows from the end."""
        if not finished:
            return
        gone = {start + i for i in finished}
        kept = self.running - len(gone)
        target = sorted(row for row in gone if row < kept)
        source = [row for row in range(kept, self.running) if row not in gone]
        if target:
            assert self.cache is not None
            self.cache.move(source, target, self.longest)
            for field in self.rows.all():
                field[target] = field[source]
        self.running = kept

    # ------------------------------------------------------------ results

    def _results(self, groups: list[_Group]) -> list[list[Completion]]:
        ids = [row[:n] for row, n in zip(self.ids.tolist(), self.lengths, strict=True)]
        logprobs = [row[:n] for row, n in zip(self.logprobs.tolist(), self.lengths, strict=True)]
        return [
            [self._completion(r, ids[r], logprobs[r]) for r in range(g.first, g.first + self.how.n)]
            for g in groups
        ]

    def _completion(self, response: int, ids: list[int], logprobs: list[float]) -> Completion:
        text = self.texts_cut.get(response)
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
