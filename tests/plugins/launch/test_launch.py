"""Scripts of jobs: what they ask for, that they are sound shell, and how they are submitted."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from alignkit.cli import main
from alignkit.errors import AlignkitError
from alignkit_launch.job import TEMPLATES, Job, clock, seconds_in

SCHEDULERS = sorted(path.stem for path in TEMPLATES.glob("*.sh"))
GOLDEN = Path(__file__).parent / "golden"
RECIPE = "alignkit:recipes/sft.toml"
SHAPES = {
    "one": {},
    "card": {"gpus": 1, "memory": "64gb", "queue": "gpu", "account": "lab"},
    "node": {"gpus": 4, "processes": 4, "cpus": 8, "directives": ["--exclusive"]},
    "nodes": {"nodes": 2, "gpus": 8, "processes": 8, "seconds": 172_800, "grace": 300},
}


def job(scheduler, **changes):
    out = changes.get("out", Path("/lab/runs/it's mine"))
    values = {
        "begin": ["run", "/lab/a recipe.toml", "--out", str(out), "-s", 'name = "$HOME"'],
        "go_on": ["resume", str(out)], "out": out, "folder": Path("/lab"),
        "python": "/env/bin/python",
    }  # fmt: skip
    return Job(scheduler=scheduler, **{**values, **changes})


def launch(*words):
    return CliRunner().invoke(main, ["launch", *words])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scheduler", ["slurm", "pbs", "local"])
def test_the_script_is_the_one_that_was_read_over(scheduler, shape):
    if (scheduler, shape) == ("local", "nodes"):
        pytest.skip("this machine is one node")
    text = job(scheduler, **SHAPES[shape]).text()
    assert text == (GOLDEN / f"{scheduler}_{shape}.sh").read_text()


def test_every_template_is_offered():
    assert SCHEDULERS == ["local", "pbs", "slurm"]


def words_run(text, folder):
    """Run a script with programs that print their words; return the words of the last line."""
    cut = re.sub(r"^cd .*$", "", text, flags=re.M)
    names = ("srun", "timeout", "scontrol", "qsub")
    stand_ins = "".join(f"{name}() {{ printf '%s\\0' {name} \"$@\"; }}\n" for name in names)
    cut = stand_ins + cut.replace("exec timeout", "timeout")
    done = subprocess.run(["bash", "-c", cut], cwd=folder, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode().split("\0")


@given(
    st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), min_size=1),
    st.sampled_from(SCHEDULERS),
)
def test_every_word_reaches_the_command_as_it_was_given(word, scheduler):
    """Quotes, dollars, backslashes and spaces of paths and values mean nothing to the shell."""
    text = job(scheduler, begin=["run", word, "--out", "x"], out=Path("/nowhere/x")).text()
    found = words_run(text, "/")
    assert found[found.index("run") + 1] == word


def job_with(**values):
    return job("slurm", **values)


def test_a_path_with_a_line_break_is_refused():
    for bad in ({"out": Path("/lab/a\nb")}, {"directives": ["--x\n#SBATCH --y"]},
                {"queue": "a\nb"}):  # fmt: skip
        with pytest.raises(AlignkitError, match="cannot hold"):
            job_with(**bad)


def test_no_grace_longer_than_the_job():
    with pytest.raises(AlignkitError, match="--grace 120"):
        job_with(seconds=120)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_run_that_is_there_is_resumed(tmp_path, scheduler):
    made = job(scheduler, out=tmp_path / "run")
    assert "resume" not in words_run(made.text(), tmp_path)
    made.out.mkdir()
    (made.out / "recipe.toml").write_text("")
    assert words_run(made.text(), tmp_path)[-3:-1] == ["resume", str(made.out)]


@pytest.mark.parametrize(("scheduler", "again"), [("slurm", "scontrol"), ("pbs", "qsub")])
@pytest.mark.parametrize("status", [0, 1, 75, 143])
def test_only_a_run_that_stopped_to_be_resumed_is_queued_again(
    tmp_path, program, scheduler, again, status
):
    asked = program(again)
    program("srun", status=status)
    program("timeout", status=status)
    made = job(scheduler, out=tmp_path / "run", folder=tmp_path)
    done = subprocess.run(
        ["bash", "-c", made.text()], env={"PATH": f"{tmp_path}/bin:/usr/bin:/bin",
                                          "SLURM_JOB_ID": "7", "PBS_JOBID": "7.host"},
        check=False,
    )  # fmt: skip
    assert done.returncode == status
    wanted = {"scontrol": ["requeue", "7"], "qsub": [str(made.script)]}[again]
    assert (asked.read_text().splitlines() if asked.exists() else None) == (
        wanted if status == 75 else None
    )


@pytest.mark.parametrize("stopped", [True, False])
def test_ranks_under_pbs_are_queued_again_by_what_their_run_noted(tmp_path, program, stopped):
    """torchrun ends with 1 either way; an old note of a stop does not count."""
    asked = program("qsub")
    made = job("pbs", out=tmp_path / "run", folder=tmp_path, processes=2)
    made.out.mkdir()
    manifest = made.out / "manifest.json"
    manifest.write_text('{"status": "stopped"}')
    tool = tmp_path / "bin" / "timeout"
    tool.write_text(f"#!/bin/sh\n{f'sleep 0.05; touch {manifest}' if stopped else ''}\nexit 1\n")
    tool.chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "PBS_JOBID": "7.host"}
    done = subprocess.run(["bash", "-c", made.text()], env=environment, check=False)
    assert (done.returncode, asked.exists()) == ((75, True) if stopped else (1, False))


def test_the_script_is_shown_and_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = launch(RECIPE, "--gpus", "2", "--time", "1-00:00:00", "--out", "run")
    assert shown.exit_code == 0
    assert "#SBATCH --ntasks-per-node=2" in shown.stdout
    assert "#SBATCH --time=24:00:00" in shown.stdout
    assert "Not submitted" in shown.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_recipe_never_reaches_the_queue(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    asked = program("sbatch", "12")
    wrong = launch(RECIPE, "-s", "epoch=3", "--submit", "--yes")
    assert wrong.exit_code == 2
    assert "Did you mean 'epochs'?" in wrong.stderr
    assert not asked.exists()


@pytest.mark.parametrize(("scheduler", "tool"), [("slurm", "sbatch"), ("pbs", "qsub")])
def test_submission_keeps_the_script_and_says_the_job(
    tmp_path, monkeypatch, program, scheduler, tool
):
    monkeypatch.chdir(tmp_path)
    asked = program(tool, "4711;cluster")
    words = (RECIPE, "--scheduler", scheduler, "--out", "run", "--submit")
    said = CliRunner().invoke(main, ["launch", *words], input="n\n")
    assert (said.exit_code, asked.exists()) == (1, False)
    said = CliRunner().invoke(main, ["launch", *words], input="y\n")
    script = tmp_path / f"run.{scheduler}.sh"
    assert f"job 4711: {script}" in said.stdout
    assert asked.read_text().splitlines()[-1] == str(script)
    assert script.read_text() in said.stdout + "\n"


def test_a_script_that_was_edited_is_not_lost(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    program("sbatch", "5")
    words = (RECIPE, "--out", "run", "--submit", "--yes")
    script = tmp_path / "run.slurm.sh"
    for n in (1, 2):
        script.write_text(f"my own {n}")
        said = launch(*words)
        assert f"was renamed to run.slurm.sh.{n}" in said.stderr
        assert (tmp_path / f"run.slurm.sh.{n}").read_text() == f"my own {n}"
    assert "is now" not in launch(*words).stderr


def test_a_refusal_of_the_scheduler_is_an_error(tmp_path, monkeypatch, program):
    monkeypatch.chdir(tmp_path)
    program("sbatch", status=1, complains="invalid partition")
    refused = launch(RECIPE, "--submit", "--yes", "--queue", "gpuu")
    assert refused.exit_code == 1
    assert "invalid partition" in refused.stderr


def test_without_the_scheduler_it_says_where_to_submit(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    told = launch(RECIPE, "--submit", "--yes")
    assert told.exit_code == 2
    assert (
        "sbatch is not on this machine; submit runs/sft.slurm.sh on one that has it" in told.stderr
    )


def test_a_template_of_ones_own_is_filled_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    printed = launch(RECIPE, "--show-template", "--scheduler", "pbs").stdout
    assert printed.rstrip("\n") == (TEMPLATES / "pbs.sh").read_text().rstrip("\n")
    own = tmp_path / "own.sh"
    own.write_text("#!/bin/bash\nmodule load cuda # {{ job.gpus }}\n{{ job.begin | q }}\n")
    shown = launch(RECIPE, "--template", str(own), "--gpus", "3", "--out", "a b").stdout
    assert "module load cuda # 3\nrun " in shown
    assert shlex.quote(str(tmp_path / "a b")) in shown
    own.write_text("{{ job.gpu }}")
    wrong = launch(RECIPE, "--template", str(own))
    assert (wrong.exit_code, "own.sh cannot be filled in" in wrong.stderr) == (2, True)


def test_a_folder_of_something_else_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "1.png").touch()
    refused = launch(RECIPE, "--out", "photos")
    assert (refused.exit_code, "holds no run" in refused.stderr) == (2, True)


def test_this_machine_is_one_node(tmp_path):
    refused = launch(RECIPE, "--scheduler", "local", "--nodes", "2")
    assert (refused.exit_code, "set --nodes 1" in refused.stderr) == (2, True)


@given(st.integers(1, 999 * 86_400))
def test_a_time_is_read_as_it_is_written(seconds):
    days, rest = divmod(seconds, 86_400)
    assert seconds_in(clock(rest)) == rest
    assert seconds_in(f"{days}-{clock(rest)}") == seconds


@pytest.mark.parametrize(
    "text", ["90", "1:30", "1:60:00", "1:00:60", "-1:00:00", "1:0:0", "٣:00:00"]
)
def test_what_is_no_time_is_refused(text):
    assert launch(RECIPE, "--time", text).exit_code == 2


@pytest.mark.parametrize(
    "text",
    ["{{ 1 / 0 }}", "{{ job.nodes | q }}", "{{ job.nodes() }}", "{{ job.nope }}", "{{ (",
     "{% include 'x' %}", "{{ job.out < 3 }}", "{{ job.seconds | clock(2) }}",
     "{{ job.directives[9].x }}", "{% set ns.a = 1 %}"],
)  # fmt: skip
def test_a_template_that_fails_in_any_way_is_named(tmp_path, text):
    own = tmp_path / "own.sh"
    own.write_text(text)
    with pytest.raises(AlignkitError, match=r"own\.sh cannot be filled in"):
        job("slurm").text(own)


def test_a_template_that_cannot_be_read_is_named(tmp_path):
    for unreadable in (tmp_path, tmp_path / "missing.sh"):
        with pytest.raises(AlignkitError, match="cannot read"):
            job("slurm").text(unreadable)


@pytest.mark.parametrize(("scheduler", "tool"), [("slurm", "sbatch"), ("pbs", "qsub")])
@pytest.mark.parametrize(
    ("content", "status", "says"),
    [(b"no program", 2, "cannot start"), (b"#!/no/such/shell\n", 2, "cannot start"),
     (b"#!/bin/sh\nprintf 'no \\377 way' >&2\nexit 3\n", 1, "refused"),
     (b"#!/bin/sh\nprintf 'all well' >&2\n", 1, "look for the job in the queue: all well")],
    ids=["text", "shell missing", "no UTF-8", "silent"],
)  # fmt: skip
def test_a_broken_program_of_the_scheduler_is_an_error(
    tmp_path, monkeypatch, scheduler, tool, content, status, says
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    (tmp_path / tool).write_bytes(content)
    (tmp_path / tool).chmod(0o755)
    told = launch(RECIPE, "--scheduler", scheduler, "--out", "run", "--submit", "--yes")
    assert (told.exit_code, says in told.stderr) == (status, True)


def test_a_file_is_no_run_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes").touch()
    refused = launch(RECIPE, "--out", "notes")
    assert (refused.exit_code, "notes is a file" in refused.stderr) == (2, True)


@pytest.mark.parametrize("words", ["begin", "go_on"])
def test_a_word_that_is_no_text_is_refused(words):
    """A script is UTF-8; a path of other bytes cannot stand in it."""
    with pytest.raises(AlignkitError, match="UTF-8"):
        job_with(**{words: ["run", "/lab/r\udcff.toml"]})
