"""Other orders of work than GRPO's, each a third party's file of few lines, engine untouched."""

import importlib.util
import io
import sys
import tokenize
from pathlib import Path

import pytest
import torch

from alignkit.testing import checks, registry_of

FILES = sorted((Path(__file__).resolve().parents[2] / "fixtures" / "variations").glob("*.py"))
KEYS = {
    "n_steps": 4,
    "rollout_batch_size": 16,
    "group_size": 4,
    "train_batch_size": 8,
    "importance_cap": 2.0,
}


def module_of(file):
    spec = importlib.util.spec_from_file_location(f"variation_{file.stem}", file)
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(params=FILES, ids=lambda file: file.stem)
def module(request):
    return module_of(request.param)


@pytest.fixture
def make(toys, module):
    (component,) = module.algorithm()

    def build(**keys):
        return toys.grpo({**KEYS, **keys}, algorithm=component.params, optimizer=toys.adamw(0.02))

    return build


def code_lines(source):
    """Count lines that hold code: no blank line, comment or docstring."""
    quiet = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT,
             tokenize.ENDMARKER)  # fmt: skip
    held = [t for t in tokenize.generate_tokens(io.StringIO(source).readline)]
    texts = {t.start[0] for t in held if t.type == tokenize.STRING and t.line.strip()[0] in "\"'"}
    return len({t.start[0] for t in held if t.type not in quiet} - texts)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_takes_fewer_than_40_lines_and_touches_no_engine(file):
    source = file.read_text()
    assert code_lines(source) < 40
    assert "alignkit.engine" not in source


def test_it_conforms(module):
    (component,) = module.algorithm()
    small = {"n_steps": 2, "rollout_batch_size": 8, "group_size": 4, "train_batch_size": 4}
    params = {f"algorithm/{component.name}": small}
    names = [case.id for case in checks("mine", params, registry=registry_of(module))]
    assert any("resumes_exactly" in name for name in names)
    for case in checks("mine", params, registry=registry_of(module)):
        case.run()


def test_it_learns_what_is_rewarded(make, toys, tmp_path):
    subject = make(n_steps=12)
    rows = toys.carry_out(subject, tmp_path)
    first, last = (sum(row["train/reward"] for row in some) / 3 for some in (rows[:3], rows[-3:]))
    assert last > first


@pytest.mark.parametrize("before", [3, 5, 6])
def test_it_goes_on_exactly_where_it_was_ended(make, toys, ended, tmp_path, before):
    whole = make()
    want = toys.timeless(toys.carry_out(whole, tmp_path / "whole"))
    ended(make(), tmp_path / "cut", before=before)
    subject = make()
    _, _, rows = toys.go_on(subject, tmp_path / "cut")
    assert toys.timeless(rows) == want
    assert torch.equal(toys.weights(subject.parts.policy), toys.weights(whole.parts.policy))


def test_the_length_filter_compares_what_it_keeps(toys, tmp_path, steps):
    """Groups of unequal size: each advantage is against the kept responses of its own group."""
    (component,) = module_of(FILES[[f.stem for f in FILES].index("length_filter")]).algorithm()
    subject = toys.grpo(
        {**KEYS, "n_steps": 1, "train_batch_size": 16, "longest": 2}, algorithm=component.params,
        prompt=toys.Template(stop=tuple(map(chr, range(33, 127)))),  # many end early
    )  # fmt: skip
    (row,) = toys.carry_out(subject, tmp_path)
    (rows,) = steps
    assert 0 < len(rows) == row["train/responses_trained_on"] < 16
    assert all(len(r.response_ids) <= 2 for r in rows)
    groups = {}
    for r in rows:
        groups.setdefault(r.prompt_ids, []).append(r)
    assert len({len(group) for group in groups.values()}) > 1
    for group in groups.values():
        mean = sum(r.reward for r in group) / len(group)
        assert [r.advantage for r in group] == pytest.approx([r.reward - mean for r in group])


def test_the_curriculum_draws_from_a_growing_part(toys, tmp_path):
    (component,) = module_of(FILES[[f.stem for f in FILES].index("curriculum")]).algorithm()
    asked = []
    template = toys.Template()
    questions = toys.questions(12)

    class Noting:
        stop = template.stop

        def render(self, question):
            asked.append(question)
            return template.render(question)

    subject = toys.grpo({**KEYS, "n_steps": 4, "stages": 2}, algorithm=component.params,
                        prompt=Noting())  # fmt: skip
    rows = toys.carry_out(subject, tmp_path)
    assert [row["train/stage"] for row in rows] == [0, 0, 1, 1]
    easy = {e.question for e in sorted(questions, key=lambda e: len(e.question))[:6]}
    assert {*asked[:8]} <= easy
    assert not {*asked[8:]} <= easy
