"""`alignkit new-plugin` and `alignkit init`: what they write works as it is."""

import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import pytest

from alignkit.kinds import HOOKS
from alignkit.testing import run_cli
from alignkit_scaffold.scaffold import LONGEST

ROOT = Path(__file__).resolve().parents[3]
KINDS_BY_NAME = sorted(HOOKS)


def write(folder, name, kind):
    done = run_cli("new-plugin", name, "--kind", kind, "--dest", folder)
    assert done.status == 0, done.stderr
    return folder / f"alignkit-{name.replace('_', '-')}"


@pytest.mark.parametrize("kind", KINDS_BY_NAME)
def test_a_package_of_every_kind_is_complete_and_clean(tmp_path, kind):
    for name in ("x", "n" * LONGEST):  # the shortest and the longest name there is
        package = write(tmp_path, name, kind)
        files = {p.relative_to(package).as_posix(): p for p in package.rglob("*") if p.is_file()}
        assert files.keys() >= {
            "pyproject.toml",
            "README.md",
            *(["recipe.toml"] if kind != "command" else []),
            ".github/workflows/conformance.yml",
            ".github/workflows/test.yml",
            f"alignkit_{name}/__init__.py",
            f"alignkit_{name}/py.typed",
            f"tests/test_{name}.py",
        }
        for file in files.values():
            text = file.read_text()
            for placeholder in ("MY_", "my_idea", "MyIdea", "my-idea"):
                assert placeholder not in text, f"{placeholder} is left in {file}"
        project = tomllib.loads(files["pyproject.toml"].read_text())["project"]
        assert project["entry-points"]["alignkit"] == {name: f"alignkit_{name}"}
        ruff = [Path(sys.executable).with_name("ruff"), "check", "--no-cache", "."]
        checked = subprocess.run(ruff, cwd=package, capture_output=True, text=True, check=False)
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("My-Loss", "lower-case words joined by underscores, such as 'my_loss'"),
        ("2fast", "such as 'fast'"),
        ("naïve", "such as 'naive'"),
        ("Über Loss", "such as 'uber_loss'"),
        ("___", "such as 'my_idea'"),
        ("alignkit_tight", "the package gets the prefix alignkit-; give the rest alone"),
        ("lambda", "it is a word of Python; try 'lambda_loss_type'"),
        ("n" * (LONGEST + 1), "it has 25 characters, more than 24"),
        ("losses", "has a plugin of that name"),
        ("grpo_clip", "plugin losses offers a loss_type 'grpo_clip'"),
    ],
)
def test_a_name_that_cannot_be_used_is_refused_with_a_remedy(tmp_path, name, said):
    done = run_cli("new-plugin", name, "--kind", "loss_type", "--dest", tmp_path)
    assert done.status == 2
    assert said in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_component_name_of_another_kind_can_be_used(tmp_path):
    assert write(tmp_path, "grpo_clip", "advantage").is_dir()


def test_a_kind_that_is_none_is_refused_with_the_kinds_there_are(tmp_path):
    done = run_cli("new-plugin", "mine", "--kind", "loss", "--dest", tmp_path)
    assert done.status == 2
    assert "'loss_type'" in done.stderr


def test_an_existing_folder_is_left_alone(tmp_path):
    package = write(tmp_path, "mine", "loss_type")
    (package / "recipe.toml").write_text("mine")
    done = run_cli("new-plugin", "mine", "--kind", "advantage", "--dest", tmp_path)
    assert done.status == 2
    assert "alignkit-mine exists; choose another NAME or --dest" in done.stderr
    assert (package / "recipe.toml").read_text() == "mine"


@pytest.mark.parametrize("options", [[], ["--file"]], ids=["package", "file"])
@pytest.mark.parametrize("dest", ["file", "file/deep", "dangling"])
def test_a_place_that_cannot_be_written_to_is_an_error_of_the_command(tmp_path, options, dest):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    words = ("--kind", "loss_type", "--dest", tmp_path / dest, *options)
    done = run_cli("new-plugin", "mine", *words)
    assert done.status == 2
    assert done.stderr.startswith("cannot write to ")
    assert done.stderr.count("\n") == 1
    assert "choose another --dest" in done.stderr
    assert (tmp_path / "file").read_text() == "mine"


# ---------------------------------------------------------------- init


def test_init_copies_recipes_and_data_and_says_what_next(tmp_path):
    folder = tmp_path / "lab"
    done = run_cli("init", folder)
    assert done.status == 0, done.stderr
    assert (folder / "recipes" / "grpo_offpolicy.toml").is_file()
    assert f"next: cd {folder} && alignkit run recipes/grpo_offpolicy.toml" in done.stdout
    rows = (ROOT / "data/problems/train.jsonl").read_bytes()
    assert (folder / "data/problems/train.jsonl").read_bytes() == rows
    assert not list(folder.rglob("*.py")), "how the data was made belongs to the checkout"


@pytest.mark.parametrize(("below", "links"), [("loop", 1), ("loop/course", 3), ("loop/a/b", 2)])
def test_init_at_a_circle_of_links_says_so_in_a_line(tmp_path, below, links):
    names = ["loop", *(f"next{i}" for i in range(1, links))]
    for name, target in zip(names, [*names[1:], "loop"], strict=True):
        (tmp_path / name).symlink_to(target)
    command = (sys.executable, "-m", "alignkit", "init", tmp_path / below)
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert (done.stdout, len(done.stderr.strip().splitlines())) == ("", 1)
    assert "symbolic links" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(names)


def test_init_leaves_a_folder_that_is_not_empty_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    done = run_cli("init", tmp_path)
    assert done.status == 2
    assert "exists and is not empty" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_shipped_recipes_and_paths_are_named_from_anywhere(tmp_path):
    recipe = tmp_path / "mine.toml"
    recipe.write_text('extends = "alignkit:recipes/grpo.toml"\n[data]\nuse = "jsonl"\n')
    given = ["-s", 'data.path="alignkit:data/problems/test.jsonl"', "-s", f"policy.path={ROOT}"]
    plan = run_cli("run", recipe, "--dry-run", *given).stderr  # the checkout is no model
    assert "has no config.json" in plan
    assert "data.path" not in plan
    recipe.write_text('extends = "alignkit:recipes/none.toml"\n')
    assert "no such file: alignkit:recipes/none.toml" in run_cli("run", recipe).stderr
    wrong = ["-s", "data.path=alignkit:data/none.jsonl"]
    recipe.write_text('extends = "alignkit:recipes/grpo.toml"\n')
    assert (
        "no such file or folder: alignkit:data/none.jsonl" in run_cli("run", recipe, *wrong).stderr
    )


# ---------------------------------------------------------------- as a new user


class Environment:
    """A virtual environment that sees this one's packages and installs plugins of its own."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.bin = folder / "bin"
        (site,) = folder.glob("lib/python*/site-packages")
        shared = [p for p in sys.path if p.endswith("site-packages")] + [str(ROOT)]
        outer = [f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})", *shared]
        (site / "outer.pth").write_text("\n".join(outer) + "\n")

    def python(self, folder: Path, *args: object) -> str:
        command = [self.bin / "python", "-m", *map(str, args)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def plugins(tmp_path_factory):
    """Every kind's package, installed."""
    folder = tmp_path_factory.mktemp("scaffold")
    environment = Environment(folder / "venv")
    packages = [write(folder, f"mine_{kind}", kind) for kind in KINDS_BY_NAME]
    pip = ["pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "-q"]
    environment.python(folder, *pip, *packages)
    return environment, dict(zip(KINDS_BY_NAME, packages, strict=True))


@pytest.mark.slow
def test_its_own_tests_and_types_pass_untouched(plugins):
    environment, packages = plugins
    said = environment.python(packages["loss_type"], "pytest", "-q", "-p", "no:cacheprovider")
    assert " passed" in said
    assert "skipped" not in said
    environment.python(packages["loss_type"], "mypy", "--cache-dir", plugins_cache(packages))


@pytest.mark.slow
def test_the_tests_and_types_of_every_kind_pass(plugins):
    """All in one process: importing torch and transformers takes longer than the tests."""
    environment, packages = plugins
    one, folders = packages["loss_type"] / "pyproject.toml", list(packages.values())
    root = one.parents[1]
    config = ["-c", one, "--rootdir", root]
    said = environment.python(root, "pytest", "-rA", *config, *folders)
    for kind, folder in packages.items():
        assert f"PASSED {folder.name}/tests/test_mine_{kind}.py::" in said
    assert "skipped" not in said
    cache = plugins_cache(packages)
    environment.python(root, "mypy", "--config-file", one, "--cache-dir", cache, *folders)


def plugins_cache(packages):
    return packages["loss_type"].parent / "mypy"  # shared: torch and transformers take a minute


@pytest.mark.slow
def test_all_are_listed_and_described(plugins):
    environment, packages = plugins
    folder = packages["tracker"]
    listed = environment.python(folder, "alignkit", "list-plugins", "--strict")
    for kind in KINDS_BY_NAME:
        name = "mine-command" if kind == "command" else f"mine_{kind}"  # as it is typed
        assert f"{kind}: {name}" in listed
        shown = environment.python(folder, "alignkit", "describe", kind, f"mine_{kind}")
        assert f"alignkit-mine-{kind.replace('_', '-')} 0.1.0" in shown


@pytest.mark.slow
def test_from_the_wheel_init_run_and_a_plugin_of_ones_own(tmp_path):
    """As a pip user without a checkout: the wheel's own code, recipes, model and data."""
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    (site / "outer.pth").write_text(sysconfig.get_path("purelib"))  # its .pth files do not count
    user = Environment.__new__(Environment)
    user.bin = tmp_path / "venv" / "bin"
    (wheel,) = tmp_path.glob("*.whl")
    pip = ["pip", "install", "--no-deps", "--no-index", "--no-build-isolation", "-q"]
    user.python(tmp_path, *pip, wheel)
    user.python(tmp_path, "alignkit", "init", "lab")
    lab = tmp_path / "lab"
    small = ["n_steps=1", "rollout_batch_size=8", "train_batch_size=8", "group_size=4", "eval.n=4"]
    sets = [part for item in small for part in ("-s", item)]
    said = user.python(lab, "alignkit", "run", "recipes/grpo_offpolicy.toml", *sets)
    assert "done in" in said
    user.python(lab, "alignkit", "new-plugin", "capped", "--kind", "loss_type")
    user.python(lab, *pip, lab / "alignkit-capped")
    out = ["--out", lab / "mine"]
    user.python(lab, "alignkit", "run", "alignkit-capped/recipe.toml", *sets, *out)
    plan = tomllib.loads((lab / "mine" / "recipe.toml").read_text())
    assert plan["loss"]["use"] == "capped"
    shipped = site / "alignkit" / "_bundle" / "data"
    assert Path(plan["data"]["path"]).is_relative_to(shipped.resolve())
