"""Transcripts turn by turn, and the page that lists all saved responses."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alignkit.run_data.transcripts import as_text, transcript, turn_count
from alignkit.testing import run_cli
from alignkit_report import page, rollouts
from alignkit_trackers.values import sample_table

TURNS = [
    {"response": "<tool> 2 + 2 </tool>", "tokens": 7, "observation": "four", "reward": 0.5},
    {"response": "it is 4", "tokens": 3, "observation": "", "reward": 0.0},
]


@pytest.fixture
def episode(sample):
    """Return a row of a file of responses that an episode of two turns left."""

    def make(right=True, **more):
        return sample(right, "<tool> 2 + 2 </tool>fourit is 4", turns=TURNS, cut="", **more)

    return make


def data_of(html):
    found = re.search(r'id="data">(.*?)</script>', html, re.S)
    return json.loads(found[1])


def test_a_transcript_has_each_turn_and_what_was_answered():
    said = [(s.role, s.text, s.note) for s in transcript({"turns": TURNS})]
    assert said == [
        ("policy", "<tool> 2 + 2 </tool>", "turn 1, 7 tokens, reward 0.5"),
        ("environment", "four", ""),
        ("policy", "it is 4", "turn 2, 3 tokens"),
    ]


@pytest.mark.parametrize(("row", "count"), [({}, 1), ({"turns": TURNS}, 2), ({"turns": []}, 1)])
def test_turns_are_counted(row, count):
    assert turn_count(row) == count


ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from([*TURNS[0], "cut", "x"]), inner, max_size=4)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["turns", "cut", "reward", "id"]), ANY))
def test_whatever_a_file_holds_can_be_told(row):
    assert isinstance(as_text(row), str)
    assert turn_count(row) >= 1


def test_show_tells_roles_given_text_and_the_reward_at_the_end(make_run, episode):
    run = make_run("one", [{}], samples={"rollouts/step_000001.jsonl": [episode()]})
    text = run_cli("show", run, "--of", "rollouts").stdout
    order = ["asked", "<tool> 2 + 2", "given  │ four", "it is 4", "gold", "earned reward 1"]
    places = [text.index(part) for part in order]
    assert places == sorted(places)


def test_the_limit_that_cut_an_episode_is_told(make_run, episode):
    rows = [episode(False) | {"cut": "turns"}]
    run = make_run("one", [{}], samples={"rollouts/step_000001.jsonl": rows})
    assert "out of turns" in run_cli("show", run, "--of", "rollouts").stdout


def test_the_table_of_trackers_has_the_transcript_as_text(episode):
    columns, cells = sample_table([episode()], 5)
    told = cells[0][columns.index("turns")]
    assert told.splitlines()[1:] == [
        "environment: four",
        "policy (turn 2, 3 tokens): it is 4",
        "reward: 1",
    ]


def test_the_report_shows_turns(make_run, episode, load):
    run = make_run("one", [{}], samples={"rollouts/step_000001.jsonl": [episode()]})
    (source,) = data_of(page.render(load(run), "t"))["samples"]
    (row,) = source["steps"][0]["rows"]
    assert [turn["role"] for turn in row["turns"]] == ["policy", "environment", "policy"]


@pytest.fixture
def many(make_run, episode, sample):
    """A run with 40 questions at each of five steps."""
    files = {
        f"rollouts/step_{step:06d}.jsonl": [
            sample(i % 2 == 0, f"answer {i} of {step}", id=f"q{i}") for i in range(40)
        ]
        for step in range(5)
    }
    return make_run("many", [{}], samples=files)


def test_a_page_holds_all_responses_where_they_fit(many, load):
    data = data_of(rollouts.render(load(many), "t"))
    assert len(data["rows"]) == 200
    assert data["sources"] == ["many: training"]


@pytest.mark.parametrize("most", [0, 5_000, 20_000])
def test_a_page_has_a_largest_size_and_keeps_questions_over_all_steps(many, load, most):
    html = rollouts.render(load(many), "t", most)
    rows = data_of(html)["rows"]
    assert len(json.dumps(rows, separators=(",", ":"))) <= most + 2
    assert f"{len(rows)} of 200 saved responses; the page holds at most" in html
    steps = {}
    for row in rows:
        steps.setdefault(row["id"], []).append(row["step"])
    partly = [name for name, found in steps.items() if found != [0, 1, 2, 3, 4]]
    assert len(partly) <= 1
    assert most == 0 or rows


def test_the_command_writes_it_beside_the_report(many, tmp_path):
    done = run_cli("report", many, "--rollouts", "--out", tmp_path / "r.html")
    assert done.status == 0, done.stderr
    assert (tmp_path / "r.rollouts.html").is_file()
    assert not run_cli("report", many, "--out", tmp_path / "plain.html").status
    assert not (tmp_path / "plain.rollouts.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_filters_and_compares_a_question_over_steps(
    many, make_run, episode, load, browser, tmp_path, width
):
    hostile = episode(id="tools", question="<script>document.title='owned'</script>")
    make_run("two", [{}], samples={"rollouts/step_000009.jsonl": [hostile]})
    path = tmp_path / "all.html"
    rollouts.write(load(many, tmp_path / "two"), path, "Mine")
    chromium = browser(width)
    chromium.open(path)

    def enter(name, value):
        chromium.js(
            f"(e => {{ e.value = {json.dumps(value)}; e.oninput(); }})"
            f"(document.getElementById({json.dumps(name)}))"
        )
        return chromium.js("document.getElementById('found').textContent")

    assert chromium.js("document.title") == "Mine: responses"
    assert enter("text", "").startswith("201 responses")
    assert enter("reward-max", "0.5").startswith("100 responses")
    assert enter("step-min", "3").startswith("40 responses")
    assert enter("text", "ANSWER 1 OF").startswith("2 responses")
    for name in ("reward-max", "step-min", "text"):
        enter(name, "")
    assert enter("length-min", "16").startswith("1 responses")
    enter("length-min", "")
    assert enter("turns-min", "2").startswith("1 responses")
    roles = "[...document.querySelectorAll('.turn')].map(t => t.className)"
    assert chromium.js(roles) == ["turn policy", "turn environment", "turn policy"]
    shade = "t => getComputedStyle(document.querySelector(t)).backgroundColor"
    given, own = (chromium.js(f"({shade})('.turn.{r} pre')") for r in ("environment", "policy"))
    assert given != own
    enter("turns-min", "")
    chromium.js("document.querySelector('.sample button').click()")
    assert chromium.js("document.getElementById('found').textContent").startswith("5 responses")
    assert chromium.js("document.documentElement.scrollWidth") <= width
    assert chromium.console() == []
