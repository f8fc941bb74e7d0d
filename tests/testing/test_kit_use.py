"""How plugins are found, tested by one line of pytest, and run by the kit."""

import re
import subprocess
import sys

import pytest

from alignkit import AlignkitError, Component, Params, hookimpl
from alignkit.protocols import Advantage, PromptTemplate
from alignkit.testing import checks, conformance, registry_of, run_cli
from alignkit_losses import Reinforce
from alignkit_testing.registering import is_light

# ---------------------------------------------------------------- registering


def install(folder, name, source):
    """Make ``folder`` a site directory with a plugin ``name`` in it."""
    (folder / f"alignkit_{name}.py").write_text(source)
    info = folder / f"alignkit_{name}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: alignkit-{name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[alignkit]\n{name} = alignkit_{name}\n")


LOSS = """
from alignkit import Component, Params, hookimpl
from alignkit.protocols import LossType
{imports}

class Mine(Params[LossType]):
    "A loss."

    def build(self) -> LossType:
        import torch
        return torch.sum

@hookimpl
def loss_type():
    yield Component("mine", Mine)
"""


def test_heavy_imports_on_registering_are_caught(tmp_path, monkeypatch):
    install(tmp_path, "light", LOSS.format(imports="import json"))
    install(tmp_path, "heavy", LOSS.format(imports="import numpy, json"))
    monkeypatch.syspath_prepend(tmp_path)
    is_light("light")
    with pytest.raises(AssertionError, match="registering plugin 'heavy' imports numpy"):
        is_light("heavy")


def test_a_plugin_that_does_not_load_is_shown_with_its_traceback(tmp_path, monkeypatch):
    install(tmp_path, "sad", LOSS.format(imports="import a_package_nobody_has"))
    monkeypatch.syspath_prepend(tmp_path)
    (case,) = checks("sad")
    with pytest.raises(AssertionError, match=r"(?s)sad is broken.*Traceback.*nobody_has"):
        case.run()


def test_a_plugin_that_is_not_there_is_one_failing_case():
    (case,) = checks("looses")
    assert case.id == "looses/is_active"
    with pytest.raises(AssertionError, match=r"no plugin 'looses'.*Did you mean 'losses'"):
        case.run()


# ---------------------------------------------------------------- the pytest test


MINE = """
from alignkit import Params
from alignkit.protocols import Advantage
from alignkit.testing import conformance, registry_of

class Batch(Params[Advantage]):
    "Centred by the mean of the whole batch."

    def build(self) -> Advantage:
        def advantage(rewards, /, *, group_size):
            return rewards.view(-1, group_size).flatten() - rewards.mean()

        return advantage

REGISTRY = registry_of(advantage={"batch": Batch})
GROUPS = "advantage/batch/keeps_groups_independent"
ORDER = "advantage/batch/keeps_the_order"
test_installed = conformance("normalizers")
test_waived = conformance("mine", registry=REGISTRY, waive={GROUPS: "by design"})
test_stale = conformance("mine", registry=REGISTRY, waive={ORDER: "by design"})
"""


def test_one_line_is_a_pytest_test_and_a_waived_check_must_fail(tmp_path):
    (tmp_path / "test_mine.py").write_text(MINE)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "-rA", "-q"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    said = done.stdout
    assert "PASSED test_mine.py::test_installed[normalizers/is_light]" in said, said
    token_mean = "test_installed[normalizer/token_mean/adds_up_over_micro_batches]"
    assert f"PASSED test_mine.py::{token_mean}" in said
    groups = "advantage/batch/keeps_groups_independent"
    assert f"XFAIL test_mine.py::test_waived[{groups}] - by design" in said
    failed = re.findall(r"^FAILED test_mine.py::(\S+)", said, re.MULTILINE)
    order = "advantage/batch/keeps_the_order"  # holds, so its waiver is stale
    assert sorted(failed) == [f"test_stale[{groups}]", f"test_stale[{order}]"]


def test_parameters_and_waivers_of_nothing_are_refused():
    with pytest.raises(AlignkitError, match=r"no component 'loss_type/grpo_clp'. Did you mean"):
        conformance("losses", params={"loss_type/grpo_clp": {}})
    with pytest.raises(AlignkitError, match="no check 'loss_type/no_clip/is_fine'"):
        conformance("losses", waive={"loss_type/no_clip/is_fine": "because"})


def test_values_that_a_component_lacks_are_asked_for(failing):
    class Needs(Params[PromptTemplate]):
        """A prompt."""

        text: str
        """The template."""

        def build(self) -> PromptTemplate:
            raise AssertionError("not reached")

    said = failing("prompt_template", Needs, only="builds")["builds"]
    assert "needs a value for 'text'" in said
    assert "params={'prompt_template/planted': {...}}" in said


def test_a_component_the_machine_cannot_hold_is_skipped():
    class Moon(Params[Advantage]):
        """An advantage."""

        def missing(self):
            yield "needs a moon: pip install 'alignkit[moon]'"

        def build(self) -> Advantage:
            raise AssertionError("not reached")

    cases = checks("mine", registry=registry_of(advantage={"moon": Moon}))
    (case,) = [c for c in cases if c.id.endswith("keeps_the_order")]
    with pytest.raises(pytest.skip.Exception, match="needs a moon"):
        case.run()


# ---------------------------------------------------------------- registry_of, run_cli


def test_registry_of_offers_parameters_and_modules():
    class Module:
        __name__ = "a_module"

        @staticmethod
        @hookimpl
        def loss_type():
            yield Component("from_module", Reinforce)

    registry = registry_of(Module, name="ours", builtins=False, loss_type={"mine": Reinforce})
    assert registry.names("loss_type") == ["from_module", "mine"]
    assert registry.get("loss_type", "ours/mine")[1].params is Reinforce
    assert registry_of().get("loss_type", "losses/grpo_clip")


def test_registry_of_refuses_what_is_no_kind():
    with pytest.raises(AlignkitError, match="no kind 'losses'; kinds: algorithm, "):
        registry_of(losses={"mine": Reinforce})


def test_run_cli_returns_status_and_both_streams(tmp_path):
    shown = run_cli("describe", "normalizer", "token_mean")
    assert (shown.status, shown.stderr) == (0, "")
    assert "normalizer token_mean" in shown.stdout
    wrong = run_cli("run", tmp_path / "none.toml")
    assert wrong.status == 2
    assert "cannot read" in wrong.stderr
