"""One request to a rollout backend, held to its contract."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from alignkit.abilities import streams
from alignkit.engine.asking import ask, blamed
from alignkit.protocols import Completion, Policy, RolloutBackend, Sampling

BACKEND = "rollout backend"

Ids = Sequence[Sequence[int]]


def generated(
    backend: RolloutBackend, prompts: Ids, sampling: Sampling, policy: Policy
) -> list[list[Completion]]:
    """Return ``sampling.n`` completions for each prompt, all by the policy's present version.

    Raises RuntimeError when the backend breaks its contract.
    """
    groups = ask(BACKEND, backend, backend.generate, prompts, sampling) if prompts else []
    _check_sizes(groups, len(prompts), sampling)
    _check_versions(groups, policy)
    return groups


def streamed(
    backend: RolloutBackend, prompts: Ids, sampling: Sampling, policy: Policy
) -> Iterator[tuple[int, list[Completion]]]:
    """Yield what :func:`generated` returns with its place, each group as soon as it is finished.

    All at once at the end where the backend does not stream.
    """
    if not streams(backend):
        yield from enumerate(generated(backend, prompts, sampling, policy))
        return
    if not prompts:
        return
    groups: dict[int, list[Completion]] = {}
    with blamed(BACKEND, backend):
        for index, group in backend.stream(prompts, sampling):
            if index in groups or not 0 <= index < len(prompts):
                raise RuntimeError(
                    f"the rollout backend was asked for prompts 0 to {len(prompts) - 1} and gave "
                    f"responses to prompt {index} {'twice' if index in groups else 'too'}"
                )
            groups[index] = group
            yield index, group
    found = [groups.get(i, []) for i in range(len(prompts))]
    _check_sizes(found, len(prompts), sampling)
    _check_versions(found, policy)


def _check_sizes(groups: Sequence[Sequence[Completion]], asked: int, sampling: Sampling) -> None:
    if len(groups) != asked or any(len(group) != sampling.n for group in groups):
        raise RuntimeError(
            f"the rollout backend was asked for {sampling.n} responses to each of {asked} "
            f"prompts and returned groups of {sorted({len(g) for g in groups})} for {len(groups)}"
        )


def _check_versions(groups: Sequence[Sequence[Completion]], policy: Policy) -> None:
    stale = {c.weight_version for group in groups for c in group} - {policy.version}
    if stale:
        raise RuntimeError(
            f"responses were sampled by weight version {sorted(stale)} while the policy is at "
            f"{policy.version}: the rollout backend did not take over the last update"
        )
