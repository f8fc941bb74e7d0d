"""Bad days: something goes wrong at a random moment, and the run is resumed.

`pytest tests/kills/test_days.py -m "slow or not slow" --days 200` has 200 of them; `--days-seed`
draws others. After each: the status is right, no traceback is shown, a run that was asked to end
has saved every step it logged, and going on ends with what an undisturbed run leaves, bit for bit.
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections import Counter
from dataclasses import dataclass, field

import pytest

MIB = 2**20
USES = ("grpo", "sft", "dpo", "expert_iteration", "episodes")
ONCE = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
STOPS = ("SIGUSR1", "SIGUSR2", "SIGXCPU")


@dataclass
class Day:
    """What goes wrong, and how a run may end that day."""

    job: dict = field(default_factory=dict)
    """For the zygote."""
    words: tuple = ()
    """More of the command line."""
    codes: tuple = (0,)
    small: bool = False
    """Whether the run directory is on a disk of its own."""
    moved: bool = False
    deleted: bool = False
    after: str = ""
    """Command of the shell that mends it."""


def asked(name, again=0.0):
    """A signal once, or once more ``again`` seconds later."""
    number = getattr(signal, name)
    twice = [[number, again], [number, 0]] if again else [[number, 0]]
    polite = 75 if name in STOPS else 128 + number
    started = (1,) if name == "SIGINT" else ()  # before the run: click's "Aborted!"
    return Day({"signals": twice}, codes=(0, polite, 128 + number, -number, *started))


def days(place, draw):
    """Return a day of each kind by name; paths are relative to ``place``."""
    size = draw.choice([1_000, 20_000, 100_000])
    jump = draw.choice([-1e9, -3600.0, 3600.0, 1e9])
    tracker = ("-s", 'trackers=[{use="jsonl", path="disk/tracked.jsonl"}]')
    fill = "head -c 999999999 /dev/zero > disk/filler"
    kinds = {name: asked(name) for name in ONCE}
    return kinds | {
        "SIGXCPU twice": asked("SIGXCPU", draw.choice([0.02, 0.2, 1.0])),
        "SIGTERM twice": asked("SIGTERM", 0.05),
        "killed": Day({"signals": [[signal.SIGKILL, 0]]}, codes=(0, -signal.SIGKILL)),
        "stopped for a while": Day({"signals": [[signal.SIGSTOP, 0.5], [signal.SIGCONT, 0]]}),
        "disk full": Day({"shell": fill}, codes=(0, 1), small=True, after="rm -f disk/filler"),
        "files limited": Day({"file_bytes": size}, codes=(0, 1)),
        "read-only": Day(
            {"shell": "find {out} -type d -exec chattr +i '{{}}' +"},  # root heeds no mode
            codes=(0, 1),
            small=True,
            after="find disk -type d -exec chattr -i '{}' +",
        ),
        "pipe closed": Day({"pipe": "gone", "shell": "touch gone"}),
        "tracker's disk full": Day({"shell": fill}, words=tracker, after="rm -f disk/filler"),
        "clock": Day({"clock": "gone", "jump": jump, "shell": "touch gone"}),
        "moved": Day({"shell": "mv {out} {out}-moved"}, codes=(0, 1), moved=True),
        "deleted": Day({"shell": "rm -rf {out}"}, codes=(0, 1), deleted=True),
    }


@pytest.fixture
def disk(killer):
    """A small disk of its own in the place of the runs; a folder where it cannot be mounted."""
    place = killer.place / "disk"
    place.mkdir(exist_ok=True)
    options = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)]
    mounted = os.geteuid() == 0 and not subprocess.run(options, check=False).returncode
    yield mounted
    if mounted:
        subprocess.run(["umount", "-l", str(place)], check=True)


class Trial:
    """One bad day of one run."""

    def __init__(self, killer, kind, use, number, draw):
        self.killer, self.kind, self.use = killer, kind, use
        self.day = days(killer.place, draw)[kind]
        folder = killer.place / "disk" if self.day.small else killer.place
        self.out = folder / f"day-{number}"
        self.log = killer.place / f"day-{number}.log"
        self.whole, seconds, _ = killer.undisturbed(use)
        self.cpu = draw.uniform(0, seconds)
        self.code: int | None = None
        self.name = f"day {number}: {kind} after {self.cpu:.2f} s of {use}"

    def go(self, words, **job):
        self.log.unlink(missing_ok=True)
        return self.killer.ask(words, self.log, **job)["code"], self.log.read_text()

    def words(self):
        begun = (self.out / "recipe.toml").exists()
        if begun:
            return ["resume", self.out]
        return ["run", self.killer.recipe(self.use), "--out", self.out, *self.day.words]

    def run(self):
        place, job = self.killer.place, dict(self.day.job)
        if "shell" in job:
            job["shell"] = job["shell"].format(out=self.out)
        for key in ("pipe", "clock"):
            if key in job:
                job[key] = str(place / "gone")
        code, said = self.go(self.words(), bad_day=True, cpu=self.cpu, **job)
        self.code = code
        self.judge(code, said)
        subprocess.run(self.day.after, shell=True, cwd=place, check=True)
        (place / "gone").unlink(missing_ok=True)
        self.find()
        code, said = self.go(self.words())
        assert code == 0, f"{self.name}; going on: {code}\n{said}"
        assert "Traceback" not in said, f"{self.name}; going on:\n{said}"
        self.compare(said)
        for path in (self.out, self.log):
            subprocess.run(["rm", "-rf", path], check=True)

    def judge(self, code, said):
        """The status is right, no traceback is seen, and what was logged is saved."""
        assert code in self.day.codes, f"{self.name}: {code}\n{said}"
        assert "Traceback" not in said, f"{self.name}:\n{said}"
        assert "Exception ignored" not in said, f"{self.name}:\n{said}"
        if code == 1 and self.kind != "SIGINT":
            assert said.strip(), f"{self.name} says nothing"
        saved = sorted((self.out / "checkpoints").glob("step_*"))
        if code == 75:
            assert saved, f"{self.name}: stopped to be resumed, and there is no checkpoint"
        if code == 75 or code > 128:
            self.nothing_lost(said)

    def nothing_lost(self, said):
        """Where a run that was asked to end says what it saved, it is all it had logged."""
        told = re.search(r"saved after step (\d+)", said)
        rows = (self.out / "metrics.jsonl").read_text().splitlines() if told else []
        if rows:
            assert json.loads(rows[-1])["step"] <= int(told[1]), f"{self.name}:\n{said}"

    def find(self):
        """Go to where the run was moved, unless it was made again at its old place as well."""
        there = self.out.with_name(f"{self.out.name}-moved")
        if self.day.moved and there.exists():
            shutil.rmtree(self.out, ignore_errors=True)
            there.rename(self.out)

    def compare(self, said):
        left = self.killer.left(self.out)
        apart = [k for k in {**self.whole, **left} if self.whole.get(k) != left.get(k)]
        if self.day.deleted:  # samples of earlier steps may be gone, as it says
            apart = [k for k in apart if not re.match("rollouts|eval", k[1])]
        assert not apart, f"{self.name}: {apart} differ\n{said}"


@pytest.mark.slow
def test_a_bad_day_costs_no_more_than_it_says(killer, disk, request):
    """Every kind comes as often as the others; the moments are random, the same for each seed."""
    seed = request.config.getoption("--days-seed")
    draw, failed, codes = random.Random(seed), [], Counter()
    kinds = sorted(days(killer.place, random.Random(0)))
    draw.shuffle(kinds)
    for number in range(request.config.getoption("--days")):
        kind, use = kinds[number % len(kinds)], draw.choice(USES)
        trial = Trial(killer, kind, use, number, draw)
        if not disk and (trial.day.small or trial.day.words):
            continue
        try:
            trial.run()
        except AssertionError as error:
            failed.append(str(error).partition("\nassert")[0][-3000:])
            subprocess.run("rm -f disk/filler", shell=True, cwd=killer.place, check=False)
            again = "find disk -type d -exec chattr -i '{}' +"
            subprocess.run(again, shell=True, cwd=killer.place, check=False, capture_output=True)
            (killer.place / "gone").unlink(missing_ok=True)
        codes[trial.code] += 1
        with (killer.place / "days.txt").open("a") as file:
            file.write(f"{trial.name}: {trial.code}\n")
    assert codes.total() < 12 or len(codes) > 3, f"hardly anything went wrong: {codes}"
    assert not failed, f"{len(failed)} bad days:\n" + "\n\n".join(failed)
