"""A number to guess in many turns, rewarded when it is found."""

from __future__ import annotations

import re
from dataclasses import dataclass
from random import Random

from alignkit.episodes import EpisodeLimits, Turn
from alignkit.protocols import Example, Response

_NUMBER = re.compile(r"-?[0-9]{1,18}(?![0-9])")


@dataclass(frozen=True, slots=True)
class Guess:
    """Draws numbers from a range; see ``GuessParams``."""

    limits: EpisodeLimits
    low: int
    high: int
    stop: tuple[str, ...]

    def open(self, example: Example, /, *, seed: int) -> Game:
        """Draw the number that the seed stands for."""
        secret = Random(seed).randint(self.low, self.high)
        rules = (
            f"A number from {self.low} to {self.high} is to be guessed. Each guess is answered "
            f"higher or lower.\n"
        )
        return Game(f"{example.question}\n{rules}" if example.question else rules, secret)


class Game:
    """One number being guessed."""

    def __init__(self, prompt: str, secret: int) -> None:
        self.prompt, self._secret = prompt, secret

    def step(self, response: Response, /) -> Turn:
        """Compare the last whole number of the turn with the secret."""
        numbers = _NUMBER.findall(response)
        if not numbers:
            return Turn("no number\n", done=False)
        guess = int(numbers[-1])
        if guess == self._secret:
            return Turn("right\n", done=True, reward=1.0)
        return Turn("higher\n" if guess < self._secret else "lower\n", done=False)

    def close(self) -> None:
        """Nothing is held."""
