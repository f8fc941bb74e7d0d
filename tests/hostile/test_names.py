"""Names that become paths: refused alike wherever one comes in, or made harmless."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import tomli_w
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alignkit import recipe
from alignkit.cli import main
from alignkit.errors import AlignkitError, RecipeError
from alignkit.execution import Run
from alignkit.lifecycle.run_dir import folder_for
from alignkit.security.names import LONGEST, file_name, name_problem
from alignkit.security.text import printable
from alignkit_scaffold.scaffold import new_plugin
from alignkit_sweep.plans import default_folder
from alignkit_sweep.settings import Setting, label
from alignkit_sweep.variants import Sweep
from alignkit_trackers.delivered import Delivered

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
ROWS = {"use": "jsonl", "path": str(ROOT / "data/problems/test.jsonl")}
MANY = settings(
    max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)

FAULTY = {
    "empty": [""],
    "separators": ["a/b", "/etc", "a\\b", "/", "a/", "\\\\host\\share"],
    "dots": [".", "..", "../up", "../../../escape", ".hidden", "..x", "end.", "..\\up"],
    "control": ["a\nb", "\x1b[2J", "\0", "a\x7f", "\x9b31m", "\u202egnp.exe", "\t", "a\rb"],
    "devices": ["NUL", "con", "Aux.txt", "COM1", "lpt9.log", "CONIN$", "com¹"],
    "spaces": [" a", "a ", " "],
    "too long": ["n" * (LONGEST + 1), "é" * 128, "汉" * 86, "n" * 5000],
}
ALL = [name for names in FAULTY.values() for name in names]
made_up = st.one_of(
    st.sampled_from(ALL),
    st.tuples(
        st.text(max_size=8), st.sampled_from(["/", "\\", "\0", "\x1b", "\n"]), st.text(max_size=8)
    ).map("".join),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=300).filter(name_problem),
)


def set_of_training(name, folder, registry):
    table = {"extends": str(RECIPES / "grpo.toml"), "eval": {"sets": {name: {"data": ROWS}}}}
    load(table, folder, registry)


def set_of_evaluation(name, folder, registry):
    table = {"extends": str(RECIPES / "evaluate.toml"), "sets": {name: {"data": ROWS}}}
    load(table, folder, registry)


def term_of_a_reward(name, folder, registry):
    terms = {name: {"use": "r1_zero"}, "b": {"use": "question_only"}}
    table = {
        "extends": str(RECIPES / "grpo.toml"),
        "reward": {"use": "weighted_sum", "terms": terms},
    }
    load(table, folder, registry)


def part_of_a_data_set(name, folder, registry):
    data = {"use": "gsm8k", "path": str(folder), "split": name}
    load({"extends": str(RECIPES / "grpo.toml"), "data": data}, folder, registry)


def variant_of_a_sweep(name, folder, registry):
    table = {"recipe": str(RECIPES / "grpo.toml"), "variants": {name: {"set": {"seed": 3}}}}
    if name == "":
        raise AlignkitError("a table without a name is the sweep's own variant")
    (folder / "s.toml").write_bytes(tomli_w.dumps(table).encode())
    Sweep(folder / "s.toml", registry)


def rows_of_a_run(name, folder, registry):
    run = Run(folder, {})
    try:
        run.rows(1, f"../{name}", [{"a": 1}])
    finally:
        run.close("done")


def plugin(name, folder, registry):
    new_plugin(name, "loss_type", folder, registry)


def tracker(name, folder, registry):
    Delivered(SimpleNamespace(dir=folder, resumed=False), name)


def load(table, folder, registry):
    (folder / "r.toml").write_bytes(tomli_w.dumps(table).encode())
    recipe.load(folder / "r.toml", registry)


PLACES = [
    set_of_training, set_of_evaluation, term_of_a_reward, part_of_a_data_set, variant_of_a_sweep,
    rows_of_a_run, plugin, tracker,
]  # fmt: skip


def all_below(folder):
    return {p for p in folder.rglob("*")}


def check(place, name, tmp_path, registry):
    inner = tmp_path / "a" / "b" / "inner"
    inner.mkdir(parents=True, exist_ok=True)
    outside = all_below(tmp_path) - all_below(inner)
    with pytest.raises(AlignkitError) as refused:
        place(name, inner, registry)
    assert all_below(tmp_path) - all_below(inner) == outside
    said = printable(str(refused.value)).partition("\n")[0]
    assert len(said) < 700


@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.__name__)
@pytest.mark.parametrize("kind", FAULTY)
def test_a_name_that_can_be_no_file_is_refused(place, kind, tmp_path, registry):
    for name in FAULTY[kind]:
        check(place, name, tmp_path, registry)


@pytest.mark.parametrize("place", PLACES, ids=lambda p: p.__name__)
def test_made_up_names_are_refused_too(place, tmp_path, registry):
    @MANY
    @given(name=made_up)
    def refused(name):
        if name_problem(name):
            check(place, name, tmp_path, registry)

    refused()


@pytest.mark.parametrize("name", ["math", "gsm8k-hard", "AIME 2024", "d=3", "汉字", "é", "n" * 100])
def test_usual_names_are_taken(name, tmp_path, registry):
    set_of_training(name, tmp_path, registry)
    set_of_evaluation(name, tmp_path, registry)
    term_of_a_reward(name, tmp_path, registry)
    assert name_problem(name) == ""


def test_a_set_that_climbs_out_is_refused_by_a_dry_run_in_one_line(tmp_path):
    (tmp_path / "r.toml").write_text(
        f'extends = "{RECIPES}/sft.toml"\n[eval.sets."../../../out".data]\n'
        f'use = "jsonl"\npath = "{ROWS["path"]}"\n'
    )
    done = CliRunner().invoke(main, ["run", "r.toml", "--dry-run"])
    assert done.exit_code == 2
    wrong = "'../../../out' cannot be the name of a set: it has a separator"
    assert f"r.toml:2: eval.sets: {wrong}" in done.output
    assert done.output.count("cannot be") == 1


def test_a_set_named_as_the_file_of_a_step_is_refused(tmp_path, registry):
    with pytest.raises(RecipeError, match=r"'step_000001\.jsonl' .* the form step_\*, which"):
        set_of_training("step_000001.jsonl", tmp_path, registry)


@pytest.mark.parametrize("name", ["a\0b", "n" * 256, "x/\x1b[2Jy", "汉" * 90 + "/x"])
def test_a_file_to_write_that_cannot_be_is_refused(name, tmp_path, registry):
    table = {"extends": str(RECIPES / "grpo.toml"), "trackers": [{"use": "jsonl", "path": name}]}
    with pytest.raises(RecipeError, match="cannot be written: it has "):
        load(table, tmp_path, registry)


LONG = "n" * 300


@pytest.mark.parametrize(
    "words",
    [
        ["run", LONG], ["run", str(RECIPES / "sft.toml"), "--out", LONG], ["resume", LONG],
        ["run", str(RECIPES / "sft.toml"), "--with", LONG, "--dry-run"], ["report", LONG],
        ["show", LONG], ["grade", LONG, "--reward", "r1_zero"], ["init", LONG],
        ["sweep", LONG], ["explain", LONG],
        ["new-plugin", "x", "--kind", "loss_type", "--dest", LONG],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_an_over_long_path_is_a_mistake_in_the_command(words, tmp_path):
    done = CliRunner().invoke(main, words)
    assert done.exit_code == 2, done.output
    assert "Traceback" not in done.output
    assert "File name too long" in done.output
    assert list(tmp_path.iterdir()) == []


@MANY
@given(text=st.text(max_size=400) | made_up, room=st.integers(0, 100))
def test_any_text_can_name_a_file(text, room):
    name = file_name(text, room=room)
    assert name_problem(name, room=room) == ""
    assert file_name(name, room=room) == name


@MANY
@given(a=st.text("abc/", min_size=300), b=st.text("abc/", min_size=300))
def test_long_texts_keep_names_of_their_own(a, b):
    plain = [re.sub("/+", "_", text) for text in (a, b)]
    assert (file_name(a) == file_name(b)) == (plain[0] == plain[1])


@MANY
@given(values=st.lists(st.text(max_size=300) | st.integers(), min_size=1, max_size=9))
def test_the_folder_of_a_sweeps_setting_can_be_made(values):
    varied = [Setting(("set", f"key{i}"), v, "grid", None) for i, v in enumerate(values)]
    assert name_problem(label(varied)) == ""


def test_the_folders_of_files_with_long_names_can_be_made(tmp_path):
    long = tmp_path / ("n" * 250 + ".toml")
    assert name_problem(folder_for(None, long).name) == ""
    assert name_problem(folder_for(None, tmp_path / ("汉" * 80 + ".toml")).name) == ""
    assert name_problem(default_folder(long, [long, long]).name) == ""


def test_charts_of_any_metric_can_be_files(tmp_path):
    pytest.importorskip("matplotlib")
    names = ["../../up", "\x1b[2J", "NUL", "m" * 400, "eval/a/b"]
    assert all(name_problem(file_name(f"train/{n}", room=16), room=16) == "" for n in names)
