"""What both libraries are given to compare them: alignkit loads it."""

import importlib.util
import sys
from pathlib import Path

import pytest

from alignkit_hf import HfPolicy

SPEC = importlib.util.spec_from_file_location("cases", Path(__file__).with_name("cases.py"))
cases = importlib.util.module_from_spec(SPEC)


@pytest.mark.parametrize("kind", ["grpo", "sft", "dpo"])
def test_the_folder_of_a_case_loads(tmp_path, monkeypatch, kind):
    monkeypatch.setitem(sys.modules, "cases", cases)  # dataclass looks for it
    SPEC.loader.exec_module(cases)
    case = cases.Case(kind, prompts=2)
    cases.make_folder(case, tmp_path)
    policy = HfPolicy(path=str(tmp_path), device="cpu").build()
    assert len(policy.model.get_input_embeddings().weight) == case.vocabulary
    ends = policy.eos_ids
    assert ends == {case.vocabulary} if kind == "grpo" else cases.END in ends
