"""Escape sequences from recipes, data, model output and errors never reach a terminal."""

import ast
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomli_w
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from alignkit.cli import main
from alignkit.errors import AlignkitError
from alignkit.execution import Run
from alignkit.security.text import printable, say
from alignkit.text_table import aligned
from alignkit_trackers.console import ConsoleTracker

ROOT = Path(__file__).resolve().parents[2]
EVIL = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202eabc\r\b\x7f"
"""Clears a screen, names its window, colours, turns text round, writes over what was said."""
ACTS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def output(words):
    done = CliRunner().invoke(main, [str(w) for w in words])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert "x1b[2J" in done.output, done.output  # it is shown, not swallowed
    return done


def harmless(words, status=0):
    done = output(words)
    assert done.exit_code == status, done.output
    assert not ACTS.search(done.output), ascii(done.output)


@pytest.fixture
def run_dir(tmp_path):
    folder = tmp_path / "done"
    (folder / "rollouts").mkdir(parents=True)
    rows = [{"step": i, "time": i / 2, f"train/{EVIL}": 1.0, "train/loss": i} for i in range(4)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    facts = {"status": "failed", "seconds": 2.0, "seed": 1, "recipe": EVIL, "reason": EVIL}
    (folder / "manifest.json").write_text(json.dumps(facts))
    (folder / "recipe.toml").write_bytes(tomli_w.dumps({"use": "sft", "note": EVIL}).encode())
    sample = {"prompt": EVIL, "response": EVIL, "gold": EVIL, "reward": 1.0}
    (folder / "rollouts/step_000001.jsonl").write_text(json.dumps(sample) + "\n")
    (folder / "error.txt").write_text(f"ValueError: {EVIL}")
    return folder


def recipe(folder, table):
    (folder / "r.toml").write_bytes(tomli_w.dumps(table).encode())
    return folder / "r.toml"


@pytest.mark.parametrize(
    "change",
    [
        {EVIL: 1}, {"seed": EVIL}, {"use": EVIL}, {"data": {"use": "jsonl", "path": EVIL}},
        {"policy": {"use": "hf", "path": EVIL, EVIL: 1}}, {"extends": EVIL},
        {"eval": {"sets": {EVIL: {"data": {"use": "jsonl", "path": EVIL}}}}},
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["run", "explain"])
def test_what_is_wrong_with_a_recipe(change, command, tmp_path):
    table = {"extends": str(ROOT / "recipes/sft.toml"), **change}
    words = [command, recipe(tmp_path, table), *(["--dry-run"] if command == "run" else [])]
    harmless(words, 2)
    harmless(["sweep", recipe(tmp_path, {EVIL: 1}), "--list"], 2)


@pytest.mark.parametrize("command", ["run", "explain"])
def test_the_values_of_a_plan(command, tmp_path):
    table = {"extends": str(ROOT / "recipes/sft.toml"), "reward": {"use": "question_only"}}
    del table["reward"]
    table["trackers"] = [{"use": "wandb", "project": EVIL}]
    done = CliRunner().invoke(
        main, [command, str(recipe(tmp_path, table)), *(["--dry-run"] if command == "run" else [])]
    )
    assert done.exit_code == 0, done.output
    assert not ACTS.search(done.output)


def test_overrides_and_names_on_the_command_line(tmp_path):
    good = ROOT / "recipes/sft.toml"
    harmless(["run", good, "--dry-run", "-s", f"{EVIL}=1"], 2)
    harmless(["run", good, "--dry-run", "-s", f"n_steps='{EVIL}'"], 2)
    harmless(["describe", "loss_type", EVIL], 2)
    harmless(["new-plugin", EVIL, "--kind", "loss_type"], 2)
    harmless(["run", tmp_path / EVIL, "--dry-run"], 2)
    harmless(["resume", tmp_path / EVIL], 2)
    harmless(["show", tmp_path / EVIL], 2)


def test_rows_that_are_graded(tmp_path):
    rows = [{"response": EVIL, "answer": EVIL, "id": EVIL}, {"response": "1", "answer": "1"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    done = CliRunner().invoke(main, ["grade", "rows.jsonl", "--reward", "question_only"])
    assert done.exit_code == 0
    assert not ACTS.search(done.output)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"response": "1", EVIL: "1"}) + "\n")
    harmless(["grade", "rows.jsonl", "--reward", "question_only"], 2)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"question": EVIL, "answer": ""}) + "\n")


def test_the_story_and_the_tables_of_a_run(run_dir, tmp_path):
    (tmp_path / EVIL.replace("/", "")).mkdir()
    for words in (["show", run_dir], ["report", run_dir, "--table"]):
        done = CliRunner().invoke(main, [str(w) for w in words])
        assert done.exit_code == 0, done.output
        assert not ACTS.search(done.output), ascii(done.output)
    page = (run_dir / "report.html").read_text()
    assert not ACTS.search(page)


def test_tables_on_a_terminal(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    assert not ACTS.search(aligned(("A", EVIL), [(EVIL, "[red]b")]))


def test_what_a_run_says(tmp_path, capsys):
    run = Run(tmp_path, {})
    run.say(f"a judge said {EVIL}")
    said = []
    run.printer = said.append
    run.say(EVIL)
    run.close("done")
    assert not ACTS.search(capsys.readouterr().out + said[0])


def test_the_live_display_shows_names_of_metrics_printable(tmp_path):
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=200)
    tracker = ConsoleTracker(["*"], 1, console)
    run = Run(tmp_path, {})
    tracker.start(run)
    tracker.log(0, {"time": 1.0, f"train/{EVIL}": 1.0, f"eval/{EVIL}": 2.0})
    tracker.close("done")
    run.close("done")
    for piece in ("\x1b[2J", "\x1b]0;", "\x9b", "\u202e", "\b", "\x07"):
        assert piece not in file.getvalue()


def test_errors_of_components(tmp_path):
    (tmp_path / "judge.py").write_text(f"raise ValueError({EVIL!r})\n")
    (tmp_path / "rows.jsonl").write_text('{"response": "1", "answer": "1"}\n')
    table = {"reward": {"use": "python", "file": "judge.py"}}
    words = ["grade", "rows.jsonl", "--reward", recipe(tmp_path, table)]
    done = CliRunner().invoke(main, [str(w) for w in words])
    assert done.exit_code != 0
    assert not ACTS.search(done.output), ascii(done.output)


def test_operating_system_errors(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError(5, f"Input/output error {EVIL}", EVIL)

    monkeypatch.setattr("alignkit.listing.as_text", fail)
    harmless(["list-plugins"], 1)
    monkeypatch.setattr("alignkit.listing.as_text", lambda *_, **__: raised(AlignkitError(EVIL)))
    harmless(["list-plugins"], 2)


def raised(error):
    raise error


@given(st.text())
def test_nothing_printable_acts_and_all_of_it_can_be_written(text):
    shown = printable(text)
    assert not ACTS.search(shown)
    assert printable(shown) == shown
    shown.encode()


def test_halves_of_characters_can_be_said(capsys):
    say("\ud800 is half a character")
    say("\udcff", err=True)
    assert capsys.readouterr() == ("\\ud800 is half a character\n", "\\udcff\n")


PRINTING = {
    "alignkit/security/text.py", "alignkit/security/streams.py",
    "alignkit/data_files/progress.py",  # made printable there: its line is written over
    "plugins/alignkit_vllm/watchdog.py",  # made printable there: the line goes to a file as well
    "plugins/alignkit_vllm/guard.py",  # the key of the server that it serves
    "plugins/alignkit_environments/jail.py",  # runs in the sandbox: a pipe takes it
}  # fmt: skip


def test_what_is_printed_is_printed_by_one_function():
    found = set()
    for path in [*ROOT.glob("alignkit/**/*.py"), *ROOT.glob("plugins/alignkit_*/**/*.py")]:
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if called in ("print", "click.echo", "click.secho", "sys.stdout.write"):
                found.add(name)
    assert found == PRINTING, SimpleNamespace(more=found - PRINTING, fewer=PRINTING - found)
