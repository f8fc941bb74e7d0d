"""Merging of recipe files, and the line every value is remembered by."""

import textwrap

import pytest
import tomli
import tomli_w
from hypothesis import given
from hypothesis import strategies as st

from alignkit.errors import RecipeError
from alignkit.toml import key_lines, read

KEY = st.sampled_from(["a", "b1", "use", "x-y", "loss", "0", "with space", "a.b"])
LEAF = st.one_of(
    st.integers(-9, 9),
    st.booleans(),
    st.text("a=[]\"'#\n .\\", max_size=9),
    st.lists(st.integers(0, 9), max_size=3),
)
TABLE = st.dictionaries(
    KEY,
    LEAF | st.dictionaries(KEY, LEAF | st.dictionaries(KEY, LEAF, max_size=2), max_size=3),
    max_size=3,
)


def paths(table, at=()):
    for key, value in table.items():
        yield (*at, key)
        if isinstance(value, dict):
            yield from paths(value, (*at, key))


@given(TABLE, st.booleans())
def test_every_key_is_found_on_its_own_line(table, multiline):
    text = tomli_w.dumps(table, multiline_strings=multiline)
    assert tomli.loads(text).keys() == table.keys()
    lines, rows = key_lines(text), text.split("\n")
    for path in paths(table):
        assert path in lines
        assert path[-1] in rows[lines[path] - 1]


def test_items_of_an_array_of_tables_have_lines_of_their_own():
    text = '[[trackers]]\nuse = "a"\n\n[[trackers]]\nuse = "b"\n[trackers.opts]\nk = 1\n'
    lines = key_lines(text)
    assert lines["trackers", "0", "use"] == 2
    assert lines["trackers", "1", "use"] == 5
    assert lines["trackers", "1", "opts", "k"] == 7


def write(folder, **files):
    for name, text in files.items():
        (folder / f"{name}.toml").write_text(textwrap.dedent(text))
    return folder


def test_base_recipe_overlay_and_override_stack_in_that_order(tmp_path):
    write(
        tmp_path,
        base='use = "toy"\nn = 1\ng = 1\nf = 1\ne = 1\n',
        recipe='extends = "base.toml"\ng = 2\nf = 2\ne = 2\n',
        overlay="f = 3\ne = 3\n",
    )
    document = read(tmp_path / "recipe.toml", [tmp_path / "overlay.toml"], ["e=4"])
    assert document.table == {"use": "toy", "n": 1, "g": 2, "f": 3, "e": 4}
    named = {k[0]: (o.file.name if o.file else "-s", o.line) for k, o in document.origins.items()}
    assert named == {
        "use": ("base.toml", 1),
        "n": ("base.toml", 2),
        "g": ("recipe.toml", 2),
        "f": ("overlay.toml", 1),
        "e": ("-s", 1),
    }


def test_tables_merge_but_a_changed_use_replaces_the_table_whole(tmp_path):
    write(
        tmp_path,
        base="""
            [loss]
            use = "clip"
            cliprange = 0.1
            [eval]
            every = 3
            [eval.data]
            use = "rows"
        """,
        same='extends = "base.toml"\n[loss]\nuse = "clip"\n[eval]\nn = 2\n',
        other='extends = "base.toml"\n[loss]\nuse = "plain"\n',
    )
    same = read(tmp_path / "same.toml")
    assert same.table["loss"] == {"use": "clip", "cliprange": 0.1}
    assert same.table["eval"] == {"every": 3, "n": 2, "data": {"use": "rows"}}
    other = read(tmp_path / "other.toml")
    assert other.table["loss"] == {"use": "plain"}
    assert ("loss", "cliprange") not in other.origins


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_of_overrides_does_not_matter(tmp_path, order):
    write(tmp_path, recipe='[loss]\nuse = "clip"\ncliprange = 0.1\n')
    typed = ["loss.use=other", "loss.eps=3"][::order]
    assert read(tmp_path / "recipe.toml", (), typed).table["loss"] == {"use": "other", "eps": 3}


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("k=1", 1),
        ("k=1e-5", 1e-5),
        ("k=true", True),
        ("k=[1, 2]", [1, 2]),
        ('k="1"', "1"),
        ("k=Qwen/Qwen2.5", "Qwen/Qwen2.5"),
        ("k=", ""),
        ("k=1\nz=2", "1\nz=2"),
        ("k=a=b", "a=b"),
    ],
)
def test_an_override_is_a_toml_value_or_a_bare_word(tmp_path, typed, value):
    write(tmp_path, recipe="")
    assert read(tmp_path / "recipe.toml", (), [typed]).table == {"k": value}


def test_an_override_reaches_into_an_array_of_tables(tmp_path):
    write(tmp_path, recipe='[[trackers]]\nuse = "a"\n[[trackers]]\nuse = "b"\n')
    table = read(tmp_path / "recipe.toml", (), ["trackers.1.use=c"]).table
    assert table["trackers"] == [{"use": "a"}, {"use": "c"}]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a = 1\nb = = 2\n", "recipe.toml:2: recipe: not valid TOML"),
        ('extends = "nope.toml"\n', "recipe.toml:1: extends: no such file: nope.toml"),
        ("extends = 3\n", "recipe.toml:1: extends: not a file name: 3"),
        ('extends = "recipe.toml"\n', "extend each other in a circle"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_with_its_line(tmp_path, monkeypatch, text, says):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, recipe=text)
    with pytest.raises(RecipeError) as caught:
        read(tmp_path / "recipe.toml")
    assert says in str(caught.value)


def test_missing_binary_and_folder_are_errors_of_the_user(tmp_path):
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    for name, says in [("none.toml", "No such file"), ("binary.toml", "not UTF-8"), (".", "")]:
        with pytest.raises(RecipeError) as caught:
            read(tmp_path / name)
        assert says in str(caught.value)


@pytest.mark.parametrize("typed", ["loss.cliprange", "=1", "a..b=1"])
def test_an_override_without_key_or_value_says_how_to_write_one(tmp_path, typed):
    write(tmp_path, recipe="")
    with pytest.raises(RecipeError, match="key=value"):
        read(tmp_path / "recipe.toml", (), [typed])


@pytest.mark.parametrize(
    "value", ["9" * 5000, "[1, -" + "9" * 5000 + "]", "{a = " + "1" * 4301 + "}"]
)
def test_a_number_of_thousands_of_digits_is_a_problem_in_one_line(tmp_path, value):
    (tmp_path / "r.toml").write_text(f"seed = {value}\n")
    for name, overrides in (("r.toml", ()), ("empty.toml", (f"seed={value}",))):
        (tmp_path / "empty.toml").write_text("")
        with pytest.raises(RecipeError, match="has more than 4,300 digits") as error:
            read(tmp_path / name, (), overrides)
        assert "\n" not in str(error.value)
