"""Translates an algorithm's prompts to requests of an engine, and its answers to completions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from alignkit.engine.sampling.rollout_table import check_request
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Policy, Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt and how its responses are drawn."""

    prompt: tuple[int, ...]
    n: int
    options: dict[str, Any]
    """Keyword arguments of ``vllm.SamplingParams``, and keys of the JSON body for a server."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One response as an engine returns it."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    text: str
    """Cut after the stop string, if one ended it."""
    ended: bool
    """Whether it ended before ``max_tokens`` cut it."""
    stop_string: bool
    """Whether a stop string ended it."""


def requests(
    prompts: Sequence[Sequence[int]], how: Sampling, policy: Policy, max_len: int
) -> Iterator[Request | None]:
    """Yield a request per prompt, None for a prompt without room below ``max_len`` tokens."""
    check_request(prompts, how)
    _check_temperature(how)
    keys = how.prompt_keys or range(len(prompts))
    shared = _options(how, policy)
    for prompt, key in zip(prompts, keys, strict=True):
        room = max_len - len(prompt)
        if room < 1:
            yield None
            continue
        most = min(how.max_tokens, room)
        own = {
            "max_tokens": most,
            "min_tokens": min(how.min_tokens, most),
            "seed": seed_of(how.seed, how.step, key),
        }
        # Greedy responses are equal, and the engine refuses to generate several.
        yield Request(tuple(prompt), 1 if how.temperature == 0 else how.n, shared | own)


def _options(how: Sampling, policy: Policy) -> dict[str, Any]:
    return {
        "temperature": how.temperature,
        "top_p": how.top_p,
        "top_k": how.top_k,
        "min_p": how.min_p,
        "stop": list(how.stop),
        "include_stop_str_in_output": True,
        # The policy's ids end a response; by default the engine would add the tokenizer's.
        "stop_token_ids": sorted(policy.eos_ids),
        "ignore_eos": True,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": False,
    }


def seed_of(seed: int, step: int, key: int) -> int:
    """Return the seed of a prompt's first response; the engine counts up from it for the others.

    62 bits of a hash: neighbouring keys must not share draws, as seeds 7, 8 and 8, 9 would.
    """
    digest = blake2b(f"{seed}/{step}/{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 2


def completions(
    answers: Sequence[Answer], n: int, tokenizer: PreTrainedTokenizerBase, version: int
) -> list[Completion]:
    """Return ``n`` completions from the answers to one request, a greedy one repeated."""
    found = [_completion(answer, tokenizer, version) for answer in answers]
    if len(found) not in (1, n):
        raise AlignkitError(f"the vLLM engine gave {len(found)} responses where {n} were asked for")
    return found * n if len(found) < n else found


def blank(n: int, version: int) -> list[Completion]:
    """Return the empty completions of a prompt that leaves no room for a response."""
    return [Completion("", (), (), "length", version)] * n


def _completion(answer: Answer, tokenizer: PreTrainedTokenizerBase, version: int) -> Completion:
    text = answer.text
    if not answer.stop_string:  # the engine's text lacks an incomplete character at the end
        decoded = tokenizer.decode(
            list(answer.token_ids), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        assert isinstance(decoded, str)
        text = decoded
    return Completion(
        text=text,
        token_ids=answer.token_ids,
        logprobs=answer.logprobs,
        finish_reason="stop" if answer.ended else "length",
        weight_version=version,
    )


def _check_temperature(how: Sampling) -> None:
    if how.temperature > 2 or 0 < how.temperature < 0.01:
        side = "above 2" if how.temperature > 2 else "between 0 and 0.01"
        raise AlignkitError(
            f"temperature {how.temperature:g} is {side}, which vLLM refuses; set it to 0, a value "
            "from 0.01 to 2, or the hf backend"
        )
