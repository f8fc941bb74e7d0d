"""The transcript of an episode, as text and as token ids that are only ever appended.

An observation becomes ids in :meth:`Transcript.heard`: as plain text, or as the chat template
writes it after the turn.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from alignkit.dialogues import Converses, Message
from alignkit.engine.chat import continuation
from alignkit.engine.sampling.opening import number
from alignkit.engine.sampling.questions import Prompt
from alignkit.engine.tokens import encode_response
from alignkit.episodes import Episode, Turn
from alignkit.protocols import Completion, Policy, PromptTemplate, Reward

Cut = Literal["", "turn", "episode", "turns"]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A turn of the policy, and what the environment answered."""

    response: str
    tokens: int
    """Sampled tokens of the turn."""
    observation: str
    reward: float


@dataclass(frozen=True, slots=True)
class Played:
    """An episode that is over."""

    completion: Completion
    """The whole transcript after the prompt, except an observation that no turn followed."""
    turns: tuple[Exchange, ...]
    cut: Cut
    """What ended it before its time: the limit of a turn, of the episode's tokens (or the policy's
    length), of the number of turns; "" = nothing."""
    reward: Reward
    """What the environment gives; ignored if a reward judges the transcript."""


@dataclass(frozen=True, slots=True)
class Given:
    """The text and ids between two turns."""

    text: str
    ids: tuple[int, ...]
    dialogue: list[Message]


@dataclass(slots=True, eq=False)
class Transcript:
    """An episode in progress."""

    group: int
    sample: int
    prompt: Prompt
    episode: Episode
    dialogue: list[Message] = field(default_factory=list)
    """The messages so far, if a chat template writes the dialogue."""
    ids: list[int] = field(default_factory=list)
    given: list[bool] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    turns: list[Exchange] = field(default_factory=list)
    last: Completion | None = None
    limit: int = 0
    """Most tokens that the last turn could have."""
    cut: Cut = ""
    reward: Reward = field(default_factory=lambda: Reward(0.0))

    @property
    def key(self) -> int:
        """What the draws of the next turn are keyed by."""
        if not self.turns:
            return self.prompt.key
        return number(self.prompt.key, self.sample, len(self.turns))

    @property
    def before(self) -> str:
        """What comes before the next turn: the prompt, or the last observation."""
        return self.texts[-1] if self.texts else self.prompt.text

    @property
    def sampled(self) -> int:
        """Tokens sampled so far."""
        return len(self.given) - sum(self.given)

    def say(self, completion: Completion, limit: int) -> None:
        """Append a turn as it was sampled."""
        self.ids += completion.token_ids
        self.given += [False] * len(completion.token_ids)
        self.logprobs += completion.logprobs
        self.texts.append(completion.text)
        self.dialogue.append({"role": "assistant", "content": completion.text})
        self.last, self.limit = completion, limit

    def heard(self, turn: Turn, template: PromptTemplate | None, policy: Policy) -> Given:
        """Return an observation as it will be appended: text, ids and the dialogue after it.

        AlignkitError if a chat template would then write earlier messages differently.
        """
        tokenizer = policy.tokenizer
        if not isinstance(template, Converses):
            before = self.prompt.text + "".join(self.texts)
            ids = encode_response(tokenizer, before, turn.observation) if turn.observation else ()
            return Given(turn.observation, ids, self.dialogue)
        observed = turn.messages or ({"role": turn.role, "content": turn.observation},)
        after = [*self.dialogue, *observed]
        so_far = (*self.prompt.ids, *self.ids)
        ids = continuation(tokenizer, so_far, self.dialogue, after, template.form)
        return Given(str(tokenizer.decode(list(ids))), ids, after)

    def hear(self, given: Given) -> None:
        """Append an observation."""
        self.ids += given.ids
        self.given += [True] * len(given.ids)
        self.texts.append(given.text)
        self.dialogue = given.dialogue

    def played(self, version: int) -> Played:
        """Return its record; without given tokens it equals that of a single response."""
        completion = Completion(
            text="".join(self.texts),
            token_ids=tuple(self.ids),
            logprobs=tuple(self.logprobs),
            finish_reason="length" if self.cut else "stop",
            weight_version=version,
            given=tuple(self.given) if any(self.given) else None,
        )
        return Played(completion, tuple(self.turns), self.cut, self.reward)
