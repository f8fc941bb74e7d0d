"""`alignkit report --write-up`: a Markdown page that holds what it should and nothing that acts."""

import json
import re
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit.testing import run_cli
from alignkit_report import curves, write_up

ACC = "eval/answer_reward"
pytest.importorskip("matplotlib", reason="needs the extra: pip install 'alignkit[report]'")


def category(kind, text, question="2 + 2 = ?"):
    right, form = {"correct": (1.0, 1.0), "format_only": (0.0, 1.0), "neither": (0.0, 0.0)}[kind]
    return {
        "question": question, "gold": "4", "response": text, "reward": right, "category": kind,
        "format_reward": form, "answer_reward": right, "response_length": 3,
    }  # fmt: skip


EVIL = "```\n# Heading\n<script>alert(1)</script> | cell"
SAMPLES = [
    category("correct", "it is 4"), category("format_only", EVIL), category("neither", "lost 1"),
    category("neither", "lost 2"), category("neither", "lost 3"),
]  # fmt: skip


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two settings of two seeds, with counts of the categories before and after."""
    folder = tmp_path_factory.mktemp("write_up") / "s"
    names = ["r1_zero", "question|only"]
    for place, name in enumerate(names):
        for seed in (0, 1):
            write_run(folder / name / f"seed_{seed}", place, seed)
    (folder / "sweep.json").write_text(json.dumps({"title": "Prompts", "variants": names}))
    return folder


def write_run(folder, place, seed):
    rows = [
        {
            "step": step, "time": 2.0 * step, ACC: 0.2 + 0.1 * step + 0.1 * place + 0.01 * seed,
            "eval/n_correct": 10 + 2 * seed + step, "eval/n_format_only": 5,
            "eval/n_neither": 85 - 2 * seed, "train/loss": 0.1, "odd metric": 1.0,
        }
        for step in range(3)
    ]  # fmt: skip
    for name, lines in (("metrics.jsonl", rows), ("eval/step_000002.jsonl", SAMPLES)):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "recipe.toml").write_text(f"seed = {seed}\n[optimizer]\nlr = {place + 1}e-4\n")
    (folder / "manifest.json").write_text(json.dumps({"status": "done", "seed": seed}))


@pytest.fixture(scope="module")
def page(swept):
    done = run_cli("report", swept, "--write-up", "--title", "Two prompts")
    assert done.status == 0, done.stderr
    assert f"wrote {swept}/report.md" in done.stdout
    return (swept / "report.md").read_text()


def section(page, heading):
    return page.split(f"\n{heading}\n")[1].split("\n#")[0]


def cells(page, heading):
    """Return the rows of the first table below a heading, as lists of cells."""
    lines = [line for line in section(page, heading).splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if not line.startswith("|---")]


def test_the_table_holds_every_setting_with_its_estimates(page):
    assert page.startswith("# Two prompts\n")
    heads, first, second = [[c.strip() for c in row] for row in cells(page, "## Results")]
    assert heads[:4] == ["setting", "seeds", "start", "final"]
    assert first[:4] == [r"r1\_zero", "0, 1", "0.205 ± 0.005", "0.405 ± 0.005"]
    assert second[0] == r"question\|only"
    assert len({len(row) for row in (heads, first, second)}) == 1


def test_the_three_categories_are_counted_before_and_after(page):
    heads, first, _ = cells(page, "### Categories of held-out responses")
    assert [h.strip() for h in heads[1:3]] == ["correct at first", r"format\_only at first"]
    assert [c.strip() for c in first] == [r"r1\_zero", "11", "5", "84", "13", "5", "84"]


def test_settings_are_compared_seed_by_seed_and_by_what_their_plans_say(page):
    _, row = cells(page, "### Seed by seed")
    assert [c.strip() for c in row[:3]] == [r"question\|only", "2", "+0.100"]
    heads, *_ = cells(page, "### What differs between the plans")
    assert [h.strip() for h in heads] == ["setting", "optimizer.lr"]


def test_every_plot_is_there_by_step_and_by_wall_clock(page, swept):
    images = re.findall(r"!\[[^]]*\]\(([^)]*)\)", page)
    assert len(images) == len(set(images)) == 2 * 3  # accuracy, categories, loss
    for image in images:
        assert (swept / unquote(image)).read_bytes()[:4] == b"\x89PNG"
    assert {i.rsplit("-by-")[1] for i in images} == {"step.png", "time.png"}
    assert "odd" not in "".join(images)


def test_examples_of_each_category_stand_in_blocks_that_they_cannot_leave(page):
    for kind, said in (("correct", "it is 4"), ("neither", "lost 2"), ("format_only", "Heading")):
        start = page.index(f"### {write_up.text('r1_zero')}: {kind}")
        assert said in page[start : start + 400]
    assert "lost 3" not in page  # two of each
    assert "3 of 5 held-out responses of step 2, seed 0." in page
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", page, flags=re.S | re.M)
    assert "<script>" not in outside
    assert "# Heading" not in outside


def test_there_is_room_to_comment_on_each_part(page):
    assert page.count(write_up.COMMENT) >= 3 + 3 + 2


def test_a_page_with_comments_is_not_written_over(make_run):
    run = make_run("bare", [])
    (run / "report.md").write_text("my comments")
    done = run_cli("report", run, "--write-up")
    assert done.status == 2
    assert "report.md exists and may hold comments" in done.stderr
    assert (run / "report.md").read_text() == "my comments"
    assert not (run / "report.html").exists()
    assert run_cli("report", run, "--write-up", "--out", run / "more.html").status == 0
    assert (run / "more.md").is_file()


def test_a_run_with_nothing_to_show_still_gives_a_page(make_run):
    run = make_run("bare", [])
    done = run_cli("report", run, "--write-up")
    assert done.status == 0, done.stderr
    assert "## Examples" in (run / "report.md").read_text()


TEXTS = st.text(st.sampled_from("ab`|<>#*_\n\\[]{} ~\u2028"), max_size=30)


@given(TEXTS)
def test_a_block_ends_only_where_we_end_it(value):
    first, *inner, last = write_up.fenced(value).split("\n")
    assert first == f"{last}text"
    assert all(not line.startswith(last) for line in inner)


@given(TEXTS)
def test_a_cell_is_one_cell_and_no_markup(value):
    (line,) = write_up.text(value).split("\n") or [""]
    bare = re.sub(r"\\.", "", line)
    assert not set(bare) & set("|<`*_[]#{}")


def test_training_pass_at_k_is_one_chart_of_three_k(make_run, load):
    row = {f"train/pass@{k}": k / 10 for k in range(1, 9)}
    drawn = curves.charts(load(make_run("a", [row])))
    (chart,) = [c for c in drawn if c.title == "Training pass@k"]
    assert chart.labels == ("k = 1", "k = 5", "k = 8")
    assert sorted(m for c in drawn for m in c.metrics) == sorted(row)
