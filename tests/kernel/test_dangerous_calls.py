"""No source file calls what runs text or unpickles data; the few that load code are known."""

import ast
from pathlib import Path

import pytest

from alignkit_hf import HfPolicy

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted(p for name in ("alignkit", "plugins") for p in (ROOT / name).rglob("*.py"))
FORBIDDEN = {
    "eval", "exec", "compile", "os.system", "os.popen", "pickle.load", "pickle.loads",
    "pickle.Unpickler", "yaml.load", "yaml.unsafe_load", "joblib.load", "marshal.loads",
    "torch.load", "exec_module", "runpy.run_module", "runpy.run_path", "np.load", "numpy.load",
}  # fmt: skip
KNOWN = {
    ("plugins/alignkit_rewards/script.py", "exec_module"),  # the `python` reward's own file
    ("plugins/alignkit_vllm/serve.py", "runpy.run_module"),  # vLLM's server
    ("alignkit/plugin_files.py", "compile"),  # `-p FILE.py`, after its sum is printed
    ("alignkit/plugin_files.py", "exec"),
    ("alignkit/data_files/stored_rows.py", "marshal.loads"),  # from a nameless file of its own
    ("plugins/alignkit_environments/jail.py", "compile"),  # what a model wrote, in the sandbox
    ("plugins/alignkit_environments/jail.py", "exec"),
    ("alignkit/lifecycle/fingerprint.py", "compile"),  # to sum code up; never executed
}


def dotted(node):
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def calls(path):
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Call):
            yield dotted(node.func), node


def test_nothing_runs_text_or_unpickles():
    found = set()
    for path in SOURCES:
        for name, node in calls(path):
            keywords = {k.arg: ast.unparse(k.value) for k in node.keywords}
            where = str(path.relative_to(ROOT))
            assert keywords.get("shell") in (None, "False"), where
            if name == "torch.load" and keywords.get("weights_only") == "True":
                continue
            for bad in {name, name.rpartition(".")[2] if "exec_module" in name else ""} & FORBIDDEN:
                found.add((where, bad))
    assert found <= KNOWN, f"look at {sorted(found - KNOWN)}"
    assert found == KNOWN, f"no longer there: {sorted(KNOWN - found)}"


def test_the_check_would_see_such_a_call(tmp_path):
    path = tmp_path / "x.py"
    path.write_text("import os\nos.system('x')\nspec.loader.exec_module(m)\neval('1')\n")
    assert [name for name, _ in calls(path)] == ["os.system", "spec.loader.exec_module", "eval"]


def test_code_of_a_checkpoint_is_off_unless_asked_for_and_then_named(tmp_path):
    (tmp_path / "modeling_x.py").write_text("x = 1\n")
    assert list(HfPolicy(path=str(tmp_path)).code()) == []
    trusting = HfPolicy(path=str(tmp_path), trust_remote_code=True)
    assert list(trusting.code()) == [tmp_path / "modeling_x.py"]
    assert "runs" in trusting.facts({})["trust_remote_code"]
    assert "trust_remote_code" not in HfPolicy(path=str(tmp_path)).facts({})
    (named,) = HfPolicy(path="owner/name", trust_remote_code=True, revision="abc").code()
    assert named == "owner/name at abc, whatever Python files it holds"


@pytest.mark.parametrize("path", [p for p in SOURCES if "alignkit_hf" in p.parts], ids=str)
def test_trust_remote_code_is_only_ever_the_recipes(path):
    for name, node in calls(path):
        for keyword in node.keywords:
            if keyword.arg == "trust_remote_code":
                assert "params.trust_remote_code" in ast.unparse(keyword.value), name
