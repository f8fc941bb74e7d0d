"""What holds of every rollout backend, tried on a tiny random policy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch

from alignkit.engine.judging import extra
from alignkit.protocols import Completion, Sampling
from alignkit.testing.kit import Check, Subject
from alignkit.testing.standins import stand_in
from alignkit.toml import Document

QUESTIONS = ("1+1=", "What is 6 * 7?", "2", "ab ab ab ab")


def offers_its_sampling(subject: Subject) -> None:
    """`sampling` is what the recipe's table asked for; algorithms set n, stop and seed on it."""
    sampling = subject.build().sampling
    assert isinstance(sampling, Sampling), f"sampling is a {type(sampling).__name__}"
    for name, value in subject.node().params.model_dump().items():
        taken = getattr(sampling, name, value)
        assert taken == value, f"the table says {name} = {value!r}, sampling has {taken!r}"


def gives_n_to_each(subject: Subject) -> None:
    """`n` completions for each prompt; none for no prompt; samples of a prompt differ."""
    with _serving(subject) as (backend, policy):
        prompts = _prompts(policy)
        groups = backend.generate(prompts, _sampling(n=4))
        assert [len(g) for g in groups] == [4] * len(prompts), (
            f"4 samples of {len(prompts)} prompts give groups of {[len(g) for g in groups]}"
        )
        assert backend.generate([], _sampling()) == [], "no prompts must give an empty list"
        for question, group in zip(QUESTIONS, groups, strict=True):
            assert len({c.token_ids for c in group}) > 1, f"4 samples of {question!r} are equal"


def keeps_prompts_in_order(subject: Subject) -> None:
    """The i-th group answers the i-th prompt."""
    with _serving(subject) as (backend, policy):
        prompts = _prompts(policy)
        greedy = _sampling(temperature=0.0)
        alone = [_ids(backend.generate([p], greedy))[0] for p in prompts]
        for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
            got = _ids(backend.generate([prompts[i] for i in order], greedy))
            want = [alone[i] for i in order]
            assert got == want, f"prompts in the order {order} get the answers of other prompts"


def fills_its_records(subject: Subject) -> None:
    """Ids, log-probs and text of a completion belong together; the weight version is there."""
    with _serving(subject) as (backend, policy):
        policy.version = 7
        backend.sync(policy)
        for completion in _flat(backend.generate(_prompts(policy), _sampling(n=8))):
            _is_well_formed(completion, policy)


def reports_the_logprobs_it_drew_from(subject: Subject) -> None:
    """Log-probs are those of the tempered distribution, as the policy's own forward pass says."""
    with _serving(subject) as (backend, policy):
        prompts = _prompts(policy)
        for temperature in (1.0, 0.7):
            groups = backend.generate(prompts, _sampling(temperature=temperature))
            for prompt, (completion,) in zip(prompts, groups, strict=True):
                want = _logprobs(policy, prompt, completion.token_ids, temperature)
                apart = (torch.tensor(completion.logprobs) - want).abs().max().item()
                assert apart < 2e-2, (
                    f"at temperature {temperature:g} log-probs are off by up to {apart:.3g} nats"
                )


def is_greedy_at_temperature_zero(subject: Subject) -> None:
    """Temperature 0 takes the most probable token each time, and so does top_k = 1."""
    with _serving(subject) as (backend, policy):
        prompts = _prompts(policy)
        for how, sampling in (
            ("temperature 0", _sampling(temperature=0.0)),
            ("top_k 1", _sampling(top_k=1)),
        ):
            for prompt, (got,) in zip(prompts, backend.generate(prompts, sampling), strict=True):
                best = _argmax(policy, prompt, got.token_ids)
                assert list(got.token_ids) == best, f"{how}: {got.token_ids} is not {best}"


def obeys_max_tokens(subject: Subject) -> None:
    """No response is longer, and one that was cut says "length"."""
    with _serving(subject) as (backend, policy):
        for limit in (1, 5):
            found = _flat(backend.generate(_prompts(policy), _sampling(n=4, max_tokens=limit)))
            for completion in found:
                size = len(completion.token_ids)
                assert size <= limit, f"max_tokens = {limit} gives {size} tokens"
                ended = completion.token_ids[-1] in policy.eos_ids
                want = "stop" if ended else "length"
                assert completion.finish_reason == want, (
                    f"{size} of {limit} tokens, the last {'' if ended else 'no '}end of sequence: "
                    f"finish_reason is {completion.finish_reason!r}, not {want!r}"
                )


def obeys_min_tokens(subject: Subject) -> None:
    """Neither an end-of-sequence id nor a stop string ends a response before min_tokens."""
    with _serving(subject) as (backend, policy):
        sampling = _sampling(n=24, max_tokens=24, min_tokens=12)
        sizes = [len(c.token_ids) for c in _flat(backend.generate(_prompts(policy), sampling))]
        assert min(sizes) >= 12, f"min_tokens = 12 gives responses of {min(sizes)} tokens"


def ends_at_every_eos(subject: Subject) -> None:
    """A response ends at any of the policy's end-of-sequence ids, which stays in token_ids."""
    with _serving(subject) as (backend, policy):
        found = _flat(backend.generate(_prompts(policy), _sampling(n=48, max_tokens=40)))
        for completion in found:
            early = set(completion.token_ids[:-1]) & policy.eos_ids
            assert not early, f"generation goes on after end-of-sequence id {min(early)}"
        last = {c.token_ids[-1] for c in found if c.finish_reason == "stop"}
        assert last == policy.eos_ids, (
            f"192 responses end in {sorted(last)}, the policy's ends are {sorted(policy.eos_ids)}; "
            "the id that ended a response belongs to token_ids"
        )


def ends_after_a_stop_string(subject: Subject) -> None:
    """A stop string ends a response right after it; the text keeps it and nothing else follows."""
    with _serving(subject) as (backend, policy):
        prompts, sampling = _prompts(policy), _sampling(n=4, max_tokens=24)
        free = _flat(backend.generate(prompts, sampling))
        stop = next(c.text[6:8] for c in free if len(c.text) >= 12)
        stopped = _flat(backend.generate(prompts, replace(sampling, stop=(stop, "\0never"))))
        hits = 0
        for before, after in zip(free, stopped, strict=True):
            at = before.text.find(stop)
            want = before.text if at < 0 else before.text[: at + len(stop)]
            assert after.text == want, (
                f"with stop {stop!r} the response {before.text!r} becomes {after.text!r}, not "
                f"{want!r}"
            )
            if at >= 0:
                hits += 1
                assert after.finish_reason == "stop", f"finish_reason is {after.finish_reason!r}"
                assert len(after.token_ids) <= len(before.token_ids), "ids go on after the stop"
        assert hits, "the same seed drew other responses once a stop string was given"


def is_reproducible(subject: Subject) -> None:
    """The same seed and step draw the same tokens; another seed or another step draws others."""
    with _serving(subject) as (backend, policy):
        prompts = _prompts(policy)

        def draw(**how: Any) -> list[list[tuple[int, ...]]]:
            return _ids(backend.generate(prompts, _sampling(n=2, **how)))

        first = draw(seed=3, step=5)
        assert draw(seed=3, step=5) == first, "the same seed and step draw other tokens"
        assert draw(seed=4, step=5) != first, "seeds 3 and 4 draw the same tokens"
        assert draw(seed=3, step=6) != first, "steps 5 and 6 draw the same tokens"
        with _serving(subject) as (other, same_policy):
            again = other.generate(_prompts(same_policy), _sampling(n=2, seed=3, step=5))
            assert _ids(again) == first, "another backend with the same seed draws other tokens"


def draws_by_key_not_by_position(subject: Subject) -> None:
    """What a prompt gets does not depend on which others are in the call, or on where it is."""
    with _serving(subject) as (backend, policy):
        prompts = _prompts(policy)
        keyed = replace(_sampling(n=2), prompt_keys=(10, 11, 12, 13))
        whole = _ids(backend.generate(prompts, keyed))
        for i, prompt in enumerate(prompts):
            alone = backend.generate([prompt], replace(keyed, prompt_keys=(10 + i,)))
            assert _ids(alone) == [whole[i]], f"prompt {i} draws other tokens alone, with its key"
        twins = backend.generate([prompts[0]] * 2, replace(keyed, prompt_keys=(10, 99)))
        a, b = _ids(twins)
        assert a == whole[0], "a prompt draws other tokens beside another one"
        assert b != a, "equal prompts with different keys draw the same tokens"


def streams_what_it_generates(subject: Subject) -> None:
    """`stream`, where there is one, gives each prompt's index once, with what `generate` gives."""
    with _serving(subject) as (backend, policy):
        stream = extra(backend, "stream", beside="generate")
        if stream is None:
            return
        prompts, sampling = _prompts(policy), _sampling(n=3)
        want = backend.generate(prompts, sampling)
        found = list(stream(prompts, sampling))
        indices = [index for index, _ in found]
        assert sorted(indices) == list(range(len(prompts))), (
            f"stream gives the indices {indices} for {len(prompts)} prompts; each belongs once"
        )
        for index, group in found:
            _is_same(index, group, want[index])
        assert list(stream([], sampling)) == [], "no prompts must stream nothing"


def can_be_left_amid_a_stream(subject: Subject) -> None:
    """Who stops reading a stream half-way gets right answers from the next call all the same."""
    with _serving(subject) as (backend, policy):
        stream = extra(backend, "stream", beside="generate")
        if stream is None:
            return
        prompts, sampling = _prompts(policy), _sampling(n=3)
        want = backend.generate(prompts, sampling)
        left = iter(stream(prompts, sampling))
        next(left)
        del left
        for index, group in enumerate(backend.generate(prompts, sampling)):
            _is_same(index, group, want[index])
        policy.version += 1
        backend.sync(policy)


def follows_the_weights(subject: Subject) -> None:
    """After `sync` responses come from the new weights, and no cache of the old ones is used."""
    with _serving(subject) as (backend, policy):
        prompts, greedy = _prompts(policy), _sampling(temperature=0.0)
        old = _ids(backend.generate(prompts, greedy))
        saved = {k: v.clone() for k, v in policy.model.state_dict().items()}
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        policy.version += 1
        backend.sync(policy)
        groups = backend.generate(prompts, greedy)
        for prompt, (completion,) in zip(prompts, groups, strict=True):
            best = _argmax(policy, prompt, completion.token_ids)
            assert list(completion.token_ids) == best, "responses come from stale weights"
            assert completion.weight_version == policy.version, (
                f"weight_version is {completion.weight_version}, the policy's {policy.version}"
            )
        assert _ids(groups) != old, "new weights give the old responses"
        policy.model.load_state_dict(saved)
        backend.sync(policy)
        assert _ids(backend.generate(prompts, greedy)) == old, "old weights do not come back"


def closes_twice(subject: Subject) -> None:
    """`close` may be called twice, and before `start`."""
    subject.build().close()
    with _serving(subject) as (backend, _):
        backend.close()


# ---------------------------------------------------------------- helpers


@contextmanager
def _serving(subject: Subject) -> Iterator[tuple[Any, Any]]:
    policy = _policy(subject)
    backend = subject.build()
    try:
        backend.start(policy)
        yield backend, policy
    finally:
        backend.close()


def _policy(subject: Subject) -> Any:
    from alignkit import recipe

    document = Document(stand_in("policy"), {})
    return recipe.resolve(document, subject.registry, "policy").build()


def _sampling(**how: Any) -> Sampling:
    return Sampling(**{"max_tokens": 12, "seed": 1, "step": 1, **how})


def _prompts(policy: Any) -> list[list[int]]:
    return [policy.tokenizer.encode(q, add_special_tokens=False) for q in QUESTIONS]


def _flat(groups: Sequence[Sequence[Completion]]) -> list[Completion]:
    return [completion for group in groups for completion in group]


def _ids(groups: Sequence[Sequence[Completion]]) -> list[list[tuple[int, ...]]]:
    return [[tuple(c.token_ids) for c in group] for group in groups]


def _is_well_formed(completion: Completion, policy: Any) -> None:
    ids, logprobs = completion.token_ids, completion.logprobs
    assert len(ids) == len(logprobs), f"{len(ids)} token ids have {len(logprobs)} log-probs"
    assert all(-1e4 < p <= 1e-6 for p in logprobs), f"log-probs out of range: {min(logprobs)}"
    assert completion.finish_reason in ("stop", "length"), f"finish_reason {completion}"
    text = policy.tokenizer.decode(
        list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    assert completion.text == text, f"text is {completion.text!r}, its ids say {text!r}"
    assert completion.weight_version == policy.version, (
        f"weight_version is {completion.weight_version}, the policy's is {policy.version}"
    )


def _is_same(index: int, found: Sequence[Completion], want: Sequence[Completion]) -> None:
    """Equal but for the rounding of log-probs, which may depend on the batch."""
    exact = [[(c.token_ids, c.text, c.finish_reason) for c in group] for group in (found, want)]
    assert exact[0] == exact[1], f"prompt {index} gets {exact[0]}, from generate {exact[1]}"
    for a, b in zip(found, want, strict=True):
        apart = max((abs(x - y) for x, y in zip(a.logprobs, b.logprobs, strict=True)), default=0.0)
        assert apart < 1e-2, f"prompt {index}: log-probs differ by {apart:.3g} from generate's"


def _logits(policy: Any, prompt: Sequence[int], ids: Sequence[int]) -> torch.Tensor:
    """Return the logits (T, V) that predict each of ``ids``."""
    device = next(policy.model.parameters()).device
    with torch.no_grad(), policy.autocast():
        row = torch.tensor([[*prompt, *ids]], device=device)
        logits: torch.Tensor = policy.model(row, use_cache=False).logits
    return logits[0, len(prompt) - 1 : -1].float().cpu()


def _logprobs(
    policy: Any, prompt: Sequence[int], ids: Sequence[int], temperature: float
) -> torch.Tensor:
    scores = (_logits(policy, prompt, ids) / temperature).log_softmax(-1)  # (T, V)
    return scores.gather(1, torch.tensor(ids)[:, None])[:, 0]  # (T,)


def _argmax(policy: Any, prompt: Sequence[int], ids: Sequence[int]) -> list[int]:
    best: list[int] = _logits(policy, prompt, ids).argmax(-1).tolist()
    return best


CHECKS: tuple[Check, ...] = (
    offers_its_sampling,
    gives_n_to_each,
    keeps_prompts_in_order,
    fills_its_records,
    reports_the_logprobs_it_drew_from,
    is_greedy_at_temperature_zero,
    obeys_max_tokens,
    obeys_min_tokens,
    ends_at_every_eos,
    ends_after_a_stop_string,
    is_reproducible,
    draws_by_key_not_by_position,
    streams_what_it_generates,
    can_be_left_amid_a_stream,
    follows_the_weights,
    closes_twice,
)
