"""Where a command's output goes: ASCII, latin-1, closed, a full disk, a reader that goes away."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignkit.security.streams import Guarded, _into_nothing, guarded

ROOT = Path(__file__).resolve().parents[2]
TOY_RUN = f"""
import sys
from importlib.util import module_from_spec, spec_from_file_location
spec = spec_from_file_location("toys", {str(ROOT / "tests/fixtures/toys.py")!r})
toys = sys.modules["toys"] = module_from_spec(spec)
spec.loader.exec_module(toys)
from alignkit import plugins
plugins.load = lambda disable=(): toys.without_commands()
from alignkit.cli import main
main()
"""
ALIGNKIT, TOY = ["-m", "alignkit"], ["-c", TOY_RUN]
COMMANDS = {
    "run": (TOY, ["run", "toy.toml", "--out", "new"]),
    "dry-run": (TOY, ["run", "toy.toml", "--dry-run"]),
    "list-plugins": (ALIGNKIT, ["list-plugins"]),
    "list-plugins --json": (ALIGNKIT, ["list-plugins", "--json"]),
    "describe": (ALIGNKIT, ["describe", "loss_type", "grpo_clip"]),
    "explain": (ALIGNKIT, ["explain", str(ROOT / "recipes/grpo.toml")]),
    "report": (ALIGNKIT, ["report", "done", "--table"]),
    "show": (ALIGNKIT, ["show", "done"]),
    "grade": (ALIGNKIT, ["grade", "rows.jsonl", "--reward", "question_only", "--out", "v.jsonl"]),
    "sweep": (ALIGNKIT, ["sweep", "s.toml", "--list"]),
    "help": (ALIGNKIT, ["--help"]),
}


@pytest.fixture
def files(tmp_path):
    (tmp_path / "toy.toml").write_text('use = "toy"\n[loss]\nuse = "clip"\n')
    (tmp_path / "s.toml").write_text(f'recipe = "{ROOT}/recipes/sft.toml"\nabout = "π ≠ 汉字"\n')
    (tmp_path / "rows.jsonl").write_text('{"response": "\\\\boxed{π汉}", "answer": "π"}\n' * 3)
    run = tmp_path / "done"
    run.mkdir()
    rows = [{"step": i, "time": i / 2, "train/lossé汉": 1 / (i + 1)} for i in range(5)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (run / "manifest.json").write_text(json.dumps({"status": "done", "seconds": 2.0, "seed": 1}))
    (run / "recipe.toml").write_text('use = "sft"\n')
    return tmp_path


def shell(name, files, redirection, **environment):
    """Run a command as people type it; return its status, its stdout and its stderr."""
    start, words = COMMANDS[name]
    done = subprocess.run(
        ["bash", "-c", f'"$@" {redirection}', "bash", sys.executable, *start, *words],
        cwd=files, capture_output=True, check=False, timeout=120,
        env={**os.environ, "PYTHONWARNINGS": "ignore", **environment},
    )  # fmt: skip
    assert b"Traceback" not in done.stdout + done.stderr, done.stderr.decode()
    assert b"Exception ignored" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_a_stream_of_any_encoding_takes_what_is_said(name, encoding, files):
    status, out, err = shell(name, files, "", PYTHONIOENCODING=encoding, LC_ALL="C")
    assert (status, err) == (0, b"")
    assert out.decode(encoding)


@pytest.mark.parametrize("name", ["explain", "show"])
def test_what_an_encoding_lacks_is_written_as_an_escape(name, files):
    _, out, _ = shell(name, files, "", PYTHONIOENCODING="ascii")
    assert b"\\u" in out
    assert b"?\\u" not in out


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_closed_stdout_is_as_one_into_nothing(name, closed, files):
    assert shell(name, files, closed) == (0, b"", b"")
    if name == "run":
        # No file of the run has taken the place of stdout.
        assert json.loads((files / "new/manifest.json").read_text())["status"] == "done"
        for row in (files / "new/metrics.jsonl").read_text().splitlines():
            json.loads(row)


@pytest.mark.parametrize("name", COMMANDS)
def test_output_that_is_lost_to_a_full_disk_is_a_failure_said_in_one_line(name, files):
    status, _, err = shell(name, files, ">/dev/full")
    assert (status, err) == (1, b"cannot write to stdout: No space left on device\n")
    if name == "run":  # its work is done all the same
        assert json.loads((files / "new/manifest.json").read_text())["status"] == "done"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_reader_that_goes_away_is_no_failure(name, files):
    status, out, err = shell(name, files, "| head -c 1; exit ${PIPESTATUS[0]}")
    assert (status, len(out), err) == (0, 1, b"")


@pytest.mark.parametrize("name", ["run", "list-plugins", "show"])
def test_a_reader_that_reads_nothing_is_no_failure(name, files):
    assert shell(name, files, "| true; exit ${PIPESTATUS[0]}")[::2] == (0, b"")


@pytest.mark.parametrize("redirection", [">/dev/full", ">&-", "2>/dev/full", "2>&-", "| true"])
def test_a_command_that_fails_keeps_its_status(redirection, files):
    (files / "toy.toml").write_text('use = "bogus"\n')
    status, _, err = shell("run", files, f"{redirection}; exit ${{PIPESTATUS[0]}}")
    assert status == 2
    assert ("bogus" in err.decode()) == (not redirection.startswith("2>"))


def test_in_a_program_of_somebody_elses_streams_are_left_alone(capsys):
    from alignkit.cli import main

    before = sys.stdout
    main(["list-plugins"], standalone_mode=False)
    assert sys.stdout is before
    assert "PROVIDES" in capsys.readouterr().out


def test_the_first_failure_counts_and_nothing_more_is_written():
    class Full:
        written = 0

        def write(self, text):
            self.written += 1
            raise OSError(28, "No space left on device")

        def flush(self):
            raise AssertionError("there is nothing to flush")

        def fileno(self):
            raise ValueError("no descriptor")

    full = Full()
    stream = Guarded(full)
    assert stream.write("ab") == 2
    stream.writelines(["c", "d"])
    stream.flush()
    assert (full.written, stream.failure.errno) == (1, 28)


def test_streams_are_as_before_when_a_command_is_over(capsys):
    before = sys.stdout, sys.stderr
    with pytest.raises(SystemExit) as end, guarded():
        raise SystemExit(3)
    assert end.value.code == 3
    assert (sys.stdout, sys.stderr) == before


def test_a_descriptor_that_was_closed_leads_to_nothing(tmp_path):
    """Its number is the lowest free one, which the null device gets at once."""
    stream = (tmp_path / "output").open("w")
    number = stream.fileno()
    os.close(number)
    lower = []
    while (other := os.open(os.devnull, os.O_RDWR)) < number:
        lower.append(other)
    os.close(other)
    _into_nothing(stream)
    for descriptor in lower:
        os.close(descriptor)
    stream.write("lost")
    stream.close()  # flushes
    assert not (tmp_path / "output").read_text()
