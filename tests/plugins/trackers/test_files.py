"""Trackers that write: jsonl, wandb (offline) and tensorboard, read back from disk."""

import json
import math
import struct

import pytest
from pydantic import ValidationError

import alignkit_trackers
from alignkit import AlignkitError, plugins, recipe
from alignkit.execution import Run
from alignkit_trackers import Jsonl, Mlflow, Tensorboard, Trackio, Wandb, tracker
from alignkit_trackers.values import sample_table
from alignkit_trackers.wandb_run import default_mode

PLAN = {"use": "grpo", "n_steps": 2, "optimizer": {"use": "adamw", "lr": 1e-5}}
ROWS = [
    {"prompt": "# 2+2?\n  <b>", "reward": 1.0, "parts": {"format": 1.0}},
    {"prompt": "3+3?", "reward": math.nan, "truncated": True},
    {"prompt": "4+4?", "reward": 0.0},
]


def play(folder, *trackers, status="done"):
    """Two steps, one evaluation and two tables."""
    folder.mkdir()
    run = Run(folder, PLAN)
    run.said = []
    run.printer = run.said.append
    try:
        run.attach(trackers)
    except AlignkitError:
        run.close("failed")
        raise
    run.log(0, {"eval/reward": 0.5, "time/eval": 1.0})
    run.rows(0, "eval", ROWS)
    run.rows(1, "rollouts", ROWS)
    run.log(1, {"train/loss": math.nan, "train/reward": 0.25, "time/update": 2.0})
    run.close(status)
    return run


def test_names_are_those_of_the_contract():
    names = {component.name for component in tracker()}
    assert names == {"console", "jsonl", "wandb", "tensorboard", "mlflow", "trackio"}


@pytest.mark.parametrize(
    "params", [Wandb(), Tensorboard(), Mlflow(), Trackio()], ids=lambda p: type(p).__name__
)
def test_a_missing_package_is_named_with_its_extra(params, monkeypatch):
    monkeypatch.setattr(alignkit_trackers, "find_spec", lambda name: object())
    assert list(params.missing()) == []
    monkeypatch.setattr(alignkit_trackers, "find_spec", lambda name: None)
    [message] = params.missing()
    assert f"pip install 'alignkit[{type(params).__name__.lower()}]'" in message


def test_a_table_keeps_text_and_numbers_and_writes_the_rest_as_json():
    columns, cells = sample_table([*ROWS, {"late": 1}], 2)
    assert columns == ["prompt", "reward", "parts", "truncated"]
    assert cells[0] == ["# 2+2?\n  <b>", 1.0, '{"format": 1.0}', None]
    assert (cells[1][0], cells[1][2:]) == ("3+3?", [None, True])
    assert len(cells) == 2


# ---------------------------------------------------------------- jsonl


def test_jsonl_collects_runs_in_one_file(tmp_path):
    path = tmp_path / "below" / "all.jsonl"
    for name in ("a", "b"):
        play(tmp_path / name, Jsonl(path=path).build())
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows:
        assert row.pop("time") >= 0
    first = {"step": 0, "eval/reward": 0.5, "time/eval": 1.0}
    # not a bare NaN, which is not JSON
    second = {"step": 1, "train/loss": None, "train/reward": 0.25, "time/update": 2.0}
    assert rows == [{"run": n} | row for n in ("a", "b") for row in (first, second)]


RECIPE = """
use = "evaluate"
policy = { use = "hf", path = "some/model" }
data = { use = "gsm8k" }
prompt = { use = "question_only" }
reward = { use = "question_only" }
rollout = { use = "hf" }
trackers = [{ use = "jsonl", path = "out/all.jsonl" }]
"""


def test_jsonl_writes_beside_the_recipe_that_names_the_file(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "a.toml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    node = recipe.load(tmp_path / "recipes" / "a.toml", plugins.load([]))
    [table] = node.tables()["trackers"]
    assert table.path == tmp_path / "recipes" / "out" / "all.jsonl"


def test_jsonl_refuses_a_folder_before_and_an_unwritable_place_at_the_start(tmp_path):
    [(key, message)] = Jsonl(path=tmp_path).check({})
    assert key == "path"
    assert message == f"{tmp_path} is a folder; name a file in it, such as metrics.jsonl"
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "x.jsonl"
    with pytest.raises(AlignkitError, match=f"tracker jsonl cannot write {path}"):
        play(tmp_path / "run", Jsonl(path=path).build())


# ---------------------------------------------------------------- tensorboard


def test_tensorboard_has_every_scalar_and_the_first_samples(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    play(tmp_path / "run", Tensorboard(samples=2).build())
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard")).Reload()
    tags = events.Tags()
    assert set(tags["scalars"]) == {
        "time", "eval/reward", "time/eval", "train/loss", "train/reward", "time/update",
    }  # fmt: skip
    [reward] = events.Scalars("train/reward")
    assert (reward.step, reward.value) == (1, 0.25)
    [loss] = events.Scalars("train/loss")
    assert math.isnan(loss.value)
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0] for tag in tags["tensors"]}
    samples = {f"{name}/{n}/text_summary" for name in ("eval", "rollouts") for n in (0, 1)}
    assert set(texts) == {"recipe/text_summary", *samples}
    # indented by four: Markdown shows neither a heading nor a tag
    assert b"**prompt**\n\n    # 2+2?\n      <b>" in texts["rollouts/0/text_summary"]
    assert b"lr = 1e-05" in texts["recipe/text_summary"]


# ---------------------------------------------------------------- wandb


def wandb_records(path):
    """The records of a .wandb file: protobuf in the log format of LevelDB, 32 KiB blocks."""
    import wandb
    from wandb.proto.wandb_internal_pb2 import Record

    wandb.teardown()  # as at the end of a process: waits until everything is on disk

    data, at, whole = path.read_bytes(), 7, b""  # after the file's own header
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or last part
            record = Record()
            record.ParseFromString(whole)
            whole = b""
            yield record


@pytest.fixture(scope="module")
def wandb_run(tmp_path_factory):
    """A finished run on a machine without a key, and the records in its file."""
    pytest.importorskip("wandb")
    folder = tmp_path_factory.mktemp("wandb") / "my-run"
    with pytest.MonkeyPatch.context() as patch:
        no_key(patch)
        run = play(folder, Wandb(group="seeds", tags=("a",), samples=2).build())
    [file] = folder.glob("wandb/offline-run-*/*.wandb")
    return run, file, list(wandb_records(file))


def no_key(patch):
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        patch.delenv(name, raising=False)
    patch.setenv("NETRC", "/nonexistent/netrc")


def of_type(records, kind):
    return [getattr(r, kind) for r in records if r.WhichOneof("record_type") == kind]


def history(records):
    return [
        {(item.key or "/".join(item.nested_key)): json.loads(item.value_json) for item in row.item}
        for row in of_type(records, "history")
    ]


def test_wandb_without_a_key_is_offline_and_says_how_to_upload(wandb_run):
    run, file, records = wandb_run
    assert run.said == [f"wandb: offline; upload it with: wandb sync {file.parent}"]
    [told] = of_type(records, "run")[:1]
    assert (told.project, told.display_name) == ("alignkit", "my-run")
    assert (told.run_group, list(told.tags)) == ("seeds", ["a"])
    config = {item.key: json.loads(item.value_json) for item in told.config.update}
    assert config["optimizer"] == {"use": "adamw", "lr": 1e-5}
    assert of_type(records, "exit")[0].exit_code == 0


def test_wandb_puts_each_part_over_its_own_step(wandb_run):
    _, _, records = wandb_run
    steps = {m.glob_name: m.step_metric for m in of_type(records, "metric") if m.glob_name}
    assert steps == {"train/*": "train_step", "time/*": "train_step", "eval/*": "eval_step"}
    rows = history(records)
    [evaluated] = [r for r in rows if "eval/reward" in r]
    assert (evaluated["eval/reward"], evaluated["eval_step"]) == (0.5, 0)
    [trained] = [r for r in rows if "train/reward" in r]
    assert (trained["train/reward"], trained["train_step"]) == (0.25, 1)
    assert "eval_step" not in trained
    assert math.isnan(float(trained["train/loss"]))


def test_wandb_has_tables_of_the_first_samples(wandb_run):
    _, file, records = wandb_run
    rows = history(records)
    for key, step in (("eval/samples", "eval_step"), ("train/rollouts", "train_step")):
        [row] = [r for r in rows if f"{key}/path" in r]
        assert step in row
        table = json.loads((file.parent / "files" / row[f"{key}/path"]).read_text())
        assert table["columns"] == ["prompt", "reward", "parts", "truncated"]
        assert [cells[0] for cells in table["data"]] == ["# 2+2?\n  <b>", "3+3?"]


def test_wandb_marks_a_failed_run_and_logs_no_table_if_told(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    no_key(monkeypatch)
    play(tmp_path / "run", Wandb(mode="offline", samples=0, name="x").build(), status="failed")
    [file] = tmp_path.glob("run/wandb/offline-run-*/*.wandb")
    records = list(wandb_records(file))
    assert of_type(records, "exit")[0].exit_code == 1
    assert of_type(records, "run")[0].display_name == "x"
    assert not [key for row in history(records) for key in row if key.endswith("/path")]


def test_wandb_goes_online_only_with_a_key(tmp_path, monkeypatch):
    no_key(monkeypatch)
    assert default_mode() == "offline"
    netrc = tmp_path / "netrc"
    netrc.write_text("machine api.wandb.ai login user password 0123\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    assert default_mode() is None
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert default_mode() == "offline"  # the key is for another server
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert default_mode() is None
    monkeypatch.delenv("WANDB_API_KEY")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert default_mode() is None  # left to wandb, which reads the variable


def test_wandb_knows_two_modes():
    with pytest.raises(ValidationError, match="'online' or 'offline'"):
        Wandb(mode="dryrun")
