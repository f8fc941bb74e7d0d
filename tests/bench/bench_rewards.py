"""Verdicts a second: our r1_zero beside plain math-verify, in one run.

    python tests/bench/bench_rewards.py [--seconds 5]

Prints one line per kind of answer: our rate, math-verify's, the ratio; then the time of one batch
of 256 typical responses (targets: below 0.3 s on 2 cores; 2,000 verdicts/s on integers).
"""

from __future__ import annotations

import argparse
import os
import random
import time
from collections.abc import Callable

from alignkit.protocols import Example
from alignkit_rewards import R1Zero

THOUGHTS = "First we look at what is given, then we work it out step by step. " * 8
Pair = tuple[str, str]


def integers(draw: random.Random) -> Pair:
    """A GSM8K gold and a bare integer, right half of the time."""
    gold = draw.randrange(1, 5000)
    return str(gold), str(gold if draw.random() < 0.5 else draw.randrange(1, 5000))


def sentences(draw: random.Random) -> Pair:
    """A GSM8K gold and an answer with words around it."""
    gold, said = integers(draw)
    frame = draw.choice(["{} dollars", "${}", "She has {} apples left.", "The answer is {}."])
    return gold, frame.format(said)


def fractions(draw: random.Random) -> Pair:
    """A LaTeX fraction and a quotient, right half of the time."""
    top, bottom, k = draw.randrange(1, 90), draw.randrange(2, 90), draw.randrange(1, 4)
    wrong = draw.randrange(2)
    return rf"\frac{{{top}}}{{{bottom}}}", f"{top * k + wrong}/{bottom * k}"


def algebra(draw: random.Random) -> Pair:
    """Polynomials and roots in another order, right half of the time."""
    a, b, c = (draw.randrange(2, 40) for _ in range(3))
    wrong = draw.randrange(2)
    if draw.random() < 0.5:
        return f"{a}x^2 + {b}x - {c}", f"{b}x - {c + wrong} + {a}x^2"
    return rf"{a}\sqrt{{{b}}} + {c}", rf"${c + wrong} + {a}\sqrt{{{b}}}$"


def tuples(draw: random.Random) -> Pair:
    """Ordered pairs, right half of the time."""
    a, b = draw.randrange(50), draw.randrange(50)
    wrong = draw.randrange(2)
    return rf"\left({a}, \frac{{{b}}}{{7}}\right)", f"({a}, {b + wrong}/7)"


KINDS = {f.__name__: f for f in (integers, sentences, fractions, algebra, tuples)}


def rate(judge: Callable[[list[Pair]], object], pairs: list[Pair], seconds: float) -> float:
    """Return verdicts a second over about ``seconds``, each pair judged once."""
    done, started, step = 0, time.perf_counter(), 256
    while time.perf_counter() - started < seconds and done < len(pairs):
        judge(pairs[done : done + step])
        done += len(pairs[done : done + step])
    return done / (time.perf_counter() - started)


def ours(pairs: list[Pair], reward: object = R1Zero().build()) -> object:
    """Judge with r1_zero, as a training step does."""
    assert callable(reward)
    responses = [f"{THOUGHTS}</think> <answer>{answer}</answer>" for _, answer in pairs]
    return reward(responses, [Example("0", "q", gold) for gold, _ in pairs])


def plain(pairs: list[Pair]) -> object:
    """Judge with math-verify alone, both sides in dollars, on the main thread."""
    from math_verify import parse, verify

    return [verify(parse(f"${gold}$"), parse(f"${answer}$")) for gold, answer in pairs]


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    options.add_argument("--seconds", type=float, default=3.0, help="per kind and grader")
    seconds = options.parse_args().seconds
    draw = random.Random(0)
    ours([("x", "x + 0")] * 64)  # start the workers
    plain([("1", "1")])
    load = os.getloadavg()[0]
    print(f"{os.cpu_count()} cores, load {load:.1f}; verdicts a second, every pair new")
    print(f"{'answers':<12} {'r1_zero':>9} {'math-verify':>12} {'ratio':>7}")
    for name, make in KINDS.items():
        pairs = [make(draw) for _ in range(200_000 if name == "integers" else 20_000)]
        fast = rate(ours, pairs, seconds)
        slow = rate(lambda p: plain(p[:16]), pairs[: 16 * 256], seconds / 2) / 16
        print(f"{name:<12} {fast:>9.0f} {slow:>12.0f} {fast / slow:>6.0f}x")
    batch = [KINDS[draw.choice(list(KINDS))](draw) for _ in range(256)]
    started = time.perf_counter()
    ours(batch)
    print(f"one batch of 256 of all kinds: {time.perf_counter() - started:.3f} s")


if __name__ == "__main__":
    main()
