"""A run's model on the Hub: tried on a server of ours that speaks the Hub's API."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from alignkit import AlignkitError
from alignkit_publish.card import base_model, without_home
from alignkit_publish.push import prepared

KEY = "hf_standin"


def push(folder, repo, hub, *options, key=KEY):
    env = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_OFFLINE": "0", "HF_TOKEN": key}
    env |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    words = [sys.executable, "-m", "alignkit", "push", folder, repo, *options]
    return subprocess.run(words, env=env, capture_output=True, text=True, check=False)


def front(card):
    """The metadata of a card, as the Hub reads it."""
    return yaml.safe_load(card.split("---\n")[1])


def test_a_run_is_uploaded_whole_in_one_commit_and_again(finished, hub):
    folder = finished()
    done = push(folder, "somebody/first", hub, "--licence", "apache-2.0")
    assert done.returncode == 0, done.stdout + done.stderr
    there = hub.repos["somebody/first"]
    final = {p.name: p.read_bytes() for p in (folder / "final").iterdir() if p.is_file()}
    assert {name: there[name] for name in final if name != "README.md"} == {
        name: content for name, content in final.items() if name != "README.md"
    }
    assert there["alignkit/metrics.jsonl"] == (folder / "metrics.jsonl").read_bytes()
    assert b"somebody/Small-Model_1" in there["alignkit/recipe.toml"]
    assert front(there["README.md"].decode())["license"] == "apache-2.0"
    assert hub.commits == ["Upload one"]
    assert f"{hub.url}/somebody/first/commit/" in done.stdout
    again = push(folder, "somebody/first", hub, "--message", "Once more")
    assert again.returncode == 0, again.stdout + again.stderr
    assert hub.commits == ["Upload one", "Once more"]


def test_a_key_that_may_not_write_is_told_with_the_remedy_and_is_not_shown(finished, hub):
    done = push(finished(), "somebody/first", hub, "--private", key="hf_wrongwrong")
    assert done.returncode == 2
    assert "somebody/first was not uploaded" in done.stderr
    assert "HF_TOKEN" in done.stderr
    assert "hf_wrongwrong" not in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert hub.repos == {}
    assert hub.refused == 1


def test_a_new_repository_is_private_where_that_is_asked_for(finished, hub):
    done = push(finished(), "somebody/secret", hub, "--private")
    assert done.returncode == 0, done.stdout + done.stderr
    assert hub.private == {"somebody/secret": True}


def test_a_hub_that_does_not_answer_is_an_error_without_traceback(finished, hub):
    hub.server_close()
    hub.shutdown()
    done = push(finished(), "somebody/first", hub)
    assert done.returncode == 2
    assert "was not uploaded" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_card_says_what_was_trained_how_and_with_what_result(finished):
    upload = prepared(finished(), "somebody/first", None)
    card = upload.made["README.md"].decode()
    meta = front(card)
    assert meta["base_model"] == "somebody/Small-Model_1"
    assert meta["tags"] == ["alignkit", "grpo"]
    assert "license" not in meta
    (entry,) = meta["model-index"]
    assert entry["results"][0]["metrics"] == [{"type": "eval/answer_reward", "value": 0.875}]
    assert entry["results"][0]["dataset"]["name"] == "problems/train.jsonl"
    for part in (
        "| 0 | 0.2500 |", "| 2 | 0.8750 |", 'from_pretrained("somebody/first")', "Seed: 3",
        "| loss | loss\\_type | mine | alignkit 0.1.0 |", "torch 2.13.0", "A \\| CPU",
        "alignkit (Apache-2.0)", 'use = "grpo"',
    ):  # fmt: skip
        assert part in card, part


def test_many_evaluations_are_thinned_to_a_short_table_with_first_and_last(finished):
    card = prepared(finished(values=[i / 100 for i in range(100)]), "a/b", None).made["README.md"]
    rows = [line for line in card.decode().splitlines() if line.startswith("| ") and "0." in line]
    steps = [int(line.split("|")[1]) for line in rows if line.split("|")[1].strip().isdigit()]
    assert steps[0] == 0
    assert steps[-1] == 99
    assert len(steps) <= 9


HOSTILE = 'x`]|<script>alert("1")</script>\n---\n# Not a head'


def test_what_a_run_says_cannot_change_the_card(finished):
    component = {
        "key": "loss",
        "kind": "loss_type",
        "use": HOSTILE,
        "dist": HOSTILE,
        "version": "1",
    }
    plan = {"use": HOSTILE, "policy": {"use": "hf", "path": HOSTILE}, "note": "```\n# Out\n```"}
    folder = finished(plan, status="failed", components=[component])
    card = prepared(folder, "somebody/first", HOSTILE).made["README.md"].decode()
    before, meta, body = card.split("\n---\n", 1)[0], front(card), card.split("---\n\n", 1)[1]
    assert before.startswith("---")
    assert meta["license"] == HOSTILE
    outside = body.split("```toml")[0] + body.split("```toml")[1].split("\n```\n")[1]
    assert "<script>" not in outside
    assert "\n# Not a head" not in outside
    assert "\n# Out" not in outside
    assert "did not end by itself: failed" in body


def test_a_run_without_a_metric_has_a_card_too(finished):
    card = prepared(finished(values=()), "somebody/first", None).made["README.md"].decode()
    assert "No metric was logged." in card
    assert "model-index" not in front(card)


def test_only_hub_names_are_base_models():
    assert base_model({"policy": {"path": "Qwen/Qwen2.5-Math-1.5B"}}) == "Qwen/Qwen2.5-Math-1.5B"
    for path in ("/lab/model", "../data/tiny_policy", "C:\\model", "model", None, 3):
        assert base_model({"policy": {"path": path}}) == ""
    assert base_model({}) == ""


def test_the_home_folder_is_not_told(monkeypatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    text = 'path = "/home/ada/data/x"\nother = "/home/adam/x"\nbare = "/home/ada"'
    assert without_home(text) == 'path = "~/data/x"\nother = "/home/adam/x"\nbare = "~"'


def test_a_run_without_a_model_and_a_wrong_name_are_refused(finished, tmp_path):
    folder = finished()
    for repo in ("a/b/c", "../x", "a b", "", "x" * 120, "-x/y"):
        with pytest.raises(AlignkitError, match="cannot be a repository"):
            prepared(folder, repo, None)
    with pytest.raises(AlignkitError, match="is no run directory"):
        prepared(tmp_path, "a/b", None)
    (folder / "final" / "config.json").unlink()
    with pytest.raises(AlignkitError, match="has no final/ with a model: the run is done"):
        prepared(folder, "a/b", None)


def test_the_card_can_be_written_and_read_before_anything_is_sent(finished, hub, tmp_path):
    done = push(finished(), "somebody/first", hub, "--card", tmp_path / "card")
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "card" / "README.md").is_file()
    assert (tmp_path / "card" / "alignkit" / "recipe.toml").is_file()
    assert hub.repos == {}


def test_a_card_that_cannot_be_written_is_an_error_of_the_command(finished, hub, tmp_path):
    (tmp_path / "taken").write_text("mine")
    done = push(finished(), "somebody/first", hub, "--card", tmp_path / "taken")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("cannot write ")
    assert "Traceback" not in done.stderr
    assert (tmp_path / "taken").read_text() == "mine"
