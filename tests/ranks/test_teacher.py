"""A teacher behind a server, here a stand-in, on two ranks: each asks for its share."""

import pytest

from .conftest import SHARD, assert_same


@pytest.fixture(scope="module")
def served(ranks, serving):
    from alignkit_hf import HfPolicy

    with serving(HfPolicy(path=str(ranks.teacher), device="cpu").build()) as server:
        yield server


@pytest.mark.slow
@pytest.mark.parametrize("more", [(), SHARD], ids=["replicated", "cut"])
def test_two_ranks_ask_a_served_teacher_once_for_what_one_process_asks(ranks, forked, served, more):
    overlay = ranks.place / "served.toml"
    overlay.write_text(f'[teacher]\nuse = "vllm"\nurl = "{served.url}"\n')
    found, asked = [], []
    for size in (1, 2):
        served.asked.clear()
        found.append(ranks.place / f"served-{len(more)}-{size}")
        words = ranks.words("distill", found[-1], "--with", overlay, *(more if size > 1 else ()))
        done, said = forked.ask(words, size, found[-1])
        assert done["codes"] == [0] * size, said
        asked.append(sorted(b["prompt"] for p, b in served.asked if p == "/v1/completions"))
        assert sum(path == "/detokenize" for path, _ in served.asked) == size  # both are there
    assert_same(*found)
    assert len(asked[0]) > 12
    assert asked[0] == asked[1]
