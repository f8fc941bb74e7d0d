"""The trackers mlflow and trackio, with the real packages, read back through their own APIs."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

from alignkit_trackers.mlflow_run import leaves, usable

PLAY = """
import json, math, sys
from pathlib import Path
from alignkit.execution import Run
from alignkit_trackers import Mlflow, Trackio

folder, kind, (first, last) = Path(sys.argv[1]), sys.argv[2], map(int, sys.argv[3:5])
status = sys.argv[5]
PLAN = {"use": "grpo", "optimizer": {"use": "adamw", "lr": 1e-5}, "long": "x" * 7000}
PLAN |= {f"key_{i}": i for i in range(150)}
ROWS = [{"prompt": "2+2?\\n<b>", "reward": 1.0, "parts": {"f": 1.0}}, {"prompt": "3"}]
folder.mkdir(exist_ok=True)
run = Run(folder, PLAN)
run.resumed, run.first_step = first > 0, first
tracker = {"mlflow": Mlflow, "trackio": Trackio}[kind](samples=1, **json.loads(sys.argv[6])).build()
run.attach([tracker])
for step in range(first, last):
    run.rows(step, "rollouts", ROWS)
    run.log(step, {"train/loss": math.nan if step == 1 else step / 4, "eval/pass@2": 0.5})
run.close(status)
"""


def play(folder, kind, first=0, last=2, status="done", **settings):
    """Log rows in a process of its own: both packages keep their place for as long as it lives."""
    env = {**os.environ, "PYTHONWARNINGS": "error:Reserved keys"}
    for name in ("MLFLOW_TRACKING_URI", "TRACKIO_DIR"):
        env.pop(name, None)
    words = [sys.executable, "-c", PLAY, folder, kind, first, last, status, json.dumps(settings)]
    done = subprocess.run(
        list(map(str, words)), env=env, cwd=folder.parent, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert {p.name for p in folder.parent.iterdir()} <= {folder.name, "elsewhere.db", "artifacts"}
    return done.stdout


def open_mlflow(uri, experiment):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is in the extra `mlflow`")
    client = mlflow.MlflowClient(uri)
    return client, client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_the_rows_the_recipe_and_the_samples(tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is in the extra `mlflow`")
    folder = tmp_path / "one"
    said = play(folder, "mlflow", tags={"of": "mine"}, experiment="two words")
    assert "experiment 'two words' at sqlite:///" in said
    client, (run,) = open_mlflow(f"sqlite:///{folder / 'mlflow' / 'mlflow.db'}", "two words")
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "one"
    assert run.data.tags["of"] == "mine"
    params = run.data.params
    assert (params["optimizer.lr"], params["use"], params["key_149"]) == ("1e-05", "grpo", "149")
    assert len(params["long"]) == 6000
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [(m.step, str(m.value)) for m in losses] == [(0, "0.0"), (1, "nan")]
    assert [m.value for m in client.get_metric_history(run.info.run_id, "eval/pass_2")] == [0.5] * 2
    (kept,) = (folder / "mlflow" / "artifacts").rglob("step_000001.json")
    table = json.loads(kept.read_text())
    assert table == {
        "columns": ["prompt", "reward", "parts"],
        "data": [["2+2?\n<b>", 1.0, '{"f": 1.0}']],
    }


@pytest.mark.filterwarnings("ignore")
def test_mlflow_goes_on_with_the_same_run_and_sends_no_step_twice(tmp_path):
    pytest.importorskip("mlflow", reason="mlflow is in the extra `mlflow`")
    folder, uri = tmp_path / "one", f"sqlite:///{tmp_path / 'elsewhere.db'}"
    play(folder, "mlflow", 0, 3, "failed", uri=uri)
    play(folder, "mlflow", 2, 4, uri=uri)  # step 2 comes again
    client, (run,) = open_mlflow(uri, "alignkit")
    assert run.info.status == "FINISHED"
    losses = client.get_metric_history(run.info.run_id, "train/loss")
    assert [m.step for m in losses] == [0, 1, 2, 3]


@pytest.mark.filterwarnings("ignore")
def test_trackio_has_the_rows_and_the_samples_also_after_a_resume(tmp_path):
    pytest.importorskip("trackio", reason="trackio is in the extra `trackio`")
    folder = tmp_path / "one"
    said = play(folder, "trackio", 0, 3, "failed", project="two words")
    assert f"TRACKIO_DIR={folder}/trackio trackio show --project 'two words'" in said
    assert "dashboard" not in said  # its own words are left out
    play(folder, "trackio", 2, 4, project="two words")
    read = (
        "import json; from trackio.sqlite_storage import SQLiteStorage as S;"
        "print(json.dumps([S.get_logs('two words', 'one'), S.get_run_config('two words', 'one')]))"
    )
    env = {**os.environ, "TRACKIO_DIR": str(folder / "trackio")}
    done = subprocess.run(
        [sys.executable, "-c", read], env=env, capture_output=True, text=True, check=True
    )
    rows, config = json.loads(done.stdout.splitlines()[-1])
    losses = {row["step"]: row["train/loss"] for row in rows if "train/loss" in row}
    assert sum("train/loss" in row for row in rows) == 4
    assert (losses[0], losses[2], losses[3]) == (0.0, 0.5, 0.75)
    assert math.isnan(losses[1])
    tables = [row["rollouts/samples"]["_value"] for row in rows if "rollouts/samples" in row]
    assert len(tables) == 4
    assert tables[0] == [{"prompt": "2+2?\n<b>", "reward": 1.0, "parts": '{"f": 1.0}'}]
    assert [row["run/failed"] for row in rows if "run/failed" in row] == [1.0, 0.0]
    assert config["optimizer"]["lr"] == 1e-5
    assert all(row["run/seconds"] >= 0 for row in rows if "train/loss" in row)  # not `time`


def test_names_and_values_are_made_fit_for_mlflow():
    assert usable("eval/ok-1.x: a") == "eval/ok-1.x: a"
    assert usable("η²@") == "η²_"
    assert dict(leaves({"a": {"b": [1, None], "c": {}}, "d": True, "e": Path("x")})) == {
        "a.b": "[1, null]", "d": "true", "e": '"x"',
    }  # fmt: skip
