"""Reading and grouping run directories: whole, cut off, live, or none at all."""

import csv
import json

import pytest

from alignkit.errors import AlignkitError
from alignkit.run_data import groups, runs
from alignkit_report import tables
from alignkit_report.curves import MOST_POINTS, charts, curve

ACC = "eval/answer_reward"


def test_a_last_line_that_is_cut_off_is_left_out_with_a_warning(make_run):
    folder = make_run("a", [{ACC: 0.25}, {ACC: 0.5}])
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "eval/answ')
    found = runs.read(folder)
    assert found.series(ACC) == [(0, 0.25), (1, 0.5)]
    assert len(found.warnings) == 1
    assert "metrics.jsonl:3: the last line is cut off" in found.warnings[0]


def test_a_broken_line_in_the_middle_is_named_and_a_repeated_step_counts_once(make_run):
    folder = make_run("a", [{ACC: 0.25}, {ACC: 0.5}])
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    again = json.dumps({"step": 1, "time": 9, ACC: 0.75})
    (folder / "metrics.jsonl").write_text("\n".join([lines[0], "[1]", lines[1], again]) + "\n")
    found = runs.read(folder)
    assert found.series(ACC) == [(0, 0.25), (1, 0.75)]
    assert [w.partition("metrics")[2] for w in found.warnings] == [
        ".jsonl:2: not a row of metrics; left out"
    ]


def test_values_that_are_not_finite_are_no_points(make_run):
    found = runs.read(make_run("a", [{"x": 1.0}, {"x": None}, {"x": 3}]))
    assert found.series("x") == [(0, 1.0), (2, 3)]


def test_a_run_without_a_row_yet_is_a_run(make_run):
    folder = make_run("a", status="running")
    (folder / "metrics.jsonl").unlink()
    (found,) = runs.find([folder])
    assert (found.status, found.rows, found.seconds) == ("running", [], 10.0)
    assert "no metrics.jsonl yet" in found.warnings[0]


def test_a_directory_that_is_no_run_gets_a_clear_error(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(AlignkitError, match=r"empty is no run directory and holds none"):
        runs.find([tmp_path / "empty"])
    with pytest.raises(AlignkitError, match=r"nowhere is no directory"):
        runs.find([tmp_path / "nowhere"])


def test_runs_below_a_folder_are_found_once_in_the_sweep_s_order(make_run, tmp_path):
    for name in ("s/b/seed_0", "s/b/seed_10", "s/b/seed_2", "s/a/x/seed_0", "s/.aside/old"):
        make_run(name, seed=int(name.rpartition("_")[2]) if "_" in name else 0)
    (tmp_path / "s/sweep.json").write_text('{"variants": ["b", "a/x"]}')
    found = runs.find([tmp_path / "s", tmp_path / "s/b/seed_2"])
    assert [(r.variant, r.seed) for r in found] == [("b", 0), ("b", 2), ("b", 10), ("a/x", 0)]


def test_seeds_of_one_plan_are_a_group_but_one_seed_twice_is_a_comparison(make_run, load):
    folders = [
        make_run("one", seed=0), make_run("two", seed=1), make_run("three", lr=1e-3),
        make_run("later", seed=0),
    ]  # fmt: skip
    found = load(*folders)
    assert [(g.name, [r.seed for r in g.runs]) for g in found] == [
        ("one", [0, 1]),
        ("later", [0]),
        ("three", [0]),
    ]


def test_groups_of_two_sweeps_keep_different_names(make_run, load, tmp_path):
    make_run("s1/base/seed_0")
    make_run("s2/base/seed_0")
    found = load(tmp_path / "s1", tmp_path / "s2")
    assert [g.name for g in found] == ["s1/base", "s2/base"]


def test_the_plans_differences_are_their_values_and_not_their_seeds(make_run, load):
    found = load(make_run("a", lr=1e-4), make_run("b", lr=1e-3, seed=3))
    assert groups.differences(found) == {"optimizer.lr": ["0.0001", "0.001"]}


# ---------------------------------------------------------------- numbers


def test_final_and_best_are_over_seeds(make_run, load):
    one = make_run("v/seed_0", [{ACC: 0.2}, {ACC: 0.9}, {ACC: 0.5}])
    make_run("v/seed_1", [{ACC: 0.4}, {ACC: 0.6}, {ACC: 0.7}], seed=1)
    (found,) = load(one.parent)
    # last 0.5 and 0.7: mean 0.6, deviation 0.1414 (ddof 1; 0.1 with ddof 0) over root 2 = 0.1
    last = groups.final(found, ACC)
    assert (last.value, last.se, last.n) == (pytest.approx(0.6), pytest.approx(0.1), 2)
    # each run's own best, 0.9 at step 1 and 0.7 at step 2; not the best mean, 0.75 at step 1
    top = groups.best(found, ACC)
    assert (top.value, top.step) == (pytest.approx(0.8), 1.5)
    assert groups.best(found, ACC, largest=False).value == pytest.approx(0.3)
    assert groups.first(found, ACC).value == pytest.approx(0.3)


def test_one_seed_has_the_error_over_examples_and_says_so(make_run, load):
    folder = make_run("a", [{ACC: 0.5, ACC + "_se": 0.03}, {ACC: 0.4, ACC + "_se": 0.02}])
    (found,) = load(folder)
    last, top = groups.final(found, ACC), groups.best(found, ACC)
    assert (last.se, last.over) == (0.02, "examples")
    assert (top.value, top.se) == (0.5, 0.03)
    assert "over the evaluation's examples" in tables.text([found])


def test_the_error_that_seeds_do_not_show_is_told(make_run, load):
    one = make_run("v/seed_0", [{ACC: 0.5, ACC + "_se": 0.02}, {ACC: 0.6, ACC + "_se": 0.05}])
    make_run("v/seed_1", [{ACC: 0.5, ACC + "_se": 0.03}], seed=1)
    text = tables.text(load(one.parent))
    assert "the same for all seeds, add about ± 0.040" in text  # 0.05 and 0.03, the last ones


def test_one_seed_without_a_logged_error_has_none(make_run, load):
    (found,) = load(make_run("a", [{"x": 1.0}]))
    assert groups.final(found, "x").se is None
    assert groups.final(found, "y") is None
    assert groups.estimate([]) is None


def test_a_curve_is_mean_and_band_over_the_seeds_that_got_that_far(make_run, load):
    one = make_run("v/seed_0", [{"x": 1.0}, {"x": 1.0}, {"x": 4.0}])
    make_run("v/seed_1", [{"x": 3.0}, {"x": None}], seed=1)
    (found,) = load(one.parent)
    drawn = curve(found, "x")
    assert (drawn.step, drawn.n) == ([0, 1, 2], [2, 1, 1])
    assert drawn.mean == [2.0, 1.0, 4.0]
    # at step 0: deviation of 1 and 3 is 1.414, over root 2 is 1, times 1.96
    assert drawn.low == pytest.approx([0.04, 1.0, 4.0])
    assert drawn.high == pytest.approx([3.96, 1.0, 4.0])
    assert (drawn.least, drawn.most) == ([1.0, 1.0, 4.0], [3.0, 1.0, 4.0])
    assert [(s.step, s.value) for s in drawn.seeds] == [([0, 1, 2], [1.0, 1.0, 4.0]), ([0], [3.0])]
    assert drawn.seeds[0].time == [0.0, 2.0, 4.0]
    assert drawn.time == [0.0, 2.0, 4.0]
    assert curve(found, "y") is None


def test_a_long_curve_is_thinned_and_keeps_its_ends(make_run, load):
    (found,) = load(make_run("a", [{"x": float(i)} for i in range(5001)]))
    drawn = curve(found, "x")
    assert len(drawn.step) == MOST_POINTS
    assert (drawn.step[0], drawn.step[-1]) == (0, 5000)
    assert drawn.mean == [float(s) for s in drawn.step]


def test_every_logged_metric_has_a_chart_but_times_and_errors(make_run, load):
    row = {ACC: 0.1, ACC + "_se": 0.1, "time/eval": 1.0, "eval/pass@4": 0.1, "odd": 1.0}
    row |= {"eval/response_length": 3.0, "eval/response_length_correct": 2.0}
    found = charts(load(make_run("a", [row])))
    assert [m for c in found for m in c.metrics if m in row] == [
        ACC, "eval/response_length", "eval/response_length_correct", "eval/pass@4",
        "odd",
    ]  # fmt: skip
    assert [c.section for c in found] == ["Accuracy", "Length", "More accuracy", "Other metrics"]


def test_phases_are_summed_over_steps_and_the_rest_is_other(make_run, load):
    rows = [{"time/rollout": 1.0, "time/update": 0.5}, {"time/rollout": 3.0, "time/sync": 0.0}]
    (found,) = load(make_run("a", rows))
    assert groups.phases(found) == {"rollout": 4.0, "update": 0.5, "other": 5.5}


def test_the_table_has_a_line_per_setting_and_says_why_runs_were_stopped(make_run, load, tmp_path):
    make_run("s/good/seed_0", [{ACC: 0.2}, {ACC: 0.75}])
    bad = make_run("s/bad/seed_0", [{ACC: 0.2}], status="running")
    (bad / "stopped.json").write_text('{"status": "diverged", "reason": "loss not finite"}')
    text = tables.text(load(tmp_path / "s"))
    lines = [line.split() for line in text.splitlines()]
    assert lines[0][:4] == ["VARIANT", "RUNS", "START", "FINAL"]
    assert lines[1] == ["bad", "1", "0.200", "0.200", "0.200", "0", "10", "s", "diverged", "none"]
    assert lines[2] == ["good", "1", "0.200", "0.750", "0.750", "1", "10", "s", "done", "none"]
    assert f"bad, seed 0: diverged: loss not finite; model: none; last {ACC}: step 0" in text


def test_the_tables_say_which_model_a_run_stands_for(make_run, load, tmp_path):
    whole = make_run("s/whole/seed_0", [{ACC: 0.2}, {ACC: 0.75}])
    (whole / "final").mkdir()
    timed = make_run("s/timed/seed_0", [{ACC: 0.2}, {}, {}], status="interrupted")
    (timed / "stopped.json").write_text('{"status": "out of time", "reason": "1 h"}')
    limit = make_run("s/limit/seed_0", [{ACC: 0.1}, {}], status="stopped")
    for folder, names in (
        (timed, ["step_000002", "step_000001"]),
        (limit, ["step_000001_part_0003"]),
    ):
        (folder / "final").mkdir()
        for name in names:
            (folder / "checkpoints" / name).mkdir(parents=True)
    kept = make_run("s/kept/seed_0", [{ACC: 0.2}, {ACC: 0.3}], status="failed")
    (kept / "checkpoints/step_000001/model").mkdir(parents=True)
    found = load(tmp_path / "s")
    text = tables.text(found)
    ends = {line.split()[0]: line for line in text.splitlines() if "10 s" in line}
    assert ends["whole"].endswith("done         last, step 1")
    assert ends["timed"].endswith("out of time  last, step 2")
    assert ends["limit"].endswith("stopped      last, step 1 and part of the next")
    assert ends["kept"].endswith("failed       best, step 1")
    assert f"timed, seed 0: out of time: 1 h; model: last, step 2; last {ACC}: step 0" in text
    said = f"limit, seed 0: stopped; model: last, step 1 and part of the next; last {ACC}: step 0"
    assert said in text
    tables.write_summary(found, tmp_path / "s.csv")
    rows = csv.DictReader((tmp_path / "s.csv").read_text().splitlines())
    assert {r["variant"]: r["model"] for r in rows}["kept"] == "best, step 1"


def test_other_algorithms_are_compared_by_what_they_log(make_run, load):
    found = load(make_run("a", [{"train/loss": 2.0, "eval/accuracy": 0.5}]))
    assert tables.headline(found) == "eval/accuracy"
    found = load(make_run("b", [{"train/loss": 2.0}, {"train/loss": 1.0}, {"train/loss": 1.5}]))
    assert tables.headline(found) == "train/loss"
    assert tables.lines(found)[0].best.value == 1.0  # of a loss, the least


def test_a_run_that_is_given_alone_has_the_name_of_its_variant_in_the_sweep(make_run, tmp_path):
    deep = make_run("sweep/wide/lr=1/seed_0", [{ACC: 0.5}])
    assert [run.variant for run in runs.find([deep])] == ["lr=1"]
    (tmp_path / "sweep" / runs.SWEEP).write_text("{}")
    assert [run.variant for run in runs.find([deep])] == ["wide/lr=1"]
    assert [run.variant for run in runs.find([tmp_path / "sweep"])] == ["wide/lr=1"]
    assert [run.variant for run in runs.find([tmp_path / "sweep/wide"])] == ["lr=1"]


def test_accuracies_of_named_sets_are_one_table(make_run, load, tmp_path):
    """Settings by sets; one that was evaluated on none is left out, part of a set is no set."""

    def row(**scores):
        return {f"eval/{name}/answer_reward": value for name, value in scores.items()}

    parts = {"eval/mmlu/answer_reward/art": 0.9}
    make_run("s/before/seed_0", [row(mmlu=0.25, gsm8k=0.125) | parts])
    make_run("s/sft/seed_0", [{"train/loss": 1.0}])
    make_run("s/after/seed_0", [row(mmlu=0.5), row(mmlu=0.75)])
    (tmp_path / "s" / "sweep.json").write_text('{"variants": ["before", "sft", "after"]}')
    found = load(tmp_path / "s")
    lines = [line.split() for line in tables.by_set(found).splitlines()]
    assert lines == [
        ["VARIANT", "mmlu", "gsm8k"],
        ["before", "0.250", "0.125"],
        ["after", "0.750", "–"],
    ]
    assert tables.by_set(found) in tables.text(found)
    assert tables.lines(found)[0].others["gsm8k"].value == 0.125


def test_one_named_set_needs_no_table_of_its_own(make_run, load, tmp_path):
    make_run("r", [{"eval/gsm8k/answer_reward": 0.5}])
    assert tables.by_set(load(tmp_path / "r")) == ""


@pytest.mark.parametrize(
    ("text", "kept", "said"),
    [
        (b'{"a": 1}\n{"a": 2}\n', 2, ""),
        (b'{"a": 1}\n\n{"a": 2}\n{"a"', 2, ""),  # it is being written
        (b'{"a": 1}\n[3]\n', 1, "a line is no response, and left out"),
        (b'\x00\xff{}\n{"a": 1}\nnull\n7\n', 1, "3 lines are no responses, and left out"),
        (b"\xffnothing\n" * 5 + b"\x00", 0, "5 lines are no responses, and left out"),
    ],
)
def test_lines_that_are_no_responses_are_counted_once_for_a_file(
    tmp_path, caplog, text, kept, said
):
    file = tmp_path / "step_000001.jsonl"
    file.write_bytes(text)
    for _ in range(2):
        assert [row["a"] for row in runs.read_samples(file)] == [1, 2][:kept]
    assert [record.message.partition(": ")[2] for record in caplog.records] == [said] * bool(said)
