"""Runs alignkit with a fault in one of its components, as often as it is told to; see conftest.

Reads a JSON job per line, makes each in a forked process that ends as the command itself would,
and answers with its status. A fault is what a component does at its n-th call.
"""

import functools
import gc
import json
import os
import sys
from pathlib import Path

import torch  # noqa: F401  this and more is imported before any fork
import transformers.models.qwen2.modeling_qwen2
import transformers.models.qwen2.tokenization_qwen2  # noqa: F401

import alignkit.engine.training.facade  # noqa: F401
import alignkit_advantages
import alignkit_data
import alignkit_hf
import alignkit_hf.policy.causal
import alignkit_hf.sampling.backend
import alignkit_losses
import alignkit_normalizers
import alignkit_optimizers
import alignkit_optimizers.adamw
import alignkit_prompts
import alignkit_rewards
import alignkit_trackers
from alignkit import TransientError, cli, plugins

REGISTRY = plugins.load()
plugins.load = lambda disable=(): REGISTRY
PLACES = {
    "reward": (alignkit_rewards.Python, "__call__"),
    "dataset": (alignkit_data.Jsonl, "__getitem__"),
    "prompt template": (alignkit_prompts.QuestionOnly, "render"),
    "rollout backend": (alignkit_hf.HfRollout, "generate"),
    "rollout backend sync": (alignkit_hf.HfRollout, "sync"),
    "rollout backend start": (alignkit_hf.HfRollout, "start"),
    "optimizer step": (alignkit_optimizers.AdamW, "start"),
    "advantage": (alignkit_advantages.GroupStd, "__call__"),
    "loss": (alignkit_losses.GrpoClip, "__call__"),
    "normalizer": (alignkit_normalizers.MaskedMean, "__call__"),
    "optimizer": (alignkit_optimizers.AdamW, "start"),
    "tracker": (alignkit_trackers.Jsonl, "log"),
    "tracker start": (alignkit_trackers.Jsonl, "start"),
    "tracker close": (alignkit_trackers.Jsonl, "close"),
}


class OtherError(BaseException):
    """An exception that is no Exception."""


def fork(*, ends):
    """Fork; the child goes on as if it were the run, or ends by itself."""
    if child := os.fork():
        os.waitpid(child, 0)
    elif ends:
        sys.exit(0)


def throw(error):
    raise error


FAULTS = {
    "ValueError": lambda: throw(ValueError("the judge is asleep")),
    "StopIteration": lambda: throw(StopIteration("the judge is asleep")),
    "OSError": lambda: throw(OSError(5, "the judge is asleep")),
    "ENOSPC": lambda: throw(OSError(28, "the judge is asleep")),
    "SystemExit": lambda: sys.exit(0),
    "SystemExit text": lambda: sys.exit("the judge is asleep"),
    "KeyboardInterrupt": lambda: throw(KeyboardInterrupt("the judge is asleep")),
    "GeneratorExit": lambda: throw(GeneratorExit("the judge is asleep")),
    "OtherError": lambda: throw(OtherError("the judge is asleep")),
    "TransientError": lambda: throw(TransientError("the judge is asleep", retries=2, wait=0.01)),
    "close stdout": sys.stdout.close,
    "close descriptor 1": lambda: os.close(1),
    "fork": lambda: fork(ends=False),
    "fork and exit": lambda: fork(ends=True),
    "nothing": lambda: None,
}


class Faulty:
    """A component that does something at some of its calls."""

    def __init__(self, inner, method, fault):
        self.__dict__.update(inner=inner, method=method, fault=fault, calls=0)

    def __getattr__(self, name):
        found = getattr(self.inner, name)
        if name != self.method:
            return found
        return lambda *args, **named: self._call(found, args, named)

    def __call__(self, *args, **named):
        return self._call(self.inner, args, named) if self.method == "__call__" else None

    def _call(self, function, args, named):
        if self.fault["kind"] == "optimizer step":
            return self._stepping(*function(*args, **named))
        self._count()
        return function(*args, **named)

    def _stepping(self, optimizer, schedule):
        """Have the fault happen after steps of the torch optimizer, which has changed weights."""
        step = optimizer.step

        def faulty(*args, **named):
            step(*args, **named)
            self._count()

        optimizer.step = faulty
        return optimizer, schedule

    def _count(self):
        self.__dict__["calls"] += 1
        if (count := self.fault.get("count")) is not None:
            Path(count).write_text(str(self.calls))
        first = self.fault.get("at", 0)
        if first <= self.calls < first + self.fault.get("times", 1):
            FAULTS[self.fault["how"]]()


class FaultyRows(Faulty):
    """A dataset that does so."""

    def __len__(self):
        return len(self.inner)

    def __getitem__(self, index):
        return self._call(self.inner.__getitem__, (index,), {})


def plant(fault):
    """Have the product of a component's build do what ``fault`` says."""
    params, method = PLACES[fault["kind"]]
    build = params.build

    @functools.wraps(build)  # with the slots it names
    def faulty(self, **slots):
        if fault.get("built"):
            FAULTS[fault["how"]]()
        kind = FaultyRows if method == "__getitem__" else Faulty
        return kind(build(self, **slots), method, fault)

    params.build = faulty


def serve():
    """Answer jobs; return, in a forked child, the words of the command it is to make."""
    for line in sys.stdin:
        job = json.loads(line)
        gc.freeze()
        child = os.fork()
        if child == 0:
            log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for descriptor in (1, 2):
                os.dup2(log, descriptor)
            os.close(log)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.chdir(job["cwd"])
            if job["fault"]:
                plant(job["fault"])
            return job["words"]
        _, status = os.waitpid(child, 0)
        sys.stdout.write(json.dumps(os.waitstatus_to_exitcode(status)) + "\n")
        sys.stdout.flush()
    return None


if __name__ == "__main__":
    words = serve()
    if words is not None:
        sys.argv = ["alignkit", *words]
        cli.main()
