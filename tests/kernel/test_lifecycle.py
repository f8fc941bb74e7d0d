"""Locks, fingerprints and resuming: what a run's directory rests on."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from alignkit import plugins, recipe
from alignkit.errors import AlignkitError, RunFailed
from alignkit.execution import Run, carry_out, execute
from alignkit.lifecycle.checkpoints import Mark
from alignkit.lifecycle.files import write_whole
from alignkit.lifecycle.fingerprint import fingerprint
from alignkit.lifecycle.lock import locked
from alignkit.lifecycle.longer import steps_made
from alignkit.lifecycle.manifest import Manifest, machine
from alignkit.lifecycle.resume_point import differences, too_many
from alignkit.lifecycle.signals import STOPPED, Interrupted
from alignkit.resume import resume

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


def test_a_key_that_got_another_name_is_no_change(broken_off, registry, monkeypatch):
    loss = registry.get("loss_type", "clip")[1].params
    monkeypatch.setattr(loss, "renamed", {"old": ("cliprange", "0.2")}, raising=False)
    for name in ("recipe.toml", "fingerprint.json"):
        text = (broken_off / name).read_text()
        assert "cliprange" in text
        (broken_off / name).write_text(text.replace("cliprange", "old"))
    with pytest.raises(RunFailed, match="user"):  # it went on, and failed as before
        resume(broken_off, registry, ["alignkit", "resume"])
    recorded = broken_off / "recipe.toml"
    recorded.write_text(recorded.read_text().replace("old = 0.2", "old = 0.3"))
    with pytest.raises(AlignkitError, match=r"these have changed:\n  recipe loss.cliprange\nput"):
        resume(broken_off, registry, ["alignkit", "resume"])


def test_a_package_that_is_gone_is_named_with_its_version(broken_off, registry):
    manifest = json.loads((broken_off / "manifest.json").read_text())
    manifest["components"] = [
        {"dist": "alignkit", "version": "0.1"},
        {"dist": "alignkit-clip", "version": "1.2"},
        {"dist": "mine.py", "version": "0a1b2c"},
        {"dist": "x; rm -rf /", "version": "1"},
        {},
    ]
    (broken_off / "manifest.json").write_text(json.dumps(manifest))
    del registry.offers["loss_type", "clip"]
    with pytest.raises(AlignkitError, match="unknown loss_type 'clip'") as error:
        resume(broken_off, registry, ["alignkit", "resume"])
    said = "the run used alignkit-clip 1.2, not installed here: pip install alignkit-clip==1.2"
    assert str(error.value).splitlines()[-1] == said
    manifest["resumes"] = [{"versions": {"alignkit-clip": "1.3", "torch": "2"}}]
    (broken_off / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(AlignkitError, match=r"pip install alignkit-clip==1.3$"):
        resume(broken_off, registry, ["alignkit", "resume"])


def test_the_remedy_for_changes_repeats_the_new_length(tmp_path):
    found = ["recipe n_steps", "code mine"]
    said = str(too_many(found, tmp_path / "a run", [], ["n_steps=3"]))
    assert "these have changed:\n  code mine\nput" in said
    assert said.endswith("a run' -s n_steps=3 --allow-changes")


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


@pytest.mark.parametrize(("saved", "status"), [(True, STOPPED), (False, 128 + signal.SIGUSR1)])
def test_stopped_to_be_resumed_means_that_a_checkpoint_is_there(tmp_path, plan, saved, status):
    class Stopped:
        def run(self, run):
            if saved:
                (run.dir / "checkpoints" / "step_000001").mkdir(parents=True)
            signal.raise_signal(signal.SIGUSR1)

    manifest = Manifest.new(tmp_path, plan(), tmp_path / "r.toml", [])
    with pytest.raises(Interrupted) as error:
        carry_out(Stopped(), Run(tmp_path, {}), manifest)
    assert error.value.exit_status == status
    facts = json.loads((tmp_path / "manifest.json").read_text())
    assert facts["status"] == ("stopped" if saved else "interrupted")
