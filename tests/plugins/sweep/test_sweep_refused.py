"""Options of a sweep's jobs that nothing can use, and programs of a cluster that fail."""

import pytest
from click.testing import CliRunner

from alignkit.cli import main
from alignkit.errors import AlignkitError
from alignkit_sweep import slurm
from alignkit_sweep.launchers import Command
from alignkit_sweep.pbs import Pbs


@pytest.fixture
def qsub(place, monkeypatch):
    """Put a qsub on PATH; return its file."""
    tool = place / "qsub"
    tool.write_text("#!/bin/sh\necho 12.host\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=":")
    return tool


LINES = ["a\n#PBS -x", "a\rb", "a\x0bb", "a\u2028b", "a\x00", "a\udcff"]


@pytest.mark.parametrize("text", LINES, ids=ascii)
@pytest.mark.parametrize("launcher", [Pbs, slurm.Slurm], ids=["pbs", "slurm"])
def test_no_option_adds_a_line_to_the_script(place, qsub, launcher, text):
    key = {Pbs: "queue", slurm.Slurm: "partition"}[launcher]
    for out, options in ((place / "out", {key: text}), (place / text, {})):
        with pytest.raises(AlignkitError, match="cannot hold"):
            launcher(out, 1, options)


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"no program", "cannot start"), (b"#!/no/such/shell\n", "cannot start"),
     (b"#!/bin/sh\nprintf 'no \\377 way' >&2\nexit 3\n", "no . way"),
     (b"#!/bin/sh\n", "look for the job in the queue")],
    ids=["text", "shell missing", "no UTF-8", "silent"],
)  # fmt: skip
def test_a_broken_qsub_is_an_error(place, qsub, content, says):
    qsub.write_bytes(content)
    with pytest.raises(AlignkitError, match=says):
        Pbs(place / "out", 1, {}).start([Command([], [], place / "run", place / "run.log")])


@pytest.mark.parametrize("wrong", ["1:60:00", "1:00:60", "99999999999999999999:00:00"])
def test_a_walltime_has_sixty_minutes_to_the_hour(place, qsub, wrong):
    with pytest.raises(AlignkitError, match="walltime="):
        Pbs(place / "out", 1, {"walltime": wrong})


@pytest.mark.parametrize("option", ["setup=abc", "setup=5", "srun_args=7", "time=" + "9" * 5000],
                         ids=["text", "number", "list", "huge"])  # fmt: skip
def test_a_value_that_submitit_cannot_use_is_an_error(place, monkeypatch, option):
    (place / "s.toml").write_text('recipe = "alignkit:recipes/evaluate.toml"\n')
    for name in ("srun", "sbatch"):
        (place / name).write_text("#!/bin/sh\nexit 1\n")
        (place / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(place), prepend=":")
    words = ["sweep", "s.toml", "--launcher", "slurm", "--job", option]
    refused = CliRunner().invoke(main, words)
    assert (refused.exit_code, "slurm" in refused.stderr.lower()) == (2, True), refused.exception


def test_an_option_of_a_job_has_a_name(place):
    (place / "s.toml").write_text('recipe = "toy.toml"\n')
    refused = CliRunner().invoke(main, ["sweep", "s.toml", "--launcher", "pbs", "--job", "=x"])
    assert (refused.exit_code, "write KEY=VALUE" in refused.stderr) == (2, True)
