"""The page: self-contained, and nothing a run holds can become markup or code."""

import base64
import hashlib
import json
import re
from html.parser import HTMLParser

import pytest

from alignkit_report import page

ACC = "eval/answer_reward"
EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(2)>"


class Elements(HTMLParser):
    """Lists the elements of a page with their attributes."""

    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture
def evil(make_run, load, sample):
    """A run that puts markup wherever a run can put text."""
    rows = [{ACC: 0.1, EVIL: 1.0, f"time/{EVIL}": 1.0, f"eval/{EVIL}/reward": 1.0}]
    said = sample(False, EVIL, question=EVIL, gold=EVIL, **{f"{EVIL}_reward": 0.0})
    folder = make_run(
        "<b>x", rows, samples={"eval/step_000000.jsonl": [said]}, started=EVIL, command=[EVIL]
    )
    other = make_run("<b>y", rows, lr=0.5)
    (other / "recipe.toml").write_text(f"'{EVIL}' = 1\nmore = '{EVIL}'\n")
    (other / "stopped.json").write_text(json.dumps({"status": EVIL, "reason": EVIL}))
    with (folder / "metrics.jsonl").open("a") as file:
        file.write("<i>")
    return load(folder, other)


def test_text_of_a_run_is_never_markup(evil):
    text = page.render(evil, EVIL)
    elements = Elements(text).found
    assert [tag for tag, _ in elements].count("script") == 2  # the data and ours
    assert not {"img", "b", "i"} & {tag for tag, a in elements if not a.get("style")}
    assert not [a for _, a in elements if any(name.startswith("on") for name in a)]


def test_what_a_run_says_is_all_there_as_text(evil):
    data = json.loads(re.search(r'id="data">(.*?)</script>', page.render(evil, "t"), re.S)[1])
    (source,) = data["samples"]
    (row,) = source["steps"][0]["rows"]
    assert (row["response"], row["question"], row["gold"]) == (EVIL, EVIL, EVIL)
    assert not row["right"]


def test_the_page_needs_no_network_and_admits_no_script_but_its_own(evil):
    text = page.render(evil, "t")
    assert not re.findall(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert not [a for tag, a in Elements(text).found if "src" in a or tag == "iframe"]
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)[1]
    script = re.findall(r"<script>(.*?)</script>", text, re.S)
    assert len(script) == 1
    digest = base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"script-src 'sha256-{digest}'" in policy


def test_the_script_is_as_light_as_the_comparison_with_libraries_says(evil):
    (script,) = re.findall(r"<script>(.*?)</script>", page.render(evil, "t"), re.S)
    assert len(script.encode()) < 13_800
    assert "page.js                     13 kB" in page.__doc__


def test_control_and_direction_characters_are_made_visible(make_run, load, sample):
    said = sample(True, "a\x1b[2Jb\u202ec\x00")
    folder = make_run("a", [{ACC: 1.0}], samples={"eval/step_000000.jsonl": [said]})
    text = page.render(load(folder), "t")
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])
    assert data["samples"][0]["steps"][0]["rows"][0]["response"] == r"a\x1b[2Jb\u202ec\x00"


def test_samples_are_three_right_and_three_wrong_of_steps_over_the_whole_run(
    make_run, load, sample
):
    rows = [sample(i % 2 == 0, f"r{i}") for i in range(20)]
    files = {f"rollouts/step_{s:06d}.jsonl": rows for s in range(0, 101, 5)}
    folder = make_run("a", [{"train/reward": 0.5}], samples=files)
    text = page.render(load(folder), "t")
    (source,) = json.loads(re.search(r'id="data">(.*?)</script>', text, re.S)[1])["samples"]
    steps = [s["step"] for s in source["steps"]]
    assert (len(steps), steps[0], steps[-1]) == (page.MOST_STEPS, 0, 100)
    assert [r["response"] for r in source["steps"][0]["rows"]] == [
        "r0", "r2", "r4", "r1", "r3", "r5",
    ]  # fmt: skip


def test_a_long_response_is_shortened_and_says_so(make_run, load, sample):
    said = sample(True, "x" * 100_000)
    folder = make_run("a", [{ACC: 1.0}], samples={"eval/step_000000.jsonl": [said]})
    text = page.render(load(folder), "t")
    assert len(text) < 80_000
    assert "97000 characters left out" in text


def test_warnings_and_a_live_run_are_told(make_run, load):
    folder = make_run("a", [{ACC: 1.0}], status="running")
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"st')
    text = page.render(load(folder), "t")
    assert "metrics.jsonl:2: the last line is cut off" in text
    assert "Some runs have not ended" in text


def test_a_run_with_nothing_yet_still_gives_a_page(make_run, load):
    assert "Final and best values" in page.render(load(make_run("a")), "t")


def test_the_page_is_replaced_as_a_whole(make_run, load, tmp_path):
    found = load(make_run("a", [{ACC: 1.0}]))
    for title in ("old", "new"):
        page.write(found, tmp_path / "deep/r.html", title)
    assert "<title>new</title>" in (tmp_path / "deep/r.html").read_text()
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["r.html"]


def test_many_differences_between_plans_are_folded_and_few_are_shown(make_run, load, tmp_path):
    few = [make_run(f"few/a{i}/seed_0", [{ACC: 0.5}], lr=10.0**-i) for i in (3, 4)]
    text = page.render(load(tmp_path / "few"), "t")
    assert "<details><summary>1 values" not in text
    assert "optimizer.lr" in text
    for place, folder in enumerate(few):
        lines = "".join(f"key_{i} = {place}\n" for i in range(12))
        (folder / "recipe.toml").write_text(lines + (folder / "recipe.toml").read_text())
    text = page.render(load(tmp_path / "few"), "t")
    folded = text.split("What differs between the plans</h2>")[1]
    assert folded.startswith("\n<details><summary>13 values</summary>")


def test_how_a_setting_ended_stands_before_the_lesser_metrics(make_run, load, tmp_path):
    make_run("s/a/seed_0", [{ACC: 0.5, "eval/response_length": 9.0}])
    text = page.render(load(tmp_path / "s"), "t")
    heads = re.findall(r"<th>([^<]*)</th>", text)
    assert heads.index("state") < heads.index("length")
    cells = re.findall(r"<td[^>]*>([^<]*)", text.split("</thead>")[1])
    assert cells[heads.index("state")] == "done"
    assert cells[heads.index("length")] == "9.0"


def test_counts_have_one_decimal_however_few(make_run, load, tmp_path):
    make_run("s/a/seed_0", [{ACC: 0.5, "eval/n_format_only": 1.0, "eval/n_neither": 7.0}])
    text = page.render(load(tmp_path / "s"), "t")
    assert ">1.0<" in text  # not 1.000 in one row and 7.0 in the next
    assert ">7.0<" in text
