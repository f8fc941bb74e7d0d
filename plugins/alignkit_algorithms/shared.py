"""Checks and dry-run facts that several algorithms' tables share. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from alignkit import AlignkitError, Params
from alignkit.abilities import NamesTemplate, TakesTemplate, only_scores
from alignkit.engine.learning.reference_table import NOT_TRAINED
from alignkit.engine.training.checkpoint_table import CheckpointTable
from alignkit.footprint import OPTIMIZER, ModelSizes, Workload, no_room
from alignkit.protocols import Algorithm, Dataset, Groups, Orders, Prefetches

Eos = Literal["auto", "always", "never"]
SURE = 0.8
"""Share of a model's size that is certain: a size read from a model's name is rounded."""


def divides(params: Params[Any], key: str, unit: str = "") -> Iterable[tuple[str, str]]:
    """Yield a problem unless the value of ``key`` divides ``rollout_batch_size``."""
    size, whole = getattr(params, key), getattr(params, "rollout_batch_size")  # noqa: B009
    if whole % size == 0:
        return
    below = max(d for d in range(1, min(size, whole) + 1) if whole % d == 0)
    above = -(-whole // size) * size
    what = f" ({unit})" if unit else ""
    yield (
        key,
        f"{key} = {size}{what} must divide rollout_batch_size = {whole}; for instance "
        f"{key} = {below}, or rollout_batch_size = {above}",
    )


def in_epochs(data: Dataset, algorithm: str) -> Dataset:
    """Return data that an algorithm goes through in epochs.

    AlignkitError where the data choose a row order of their own, which would be lost.
    """
    if isinstance(data, Orders):
        raise AlignkitError(
            f"[data] chooses the order of its questions (choose), and {algorithm} passes over its "
            "rows in epochs; use data without an order here (shuffle = false keeps that of the "
            "rows), or an algorithm that samples"
        )
    return data


def unordered(tables: Mapping[str, Any], slot: str, remedy: str) -> Iterable[tuple[str, str]]:
    """Yield a problem where a table of data sets the order of its rows, which has no effect."""
    if getattr(tables.get(slot), "order", "shuffled") == "given":
        yield f"{slot}.order", f"is for algorithms that sample; {remedy}"


def taken_as_answer(
    params: Params[Any], key: str, tables: Mapping[str, Any]
) -> Iterable[tuple[str, str]]:
    """Yield a problem where the column that ``key`` names is the answer column of the data.

    Columns within objects can be read twice.
    """
    name = getattr(params, key)
    for slot in ("data", "validation"):
        if name and "." not in name and getattr(tables.get(slot), "answer", None) == name:
            yield (
                key,
                f"[{slot}] takes the column {name!r} as its answer, so it is no further column; "
                f'with {key} = "" the answer is what is learned',
            )


def validated_at_all(params: Params[Any], tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield a problem where ``validate_every`` is set and there is nothing to validate on."""
    default = type(params).model_fields["validate_every"].default
    if getattr(params, "validate_every", default) != default and "validation" not in tables:
        yield "validate_every", "there is nothing to validate on; add a table [validation]"


def comparable_groups(group_size: int, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield a problem where the advantage cannot compare groups of this size."""
    advantage = tables.get("advantage")
    if isinstance(advantage, Groups) and (problem := advantage.group_problem(group_size)):
        yield "group_size", problem


def suited(tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield a problem where the policy is behind a server, or its template cannot write prompts."""
    if only_scores(tables.get("policy")):
        yield "policy", f"[policy] {NOT_TRAINED}"
    prompt, policy = tables.get("prompt"), tables.get("policy")
    if isinstance(prompt, TakesTemplate) and isinstance(policy, NamesTemplate):
        template = policy.chat_template()
        if template is not None and (problem := prompt.template_problem(template)):
            yield "prompt", problem


def warm_enough(updates: int, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield a problem where the learning rate is still warming up at the last of ``updates``."""
    steps = getattr(tables.get("optimizer"), "warmup_steps", 0)
    if steps > updates:
        yield (
            "optimizer.warmup_steps",
            f"optimizer.warmup_steps is {steps}, but the run has only {updates} optimizer steps",
        )


def samples_ahead(tables: Mapping[str, Any]) -> bool:
    """Whether the rollout backend can sample while the policy learns."""
    rollout = tables.get("rollout")
    return isinstance(rollout, Prefetches) and rollout.samples_ahead


def sampled_not_greedy(tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield a problem when the rollout table asks for greedy responses."""
    if getattr(tables.get("rollout"), "temperature", None) == 0:
        yield (
            "rollout.temperature",
            "temperature 0 is greedy: all responses to a prompt are equal, so there is nothing "
            "to learn from; set it above 0 (greedy evaluation: [eval] temperature = 0)",
        )


def evaluated_greedily(tables: Mapping[str, Any], own: Any = None) -> Iterable[tuple[str, str]]:
    """Yield a problem when [eval], or an evaluation's own keys, repeat the same response.

    A temperature that is left out is the rollout table's.
    """
    plan: Any = own or tables.get("eval")
    if getattr(plan, "samples", 1) == 1 or getattr(plan, "temperature", None) is not None:
        return  # a temperature of its own is checked with the table
    if getattr(tables.get("rollout"), "temperature", None) == 0:
        yield (
            "samples" if own else "eval.samples",
            f"{plan.samples} responses to an example would be equal, as rollout.temperature = 0 is "
            f"greedy; use samples = 1 or a temperature of the evaluation's own above 0",
        )


def uncut(tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield a problem for each key of the rollout table that keeps tokens from being drawn."""
    for key, neutral in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0), ("min_tokens", 0)):
        value = getattr(tables.get("rollout"), key, neutral)
        if value != neutral:
            yield (
                "importance_cap",
                f"rollout.{key} = {value} keeps tokens from being drawn that the policy gives "
                f"probability to; no weight makes up for these. Set rollout.{key} = {neutral}, or "
                "take importance_cap out",
            )


def length_of_training(params: Params[Any], tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    """Yield a problem when both ``epochs`` and ``n_steps`` are given, or the warm-up is longer.

    Values are compared with the defaults, since a resolved recipe spells the defaults out.
    """
    steps = getattr(params, "n_steps", 0)
    if steps and getattr(params, "epochs", 1) != 1:
        yield "n_steps", "both n_steps and epochs say how long to train; give one of them"
    if steps:
        yield from warm_enough(steps, tables)


def _tokens_at_most(tables: Mapping[str, Any]) -> int | None:
    """Return the tokens that can be sampled of a response, all turns of an episode together."""
    world, most = tables.get("environment"), getattr(tables.get("rollout"), "max_tokens", None)
    if world is None:
        return most
    turn, whole = getattr(world, "max_turn_tokens", None) or most, world.max_episode_tokens
    limits = [whole, turn * world.max_turns if turn else None]
    return min((limit for limit in limits if limit), default=None)


def token_facts(tables: Mapping[str, Any], responses: int, steps: int) -> dict[str, str]:
    """Return how many tokens are sampled at most, if the rollout table caps them."""
    most = _tokens_at_most(tables)
    if most is None:
        return {}
    return {
        "response tokens per step, at most": f"{responses} × {most} = {responses * most:,}",
        "response tokens in all, at most": f"{responses * most * steps:,}",
    }


class Trained(Params[Algorithm]):
    """Keys of an algorithm that trains: what its model does, and which files a run leaves."""

    def workload(self, tables: Mapping[str, Any]) -> Workload:
        return work_of(self, tables)

    def room(self, tables: Mapping[str, Any], sizes: ModelSizes, folder: Path) -> str:
        return no_room(folder, self.left(tables, sizes))

    def left(self, tables: Mapping[str, Any], sizes: ModelSizes) -> dict[str, float]:
        """Return the bytes that the model and the checkpoints kept together take at least, by name.

        The number of checkpoints made by the clock depends on the machine's speed; one is counted,
        to stop and resume from.
        """
        work = self.workload(tables)
        kept = tables["optimizer"].memory({}, sizes, work).get(OPTIMIZER) or 0
        model = SURE * sizes.parameters * sizes.number
        state = SURE * (sizes.trained * sizes.trained_number + kept)
        plan = tables.get("checkpoint") or CheckpointTable()
        made = _checkpoints(plan, work.steps)
        there = min(made, plan.keep_last)
        at_end = {_count(there): there * state} if there else {}
        at_end["final/"] = model
        if kept_models := work.steps // plan.keep_every if plan.keep_every else 0:
            at_end["models/"] = kept_models * model
        while_one_is_written = {_count(there + 1): (there + 1) * state}
        more = made > there and sum(while_one_is_written.values()) > sum(at_end.values())
        return while_one_is_written if more else at_end


def _checkpoints(plan: CheckpointTable, steps: int) -> int:
    """Return how many checkpoints a run of ``steps`` is certain to make; 0 steps = not known."""
    if isinstance(plan.every, str):
        return 1
    return steps // plan.every if plan.every else 0


def _count(checkpoints: int) -> str:
    return "1 checkpoint" if checkpoints == 1 else f"{checkpoints} checkpoints"


def updates_of(learned: int, batch: int) -> int:
    """Return how many updates of ``batch`` responses a step makes that learns from ``learned``."""
    return max(1, -(-learned // batch)) if batch else 1


def work_of(params: Params[Any], tables: Mapping[str, Any]) -> Workload:
    """Return the work an algorithm gives its model, from the keys that these algorithms share."""

    def value(name: str, of: Any = params) -> int:
        return int(getattr(of, name, 0))

    sampled = (value("rollout_batch_size"), value("n"), value("n", tables.get("eval")))
    return Workload(
        steps=value("n_steps"),
        responses=value("rollout_batch_size"),
        length=_tokens_at_most(tables) or 0,
        epochs=value("epochs_per_rollout_batch") or 1,
        updates=updates_of(
            value("rollout_batch_size") * (value("epochs_per_rollout_batch") or 1),
            value("train_batch_size"),
        ),
        at_once=max(sampled),
        micro_batch=value("token_budget") if "optimizer" in tables else 0,
    )
