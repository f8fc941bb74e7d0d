"""What holds of every reward: total, in order, deterministic."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from time import monotonic
from typing import Any

from alignkit.protocols import Example, Reads, Reward
from alignkit_testing.kit import Check, Subject
from alignkit_testing.samples import HOSTILE

LIMIT = 60.0
"""Seconds in which all hostile responses must be judged."""


def judges_hostile_text(subject: Subject) -> None:
    """Nothing a model writes raises or hangs: empty, huge, nul, unicode, deep nesting."""
    reward = subject.build()
    known = [example for _, example in subject.responses]
    asked = [known[i % len(known)] for i in range(len(HOSTILE))]
    start = monotonic()
    try:
        given = reward(HOSTILE, asked)
    except Exception as error:
        culprit = next(
            (t for t, e in zip(HOSTILE, asked, strict=True) if _raises(reward, t, e)), ""
        )
        raise AssertionError(f"raises {error!r} on the response {culprit[:80]!r}") from error
    seconds = monotonic() - start
    _is_well_formed(given, len(HOSTILE))
    assert seconds < LIMIT, (
        f"{len(HOSTILE)} hostile responses took {seconds:.0f} s, more than {LIMIT:.0f} s"
    )


def gives_one_finite_reward_each(subject: Subject) -> None:
    """A `Reward` per response, none for none; totals and parts are finite numbers."""
    reward = subject.build()
    texts, asked = _batch(subject)
    _is_well_formed(reward(texts, asked), len(texts))
    _is_well_formed(reward([], []), 0)


def keeps_the_order(subject: Subject) -> None:
    """The i-th reward judges the i-th response against the i-th example."""
    reward = subject.build()
    texts, asked = _batch(subject)
    together = list(reward(texts, asked))
    assert len({r.total for r in together}) > 1, (
        f"all {len(texts)} trial responses earn {together[0].total:g}, so their order cannot be "
        "checked; give conformance(responses=[(text, example), ...]) that this reward tells apart"
    )
    backwards = list(reward(texts[::-1], asked[::-1]))[::-1]
    for i, (text, example) in enumerate(zip(texts, asked, strict=True)):
        (alone,) = reward([text], [example])
        assert together[i] == alone == backwards[i], (
            f"response {text[:60]!r} to {example.question!r} earns {alone} alone, {together[i]} as "
            f"number {i} of a batch, {backwards[i]} in the batch reversed"
        )


def is_deterministic(subject: Subject) -> None:
    """The same responses earn the same again, also from a second build."""
    texts, asked = _batch(subject)
    reward = subject.build()
    first = list(reward(texts, asked))
    assert list(reward(texts, asked)) == first, "a second call gives other rewards"
    assert list(subject.build()(texts, asked)) == first, "a second build gives other rewards"


def refuses_uneven_lists(subject: Subject) -> None:
    """Two responses for one example is a bug of the caller that must not pass."""
    try:
        given = subject.build()(["a", "b"], [subject.responses[0][1]])
    except Exception:  # noqa: BLE001 - any refusal will do
        return
    raise AssertionError(f"two responses and one example are accepted and give {given}")


def works_off_the_main_thread(subject: Subject) -> None:
    """Rewards may be judged in a thread, where signals such as SIGALRM cannot be used."""
    texts, asked = _batch(subject)
    reward = subject.build()
    want = list(reward(texts, asked))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(reward, texts, asked)
        error = future.exception()
        assert error is None, f"raises {error!r} in a thread; does it set a signal?"
        assert list(future.result()) == want, "gives other rewards in a thread"


def reads_any_text(subject: Subject) -> None:
    """A reward that reads answers finds text, or None, in whatever a model writes, always alike."""
    reward = subject.build()
    if not isinstance(reward, Reads):
        return
    for text in HOSTILE:
        try:
            found = reward.read(text)
        except Exception as error:
            raise AssertionError(f"read raises {error!r} on the response {text[:80]!r}") from error
        assert found is None or isinstance(found, str), f"read returns {found!r}, not text or None"
        assert reward.read(text) == found, f"read finds another answer again in {text[:80]!r}"


def takes_any_answer(subject: Subject) -> None:
    """Of several answers that count as right it does not matter which stands first."""
    reward = subject.build()
    texts, asked = _batch(subject)
    others = [next((o.answer for o in asked if o.answer != e.answer), "no idea") for e in asked]
    pairs = list(zip(asked, others, strict=True))
    first = [replace(e, also_accepted=(other,)) for e, other in pairs]
    second = [replace(e, answer=other, also_accepted=(e.answer,)) for e, other in pairs]
    given = zip(texts, first, reward(texts, first), reward(texts, second), strict=True)
    for text, example, one, two in given:
        assert one == two, (
            f"response {text[:60]!r} earns {one} where {example.answers} are right, and {two} "
            "where they stand in the other order; compare it with all of example.answers"
        )


def _batch(subject: Subject) -> tuple[list[str], list[Example]]:
    return [text for text, _ in subject.responses], [example for _, example in subject.responses]


def _raises(reward: Any, text: str, example: Example) -> bool:
    try:
        reward([text], [example])
    except Exception:  # noqa: BLE001 - which response it is that raises is what we look for
        return True
    return False


def _is_well_formed(given: Sequence[Reward], count: int) -> None:
    assert len(given) == count, f"{count} responses get {len(given)} rewards"
    for reward in given:
        assert isinstance(reward, Reward), f"returns {type(reward).__name__}, not Reward"
        for name, value in {"total": reward.total, **reward.parts}.items():
            number = isinstance(value, int | float) and math.isfinite(value)
            assert number, f"{name} is {value!r}, not a finite number"


CHECKS: tuple[Check, ...] = (
    judges_hostile_text,
    gives_one_finite_reward_each,
    keeps_the_order,
    takes_any_answer,
    is_deterministic,
    refuses_uneven_lists,
    works_off_the_main_thread,
    reads_any_text,
)
