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
    for name in ("cispo", "broken", "incompatible", "clash", "twin"):
        made.install(f"alignkit-{name}")
    return made


def test_the_five_states_are_listed(environment):
    listed = json.loads(environment.alignkit("list-plugins", "--json", "-p", "no:twin"))
    states = {p["dist"]: p["status"] for p in listed if p["dist"] != "alignkit"}
    assert states == {
        "alignkit-cispo": "active",
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


def test_a_clash_of_component_names_stops_only_the_recipe_that_does_not_say_which(environment):
    dry = ["run", "recipes/grpo_offpolicy.toml", "--dry-run"]
    said = environment.alignkit(*dry, status=2)
    assert '"losses/grpo_clip"' in said
    assert '"twin/grpo_clip"' in said
    environment.alignkit(*dry, "-s", "loss.use=losses/grpo_clip")
    environment.alignkit(*dry, "-s", "loss.use=reinforce")
