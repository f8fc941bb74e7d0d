"""Fixtures shared by all tests: a random two-layer model and its byte-level tokenizer."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read when torch loads its thread pool
os.environ["HF_HUB_OFFLINE"] = "1"

import importlib.util
import shutil
import sys
import time
from collections import defaultdict
from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time, however slow the machine is at the moment.
settings.register_profile("alignkit", derandomize=True, database=None, deadline=None)
settings.load_profile("alignkit")

HELPERS = Path(__file__).parent / "helpers"
pytest.register_assert_rewrite(*(file.stem for file in HELPERS.glob("*.py")))

collect_ignore = ["fixtures", "helpers"]  # distributions, some broken on purpose; no tests


def pytest_addoption(parser):
    parser.addoption(
        "--kills", type=int, default=2, help="times each kind of run is killed, in tests/kills"
    )
    parser.addoption("--days", type=int, default=18, help="bad days of runs, in tests/kills")
    parser.addoption("--days-seed", default="bad days", help="draws the moments of bad days")
    parser.addoption(
        "--rank-kills", type=int, default=3, help="kills of runs on two ranks, in tests/ranks"
    )
    parser.addoption("--rank-kills-seed", default="ranks", help="draws the moments of these kills")
    parser.addoption(
        "--fuzz",
        type=int,
        default=100,
        metavar="N",
        help="recipes, rows and plugins each that tests/fuzz makes up; 20000 takes minutes",
    )
    parser.addoption(
        "--all-cases",
        action="store_true",
        help="with -m slow: all cases of tests marked `one_in`; takes more than an hour",
    )


def pytest_configure(config):
    config.addinivalue_line(
        "markers",
        "one_in(n): one in n of its slow cases runs, in grids each value in some",
    )


def pytest_collection_modifyitems(config, items):
    """Leave out slow cases of tests marked ``one_in``, unless all are asked for."""
    if config.getoption("--all-cases"):
        return
    from thinned import chosen

    tests, left_out = defaultdict(list), set()
    for item in items:
        marks = item.get_closest_marker("one_in") and item.get_closest_marker("slow")
        if marks and hasattr(item, "callspec"):
            tests[item.nodeid.partition("[")[0]].append(item)
    for cases in tests.values():
        every = cases[0].get_closest_marker("one_in").args[0]
        run = chosen([case.callspec.params for case in cases], every)
        left_out |= set(cases) - {cases[i] for i in run}
    config.hook.pytest_deselected(items=list(left_out))
    items[:] = [item for item in items if item not in left_out]


def _fixture_module(name, file):
    """Import a file of fixtures/ under ``name``."""
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            name, Path(__file__).parent / "fixtures" / file
        )
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


def pytest_xdist_auto_num_workers(config):
    """A process for each core where all tests are asked for, none besides this one for a part."""
    whole = config.args == [str(path) for path in config.getini("testpaths")]
    return None if whole else 0


@pytest.fixture
def registry():
    """A registry of the made-up components of fixtures/toys.py."""
    return _fixture_module("alignkit_toys", "toys.py").registry()


@pytest.fixture(scope="session")
def serving():
    """Return a block that serves a policy's log-probs as vLLM does, by fixtures/scoring_server."""
    return _fixture_module("alignkit_scoring_server", "scoring_server.py").serving


@pytest.fixture(scope="session")
def warm():
    """``warm.start(words, env, cwd)``: an alignkit command at once, of fixtures/warm.py."""
    made = _fixture_module("alignkit_warm", "warm.py").Warm()
    yield made
    made.close()


@pytest.fixture(scope="session")
def cpu_seconds():
    """Return a function that calls another twice and gives the CPU seconds of the shorter."""

    def of(function, *given):
        def once():
            began = time.process_time()
            function(*given)
            return time.process_time() - began

        return min(once() for _ in range(2))

    return of


@pytest.fixture(scope="session")
def chats():
    """The tokenizers and chat templates of fixtures/chat/families.py."""
    return _fixture_module("alignkit_chat_families", "chat/families.py")


def _byte_tokenizer():
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    tags = ["<think>", "</think>", "<answer>", "</answer>"]
    core.add_tokens([AddedToken(tag, normalized=False) for tag in tags])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|endoftext|>", pad_token="<|pad|>"
    )


def _write_qwen2(folder, tokenizer, ends, **sizes):
    """Write a two-layer Qwen2 of random weights; ``ends`` is its generation config."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    ids = {"bos_token_id": None, "eos_token_id": ends.eos_token_id[0]}
    settings = {"vocab_size": len(tokenizer), "num_hidden_layers": 2, **ids, **sizes}
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(Qwen2Config(pad_token_id=ends.pad_token_id, **settings))
    model.generation_config = ends
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory) -> Path:
    """A Hugging Face folder: Qwen2, hidden 32, 2 layers, byte-level vocabulary, float32."""
    from transformers import GenerationConfig

    tokenizer = _byte_tokenizer()
    ends = GenerationConfig(
        eos_token_id=[tokenizer.eos_token_id], pad_token_id=tokenizer.pad_token_id
    )
    return _write_qwen2(
        tmp_path_factory.mktemp("tiny_model"),
        tokenizer,
        ends,
        hidden_size=32,
        intermediate_size=64,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
    )


@pytest.fixture(scope="session")
def sharpened():
    """Return a function that copies a model's folder, with weights half as large again."""

    def copy(folder, into):
        from safetensors.torch import load_file, save_file

        shutil.copytree(folder, into)
        weights = {name: 1.5 * w for name, w in load_file(into / "model.safetensors").items()}
        save_file(weights, into / "model.safetensors", metadata={"format": "pt"})
        return into

    return copy


@pytest.fixture(scope="session")
def write_policy(tmp_path_factory):
    """Return a function that writes a random Qwen2 with the tokenizer and ends of `tiny_model`."""

    def write(name, **changes):
        from transformers import AutoTokenizer, GenerationConfig

        from alignkit.testing import tiny_model

        tokenizer = AutoTokenizer.from_pretrained(tiny_model())
        ends = GenerationConfig.from_pretrained(tiny_model())
        return _write_qwen2(
            tmp_path_factory.mktemp(name),
            tokenizer,
            ends,
            num_attention_heads=2,
            num_key_value_heads=1,
            initializer_range=0.2,
            **changes,
        )

    return write


@pytest.fixture(scope="session")
def chat_folder(chats, tmp_path_factory):
    """Return a function that writes a random Qwen2 with a family's tokenizer and chat template.

    Its generation config ends at the family's first token alone, not where a turn ends.
    """
    made = {}

    def folder(family):
        from transformers import GenerationConfig

        if family not in made:
            tokenizer = chats.tokenizer_of(family)
            bos = tokenizer.bos_token_id
            made[family] = _write_qwen2(
                tmp_path_factory.mktemp(family),
                tokenizer,
                GenerationConfig(eos_token_id=[bos], pad_token_id=bos),
                hidden_size=32,
                intermediate_size=64,
                num_attention_heads=4,
                num_key_value_heads=2,
                max_position_embeddings=1024,
            )
        return made[family]

    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real data sets beside the checkout; the test is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder
