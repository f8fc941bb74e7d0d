"""Checks of every rollout backend, tried on a tiny random policy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from alignkit.protocols import Sampling
from alignkit_testing.kit import Check, Subject
from alignkit_testing.served import (
    QUESTIONS,
    argmax_of,
    flat,
    ids_of,
    is_well_formed,
    logprobs_of,
    prompts_of,
    sampling_of,
    serving,
)
from alignkit_testing.streams import can_be_left_amid_a_stream, streams_what_it_generates


def offers_its_sampling(subject: Subject) -> None:
    """`sampling` is what the recipe's table asked for; algorithms set n, stop and seed on it."""
    sampling = subject.build().sampling
    assert isinstance(sampling, Sampling), f"sampling is a {type(sampling).__name__}"
    for name, value in subject.node().params.model_dump().items():
        taken = getattr(sampling, name, value)
        assert taken == value, f"the table says {name} = {value!r}, sampling has {taken!r}"


def gives_n_to_each(subject: Subject) -> None:
    """`n` completions for each prompt; none for no prompt; samples of a prompt differ."""
    with serving(subject) as (backend, policy):
        prompts = prompts_of(policy)
        groups = backend.generate(prompts, sampling_of(n=4))
        assert [len(g) for g in groups] == [4] * len(prompts), (
            f"4 samples of {len(prompts)} prompts give groups of {[len(g) for g in groups]}"
        )
        assert backend.generate([], sampling_of()) == [], "no prompts must give an empty list"
        for question, group in zip(QUESTIONS, groups, strict=True):
            assert len({c.token_ids for c in group}) > 1, f"4 samples of {question!r} are equal"


def keeps_prompts_in_order(subject: Subject) -> None:
    """The i-th group answers the i-th prompt."""
    with serving(subject) as (backend, policy):
        prompts = prompts_of(policy)
        greedy = sampling_of(temperature=0.0)
        alone = [ids_of(backend.generate([p], greedy))[0] for p in prompts]
        for order in ([0, 1, 2, 3], [3, 1, 0, 2]):
            got = ids_of(backend.generate([prompts[i] for i in order], greedy))
            want = [alone[i] for i in order]
            assert got == want, f"prompts in the order {order} get the answers of other prompts"


def fills_its_records(subject: Subject) -> None:
    """Ids, log-probs and text of a completion belong together; the weight version is there."""
    with serving(subject) as (backend, policy):
        policy.version = 7
        backend.sync(policy)
        for completion in flat(backend.generate(prompts_of(policy), sampling_of(n=8))):
            is_well_formed(completion, policy)


def reports_the_logprobs_it_drew_from(subject: Subject) -> None:
    """Log-probs are those of the tempered distribution, as the policy's own forward pass says."""
    with serving(subject) as (backend, policy):
        prompts = prompts_of(policy)
        for temperature in (1.0, 0.7):
            groups = backend.generate(prompts, sampling_of(temperature=temperature))
            for prompt, (completion,) in zip(prompts, groups, strict=True):
                want = logprobs_of(policy, prompt, completion.token_ids, temperature)
                apart = (torch.tensor(completion.logprobs) - want).abs().max().item()
                assert apart < 2e-2, (
                    f"at temperature {temperature:g} log-probs are off by up to {apart:.3g} nats"
                )


def is_greedy_at_temperature_zero(subject: Subject) -> None:
    """Temperature 0 takes the most probable token each time, and so does top_k = 1."""
    with serving(subject) as (backend, policy):
        prompts = prompts_of(policy)
        for how, sampling in (
            ("temperature 0", sampling_of(temperature=0.0)),
            ("top_k 1", sampling_of(top_k=1)),
        ):
            for prompt, (got,) in zip(prompts, backend.generate(prompts, sampling), strict=True):
                best = argmax_of(policy, prompt, got.token_ids)
                assert list(got.token_ids) == best, f"{how}: {got.token_ids} is not {best}"


def obeys_max_tokens(subject: Subject) -> None:
    """No response is longer, and one that was cut says "length"."""
    with serving(subject) as (backend, policy):
        for limit in (1, 5):
            found = flat(backend.generate(prompts_of(policy), sampling_of(n=4, max_tokens=limit)))
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
    with serving(subject) as (backend, policy):
        sampling = sampling_of(n=24, max_tokens=24, min_tokens=12)
        sizes = [len(c.token_ids) for c in flat(backend.generate(prompts_of(policy), sampling))]
        assert min(sizes) >= 12, f"min_tokens = 12 gives responses of {min(sizes)} tokens"


def ends_at_every_eos(subject: Subject) -> None:
    """A response ends at any of the policy's end-of-sequence ids, which stays in token_ids."""
    with serving(subject) as (backend, policy):
        found = flat(backend.generate(prompts_of(policy), sampling_of(n=48, max_tokens=40)))
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
    with serving(subject) as (backend, policy):
        prompts, sampling = prompts_of(policy), sampling_of(n=4, max_tokens=24)
        free = flat(backend.generate(prompts, sampling))
        stop = next(c.text[6:8] for c in free if len(c.text) >= 12)
        stopped = flat(backend.generate(prompts, replace(sampling, stop=(stop, "\0never"))))
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
    with serving(subject) as (backend, policy):
        prompts = prompts_of(policy)

        def draw(**how: Any) -> list[list[tuple[int, ...]]]:
            return ids_of(backend.generate(prompts, sampling_of(n=2, **how)))

        first = draw(seed=3, step=5)
        assert draw(seed=3, step=5) == first, "the same seed and step draw other tokens"
        assert draw(seed=4, step=5) != first, "seeds 3 and 4 draw the same tokens"
        assert draw(seed=3, step=6) != first, "steps 5 and 6 draw the same tokens"
        with serving(subject) as (other, same_policy):
            again = other.generate(prompts_of(same_policy), sampling_of(n=2, seed=3, step=5))
            assert ids_of(again) == first, "another backend with the same seed draws other tokens"


def draws_by_key_not_by_position(subject: Subject) -> None:
    """What a prompt gets does not depend on which others are in the call, or on where it is."""
    with serving(subject) as (backend, policy):
        prompts = prompts_of(policy)
        keyed = replace(sampling_of(n=2), prompt_keys=(10, 11, 12, 13))
        whole = ids_of(backend.generate(prompts, keyed))
        for i, prompt in enumerate(prompts):
            alone = backend.generate([prompt], replace(keyed, prompt_keys=(10 + i,)))
            assert ids_of(alone) == [whole[i]], f"prompt {i} draws other tokens alone, with its key"
        twins = backend.generate([prompts[0]] * 2, replace(keyed, prompt_keys=(10, 99)))
        a, b = ids_of(twins)
        assert a == whole[0], "a prompt draws other tokens beside another one"
        assert b != a, "equal prompts with different keys draw the same tokens"


def follows_the_weights(subject: Subject) -> None:
    """After `sync` responses come from the new weights, and no cache of the old ones is used."""
    with serving(subject) as (backend, policy):
        prompts, greedy = prompts_of(policy), sampling_of(temperature=0.0)
        old = ids_of(backend.generate(prompts, greedy))
        saved = {k: v.clone() for k, v in policy.model.state_dict().items()}
        torch.manual_seed(1)
        with torch.no_grad():
            for parameter in policy.model.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        policy.version += 1
        backend.sync(policy)
        groups = backend.generate(prompts, greedy)
        for prompt, (completion,) in zip(prompts, groups, strict=True):
            best = argmax_of(policy, prompt, completion.token_ids)
            assert list(completion.token_ids) == best, "responses come from stale weights"
            assert completion.weight_version == policy.version, (
                f"weight_version is {completion.weight_version}, the policy's {policy.version}"
            )
        assert ids_of(groups) != old, "new weights give the old responses"
        policy.model.load_state_dict(saved)
        backend.sync(policy)
        assert ids_of(backend.generate(prompts, greedy)) == old, "old weights do not come back"


def closes_twice(subject: Subject) -> None:
    """`close` may be called twice, and before `start`."""
    subject.build().close()
    with serving(subject) as (backend, _):
        backend.close()


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
