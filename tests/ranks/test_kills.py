"""A run of two ranks killed at any moment and resumed ends as one undisturbed process does.

`pytest tests/ranks/test_kills.py -m "slow or not slow" --rank-kills 160` kills 160 of them: one
rank or both, replicated or cut, and goes on with 1, 2 or 4 ranks. `--rank-kills-seed` draws others.
"""

import json
import random
import shutil
import signal

import pytest

from .conftest import KINDS, SHARD, assert_same

USES = [kind for kind in KINDS if kind != "brittle"]
VICTIMS = ([0], [1], [0, 1])
LATEST = 30.0
"""Seconds in which the other rank has to end, once both have met."""
CONNECTED = 2.0
"""Seconds in which a rank reaches rank 0. One that has not cannot tell its end from its being late:
without a launcher it waits for five minutes."""


class Nest:
    """Draws what is killed, in runs of forked ranks."""

    def __init__(self, forked, ranks, seed):
        self.forked, self.ranks, self.seed = forked, ranks, seed
        self.kills, self.made, self.seconds = 0, {}, {}

    def ask(self, words, size, out, **job):
        found, texts = self.forked.ask(words, size, out, **job)
        self.kills += signal.SIGKILL in [-code for code in found["codes"]]
        return found, "\n----\n".join(texts)

    def undisturbed(self, kind, size, *more):
        """Return the folder that a whole run leaves; ``seconds`` has how long it takes."""
        key = (kind, size, *more)
        if key not in self.made:
            out = self.ranks.place / f"nest-{len(self.made)}"
            found, said = self.ask(self.ranks.words(kind, out, *more), size, out)
            assert found["codes"] == [0] * size, said
            self.made[key], self.seconds[key] = out, found["seconds"]
        return self.made[key]

    def words(self, kind, out, more):
        if (out / "recipe.toml").exists():
            return ["-m", "alignkit", "resume", out, "-p", self.ranks.place / "vowel_plugin.py"]
        return self.ranks.words(kind, out, *more)

    def trial(self, number):
        """Kill a run, at times also the resumed one, end it, and compare what it leaves."""
        draw = random.Random(f"{self.seed}/{number}")
        kind, more = draw.choice(USES), draw.choice([(), SHARD])
        whole = self.undisturbed(kind, 1)
        self.undisturbed(kind, 2, *more)
        out = self.ranks.place / f"killed-{number}"
        before = self.kills
        while self.kills == before:  # a run may be faster than the one that was measured
            shutil.rmtree(out, ignore_errors=True)
            self.strike(kind, out, more, draw)
        if draw.random() < 0.3:
            self.strike(kind, out, more, draw)
        size = draw.choice([1, 2, 2, 4])
        found, said = self.ask(self.words(kind, out, more), size, out)
        name = f"{self.seed}/{number}: {kind}, {more}, on {size}"
        assert found["codes"] == [0] * size, f"{name}\n{said}"
        assert "Traceback" not in said, f"{name}\n{said}"
        assert_same(whole, out)
        assert json.loads((out / "manifest.json").read_text())["status"] == "done", name
        left = [p.name for p in out.rglob(".*") if p.name not in (".lock", ".trackers")]
        assert not left, name
        shutil.rmtree(out)

    def strike(self, kind, out, more, draw):
        """Kill ranks at a moment of the run; the others end soon, by themselves."""
        after = draw.uniform(0, self.seconds[kind, 2, *more])
        victims = draw.choice(VICTIMS)
        alone = victims == [0] and after < CONNECTED
        found, said = self.ask(self.words(kind, out, more), 2, out, after=after, victims=victims)
        what = f"{kind} {more}, {victims} after {after:.2f} s: {found}\n{said}"
        assert set(found["codes"]) <= {0, 1, -signal.SIGKILL, 75, 143}, what
        assert "Traceback" not in said, what
        assert found["seconds"] < LATEST or (found["told"] and alone), what


@pytest.fixture
def nest(forked, ranks, request):
    return Nest(forked, ranks, request.config.getoption("--rank-kills-seed"))


@pytest.mark.slow
def test_ranks_that_are_killed_lose_nothing(nest, request):
    count = request.config.getoption("--rank-kills")
    failed, number = [], 0
    while nest.kills < count:
        try:
            nest.trial(number)
        except AssertionError as error:
            failed.append(f"run {number} of seed {nest.seed!r}: {str(error)[-3000:]}")
        number += 1
        with (nest.ranks.place / "kills.txt").open("a") as file:
            file.write(f"{number} runs, {nest.kills} kills, {len(failed)} wrong\n")
        assert len(failed) < 5, "\n\n".join(failed)
    assert not failed, f"{len(failed)} of {number} runs:\n" + "\n\n".join(failed)
