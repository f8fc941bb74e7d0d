"""Runs on a tiny model that are killed, resumed, and compared with undisturbed ones."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from alignkit_testing.algorithm import is_measured

collect_ignore = ["zygote.py"]  # a program, not a module

HEAD = """
use = "{use}"
seed = 3
{keys}
[policy]
use = "hf"
path = "{model}"
[data]
use = "jsonl"
path = "{rows}"
[prompt]
use = "question_only"
[reward]
use = "vowels"
[normalizer]
use = "token_mean"
[rollout]
use = "hf"
max_tokens = 6
[optimizer]
use = "adamw"
lr = 3e-3
schedule = "cosine"
[eval]
every = 2
n = 4
[eval.data]
use = "jsonl"
path = "{rows}"
[checkpoint]
every = {every}
"""
SAMPLED = "rollout_batch_size = 12\ngroup_size = 3\nsave_rollouts_every = 1\ntrain_batch_size = 4\n"
KEYS = {
    "grpo": SAMPLED + "n_steps = 4\nepochs_per_rollout_batch = 2\nshuffle = true\n"
    "drop_groups_without_signal = true\nmax_refills = 1",
    "expert_iteration": SAMPLED + "n_steps = 3\nepochs_per_rollout_batch = 2\nmin_reward = 0.1",
    "distill": SAMPLED + "n_steps = 4",
    "sft": "n_steps = 7\ntrain_batch_size = 5",
    "dpo": 'n_steps = 5\ntrain_batch_size = 4\nrejected_column = "other"',
    "evaluate": "",
    "episodes": SAMPLED + "n_steps = 4",
}
ALGORITHMS = {"episodes": "grpo"}
TAIL = {
    "distill": '[loss]\nuse = "no_clip"\n[teacher]\nuse = "hf"\npath = "{teacher}"\n',
    "episodes": '[advantage]\nuse = "group_std"\n[loss]\nuse = "grpo_clip"\n'
    '[environment]\nuse = "guess"\nstop = ["7"]\nmax_turns = 3\n',
    "grpo": '[advantage]\nuse = "group_std"\n[loss]\nuse = "grpo_clip"\n[reference]\nbeta = 0.0\n',
}
EVERY = {
    "grpo": '"0.05s"',
    "episodes": '"0.05s"',
    "expert_iteration": '"0.05s"',
    "distill": '"0.05s"',
    "sft": "1",
    "dpo": "2",
}


def recipe_text(use, ready, rows):
    text = HEAD.format(
        use=ALGORITHMS.get(use, use), keys=KEYS[use], every=EVERY.get(use, "1"), rows=rows, **ready
    )
    without = {
        "evaluate": ("normalizer", "optimizer", "eval", "eval.data", "checkpoint"),
        "dpo": ("normalizer",),
    }.get(use, ())
    parts = text.split("\n[")
    kept = [p for p in parts if p.partition("]")[0] not in without]
    return "\n[".join(kept) + TAIL.get(use, "").replace("{teacher}", ready.get("teacher", ""))


@dataclass
class Killer:
    """Makes runs in forked processes, kills them at random moments, and compares what is left."""

    process: subprocess.Popen
    ready: dict
    models: dict
    place: Path
    made: dict = field(default_factory=dict)
    kills: int = 0

    def ask(self, words, log, **job):
        job = {"words": [str(w) for w in words], "log": str(log), "cwd": str(self.place), **job}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = json.loads(self.process.stdout.readline())
        self.kills += answer["code"] == -signal.SIGKILL
        return answer

    def recipe(self, use):
        path = self.place / f"{use}.toml"
        if not path.exists():
            rows = self.place / "rows.jsonl"
            sums = [(a, b) for a in (2, 5, 9) for b in range(4)]
            rows.write_text(
                "".join(
                    json.dumps({"question": f"{a}+{b}=", "answer": str(a + b), "other": "x"}) + "\n"
                    for a, b in sums
                )
            )
            path.write_text(recipe_text(use, self.models, rows))
        return path

    def sweep(self):
        path = self.place / "sweep.toml"
        if not path.exists():
            self.recipe("sft"), self.recipe("grpo")
            path.write_text(
                "[variants.tuned]\nrecipe = 'sft.toml'\n[variants.tuned.set]\nn_steps = 4\n"
                "[variants.more]\nrecipe = 'grpo.toml'\nstart_from = 'tuned'\n"
                "[variants.more.set]\nn_steps = 2\n"
            )
        return path

    def words(self, use, out):
        if use == "sweep":
            return ["sweep", self.sweep(), "--out", out]
        if (out / "recipe.toml").exists():
            return ["resume", out]
        return ["run", self.recipe(use), "--out", out]

    def go(self, use, out, **job):
        return self.ask(self.words(use, out), out.with_suffix(".log"), **job)

    def undisturbed(self, use):
        """Return what a run leaves, the CPU seconds it takes, and the steps of its writes."""
        if use not in self.made:
            out = self.place / f"{use}-whole"
            answer = self.go(use, out)
            assert answer["code"] == 0, out.with_suffix(".log").read_text()
            counted = self.place / f"{use}-counted"
            log = counted.with_suffix(".log")
            assert self.go(use, counted, write=0)["code"] == 0
            steps = int(Path(f"{log}.n").read_text())
            self.made[use] = (self.left(out), answer["cpu"], steps)
            assert self.left(counted) == self.made[use][0], "two undisturbed runs differ"
        return self.made[use]

    def moment(self, use, random):
        """Draw a moment to kill: of the time, or of the steps of its writes."""
        _, seconds, steps = self.undisturbed(use)
        if use != "sweep" and random.random() < 0.4:
            return {"write": random.randint(1, steps)}
        return {"cpu": random.uniform(0, seconds), "group": random.random() < 0.7}

    def trial(self, use, number):
        """Kill a run, at times also the resumed one, end it, and return what differs."""
        rng = random.Random(f"{use}/{number}")
        out = self.place / f"{use}-{number}"
        moment = self.moment(use, rng)
        while self.go(use, out, **moment)["code"] == 0:  # it was faster than the one measured
            self.clear(out)
            moment = self.moment(use, rng)
        again = rng.random() < 0.3
        if again:
            self.go(use, out, **self.moment(use, rng))
        answer = self.go(use, out)
        log = out.with_suffix(".log")
        assert answer["code"] == 0, f"{use} {number} {moment}: {log.read_text()[-3000:]}"
        whole = self.undisturbed(use)[0]
        found = self.left(out)
        apart = [k for k in {**whole, **found} if whole.get(k) != found.get(k)]
        assert not apart, f"{use} {number}, killed at {moment}: {apart} differ"
        self.clear(out)

    def clear(self, out):
        subprocess.run(["rm", "-rf", out, out.with_suffix(".log")], check=True)

    def left(self, out):
        """Return all that a run, or each of a sweep, leaves, but for times and checkpoints."""
        found = {}
        for manifest in sorted(out.rglob("manifest.json")):
            run = manifest.parent
            if "checkpoints" in run.parts or ".aside" in run.parts:
                continue
            name = str(run.relative_to(out))
            found[name, "status"] = json.loads(manifest.read_text())["status"]
            lines = (run / "metrics.jsonl").read_text().splitlines()
            found[name, "metrics"] = [timeless(json.loads(line)) for line in lines]
            for folder in ("final", "rollouts", "eval"):
                for path in sorted((run / folder).rglob("*")):
                    if path.is_file():
                        digest = hashlib.sha256(path.read_bytes()).hexdigest()
                        found[name, str(path.relative_to(run))] = digest
            hidden = [p.name for p in run.rglob(".*") if p.name not in (".lock", ".trackers")]
            found[name, "left over"] = hidden
        return found


def timeless(row):
    return {k: v for k, v in row.items() if not is_measured(k)}


@pytest.fixture(scope="session")
def killer(tmp_path_factory, sharpened):
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "passive",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_OFFLINE": "1",
    }
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("zygote.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        ready = json.loads(process.stdout.readline())
        place = tmp_path_factory.mktemp("kills")
        teacher = sharpened(Path(ready["model"]), place / "teacher")
        yield Killer(process, ready, {"model": ready["model"], "teacher": str(teacher)}, place)
        process.stdin.close()
