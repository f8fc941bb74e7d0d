"""The real engine in this process: its numbers, its weights, its caches."""

import math
from collections import Counter

import pytest
import torch

from alignkit import AlignkitError
from alignkit.protocols import Sampling
from alignkit_hf import HfPolicy, HfRollout
from alignkit_vllm import VllmRollout
from alignkit_vllm.check import WeightsError
from alignkit_vllm.weights.transfer import gpu_of

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

LONG = tuple(5 + i % 80 for i in range(300))  # more than two blocks of the prefix cache


@pytest.fixture(scope="module", params=["tied", "untied"])
def served(request):
    policy = HfPolicy(path=str(request.getfixturevalue(f"{request.param}_folder"))).build()
    backend = VllmRollout(kv_cache_gib=0.0625, max_num_seqs=256).build()
    backend.start(policy)
    yield backend, policy
    backend.close()


def logits(policy, prompt, ids):
    with torch.no_grad():
        return policy.model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]


def logprobs(policy, prompt, ids, temperature=1.0):
    scores = (logits(policy, prompt, ids) / temperature).log_softmax(-1)
    return scores.gather(1, torch.tensor(ids)[:, None])[:, 0]


def assert_same(policy, prompt, completion):
    """Greedy tokens and log-probs are the policy's own, to 1e-4."""
    assert (
        list(completion.token_ids)
        == logits(policy, prompt, completion.token_ids).argmax(-1).tolist()
    )
    want = logprobs(policy, prompt, completion.token_ids)
    assert (torch.tensor(completion.logprobs) - want).abs().max() < 1e-4


def update(policy, *, by):
    """Move every weight as an optimizer step would."""
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    policy.version += 1


def test_five_updates_in_a_row_each_reach_the_engine(served):
    backend, policy = served
    torch.manual_seed(0)
    greedy = Sampling(temperature=0.0, max_tokens=24)
    for _ in range(5):
        before = backend.generate([LONG, LONG[:40]], greedy)
        update(policy, by=0.05)
        backend.sync(policy)
        after = backend.generate([LONG, LONG[:40]], greedy)
        for prompt, (completion,) in zip([LONG, LONG[:40]], after, strict=True):
            assert_same(policy, prompt, completion)
            assert completion.weight_version == policy.version
        assert [g[0].token_ids for g in after] != [g[0].token_ids for g in before]


def test_a_cache_kept_over_a_sync_shows(served, monkeypatch):
    # The test's own proof that leaving the reset out would be seen: both ways of looking see it.
    backend, policy = served
    greedy = Sampling(temperature=0.0, max_tokens=4)
    backend.generate([LONG], greedy)
    backend._check(policy)
    with monkeypatch.context() as patch:
        patch.setattr(backend._engine, "reset", lambda: None)
        update(policy, by=0.05)
        backend.sync(policy)
        ((stale,),) = backend.generate([LONG], greedy)
        want = logprobs(policy, LONG, stale.token_ids)
        assert (torch.tensor(stale.logprobs) - want).abs().max() > 1e-2
        with pytest.raises(WeightsError, match="disagree on a probe"):
            backend._check(policy)
    backend.sync(policy)
    ((fresh,),) = backend.generate([LONG], greedy)
    assert_same(policy, LONG, fresh)
    backend._check(policy)


def test_a_worker_on_a_cpu_has_no_gpu_and_no_transfer(served):
    backend, policy = served
    assert backend._engine._rpc("alignkit_place") == [{"gpu": "", "transfer": "", "workers": 1}]
    assert gpu_of(policy) == ""


@pytest.mark.parametrize("syncs", [0, 1], ids=["at the start", "after the first update"])
def test_weights_that_never_arrived_stop_the_run_however_small_the_update(
    served, monkeypatch, syncs
):
    backend, policy = served
    backend._check(policy)
    with monkeypatch.context() as patch:
        patch.setattr(backend._engine, "load", lambda *_: None)
        update(policy, by=1e-6)  # moves log-probs by about 1e-5, far below any sane bound
        patch.setattr(backend, "syncs", syncs)
        with pytest.raises(WeightsError, match="does not hold the policy's weights"):
            backend.sync(policy)
    backend.sync(policy)
    backend._check(policy)


def test_an_output_head_left_behind_is_seen(served):
    backend, policy = served
    with torch.no_grad():
        policy.model.get_output_embeddings().weight[0, 0] += 0.5  # the embedding's too, if tied
    with pytest.raises(WeightsError, match=r"numbers of (lm_head|model\.embed_tokens) differ"):
        backend._check(policy)
    backend.sync(policy)
    backend._check(policy)


@pytest.mark.parametrize(
    "how",
    [{"top_p": 0.6}, {"top_k": 3}, {"min_p": 0.3}, {"temperature": 0.5, "top_p": 0.8}],
    ids=str,
)
def test_logprobs_are_of_the_distribution_that_was_cut(served, how):
    backend, policy = served
    prompt = LONG[:20]
    (found,) = backend.generate([prompt], Sampling(n=16, max_tokens=12, seed=3, **how))
    for completion in found:
        rows = logits(policy, prompt, completion.token_ids).double() / how.get("temperature", 1.0)
        for token, logprob, row in zip(
            completion.token_ids, completion.logprobs, rows.softmax(-1), strict=True
        ):
            kept = keep(row, how)
            assert kept[token]
            want = math.log(row[token] / row[kept].sum())
            assert logprob == pytest.approx(want, abs=1e-4)


def keep(p, how):
    """Which tokens (V,) stay, from the definitions of top-p, top-k and min-p."""
    order = p.argsort(descending=True)
    kept = torch.ones_like(p, dtype=torch.bool)
    if "top_k" in how:
        kept[order[how["top_k"] :]] = False
    if "min_p" in how:
        kept &= p >= how["min_p"] * p.max()
    if "top_p" in how:
        before = p[order].cumsum(0) - p[order]
        kept[order[before >= how["top_p"]]] = False
    return kept


def test_prompts_without_room_get_empty_responses_and_others_theirs(served):
    backend, _ = served
    full, short = tuple([7] * 512), LONG[:8]
    groups = backend.generate([full, short, full], Sampling(n=2, max_tokens=4, min_tokens=4))
    assert [[len(c.token_ids) for c in g] for g in groups] == [[0, 0], [4, 4], [0, 0]]
    assert {c.finish_reason for c in groups[0]} == {"length"}
    ((cut,),) = backend.generate([[7] * 510], Sampling(max_tokens=50, temperature=0.0))
    assert len(cut.token_ids) == 2
    assert cut.finish_reason == "length"


def test_what_the_engine_cannot_do_is_refused(served):
    backend, _ = served
    with pytest.raises(AlignkitError, match=r"temperature 2\.5 is above 2"):
        backend.generate([LONG], Sampling(temperature=2.5, max_tokens=2))
    with pytest.raises(AlignkitError, match="has no tokens"):
        backend.generate([[]], Sampling())


def test_hf_and_vllm_draw_from_one_distribution(served):
    """2,000 responses of 3 tokens each: the counts of first and of second tokens agree.

    Chi-square homogeneity over tokens seen at least 10 times, rarer ones pooled. With equal
    distributions the statistic exceeds its mean by 4 standard deviations about once in 10,000
    runs; seeds are fixed. Temperature 1.3 instead of 1.0, tried below, exceeds it.
    """
    backend, policy = served
    hf = HfRollout().build()
    hf.start(policy)
    prompt, n = LONG[:30], 2000
    how = Sampling(n=n, max_tokens=3, seed=11, step=1)
    (ours,), (theirs,) = backend.generate([prompt], how), hf.generate([prompt], how)
    for place in (0, 1):
        assert excess(tokens(ours, place), tokens(theirs, place)) < 4
    warm = Sampling(n=n, max_tokens=3, seed=11, step=1, temperature=1.3)
    (warmer,) = backend.generate([prompt], warm)
    assert excess(tokens(warmer, 0), tokens(theirs, 0)) > 4


def tokens(completions, place):
    return Counter(c.token_ids[place] for c in completions if len(c.token_ids) > place)


def excess(a, b):
    """Standard deviations by which the chi-square statistic of two counts exceeds its mean."""
    common = [t for t in a.keys() | b.keys() if a[t] + b[t] >= 10]
    rest = [sum(c.values()) - sum(c[t] for t in common) for c in (a, b)]
    table = torch.tensor([[c[t] for t in common] + [r] for c, r in zip((a, b), rest, strict=True)])
    table = table[:, table.sum(0) > 0].double()
    expected = table.sum(0) * table.sum(1, keepdim=True) / table.sum()
    freedom = table.shape[1] - 1
    return float(((table - expected) ** 2 / expected).sum() - freedom) / math.sqrt(2 * freedom)


def test_a_later_turn_reuses_the_cache_of_the_turns_before(served, monkeypatch):
    """The second turn of an episode computes only what is new, to whole blocks of the cache."""
    from vllm.v1.engine.llm_engine import LLMEngine

    backend, policy = served
    backend.sync(policy)
    cached, step = [], LLMEngine.step

    def recorded(self):
        found = step(self)
        cached.extend(output.num_cached_tokens for output in found if output.finished)
        return found

    monkeypatch.setattr(LLMEngine, "step", recorded)
    first = tuple(reversed(LONG))
    sampling = Sampling(temperature=0.0, max_tokens=8)
    ((turn,),) = backend.generate([first], sampling)
    ((after,),) = backend.generate([(*first, *turn.token_ids, 7, 8, 9)], sampling)
    assert cached[0] == 0
    assert 128 <= cached[1] <= len(first)
    assert_same(policy, (*first, *turn.token_ids, 7, 8, 9), after)
