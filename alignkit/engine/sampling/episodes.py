"""Episodes: the policy and an environment take turns, and the transcript is one response.

Ids are only ever appended: sampled ids stay as the backend drew them, an observation is tokenized
once and marked as given. Draws of a turn are keyed by (seed, step, prompt key, sample, turn), so
what is sampled in an episode depends neither on timing nor on other episodes. While some episodes
are being generated, the environment answers others, on threads.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any

from alignkit.dialogues import SampledResponse
from alignkit.engine.asking import ask
from alignkit.engine.sampling.beside import Beside
from alignkit.engine.sampling.generating import streamed
from alignkit.engine.sampling.opening import ENVIRONMENT, Beginning, Opening
from alignkit.engine.sampling.questions import Prompt, fits
from alignkit.engine.sampling.transcript import Cut, Exchange, Played, Transcript
from alignkit.engine.tokens import sampled_tokens
from alignkit.episodes import Episode, EpisodeLimits, Settles, Turn
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Policy, Reward, RolloutBackend, Sampling

logger = logging.getLogger("alignkit")


@dataclass(eq=False)
class Plays:
    """All episodes of one call, ``sampling.n`` for each prompt."""

    prompts: Sequence[Prompt]
    """A prompt that leaves no room for an answer gets empty episodes."""
    opening: Opening
    _: KW_ONLY
    policy: Policy
    backend: RolloutBackend
    sampling: Sampling
    settle: bool
    """Whether the environment gives the rewards."""
    over: Callable[[int, list[Played]], None]
    """Called for each group as soon as all of its episodes are over."""

    def __post_init__(self) -> None:
        self.limits: EpisodeLimits = self.opening.environment.limits
        self.beside = Beside(self.limits.workers)
        self.steps: dict[Future[Turn], Transcript] = {}
        self.ends: dict[Future[Reward], Transcript] = {}
        self.live: set[Transcript] = set()
        blank = Completion("", (), (), "length", self.policy.version)
        empty = [Played(blank, (), "episode", Reward(0.0))] * self.sampling.n
        self.done: list[dict[int, Played]] = [
            {} if fits(p, self.policy) else dict(enumerate(empty)) for p in self.prompts
        ]

    def play(self) -> list[list[Played]]:
        """Play until all episodes are over; return them group by group."""
        with self.beside:
            try:
                return self._run()
            except BaseException:
                self._abandon()
                raise

    def _run(self) -> list[list[Played]]:
        """Play turns until all episodes are over."""
        ready = self._opened()
        while ready or self.steps:
            for batch in self._batches(ready):
                self._generate(batch)
            ready = self._answered()
            self._settled(wait_for_all=False)
        self._settled(wait_for_all=True)
        return [[group[j] for j in range(self.sampling.n)] for group in self.done]

    def _abandon(self) -> None:
        """Close what is still open; errors in doing so are only logged."""
        for play in self.live:
            try:
                play.episode.close()
            except Exception:  # logged besides what ended the block
                logger.warning("an episode could not be closed", exc_info=True)

    # ------------------------------------------------------------ beginning

    def _opened(self) -> list[Transcript]:
        """Open all episodes, in the order of their groups; AlignkitError if beginnings differ."""
        n = self.sampling.n
        places = [(i, j) for i, p in enumerate(self.prompts) if fits(p, self.policy)
                  for j in range(n)]  # fmt: skip
        opened = [self.beside.submit(partial(self._open, i)) for i, _ in places]
        plays = []
        for (i, j), future in zip(places, opened, strict=True):
            self._await([future])
            episode, said = future.result()
            prompt = self.prompts[i]
            plays.append(Transcript(i, j, prompt, episode, [*prompt.dialogue]))
            self.live.add(plays[-1])
            if said != prompt.said:
                raise AlignkitError(
                    f"[environment] opened two episodes of example {prompt.example.id!r} "
                    f"with one seed, and they begin with {str(prompt.said)[-60:]!r} and "
                    f"{str(said)[-60:]!r}; what they begin with must depend on these two alone"
                )
        return plays

    def _open(self, group: int) -> tuple[Episode, Beginning]:
        prompt = self.prompts[group]
        episode = self.opening.episode(prompt.example, prompt.key)
        return episode, self.opening.said(episode)

    # ------------------------------------------------------------ turns

    def _batches(self, ready: Sequence[Transcript]) -> Iterator[list[Transcript]]:
        """Group episodes by how many tokens they may sample, as a request has one limit."""
        by_limit = sorted(ready, key=lambda p: (-self._limit(p), p.group, p.sample))
        for _, batch in groupby(by_limit, key=self._limit):
            yield list(batch)

    def _limit(self, play: Transcript) -> int:
        most = self.sampling.max_tokens
        whole = self.limits.episode_tokens
        return most if whole is None else min(most, whole - play.sampled)

    def _generate(self, batch: Sequence[Transcript]) -> None:
        """Sample a turn of each; meanwhile the environment answers those that are done."""
        limit = self._limit(batch[0])
        n = 1 if batch[0].turns else self.sampling.n  # first turns share their prompts
        groups = [batch[i : i + n] for i in range(0, len(batch), n)]
        how = replace(
            self.sampling,
            n=n,
            max_tokens=limit,
            min_tokens=min(self.sampling.min_tokens, limit),
            prompt_keys=tuple(plays[0].key for plays in groups),
        )
        ids = [(*plays[0].prompt.ids, *plays[0].ids) for plays in groups]
        for index, found in streamed(self.backend, ids, how, self.policy):
            for play, completion in zip(groups[index], found, strict=True):
                response = SampledResponse.after(play.before, completion)
                play.say(completion, limit)
                step = partial(self._ask, play.episode.step, response)
                self.steps[self.beside.submit(step)] = play

    def _answered(self) -> list[Transcript]:
        """Wait for the environment; return the episodes that go on, in the order of groups."""
        done = self._await(list(self.steps), all_of_them=self.limits.lockstep)
        plays = [(self.steps.pop(future), future) for future in done]
        plays.sort(key=lambda found: (found[0].group, found[0].sample))
        return [play for play, future in plays if self._goes_on(play, future.result())]

    def _goes_on(self, play: Transcript, turn: Turn) -> bool:
        """Record the environment's answer; end the episode if it is over."""
        _check(turn, play.prompt)
        last = play.last
        assert last is not None
        play.turns.append(Exchange(last.text, sampled_tokens(last), turn.observation, turn.reward))
        play.cut = self._cut_before(play, last, turn)
        if not (turn.done or play.cut):
            given = play.heard(turn, self.opening.template, self.policy)
            room = self.policy.max_length - len(play.prompt.ids) - len(play.ids) - len(given.ids)
            if room > 0:
                play.hear(given)
                return True
            play.cut = "episode"
        self.ends[self.beside.submit(partial(self._end, play))] = play
        return False

    def _cut_before(self, play: Transcript, last: Completion, turn: Turn) -> Cut:
        """Return which limit prevents another turn of the episode, or cut its last one."""
        spent = self.limits.episode_tokens is not None and (
            play.sampled >= self.limits.episode_tokens
        )
        if last.finish_reason == "length":  # within the turn's limit: the policy's length is less
            return "episode" if spent or sampled_tokens(last) < play.limit else "turn"
        if turn.done:
            return ""
        if spent:
            return "episode"
        return "turns" if len(play.turns) >= self.limits.turns else ""

    # ------------------------------------------------------------ ends

    def _end(self, play: Transcript) -> Reward:
        """Return what the episode earned, and close it."""
        reward = Reward(math.fsum(turn.reward for turn in play.turns))
        if self.settle and isinstance(play.episode, Settles):
            reward = self._ask(play.episode.reward)
        self._ask(play.episode.close)
        return reward

    def _settled(self, *, wait_for_all: bool) -> None:
        """Record which episodes are over, and report the groups that are complete."""
        if wait_for_all:
            self._await(list(self.ends), all_of_them=True)
        for future in [future for future in self.ends if future.done()]:
            play = self.ends.pop(future)
            play.reward = future.result()
            self.live.discard(play)
            group = self.done[play.group]
            group[play.sample] = play.played(self.policy.version)
            if len(group) == self.sampling.n:
                self.over(play.group, [group[j] for j in range(self.sampling.n)])

    def _ask(self, call: Callable[..., Any], *given: Any) -> Any:
        return ask(ENVIRONMENT, self.opening.environment, call, *given)

    def _await(
        self, futures: Sequence[Future[Any]], *, all_of_them: bool = True
    ) -> list[Future[Any]]:
        """Wait for one of the calls, or all; AlignkitError if none ends in time."""
        open_calls, done = set(futures), list[Future[Any]]()
        while open_calls:
            found, open_calls = wait(open_calls, self.limits.step_seconds, FIRST_COMPLETED)
            if not found:
                raise AlignkitError(
                    f"[environment] did not answer within step_seconds = "
                    f"{self.limits.step_seconds:g}; raise it, or have the environment limit its "
                    f"tools' time"
                )
            done += found
            for future in found:
                if (error := future.exception()) is not None:
                    raise error
            if not all_of_them:
                break
        return done


def _check(turn: Turn, prompt: Prompt) -> None:
    """Raise AlignkitError for an invalid turn."""
    if not isinstance(turn.observation, str):
        raise AlignkitError(
            f"[environment] answered with an observation that is no text: {turn.observation!r:.80}"
        )
    if not math.isfinite(turn.reward):
        raise AlignkitError(
            f"[environment] gave {turn.reward} for a turn on example {prompt.example.id!r}; a "
            f"reward must be a finite number"
        )
