"""Runs of several processes on a tiny model, as torchrun starts them, and what they leave."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

collect_ignore = ["counted.py", "nest.py"]  # programs, not modules

PLUGIN = '''
import os, time
from alignkit import Component, Params, hookimpl
from alignkit.protocols import LossOutput, LossType, Reward, RewardFn

class Vowels(Params[RewardFn]):
    """The share of vowels in a response; breaks on one rank if told to."""

    breaks_on: int = -1
    """Rank whose reward raises at its fifth call."""

    waits: float = 0.0
    """Seconds each call takes."""

    def build(self) -> RewardFn:
        calls = []
        def judge(responses, examples):
            calls.append(1)
            time.sleep(self.waits)
            if len(calls) > 4 and os.environ.get("RANK") == str(self.breaks_on):
                raise ValueError("no more vowels")
            totals = [sum(c in "aeiou" for c in r) / max(len(r), 1) for r in responses]
            return [Reward(t, {"format": 1.0, "answer": t}) for t in totals]
        return judge

class Brittle(Params[LossType]):
    """The plainest policy gradient; breaks in an update on one rank."""

    breaks_on: int
    """Rank whose loss raises at its third call."""

    def build(self) -> LossType:
        calls = []
        def loss(x):
            calls.append(1)
            if len(calls) > 2 and os.environ.get("RANK") == str(self.breaks_on):
                raise ValueError("no more losses")
            return LossOutput(per_token=-x.advantages * x.logprobs)
        return loss

@hookimpl
def reward_fn():
    yield Component("vowel_share", Vowels)

@hookimpl
def loss_type():
    yield Component("brittle", Brittle)
'''

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
use = "vowel_share"
[normalizer]
use = "token_mean"
[rollout]
use = "hf"
max_tokens = 6
[optimizer]
use = "adamw"
lr = 3e-3
[eval]
every = 2
n = 5
[eval.data]
use = "jsonl"
path = "{rows}"
[checkpoint]
every = 1
keep_last = 9
"""
SAMPLED = "n_steps = 3\nrollout_batch_size = 12\ngroup_size = 4\nsave_rollouts_every = 1\n"
GROUPS = '[advantage]\nuse = "group_std"\n[loss]\nuse = "grpo_clip"\n'
KINDS = {
    "brittle": ("grpo", SAMPLED + "train_batch_size = 12\n",
                GROUPS.replace("grpo_clip", "brittle") + "breaks_on = 1\n"),
    "off_policy": ("grpo", SAMPLED + "train_batch_size = 4\nepochs_per_rollout_batch = 2\n"
                   "shuffle = true\n", GROUPS),
    "kl": ("grpo", SAMPLED + "train_batch_size = 12\n", GROUPS + "[reference]\nbeta = 0.1\n"),
    "dynamic": ("grpo", SAMPLED + "train_batch_size = 12\nmax_refills = 1\n"
                "drop_groups_without_signal = true\n", GROUPS),
    "ahead": ("grpo", SAMPLED + "train_batch_size = 12\npipeline_depth = 1\n", GROUPS),
    "sft": ("sft", "n_steps = 3\ntrain_batch_size = 5\n", ""),
    "expert_iteration": ("expert_iteration", SAMPLED + "train_batch_size = 4\n"
                         "min_reward = 0.1\n", ""),
    "distill": ("distill", SAMPLED + "train_batch_size = 4\n",
                '[loss]\nuse = "no_clip"\n[teacher]\nuse = "hf"\npath = "{teacher}"\n'),
    "dpo": ("dpo", 'n_steps = 3\ntrain_batch_size = 3\nrejected_column = "other"\n', ""),
}  # fmt: skip
OWN_TIME = ("time", "ranks/", "memory/", "train/tokens_per_second", "train/mfu")
SHARD = ("-s", "policy.parallel=shard")
"""Options of a run whose policy is cut over the ranks."""
TORCHRUN = ["-m", "torch.distributed.run", "--nproc-per-node", "2"]


@dataclass
class Ranks:
    """Starts runs in a folder, on one process or several, and reads what they leave."""

    place: Path
    model: Path
    rows: Path
    teacher: Path
    warm: object
    made: dict = field(default_factory=dict)
    per_machine: int = 0
    """Ranks on each machine, as torchrun tells them; 0 = all on one."""

    def recipe(self, kind):
        use, keys, tail = KINDS[kind]
        text = HEAD.format(use=use, keys=keys, model=self.model, rows=self.rows)
        text += tail.replace("{teacher}", str(self.teacher))
        without = {"sft": ("reward",), "dpo": ("normalizer", "reward")}.get(kind, ())
        if kind in ("sft", "dpo"):  # what evaluates needs a reward still
            without = without[:-1]
        parts = text.split("\n[")
        path = self.place / f"{kind}.toml"
        path.write_text("\n[".join(p for p in parts if p.partition("]")[0] not in without))
        return path

    def words(self, kind, out, *more):
        plugin = self.place / "vowel_plugin.py"
        plugin.write_text(PLUGIN)
        return ["-m", "alignkit", "run", self.recipe(kind), "-p", plugin, "--out", out, *more]

    def go(self, words, size=1, *, when=None, then=None, limit=150.0):
        """Run on ``size`` ranks; ``then(processes)`` once ``when()``; return codes and outputs."""
        running = self.begin(words, size)
        end = time.monotonic() + limit
        try:
            while when is not None and not when() and time.monotonic() < end:
                assert all(p.poll() is None for p in running), [p.communicate() for p in running]
                time.sleep(0.02)
            if then is not None:
                then(running)
            said = [p.communicate(timeout=max(end - time.monotonic(), 1))[0] for p in running]
        finally:
            for process in running:
                process.kill()
        return [p.returncode for p in running], said

    def begin(self, words, size):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        common = {
            "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
            "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(local := self.per_machine or size),
        }  # fmt: skip
        places = [{**common, "RANK": str(r), "LOCAL_RANK": str(r % local)} for r in range(size)]
        return [self.process(words, {**os.environ, **place}) for place in places]

    def process(self, words, env):
        if words[:2] == ["-m", "alignkit"]:
            return self.warm.start(words[2:], env, self.place)
        return subprocess.Popen(
            [sys.executable, *map(str, words)], text=True, cwd=self.place, env=env,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def whole(self, kind, size, *more):
        """Return the folder of an undisturbed run of that kind."""
        key = (kind, size, *more)
        if key not in self.made:
            out = self.place / f"whole-{len(self.made)}"
            codes, said = self.go(self.words(kind, out, *more), size)
            assert codes == [0] * size, "\n".join(said)
            self.made[key] = out
        return self.made[key]


def metrics(folder):
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(OWN_TIME)} for row in rows]


def responses(folder):
    found = {}
    for path in sorted([*folder.glob("rollouts/*.jsonl"), *folder.glob("eval/*.jsonl")]):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        found[f"{path.parent.name}/{path.name}"] = [(r["id"], r["response"]) for r in rows]
    return found


def assert_same(one, other):
    a, b = metrics(one), metrics(other)
    assert [row.keys() for row in a] == [row.keys() for row in b]
    for x, y in zip(a, b, strict=True):
        assert y == pytest.approx(x, abs=1e-5, rel=1e-5, nan_ok=True)
    assert responses(one) == responses(other)


@pytest.fixture(scope="session")
def ranks(tmp_path_factory, tiny_folder, sharpened, warm):
    place = tmp_path_factory.mktemp("ranks")
    rows = place / "rows.jsonl"
    names = ["plum", "pear", "fig", "quince", "sloe", "lime", "date"]
    made = [
        {"question": f"How many {n}s? " * (1 + i % 3), "answer": f"{i} {n}s", "other": n[: i + 1]}
        for i, n in enumerate(names)
    ]
    rows.write_text("".join(json.dumps(row) + "\n" for row in made))
    teacher = sharpened(tiny_folder, place / "teacher")
    return Ranks(place, tiny_folder, rows, teacher, warm)


def send(number, rank):
    return lambda running: os.kill(running[rank].pid, number)


STOP, KILL = signal.SIGSTOP, signal.SIGKILL


@dataclass
class Forked:
    """Asks the process of nest.py, which forks ranks that have everything imported."""

    process: subprocess.Popen
    place: Path

    def ask(self, words, size, out, **job):
        """Run ``words`` on ``size`` ranks; return what is known of it, and what each rank said."""
        log = out.with_suffix(".log")
        job |= {"words": [str(w) for w in words[2:]], "ranks": size, "log": str(log)}
        job = {"cwd": str(self.place), "since": str(out / "metrics.jsonl")} | job
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        found = json.loads(self.process.stdout.readline())
        texts = [Path(f"{log}.{rank}").read_text() for rank in range(size)]
        for rank in range(size):
            Path(f"{log}.{rank}").unlink()
        return found, texts


@pytest.fixture(scope="session")
def forked(ranks):
    environment = os.environ | {
        "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "false",
    }  # fmt: skip
    with subprocess.Popen(
        [sys.executable, Path(__file__).with_name("nest.py")], text=True, env=environment,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        process.stdout.readline()
        yield Forked(process, ranks.place)
        process.stdin.close()
