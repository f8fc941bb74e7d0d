"""Checkpoint folders, locks, signals, fingerprints: what a run's directory rests on."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from alignkit import plugins, recipe
from alignkit.errors import AlignkitError, RunFailed
from alignkit.execution import Run, carry_out, execute
from alignkit.lifecycle.checkpoints import Mark, Store, damage
from alignkit.lifecycle.files import write_whole
from alignkit.lifecycle.fingerprint import fingerprint
from alignkit.lifecycle.lock import locked
from alignkit.lifecycle.longer import steps_made
from alignkit.lifecycle.manifest import Manifest, machine
from alignkit.lifecycle.resume_point import differences
from alignkit.lifecycle.signals import STOPPED, Interrupted, Signals
from alignkit.resume import resume

# ---------------------------------------------------------------- checkpoints


def write(store, step, part=0, text=b"weights", score=None, **options):
    mark = Mark(step, part, 10 * step, 1.5 * step, score)
    return store.write(mark, {"w": lambda path: path.write_bytes(text)}, need=len(text), **options)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "checkpoints")


def test_the_newest_checkpoint_is_found_with_its_mark(store):
    for step, part in ((9, 0), (10, 0), (10, 2), (10, 12), (2, 3)):
        write(store, step, part)
    path, mark = store.newest(pytest.fail)
    assert (mark.step, mark.part, mark.metrics_bytes) == (10, 12, 100)
    assert next(p.name for p in store.paths()) == "step_000002_part_0003"
    assert (path / "w").read_bytes() == b"weights"
    assert Store(store.folder / "none").newest(pytest.fail) is None


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def halve(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("w", flip, "w does not have the sum it was written with"),
        ("w", cut, "w has 6 bytes, was written with 7"),
        ("w", os.unlink, "w cannot be read (No such file or directory)"),
        ("manifest.json", halve, "manifest.json cannot be read"),
        ("manifest.json", os.unlink, "manifest.json cannot be read"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_taken(store, name, harm, said):
    write(store, 1)
    harm(write(store, 2) / name)
    warnings = []
    path, mark = store.newest(warnings.append)
    assert (path.name, mark.step) == ("step_000001", 1)
    (warning,) = warnings
    assert "step_000002 is damaged" in warning
    assert said in warning
    assert [p.name for p in store.paths()] == ["step_000001"]  # the other is kept for study
    assert (store.folder / "step_000002.damaged").is_dir()


def test_every_byte_of_the_manifest_counts(store):
    path = write(store, 3)
    whole = (path / "manifest.json").read_bytes()
    for at in range(len(whole)):
        (path / "manifest.json").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        if damage(path) == "":  # a space became "!" or a letter of a key changed: never
            assert json.loads((path / "manifest.json").read_bytes()) == json.loads(whole)


def test_without_a_whole_checkpoint_nothing_is_begun_anew_unasked(store):
    flip(write(store, 1) / "w")
    with pytest.raises(AlignkitError, match=r"no checkpoint in .* is whole"):
        store.newest(lambda text: None)


def test_the_last_and_the_best_are_kept(store):
    for step, score in enumerate([0.5, 0.9, 0.7, None, 0.1], 1):
        write(store, step, score=score)
    assert store.ranks(0.8, 2, "max")
    assert not store.ranks(0.6, 2, "max")
    assert store.ranks(0.2, 2, "min")
    store.prune(1, 2, "max")
    assert [p.name for p in store.paths()] == ["step_000002", "step_000003", "step_000005"]
    store.prune(1, 1, "min")
    assert [p.name for p in store.paths()] == ["step_000005"]


def test_a_checkpoint_that_cannot_be_written_leaves_the_others(store):
    write(store, 1)

    def full(path):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(AlignkitError) as error:
        store.write(Mark(2, 0, 0, 0.0), {"w": full}, need=3 * 2**30)
    assert "No space left on device" in str(error.value)
    assert "3.0 GiB" in str(error.value)
    assert sorted(os.listdir(store.folder)) == ["step_000001"]


def test_files_are_as_open_as_the_user_s_are_whoever_wrote_them(store):
    def privately(path):
        aside = path.with_name("aside")
        aside.touch(mode=0o600)
        aside.rename(path)

    folder = store.write(Mark(1, 0, 0, 0.0), {"w": privately}, need=0)
    (folder.parent / "plain").touch()
    assert (folder / "w").stat().st_mode == (folder.parent / "plain").stat().st_mode


def test_what_a_killed_process_left_is_tidied(store):
    write(store, 1)
    for name in (".step_000002.partial", ".step_000001.trash"):
        (store.folder / name).mkdir()
    store.tidy()
    assert os.listdir(store.folder) == ["step_000001"]


# ---------------------------------------------------------------- lock


HOLD = """
import sys
from pathlib import Path
from alignkit.lifecycle.lock import locked
from alignkit.lifecycle.longer import steps_made
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_the_directory(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(AlignkitError, match=f"in use by process {holder.pid} on "):
            locked(tmp_path).__enter__()
        holder.kill()
    with locked(tmp_path):  # it ends with the process
        pass


# ---------------------------------------------------------------- signals


@pytest.fixture
def heard():
    """Signals as a terminal's processes have them; nohup and background jobs ignore some."""
    plain = {signal.SIGINT: signal.default_int_handler, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in plain.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_signal_interrupts_at_once_or_after_what_must_be_whole():
    done, signals = [], Signals()

    def work():
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("the rest of the block")
        done.append("went on")

    with pytest.raises(Interrupted) as error, signals.installed():
        work()
    assert done == ["the rest of the block"]
    assert (error.value.exit_status, error.value.state) == (143, "interrupted")
    with pytest.raises(Interrupted), Signals().installed():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize(
    ("name", "status", "state"),
    [
        ("SIGINT", 130, "interrupted"),
        ("SIGHUP", 129, "interrupted"),
        ("SIGUSR1", STOPPED, "stopped"),
        ("SIGUSR2", STOPPED, "stopped"),
        ("SIGXCPU", STOPPED, "stopped"),
    ],
)
def test_each_signal_has_its_status(name, status, state):
    with pytest.raises(Interrupted) as error, Signals().installed():
        signal.raise_signal(getattr(signal, name))
    assert (error.value.exit_status, error.value.state) == (status, state)
    assert str(error.value).startswith(f"{state} by {name}; ")


def test_an_interruption_that_something_swallowed_comes_again():
    signals = Signals()
    with signals.installed():
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(Interrupted):
            signals.poll()


def test_ignored_signals_stay_ignored():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Signals().installed():
            signal.raise_signal(signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_time_limit_wakes_a_waiting_process():
    signals, began = Signals(), time.monotonic()

    def wait():
        signals.stop_in(0.2, "stop_after = 0.2s")
        time.sleep(30)

    with signals.installed(), pytest.raises(Interrupted) as error:
        wait()
    assert 0.2 <= time.monotonic() - began < 20
    assert error.value.cause == "stop_after = 0.2s"
    assert error.value.exit_status == STOPPED


TWICE = """
import signal, sys, time
from alignkit.lifecycle.signals import Interrupted, Signals
signals = Signals()
with signals.installed():
    try:
        print("ready", flush=True)
        time.sleep(30)
    except Interrupted:
        signals.take()
        print("saving", flush=True)
        time.sleep(30)
"""


@pytest.mark.usefixtures("heard")
def test_a_second_signal_ends_the_process_at_once():
    began = time.monotonic()
    with subprocess.Popen([sys.executable, "-c", TWICE], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.stdout.readline() == b"saving\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert time.monotonic() - began < 25


REPEATED = """
import os, signal, sys, time
from alignkit.lifecycle.signals import Interrupted, Signals
signals, number = Signals(), int(sys.argv[1])
try:
    with signals.installed():
        try:
            os.kill(os.getpid(), number)
        except Interrupted:
            signals.take()
            print("saving", flush=True)
            time.sleep(1)
            print("saved", flush=True)
            raise
except Interrupted as interrupted:
    time.sleep(1)  # trackers are closed, and the interpreter
    os._exit(interrupted.exit_status)
"""


@pytest.mark.parametrize("name", ["SIGXCPU", "SIGUSR1", "SIGUSR2"])
def test_a_request_that_is_repeated_does_not_end_the_save(name):
    number = getattr(signal, name)
    command = [sys.executable, "-c", REPEATED, str(int(number))]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"saving\n"
        while process.poll() is None:
            time.sleep(0.15)  # longer than what counts as one
            process.send_signal(number)
        assert (process.wait(20), process.stdout.read()) == (STOPPED, b"saved\n")


@pytest.mark.usefixtures("heard")
def test_a_signal_to_end_counts_after_a_request_too():
    with subprocess.Popen([sys.executable, "-c", TWICE], stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == b"saving\n"
        time.sleep(0.2)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


def test_a_later_run_of_a_process_listens_again():
    for _ in range(2):
        with pytest.raises(Interrupted), Signals().installed():
            signal.raise_signal(signal.SIGXCPU)


@pytest.mark.parametrize(("saved", "status"), [(True, STOPPED), (False, 128 + signal.SIGUSR1)])
def test_stopped_to_be_resumed_means_that_a_checkpoint_is_there(tmp_path, plan, saved, status):
    class Stopped:
        def run(self, run):
            if saved:
                write(Store(run.dir / "checkpoints"), 1)
            signal.raise_signal(signal.SIGUSR1)

    manifest = Manifest.new(tmp_path, plan(), tmp_path / "r.toml", [])
    with pytest.raises(Interrupted) as error:
        carry_out(Stopped(), Run(tmp_path, {}), manifest)
    assert error.value.exit_status == status
    facts = json.loads((tmp_path / "manifest.json").read_text())
    assert facts["status"] == ("stopped" if saved else "interrupted")


# ---------------------------------------------------------------- fingerprints and resuming

TEXT = 'use = "toy"\n[loss]\nuse = "clip"\n[policy]\nuse = "weights"\npath = "w"\n'


@pytest.fixture
def plan(tmp_path, monkeypatch, registry):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.toml").write_text(TEXT)
    (tmp_path / "w").mkdir()
    (tmp_path / "w/model").write_text("1 2 3")
    return lambda *overrides: recipe.load(tmp_path / "toy.toml", registry, (), overrides)


def test_what_changes_numbers_is_named_and_nothing_else(plan, tmp_path):
    before = fingerprint(plan(), machine())
    assert differences(before, fingerprint(plan("trackers=[{use='log'}]"), machine())) == []
    assert differences(before, fingerprint(plan("loss.cliprange=0.3"), machine())) == [
        "recipe loss.cliprange"
    ]
    (tmp_path / "w/model").write_text("1 2 4")
    other = machine()
    other["versions"]["torch"] = "9.9"
    other["hardware"]["threads"] = 64
    found = differences(before, fingerprint(plan(), other))
    was = machine()
    assert found == [
        "file policy.path",
        f"version torch: 9.9, was {was['versions']['torch']}",
        f"hardware threads: 64, was {was['hardware']['threads']}",
    ]
    (tmp_path / "w").rename(tmp_path / "moved")
    (tmp_path / "moved/model").write_text("1 2 3")
    assert differences(before, fingerprint(plan("policy.path='moved'"), machine())) == []


def test_what_is_said_and_kept_of_a_run_may_change_before_it_is_resumed():
    recipe_file = Path(__file__).resolve().parents[2] / "recipes" / "grpo.toml"

    def sums(*overrides):
        node = recipe.load(recipe_file, plugins.load(), (), overrides)
        return fingerprint(node, machine())

    before = sums()
    harmless = ["checkpoint.every=5", "watch.steps=7", "trackers.0.every=3"]
    assert differences(before, sums(*harmless)) == []
    assert differences(before, sums(*harmless, "eval.every=3")) == ["recipe eval.every"]


def test_comments_and_docstrings_are_not_code(tmp_path):
    from alignkit.lifecycle.fingerprint import source_sum

    def summed(text):
        (tmp_path / "m.py").write_text(text)
        return source_sum(tmp_path / "m.py")

    plain = summed("def f(x):\n    return x + 1\n")
    assert plain == summed('"""Doc."""\n\n# why\ndef f(x):\n    """F."""\n    return x + 1\n')
    assert plain != summed("def f(x):\n    return x + 2\n")
    assert plain != summed("def f(x):\n    return x - 1\n")


@pytest.mark.parametrize("name", ["MKL_CBWR", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA"])
def test_variables_that_choose_how_a_cpu_sums_are_hardware(plan, name):
    bare, chosen = machine({}), machine({name: "avx2"})
    bare["hardware"]["gpus"] = chosen["hardware"]["gpus"] = []
    before, after = fingerprint(plan(), bare), fingerprint(plan(), chosen)
    assert differences(before, after) == [f"hardware {name}: avx2, was none"]
    assert differences(after, before) == [f"hardware {name}: none, was avx2"]
    del bare["hardware"]["kernels"]  # as it was written before there was this
    assert differences(fingerprint(plan(), bare), before) == []


@pytest.mark.parametrize("line", ['{"step": 9', "[]", "3", '{"step": "x"}', '{"step": Infinity}'])
def test_a_corrupt_row_at_the_end_is_named(tmp_path, line):
    rows = '{"step": 1}\n{"st\n{"step": 5}\n'
    (tmp_path / "metrics.jsonl").write_text(rows)
    assert steps_made(tmp_path) == 5
    (tmp_path / "metrics.jsonl").write_text(f"{rows}{line}\n\n")
    with pytest.raises(AlignkitError, match=r"the last line of .*metrics.jsonl is no row"):
        steps_made(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(f'{{"step": 7, "x": "{"a" * 300_000}"}}\n')
    assert steps_made(tmp_path) == 7


def test_the_files_of_a_plugin_are_its_code(tmp_path):
    from alignkit.lifecycle.fingerprint import _package

    for name, text in {"__init__.py": "x = 1", "words.txt": "a", "sub/m.py": "y = 2"}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__/m.pyc").write_text("compiled")
    (tmp_path / "README.md").write_text("guides explain code, they are none")
    before = dict(_package(tmp_path, "mine"))
    assert list(before) == ["mine", "mine.sub.m", "mine/words.txt"]
    (tmp_path / "words.txt").write_text("b")
    after = dict(_package(tmp_path, "mine"))
    assert [k for k in after if after[k] != before[k]] == ["mine/words.txt"]


@pytest.fixture
def broken_off(plan, tmp_path):
    """A run directory whose run failed after two rows."""
    with pytest.raises(RunFailed):
        execute(plan("fail=user"), tmp_path / "toy.toml", tmp_path / "out", ["alignkit", "run"])
    return tmp_path / "out"


def mend(folder):
    text = (folder / "recipe.toml").read_text()
    (folder / "recipe.toml").write_text(text.replace('fail = "user"', 'fail = ""'))


def test_changes_are_refused_unless_allowed_and_noted(broken_off, registry):
    mend(broken_off)
    with pytest.raises(AlignkitError) as error:
        resume(broken_off, registry, ["alignkit", "resume"])
    assert "  recipe fail\n" in str(error.value)
    assert "--allow-changes" in str(error.value)
    assert (broken_off / "error.txt").exists()  # nothing was touched
    assert resume(broken_off, registry, ["alignkit", "resume"], allow_changes=True)
    manifest = json.loads((broken_off / "manifest.json").read_text())
    assert manifest["status"] == "done"
    (noted,) = manifest["resumes"]
    assert (noted["checkpoint"], noted["first_step"]) == (None, 0)
    assert noted["changes"] == ["recipe fail"]
    steps = [json.loads(r)["step"] for r in (broken_off / "metrics.jsonl").read_text().splitlines()]
    assert steps == [0, 1]  # not 0, 1, 0, 1
    assert not (broken_off / "error.txt").exists()
    assert resume(broken_off, registry, []) is None  # it is finished


def test_run_points_to_resume(broken_off, plan, tmp_path):
    with pytest.raises(AlignkitError, match="go on with it: alignkit resume out"):
        execute(plan(), tmp_path / "toy.toml", broken_off, [])


def test_a_directory_that_was_left_before_anything_began_is_free(plan, tmp_path):
    (tmp_path / "out").mkdir()
    write_whole(tmp_path / "out/manifest.json", "{}")
    (tmp_path / "out/.recipe.toml.partial").write_text("use = ")
    assert execute(plan(), tmp_path / "toy.toml", tmp_path / "out", [])
    assert (tmp_path / "out/metrics.jsonl").read_text()


def test_what_is_no_run_cannot_be_resumed(tmp_path, registry):
    with pytest.raises(AlignkitError, match="holds no run that could be resumed"):
        resume(tmp_path, registry, [])


def test_a_run_goes_on_counting_rows_and_seconds(tmp_path):
    from alignkit.lifecycle.resume_point import Start, rewind

    run = Run(tmp_path, {})
    run.log(0, {"x": 1.0, "odd": float("nan")})
    size = run.logged_bytes()
    run.log(1, {"x": 2.0})
    for step in (0, 1):
        run.rows(step, "eval", [{"step": step}])
    run.close("failed")
    start = Start(tmp_path / "c", Mark(0, 1, size, 100.0))
    rewind(tmp_path, start)
    again = Run(tmp_path, {}, start)
    assert (again.first_step, again.logged_bytes()) == (1, size)  # one row, of x = 1
    assert again.elapsed() >= 100.0
    assert [p.name for p in (tmp_path / "eval").iterdir()] == ["step_000000.jsonl"]
    again.log(1, {"x": 3.0})
    again.close("done")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(r["step"], r["x"]) for r in rows] == [(0, 1.0), (1, 3.0)]
    assert rows[1]["time"] >= 100.0


def test_a_metrics_file_that_lost_rows_is_not_gone_on_with(tmp_path):
    from alignkit.lifecycle.resume_point import Start, rewind

    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    with pytest.raises(AlignkitError, match="rows were lost"):
        rewind(tmp_path, Start(tmp_path / "c", Mark(3, 0, 500, 1.0)))
