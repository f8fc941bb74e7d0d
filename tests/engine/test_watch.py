"""The rules a run watches itself by; levels passed and not passed, worked by hand."""

import json

import pytest

from alignkit.docs import field_docs
from alignkit.engine.observing.watch import Rule, Streak, Watcher, bound, passed
from alignkit.engine.observing.watch_table import RULES, WatchTable
from alignkit.errors import AlignkitError


def rule(**changes):
    given = {
        "name": "truncated", "metric": "train/truncated", "level": 0.5, "side": "above",
        "action": "warn", "cause": "short", "remedy": "longer",
    }  # fmt: skip
    return Rule(**(given | changes))


def said_at(a_rule, values, *, steps=3, start_steps=5):
    """Return the steps (from 1) after which the rule spoke, and what it said."""
    streak = Streak(a_rule, steps, start_steps)
    spoken = [(i, streak.see(i, {a_rule.metric: v})) for i, v in enumerate(values, start=1)]
    return [(step, text) for step, text in spoken if text]


def test_a_level_is_passed_only_beyond_it():
    above, below = rule(), rule(side="below", level=1)
    assert [passed(above, v, 0.5) for v in (0.5, 0.51, float("nan"))] == [False, True, False]
    assert [passed(below, v, 1) for v in (1, 0, float("nan"))] == [False, True, False]
    # a share of the start, once that is known
    fall = rule(side="below its start times", level=0.1)
    assert bound(fall, None) is None
    assert bound(fall, 2.0) == pytest.approx(0.2)


def test_an_algorithm_adds_its_own_keys_to_the_advice_and_changes_no_other_watch():
    plain = Watcher([rule(), rule(name="other")])
    advised = plain.advised({"truncated": "my_key = 2", "unknown": "nothing"})

    def told(watcher):
        return [said for _, said in watcher.see(1, {"train/truncated": 0.9})]

    first, second = told(advised)
    assert "  Try: longer; or my_key = 2.\n" in first
    assert "  Try: longer.\n" in second
    assert all("my_key" not in said for said in told(plain))


def test_a_rule_speaks_once_after_so_many_steps_in_a_row():
    # 0.6 0.7 | 0.5 breaks the row | 0.6 0.7 0.8: the third in a row is step 6; a count that did
    # not start anew would speak at step 4. Step 7 says nothing again.
    ((step, text),) = said_at(rule(), [0.6, 0.7, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert step == 6
    assert text.splitlines() == [
        "watch: train/truncated is 0.8 at step 6 and has been above 0.5 since step 4.",
        "  Usual cause: short.",
        "  Try: longer.",
        '  This rule: [watch] truncated = "warn" (or "warn", "stop", "off").',
    ]


def test_a_collapse_is_measured_from_the_first_steps():
    fall = rule(metric="train/token_entropy", side="below its start times", level=0.1)
    # start: mean(1, 2, 3) = 2, so the limit is 0.2; 0.15 is above a tenth of the first step (0.1),
    # 0.25 is below a tenth of the third (0.3)
    assert said_at(fall, [1, 2, 3, 0.25, 0.25, 0.21], steps=2, start_steps=3) == []
    ((step, text),) = said_at(fall, [1, 2, 3, 0.15, 0.15], steps=2, start_steps=3)
    assert step == 5
    assert "has been below 0.2 (0.1 of its start) since step 4" in text


def test_values_that_are_missing_or_no_numbers_neither_count_nor_break_a_row():
    streak = Streak(rule(only_with="train/reward"), 2, 5)
    rows = [
        {"train/truncated": 0.9, "train/reward": 0.0},
        {"eval/reward": 1.0},
        {"train/truncated": float("nan"), "train/reward": 0.0},
        {"train/truncated": 0.9},  # not a row of sampled responses
    ]
    assert [streak.see(i, row) for i, row in enumerate(rows)] == ["", "", "", ""]
    assert "since step 0" in streak.see(9, rows[0])


def test_stop_ends_the_run_and_says_why_and_off_says_nothing(run):
    run.attach([Watcher([rule(action="stop"), rule(name="other", action="off")], steps=2)])
    run.log(1, {"train/truncated": 0.8})
    with pytest.raises(AlignkitError, match=r"stopped by \[watch\] at step 2: train/truncated"):
        run.log(2, {"train/truncated": 0.9})
    (line,) = run.lines
    assert line.startswith("watch: train/truncated is 0.9 at step 2")
    rows = (run.dir / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(r)["step"] for r in rows] == [1, 2]  # the row that did it is there


def test_a_resumed_run_knows_what_it_saw_and_said(run):
    run.attach([Watcher([rule()], steps=3)])
    for step in (1, 2):
        run.log(step, {"train/truncated": 0.8})
    later = Watcher([rule()], steps=3)
    later.start(run)  # reads the two rows
    assert run.lines == []
    later.log(3, {"train/truncated": 0.8})
    assert "since step 1" in run.lines[0]
    run.log(3, {"train/truncated": 0.8})
    with (run.dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "train/tru')  # cut off by a crash
    latest = Watcher([rule()], steps=3)
    latest.start(run)
    said = len(run.lines)
    latest.log(4, {"train/truncated": 0.8})
    assert len(run.lines) == said  # it was told before the stop


BAD = {  # metric -> a value that the default levels object to, and one that they do not
    "train/truncated": (0.51, 0.5),
    "train/identical": (0.995, 0.99),
    "train/groups_without_signal": (0.91, 0.9),
    "train/unparsed": (0.21, 0.2),
    "train/timed_out": (0.06, 0.05),
    "train/rollout_logprob_gap": (0.21, 0.2),
    "train/rollout_kl": (0.016, 0.015),
    "train/ratio_p99": (10.1, 10.0),
    "train/ratio_inverse_p99": (10.1, 10.0),
    "train/response_tokens": (0, 1),
    "train/token_entropy": (0.019, 0.021),  # a tenth of a start of 0.2
    "train/response_length": (0.03, 0.05),  # a fifth of a start of 0.2
}


@pytest.mark.parametrize("metric", BAD)
def test_every_default_rule_speaks_beyond_its_level_and_not_before(metric):
    calm = {m: 0.2 if "entropy" in m or "length" in m else good for m, (_, good) in BAD.items()}
    calm["train/reward"] = 0.5
    for value, spoken in zip(BAD[metric], (True, False), strict=True):
        watcher = WatchTable().build()
        said = [found for step in range(1, 6) for found in watcher.see(step, calm)]
        assert said == []
        for step in range(6, 9):
            said += watcher.see(step, calm | {metric: value})
        assert [r.metric for r, _ in said] == ([metric] if spoken else [])


def test_every_rule_of_the_table_can_be_switched_and_set():
    table = WatchTable()
    names = {r.name for r in table.rules()}
    actions = {k for k, v in table.model_dump().items() if v in ("warn", "stop", "off")}
    assert names == actions
    assert {r.metric for r in table.rules()} == BAD.keys()
    assert {r.name for r in table.rules() if r.action == "stop"} == {"no_tokens"}
    for name in names:
        changed = WatchTable(**{name: "off"})
        assert {r.name for r in changed.rules() if r.action == "off"} == {name}
        level = {f"{name}_above": 0.05, f"{name}_below": 0.05}
        key = next(k for k in level if k in WatchTable.model_fields)
        value = 11.0 if name == "ratio" else 7 if name == "no_tokens" else 0.05
        moved = [r.level for r in WatchTable(**{key: value}).rules() if r.name == name]
        assert set(moved) == {value}


def test_every_key_is_explained_and_in_the_order_of_the_rules():
    docs = field_docs(WatchTable)
    assert all(docs.values())
    assert (docs["no_tokens"], docs["no_tokens_below"]) == (
        "The updates of a step contained no response token to learn from.",
        "Number of response tokens in all updates of a step.",
    )
    keys = [key for rule in RULES for key in (rule.name, rule.level_key)]
    assert [*docs] == ["steps", "start_steps", *dict.fromkeys(keys), "nonfinite"]
