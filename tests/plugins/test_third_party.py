"""Plugins from other distributions, really built and installed into an environment of their own."""

import json
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
FIXTURES = ROOT / "tests" / "fixtures"
TINY = ["n_steps=1", "rollout_batch_size=8", "train_batch_size=8", "group_size=4", "eval.n=4"]


class Environment:
    """A virtual environment that sees this one's packages and installs plugins of its own."""

    def __init__(self, folder: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        self.bin = folder / "bin"
        self.sources = folder / "sources"
        (site,) = folder.glob("lib/python*/site-packages")
        shared = [p for p in sys.path if p.endswith("site-packages")] + [str(ROOT)]
        pth = [f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})", *shared]
        (site / "outer.pth").write_text("\n".join(pth) + "\n")

    def install(self, name: str) -> None:
        source = shutil.copytree(FIXTURES / name, self.sources / name)
        pip = [self.bin / "python", "-m", "pip", "install", "--no-deps", "--no-index"]
        subprocess.run([*pip, "--no-build-isolation", "-q", source], check=True)

    def alignkit(self, *args: object, status: int = 0) -> str:
        command = [self.bin / "python", "-m", "alignkit", *map(str, args)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    made = Environment(tmp_path_factory.mktemp("clean") / "venv")
    for name in ("cispo", "best-of-n", "broken", "incompatible", "clash", "twin"):
        made.install(f"alignkit-{name}")
    return made


def test_the_five_states_are_listed(environment):
    listed = json.loads(environment.alignkit("list-plugins", "--json", "-p", "no:twin"))
    states = {p["dist"]: p["status"] for p in listed if p["dist"] != "alignkit"}
    assert states == {
        "alignkit-cispo": "active",
        "alignkit-best-of-n": "active",
        "alignkit-broken": "broken",
        "alignkit-incompatible": "incompatible",
        "alignkit-clash": "conflict",
        "alignkit-twin": "disabled",
    }
    assert {p["status"] for p in listed if p["dist"] == "alignkit"} == {"active"}
    environment.alignkit("list-plugins", "--strict", status=1)


def test_its_loss_is_picked_by_name_and_trains(environment, tmp_path):
    sets = [part for item in [*TINY, "loss.use=cispo"] for part in ("-s", item)]
    environment.alignkit("run", "recipes/grpo_offpolicy.toml", *sets, "--out", tmp_path / "run")
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    (loss,) = [c for c in manifest["components"] if c["kind"] == "loss_type"]
    assert (loss["use"], loss["dist"], loss["version"]) == ("cispo", "alignkit-cispo", "0.3.0")
    assert manifest["status"] == "done"


def test_its_algorithm_brings_its_own_recipe_and_trains(environment, tmp_path):
    recipe = FIXTURES / "alignkit-best-of-n" / "recipe.toml"
    small = ["n_steps=2", "questions_per_step=8", "n=4", "eval.n=8", "rollout.max_tokens=24"]
    sets = [part for item in small for part in ("-s", item)]
    plan = environment.alignkit("run", recipe, *sets, "--dry-run")
    assert "responses per round: 8 questions × 4" in plan
    wrong = environment.alignkit("run", recipe, "-s", "question_per_step=8", status=2)
    assert "Did you mean 'questions_per_step'?" in wrong
    environment.alignkit("run", recipe, *sets, "--out", tmp_path / "run")
    manifest = json.loads((tmp_path / "run/manifest.json").read_text())
    (algorithm,) = [c for c in manifest["components"] if c["kind"] == "algorithm"]
    assert (algorithm["use"], algorithm["dist"]) == ("best_of_n", "alignkit-best-of-n")
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    for row in rows[1:]:  # one response of each question at most, and only what was better
        saved = (tmp_path / f"run/rollouts/step_{row['step']:06d}.jsonl").read_text()
        kept = [json.loads(line) for line in saved.splitlines()]
        assert row["train/responses_trained_on"] == len(kept) <= 8
        assert len({r["question"] for r in kept}) == len(kept)
        assert {r["reward"] for r in kept} <= {1.0}
    assert (tmp_path / "run/final/model.safetensors").is_file()
    tested = ["run", "recipes/evaluate.toml", "-s", f"policy.path={tmp_path / 'run/final'}"]
    environment.alignkit(*tested, "-s", "n=4", "--out", tmp_path / "evaluated")


def test_its_algorithm_conforms(environment, tmp_path):
    (tmp_path / "test_it.py").write_text(
        "from alignkit.testing import conformance\n"
        "KEYS = {'n_steps': 2, 'questions_per_step': 4, 'n': 2}\n"
        "test_conforms = conformance('best_of_n', params={'algorithm/best_of_n': KEYS}, ranks=2)\n"
    )
    command = [environment.bin / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", tmp_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "skipped" not in done.stdout


def test_a_clash_of_component_names_stops_only_the_recipe_that_does_not_say_which(environment):
    dry = ["run", "recipes/grpo_offpolicy.toml", "--dry-run"]
    said = environment.alignkit(*dry, status=2)
    assert '"losses/grpo_clip"' in said
    assert '"twin/grpo_clip"' in said
    environment.alignkit(*dry, "-s", "loss.use=losses/grpo_clip")
    environment.alignkit(*dry, "-s", "loss.use=reinforce")
