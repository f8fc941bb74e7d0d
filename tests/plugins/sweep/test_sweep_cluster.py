"""Sweeps as job arrays: of a made-up PBS, and of a real SLURM."""

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignkit.cli import main
from alignkit.errors import AlignkitError
from alignkit_sweep import pbs, slurm
from alignkit_sweep.launchers import Command
from alignkit_sweep.pbs import Pbs

TOOLS = {
    "qsub": """
import json, os, pathlib, re, subprocess, sys
state = pathlib.Path({state!r})
if (state / "refuse").exists():
    sys.exit("qsub: Unknown queue")
number = len(list(state.glob("*.json"))) + 7
text = pathlib.Path(sys.argv[1]).read_text()
array = re.search(r"^#PBS -J 0-(\\d+)%(\\d+)$", text, re.M)
pids = []
for n in range(int(array[1]) + 1 if array else 1):
    extra = {{"PBS_ARRAY_INDEX": str(n)}} if array else {{}}
    child = subprocess.Popen(["bash", sys.argv[1]], env={{**os.environ, **extra}},
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    pids.append(child.pid)
(state / f"{{number}}.json").write_text(json.dumps(pids))
print(f"{{number}}[].host" if array else f"{{number}}.host")
""",
    "qsig": """
import json, os, pathlib, re, signal, sys
number, index = re.match(r"(\\d+)(?:\\[(\\d+)\\])?", sys.argv[3]).groups()
pids = json.loads((pathlib.Path({state!r}) / f"{{number}}.json").read_text())
for folder in pathlib.Path("/proc").glob("[0-9]*"):  # the whole session, as PBS does
    try:
        if os.getsid(int(folder.name)) == pids[int(index or 0)]:
            os.kill(int(folder.name), getattr(signal, sys.argv[2]))
    except ProcessLookupError:
        pass
""",
    "qdel": "import sys; sys.exit(0)",
    "qstat": "import sys; sys.exit(35)",
}


@pytest.fixture
def cluster(place, monkeypatch):
    """Put a PBS on PATH that starts what is submitted at once; return its folder."""
    state = place / "pbs"
    state.mkdir()
    monkeypatch.setattr(pbs, "POLL", 0.01)
    for name, text in TOOLS.items():
        file = state / name
        file.write_text(f"#!{sys.executable} -IS\n{text.format(state=str(state))}")
        file.chmod(0o755)
    monkeypatch.setenv("PATH", str(state), prepend=":")
    return state


def test_the_runs_of_a_sweep_are_one_array_and_what_follows_another(sweep, make, place, cluster):
    text = (
        'recipe = "toy.toml"\nseeds = [0, 1]\n[variants.first]\ngrid.n = [4, 8]\n'
        '[variants.next]\nbest_of = "first"\nset.group = 1\n'
    )
    made = make(sweep(text), launcher=Pbs(place / "out", 2, {"queue": "short"}))
    assert made.failures == []
    assert [run.status for run in made.plans.finished()] == ["done"] * 6
    scripts = [place / "out" / ".pbs" / n / "array.sh" for n in ("1", "2")]
    assert "#PBS -J 0-3%2\n" in scripts[0].read_text()
    assert "#PBS -J 0-1%2\n" in scripts[1].read_text()
    assert "#PBS -q short\n" in scripts[0].read_text()
    again = make(sweep(text), launcher=Pbs(place / "out", 2, {}))
    assert again.started == []


def test_a_single_run_is_no_array(sweep, make, place, cluster):
    made = make(sweep('recipe = "toy.toml"\n'), launcher=Pbs(place / "out", 1, {}))
    assert [run.status for run in made.plans.finished()] == ["done"]
    assert "-J" not in (place / "out" / ".pbs" / "1" / "array.sh").read_text()


def test_a_run_that_fails_is_said_with_its_output(sweep, make, place, cluster):
    text = 'recipe = "toy.toml"\nseeds = [0, 1]\n[set]\nfail = "die"\n'
    made = make(sweep(text), launcher=Pbs(place / "out", 9, {}))
    assert len(made.failures) == 2
    assert "the moon is missing" in made.failures[0]


def test_a_refused_submission_is_an_error(sweep, make, place, cluster):
    (cluster / "refuse").touch()
    with pytest.raises(AlignkitError, match="Unknown queue"):
        make(sweep('recipe = "toy.toml"\n'), launcher=Pbs(place / "out", 1, {"queue": "x"}))


STOPPER = """
import sys
from pathlib import Path
Path(sys.argv[2]).mkdir(exist_ok=True)
(Path(sys.argv[2]) / "recipe.toml").touch()
print(sys.argv[1], flush=True)
sys.exit(75 if sys.argv[1] == "begin" else 0)
"""


def command_in(place, name="run"):
    words = [[sys.executable, "-IS", "-c", STOPPER, w, str(place / name)] for w in ("begin", "on")]
    return Command(words[0], words[1], place / name, place / f"{name}.log")


def ends(job):
    end = time.monotonic() + 30
    while job.poll() is None:
        assert time.monotonic() < end
        time.sleep(0.02)
    return job.poll()


def test_a_run_that_stops_at_its_time_limit_is_submitted_again_and_resumes(place, cluster):
    jobs = Pbs(place / "out", 9, {}).start([command_in(place, "one"), command_in(place, "it's 2")])
    assert [ends(job) for job in jobs] == [0, 0]
    assert (place / "one.log").read_text().split() == ["begin", "on"]
    assert (place / "it's 2.log").read_text().split() == ["begin", "on"]


def test_a_job_that_vanishes_is_a_failure_and_no_endless_wait(place, cluster, monkeypatch):
    monkeypatch.setattr(pbs, "ASK", 0.1)
    (cluster / "qsub").write_text("#!/bin/sh\necho 12.host\n")
    (job,) = Pbs(place / "out", 1, {}).start([command_in(place)])
    assert ends(job) == 1


def test_a_running_job_gets_the_signal_and_a_waiting_one_is_taken_back(place, cluster):
    words = [sys.executable, "-IS", "-c", "import time; time.sleep(60)"]
    slow = Command(words, words, place / "slow", place / "slow.log")
    (job,) = Pbs(place / "out", 1, {}).start([slow])
    while not job.began():
        time.sleep(0.02)
    time.sleep(0.2)
    job.signal(signal.SIGTERM)
    assert job.wait(20)
    assert ends(job) == 143
    (cluster / "qsub").write_text("#!/bin/sh\necho 12.host\n")
    (waiting,) = Pbs(place / "out", 1, {}).start([slow])
    waiting.signal(signal.SIGTERM)
    assert (waiting.wait(0), waiting.poll()) == (True, 143)


def test_the_script_of_an_array_is_the_one_that_was_read_over(place, cluster, monkeypatch):
    monkeypatch.chdir("/")
    array = Pbs(Path("/lab/sweep"), 4, {"walltime": "1:00:00", "account": "lab",
                                         "select": "1:ncpus=4:ngpus=1"})  # fmt: skip
    runs = [
        Command(["python", "run", f"it's {n}"], [], Path(f"/none/{n}"), Path(f"/logs/a {n}.log"))
        for n in range(2)
    ]
    golden = Path(__file__).parent / "array.pbs.sh"
    assert array.script(runs, Path("/lab/sweep/.pbs/1")) == golden.read_text()


def test_the_folder_of_an_array_is_one_word(place, cluster):
    text = Pbs(Path("/my lab/it's"), 1, {}).script([command_in(place)], Path("/my lab/it's/.pbs/1"))
    assert '#PBS -o "/my lab/it\'s/.pbs/1"\n' in text


def test_a_folder_that_no_directive_can_name_is_refused(place, cluster):
    with pytest.raises(AlignkitError, match="both kinds of quotes"):
        Pbs(place / """it's "mine\"""", 1, {})


@pytest.mark.parametrize(
    "asked",
    ["select=2:ncpus=4", "select=1:ncpus=4:mpiprocs=4", "select=1:a=b+1:c=d", "nodes=2:ppn=1",
     "nodes=12", "nodes=1:ppn=10"],
)  # fmt: skip
def test_several_processes_for_a_run_are_refused_by_pbs(place, cluster, asked):
    with pytest.raises(AlignkitError, match="alignkit launch RECIPE"):
        Pbs(place / "out", 1, dict([asked.split("=", 1)]))


def test_several_cores_and_cards_are_no_several_processes(place, cluster):
    Pbs(place / "out", 1, {"select": "1:ncpus=16:ngpus=4:mpiprocs=1", "nodes": "1:ppn=1"})


@pytest.mark.parametrize("asked", [{"nodes": 2}, {"ntasks_per_node": 4}], ids=str)
def test_several_processes_for_a_run_are_refused_by_slurm(place, asked):
    with pytest.raises(AlignkitError, match="alignkit launch RECIPE"):
        slurm.Slurm(place / "out", 1, asked)


def test_a_sweep_under_torchrun_is_refused(place, monkeypatch):
    (place / "s.toml").write_text('recipe = "alignkit:recipes/sft.toml"\n')
    monkeypatch.setenv("WORLD_SIZE", "2")
    done = CliRunner().invoke(main, ["sweep", str(place / "s.toml"), "--list"])
    assert done.exit_code
    assert "torchrun is for one run" in str(done.exception) + done.output


@pytest.mark.parametrize("wrong", ["90", "1:00", "0:02:00", "-1:00:00"])
def test_a_walltime_that_is_none_is_refused(place, cluster, wrong):
    with pytest.raises(AlignkitError, match="walltime="):
        Pbs(place / "out", 1, {"walltime": wrong})


def test_what_a_launcher_lacks_is_said_before_anything_is_made(place, monkeypatch):
    (place / "s.toml").write_text('recipe = "alignkit:recipes/sft.toml"\n')
    monkeypatch.setenv("PATH", str(place))
    for words, told in (
        (("--launcher", "pbs"), "qsub is not on this machine"),
        (("--launcher", "slurm"), "are you indeed on a slurm cluster"),
        (("--job", "time=3"), "--job is for --launcher"),
        (("--launcher", "pbs", "--job", "time"), "write KEY=VALUE"),
    ):
        refused = CliRunner().invoke(main, ["sweep", "s.toml", *words])
        assert refused.exit_code == 2
        assert told in refused.stderr
    assert not (place / "runs").exists()


def test_an_unknown_option_of_slurm_is_refused(place, monkeypatch):
    (place / "srun").write_text("#!/bin/sh\n")
    (place / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", str(place))
    with pytest.raises(AlignkitError, match="partitoin"):
        slurm.Slurm(place / "out", 1, {"partitoin": "gpu"})


SMALL = """
n_steps = 6
rollout_batch_size = 16
train_batch_size = 16
group_size = 4
[rollout]
use = "hf"
max_tokens = 24
[eval]
n = 4
"""


@pytest.mark.slow
def test_an_array_of_slurm_makes_the_runs_that_are_made_here(tmp_path, slurm, lasting_rows):
    """One of its elements is pre-empted on the way, saves its state and is queued again."""
    (tmp_path / "small.toml").write_text(SMALL)
    (tmp_path / "s.toml").write_text('recipe = "alignkit:recipes/grpo.toml"\nseeds = [0, 1]\n')
    command = [sys.executable, "-m", "alignkit", "sweep", "s.toml", "--with", "small.toml"]
    words = {
        "here": ["--jobs", "1"],
        "array": ["--launcher", "slurm", "--job", "time=5", "--job", "cpus_per_task=2"],
    }
    told = {}

    def run(name):
        told[name] = subprocess.run(
            [*command, "--out", name, *words[name]], cwd=tmp_path, env=slurm, capture_output=True,
            text=True, check=False, timeout=300,
        )  # fmt: skip

    run("here")
    sweep = threading.Thread(target=run, args=["array"])
    sweep.start()
    folder = tmp_path / "array"
    end = time.monotonic() + 120
    while len(lasting_rows(next(folder.glob("*/seed_0"), folder))) < 2:
        assert time.monotonic() < end, told
        time.sleep(0.1)
    (first,) = {p.name.split("_")[0] for p in (folder / ".slurm").glob("*_0_0_log.out")}
    subprocess.run(["scancel", "--signal=USR2", f"{first}_0"], env=slurm, check=True)
    sweep.join()
    for name in words:
        assert told[name].returncode == 0, told[name].stdout + told[name].stderr
    runs = sorted(p.relative_to(folder) for p in folder.glob("*/seed_*") if p.is_dir())
    assert len(runs) == 2
    for run_ in runs:
        assert lasting_rows(folder / run_) == lasting_rows(tmp_path / "here" / run_)
    logs = [p.read_text() for p in folder.glob("*/seed_*.log")]
    assert sum("stopped by SIGUSR2" in log for log in logs) == 1
