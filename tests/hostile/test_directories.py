"""Run directories of other people, odd in many ways: each is a warning, and the rest is shown."""

import json
import os
import signal
from contextlib import contextmanager

import pytest
from click.testing import CliRunner

from alignkit.cli import main

DEEP = "[" * 100_000 + "]" * 100_000
HUGE = "9" * 4000
SAMPLE = {"prompt": "p", "response": "r", "gold": "g", "reward": 1.0, "category": "correct"}


def row(step, value="1.0", time="1.0", name="train/loss"):
    return f'{{"step": {step}, "time": {time}, {json.dumps(name)}: {value}}}'


VALUES = ["NaN", "Infinity", "-Infinity", "1e308", "-1e308", HUGE, "9" * 5000, "true", "null",
          '"text"', "[1]", '{"a": 1}', "1e-320", DEEP]  # fmt: skip
STEPS = ["Infinity", "NaN", '"text"', '"3"', "null", "-1", "1.5", "1e30", HUGE, "true", "[1]", "{}"]
NAMES = ["\ud800", "", "a\n\x1b[2Jb", "eval/" * 300, "eval/\udfff/answer_reward", "step", "<b>"]
OTHERS = ["[]", "3", '"text"', "null", DEEP, "{", HUGE, '{"a": NaN}', "\x00", "true"]


def metrics(*lines):
    return {"metrics.jsonl": "\n".join(lines) + "\n"}


def manifest(**facts):
    return {"manifest.json": json.dumps({"status": "done", "seconds": 1.0, "seed": 0, **facts})}


ODD = {
    **{f"value {v[:12]}": metrics(row(0), row(1, v), row(2, "2.0")) for v in VALUES},
    **{f"values {v[:12]}": metrics(row(1, v), row(2, v.lstrip("-"))) for v in VALUES},
    **{f"opposite {v}": metrics(row(1, v), row(2, f"-{v}")) for v in ("1e308", "9e307")},
    **{f"step {s[:12]}": metrics(row(0), row(s, "3.0")) for s in STEPS},
    **{f"time {s[:12]}": metrics(row(0), row(1, time=s)) for s in STEPS},
    **{f"name {n[:12]!a}": metrics(row(0, name=n), row(1, name=n)) for n in NAMES},
    "rows of other types": metrics("3", "[]", "null", '"x"', DEEP, HUGE, row(1)),
    "steps that go back": metrics(row(5), row(1), row(5, "2.0")),
    "a row cut off": {"metrics.jsonl": row(1) + "\n" + row(2)[:-9]},
    "bytes that are no text": {"metrics.jsonl": b"\xff\xfe" + row(1).encode() + b"\n\xc3\n"},
    "a step in the sky": metrics(row(0), row(10**15)),
    **{f"manifest {o[:12]!a}": {"manifest.json": o} for o in OTHERS},
    **{f"stopped {o[:12]!a}": {"stopped.json": o} for o in OTHERS},
    **{f"sweep {o[:12]!a}": {"sweep.json": o} for o in OTHERS},
    **{f"recipe {o[:12]!a}": {"recipe.toml": o} for o in OTHERS},
    **{f"{key} {o[:12]!a}": {"manifest.json": f'{{"status": "done", "{key}": {o}}}'}
       for key in ("seconds", "seed", "status", "command", "notes", "started", "hardware",
                   "versions", "components", "git", "resumes", "result")
       for o in ("[]", "3", '"x\\ud800"', "null", HUGE, "NaN", "Infinity", "{}", "[{}, 3]")},
    **{f"variants {v[:14]}": {"sweep.json": f'{{"variants": {v}, "title": {v}}}'}
       for v in ("3", '{"a": 1}', "[[1], {}]", '["\\ud800"]', "null")},
    "recipe with numbers": {"recipe.toml": 'use = "sft"\nseed = inf\nn_steps = nan\n[data]\nx = 1'},
    "recipe of other tables": {"recipe.toml": 'use = [1]\ndata = 3\neval = "x"\nseed = "y"'},
    "recipe with a long number": {"recipe.toml": f"use = 'sft'\nseed = {'9' * 5000}"},
    **{f"samples {o[:12]!a}": {"eval/step_000001.jsonl": o, "rollouts/step_000001.jsonl": o}
       for o in OTHERS},
    **{f"sample's {key} {o[:12]!a}": {
        f"{folder}/step_000001.jsonl": json.dumps(SAMPLE)[:-1] + f', "{key}": {o}}}\n'
        for folder in ("eval", "rollouts")}
       for key in ("prompt", "response", "gold", "reward", "category", "response_length")
       for o in ("3", "[1, {}]", '"\\ud800\\u001b[2J"', "null", "NaN", HUGE, "{}", "true")},
    "names of samples": {f"eval/step_{n}.jsonl": json.dumps(SAMPLE)
                         for n in ("", "x", "٣", "²", "9" * 200, "-1", "1.5")},
    "no file": {},
}  # fmt: skip


def pipe(folder, name):
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)


def made(folder, odd):
    folder.mkdir(parents=True)
    plain = {**metrics(row(0, name="eval/answer_reward"), row(1)), **manifest(),
             "recipe.toml": 'use = "sft"\n'}  # fmt: skip
    for name, content in {**plain, **odd}.items():
        (folder / name).parent.mkdir(exist_ok=True)
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        (folder / name).write_bytes(data)
    return folder


@contextmanager
def at_most(seconds):
    """Raise where something hangs."""

    def late(*_):
        raise AssertionError("it hangs")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def looked_at(folder, whole=None):
    for words in (["show", str(folder)], ["report", str(whole or folder)]):
        with at_most(60):
            done = CliRunner().invoke(main, words)
        assert isinstance(done.exception, SystemExit | None), (words, done.exception)
        assert done.exit_code == 0, done.output
        assert "\x1b" not in done.output
    page = ((whole or folder) / "report.html").read_text()
    assert "</html>" in page
    assert "\x1b" not in page
    return page


SOME = [
    name if i % 14 == 0 else pytest.param(name, marks=pytest.mark.slow)
    for i, name in enumerate(ODD)
]


@pytest.mark.parametrize("name", SOME)
def test_whatever_is_odd_the_rest_is_shown(tmp_path, name):
    looked_at(made(tmp_path / "odd", ODD[name]))


PIPES = ["eval/step_000001.jsonl", "rollouts/step_000002.jsonl", "metrics.jsonl", "manifest.json",
         "recipe.toml", "stopped.json", "sweep.json"]  # fmt: skip


@pytest.mark.parametrize("name", PIPES)
def test_a_pipe_is_not_waited_for(tmp_path, name):
    folder = made(tmp_path / "odd", {})
    pipe(folder, name)
    looked_at(folder)


@pytest.mark.parametrize("name", [n for n in ODD if n.startswith(("step ", "manifest "))][::4])
def test_what_is_left_out_is_said(tmp_path, name):
    folder = made(tmp_path / "odd", ODD[name])
    assert "warning: " in CliRunner().invoke(main, ["show", str(folder)]).output


@pytest.mark.slow
def test_one_page_of_all_of_them_shows_those_that_are_well(tmp_path):
    for i, odd in enumerate(ODD.values()):
        made(tmp_path / "all" / f"odd{i:03}" / "seed_0", odd)
    good = made(tmp_path / "all" / "good" / "seed_0", {})
    page = looked_at(good, tmp_path / "all")
    assert "good" in page
