"""Short arithmetic word problems: an opening, some events, a closing question.

Each part carries at most one operation on a running total, so a problem has one to three
equations and its answer is the last one's value. Everything is drawn from the ``Random``
handed in; the same seed gives the same problems.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from random import Random

HIGHEST_FACTOR = 60
"""Larger totals are not multiplied, so every number has at most three digits."""

PEOPLE = (
    ("Anna", "she"), ("Ben", "he"), ("Carla", "she"), ("David", "he"), ("Ella", "she"),
    ("Farid", "he"), ("Grace", "she"), ("Hugo", "he"), ("Ines", "she"), ("Jonas", "he"),
    ("Kira", "she"), ("Leo", "he"), ("Mina", "she"), ("Noah", "he"), ("Olga", "she"),
    ("Pablo", "he"),
)  # fmt: skip
THINGS = (
    "apples", "books", "cards", "coins", "cookies", "eggs", "flowers", "marbles", "pencils",
    "plums", "shells", "stamps", "stickers", "stones", "tickets", "toys",
)  # fmt: skip
CONTAINERS = ("bags", "boxes", "jars", "packs", "rows", "trays")
COLOURS = ("red", "blue", "green", "white", "black", "yellow")

HOLD = (
    "{name} has {a} {things}.",
    "There are {a} {things} on {name}'s table.",
    "{name} starts the day with {a} {things}.",
    "{name} collects {a} {things}.",
)
PRODUCT = (
    "{name} buys {a} {containers} of {b} {things} each.",
    "{name} has {a} {containers} with {b} {things} in each.",
    "{name} fills {a} {containers} with {b} {things} each.",
)
TWO_COLOURS = (
    "{name} has {a} {colour} {things} and {b} {shade} {things}.",
    "{name} finds {a} {colour} and {b} {shade} {things}.",
)
GAIN = (
    "{friend} gives {name} {b} more.",
    "Then {name} finds {b} more.",
    "{friend} brings {b} more.",
    "Later {he} gets {b} more.",
)
LOSE = (
    "{name} gives {b} to {friend}.",
    "{He} loses {b} of them.",
    "Then {friend} takes {b} away.",
    "{b} of them are sold.",
)
COUNT = (
    "How many {things} are there now?",
    "How many {things} does {name} have now?",
    "How many {things} is that in all?",
)
SHARE = (
    "{He} shares them equally among {b} friends. How many {things} does each friend get?",
    "{He} puts them into {b} equal piles. How many {things} are in each pile?",
)
SELL = (
    "{He} sells each for {b} dollars. How many dollars does {he} earn?",
    "Each one costs {b} dollars. How many dollars do they cost in all?",
)
TIMES = ("{other} has {b} times as many. How many {things} does {other} have?",)


@dataclass(frozen=True, slots=True)
class Equation:
    """One step of a solution, ``left op right``, with ``op`` one of ``+ - * /``."""

    left: int
    op: str
    right: int

    @property
    def value(self) -> int:
        """Result; division is exact by construction."""
        match self.op:
            case "+":
                return self.left + self.right
            case "-":
                return self.left - self.right
            case "*":
                return self.left * self.right
            case _:
                return self.left // self.right


@dataclass(frozen=True, slots=True)
class Problem:
    """A question with the equations that solve it."""

    question: str
    equations: tuple[Equation, ...]

    @property
    def answer(self) -> int:
        """Value of the last equation."""
        return self.equations[-1].value


class Story:
    """A problem being told: sentences so far, equations so far, the running total."""

    def __init__(self, rng: Random) -> None:
        self.rng = rng
        (name, he), (friend, _), (other, _) = rng.sample(PEOPLE, 3)
        colour, shade = rng.sample(COLOURS, 2)
        self.words = {
            "name": name,
            "he": he,
            "He": he.capitalize(),
            "friend": friend,
            "other": other,
            "things": rng.choice(THINGS),
            "containers": rng.choice(CONTAINERS),
            "colour": colour,
            "shade": shade,
        }
        self.sentences: list[str] = []
        self.equations: list[Equation] = []
        self.total = 0

    def tell(self, templates: tuple[str, ...], a: int, op: str, b: int) -> None:
        """Add a sentence and, where it has an operation, its equation ``a op b``."""
        self.sentences.append(self.rng.choice(templates).format(**self.words, a=a, b=b))
        if op:
            self.equations.append(Equation(a, op, b))
        self.total = self.equations[-1].value if self.equations else a

    def open(self) -> None:
        rng = self.rng
        match rng.choice(("hold", "hold", "product", "colours")):
            case "hold":
                self.tell(HOLD, rng.randint(2, 40), "", 0)
            case "product":
                self.tell(PRODUCT, rng.randint(2, 9), "*", rng.randint(2, 9))
            case _:
                self.tell(TWO_COLOURS, rng.randint(2, 20), "+", rng.randint(2, 20))

    def event(self) -> None:
        rng = self.rng
        if rng.random() < 0.5 or self.total < 4:
            self.tell(GAIN, self.total, "+", rng.randint(2, 20))
        else:
            self.tell(LOSE, self.total, "-", rng.randint(2, min(20, self.total - 2)))

    def close(self) -> None:
        """End with a question; sharing only where it comes out even."""
        rng = self.rng
        divisors = [d for d in range(2, 10) if self.total % d == 0 and self.total > d]
        match rng.choice(("count", "count", "share", "share", "sell", "times")):
            case "share" if divisors:
                self.tell(SHARE, self.total, "/", rng.choice(divisors))
            case "sell" if self.total <= HIGHEST_FACTOR:
                self.tell(SELL, self.total, "*", rng.randint(2, 5))
            case "times" if self.total <= HIGHEST_FACTOR:
                self.tell(TIMES, self.total, "*", rng.randint(2, 5))
            case _:
                self.sentences.append(rng.choice(COUNT).format(**self.words))


def draw(rng: Random) -> Problem:
    """Return one problem with one to three equations."""
    while True:
        story = Story(rng)
        story.open()
        for _ in range(rng.choice((0, 1, 1, 2))):
            story.event()
        story.close()
        if 1 <= len(story.equations) <= 3:
            return Problem(" ".join(story.sentences), tuple(story.equations))


def draw_distinct(n: int, rng: Random, taken: Container[str] = ()) -> list[Problem]:
    """Return ``n`` problems with different questions, none of them in ``taken``."""
    found: dict[str, Problem] = {}
    while len(found) < n:
        problem = draw(rng)
        if problem.question not in taken:
            found.setdefault(problem.question, problem)
    return list(found.values())
