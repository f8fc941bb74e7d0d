"""Data sets of the Hub, without network."""

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from alignkit import AlignkitError
from alignkit_data import Gsm8k, Math, hub
from rows_of_data import write


@pytest.fixture
def without_datasets(monkeypatch):
    """The package ``datasets`` is not installed, whatever this machine has."""
    real = hub.find_spec
    monkeypatch.setattr(hub, "find_spec", lambda n: None if n == "datasets" else real(n))


@pytest.fixture
def hub_cache(monkeypatch, tmp_path, without_datasets):
    """An empty Hub cache, offline."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def cached(cache, name, file, *rows):
    repo = cache / f"datasets--{name.replace('/', '--')}"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text("0" * 40)
    (repo / "snapshots" / ("0" * 40)).mkdir(parents=True)
    write(repo / "snapshots" / ("0" * 40) / file, *rows)


def test_the_hub_is_read_from_the_cache_when_offline(hub_cache):
    rows = [{"problem": "p", "answer": "4"}, {"problem": "p", "answer": "5"}]
    cached(hub_cache, "HuggingFaceH4/MATH-500", "test.jsonl", *rows)
    assert list(Math().check({})) == []
    assert list(Math().missing()) == []
    assert [(e.id, e.answer) for e in Math().build()] == [
        ("test.jsonl:1", "4"),
        ("test.jsonl:2", "5"),
    ]
    assert [e.answer for e in Math(limit=1).build()] == ["4"]
    assert Math(limit=1).facts({}) == {
        "rows": "test of HuggingFaceH4/MATH-500 on the Hub, at most 1"
    }


def test_a_data_set_that_is_not_in_the_cache_says_so(hub_cache):
    with pytest.raises(AlignkitError, match="HF_HUB_OFFLINE is set, so only the cache is read"):
        Math().build()


def test_a_data_set_in_another_format_says_what_to_install(hub_cache):
    cached(hub_cache, "openai/gsm8k", "train.parquet")
    with pytest.raises(AlignkitError, match=r"no train\.jsonl .* pip install datasets, or give"):
        Gsm8k().build()


def test_the_datasets_package_is_asked_for_configuration_and_split(monkeypatch):
    calls = []

    def load_dataset(name, config, *, split):
        calls.append((name, config, split))
        return [{"question": "q", "answer": "so\n#### 5"}, {"question": "q", "answer": "6"}]

    module = ModuleType("datasets")
    module.__spec__ = ModuleSpec("datasets", None)
    module.load_dataset = load_dataset
    monkeypatch.setitem(sys.modules, "datasets", module)
    [example] = Gsm8k(split="test", limit=1).build()
    assert (example.id, example.answer) == ("test/0", "5")
    assert calls == [("openai/gsm8k", "main", "test")]
    with pytest.raises(
        AlignkitError, match="openai/gsm8k test row 1: column 'answer' has no answer"
    ):
        Gsm8k(split="test").build()


def test_without_any_client_the_remedy_is_known_before_the_run(monkeypatch):
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    [message] = Gsm8k().missing()
    assert "'openai/gsm8k'" in message
    assert "pip install datasets" in message


@pytest.mark.parametrize("path", ["data/gsm8k.jsonl", "a/b/c", "./train", "train.json.gz"])
def test_a_name_that_can_only_be_a_path_is_a_missing_file(path):
    assert list(Gsm8k(path=path).check({})) == [("path", f"no such file or folder: {path}")]
