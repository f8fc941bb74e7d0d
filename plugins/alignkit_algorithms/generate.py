"""Responses to a data set's questions, in a file: traces to fine-tune on.

Every batch is appended to ``traces.jsonl`` as soon as it is judged. A resumed run asks for what is
missing only, so a kill costs a batch, and responses that an endpoint did not give are asked again.
With a reward, ``kept.jsonl`` holds the rows that earned ``min_reward``; a response that a judge had
no verdict on earned nothing, and is counted in ``generate/unjudged``. Both have the columns
``question``, ``answer``, ``prompt`` and ``response``, which ``sft`` reads.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from alignkit import Params
from alignkit.engine.sampling.endpoint_table import EndpointTable
from alignkit.errors import AlignkitError
from alignkit.protocols import (
    Algorithm,
    Dataset,
    Policy,
    PromptTemplate,
    Reward,
    RewardFn,
    RolloutBackend,
    Run,
    Tracker,
)
from alignkit_algorithms.shared import suited

if TYPE_CHECKING:
    from alignkit.engine.sampling.endpoint import Endpoint
    from alignkit_algorithms.teachers import Said, Teacher
    from alignkit_algorithms.traces import Row, Traces
else:  # names for annotations; importing them would import torch
    Endpoint = Any

TRACES, KEPT = "traces.jsonl", "kept.jsonl"


class Generate(Params[Algorithm]):
    """Write responses to questions into a file, judge and filter them; nothing is trained.

    They come from ``[policy]`` through ``[rollout]``, or from a model behind ``[endpoint]``.
    """

    seed: Annotated[int, Field(ge=0, lt=2**64)] = 0
    """Keys the draws of a rollout backend."""

    samples: Annotated[int, Field(ge=1)] = 1
    """Responses per question."""

    batch_size: Annotated[int, Field(ge=1)] = 64
    """Questions per step; after each step its responses are in the file."""

    min_reward: float = 1.0
    """Total reward that a response needs to be in ``kept.jsonl``, with a table [reward]."""

    def build(
        self,
        *,
        data: Dataset,
        prompt: PromptTemplate,
        policy: Policy | None = None,
        rollout: RolloutBackend | None = None,
        endpoint: Annotated[Endpoint, EndpointTable] | None = None,
        reward: RewardFn | None = None,
        trackers: Sequence[Tracker] = (),
    ) -> Algorithm:
        from alignkit_algorithms.teachers import EndpointTeacher, PolicyTeacher

        teacher: Teacher
        if endpoint is not None:
            teacher = EndpointTeacher(endpoint, prompt)
        elif policy is not None and rollout is not None:
            teacher = PolicyTeacher(policy, rollout, prompt, self.seed, self.samples)
        else:
            raise AlignkitError("generate needs [policy] and [rollout], or [endpoint]")
        return Generation(self, data, teacher, reward, trackers)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        yield from suited(tables)
        local = {"policy", "rollout"} & tables.keys()
        if "endpoint" in tables and local:
            yield "endpoint", f"the responses come from it, so [{min(local)}] has no effect"
        elif "endpoint" not in tables and len(local) < 2:
            yield "", "needs tables [policy] and [rollout], or a table [endpoint]"
        if self.min_reward != type(self).model_fields["min_reward"].default and (
            "reward" not in tables
        ):
            yield "min_reward", "needs a table [reward] to judge the responses with"
        if self.samples > 1:
            for name in sorted({"rollout", "endpoint"} & tables.keys()):
                if getattr(tables[name], "temperature", None) == 0:
                    message = (
                        f"temperature 0 is greedy: all {self.samples} responses would be equal"
                    )
                    yield f"{name}.temperature", message

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        return {"responses per step": f"{self.batch_size} × {self.samples}"}


@dataclass(frozen=True, slots=True)
class Generation:
    """A run of ``generate``."""

    keys: Generate
    data: Dataset
    teacher: Teacher
    reward: RewardFn | None
    trackers: Sequence[Tracker]

    def run(self, run: Run) -> Mapping[str, float]:
        """Ask for all responses that the file lacks; return the totals."""
        from contextlib import ExitStack

        from alignkit.engine.asking import AskedTracker, closing
        from alignkit.protocols import Closes
        from alignkit_algorithms.traces import Traces

        run.attach([AskedTracker(tracker) for tracker in self.trackers])
        size = self.keys.batch_size
        run.total_steps = math.ceil(len(self.data) / size)
        traces = Traces(run.dir / TRACES)
        rows: list[Row] = []
        with ExitStack() as stack:
            if isinstance(self.reward, Closes):
                stack.enter_context(closing("reward", self.reward))
            stack.enter_context(self.teacher.ready())
            for step, first in enumerate(range(0, len(self.data), size), 1):
                batch = range(first, min(first + size, len(self.data)))
                rows += self._batch(traces, batch)
                run.log(step, self._totals(rows, batch.stop))
        totals = self._totals(rows, len(self.data))
        if self.reward:
            kept = [row for row in rows if self._earned(row)]
            _write(run.dir / KEPT, kept)
            run.say(f"{KEPT}: {len(kept)} of {len(rows)} responses")
        if lacking := int(totals["generate/unanswered"]):
            run.note(f"{lacking} responses could not be had; alignkit resume asks for them again")
        return totals

    def _batch(self, traces: Traces, batch: range) -> list[Row]:
        """Return the rows of a batch; those that the file lacks are asked for and added to it."""
        from alignkit.engine.sampling.questions import example_at
        from alignkit_algorithms.teachers import Wanted

        examples = {index: example_at(self.data, index) for index in batch}
        keys = [(e.id, n) for e in examples.values() for n in range(self.keys.samples)]
        wanted = [
            Wanted(index, e, [n for n in range(self.keys.samples) if (e.id, n) not in traces])
            for index, e in examples.items()
        ]
        if some := [w for w in wanted if w.samples]:
            traces.add(self._judged(self.teacher.said(some)))
        return [traces[key] for key in keys if key in traces]

    def _judged(self, said: Sequence[Said]) -> list[Row]:
        """Return a row for each response there is."""
        from alignkit.engine.asking import ask

        there = [(s, s.text) for s in said if s.text is not None]
        rewards: Sequence[Reward | None] = [None] * len(there)
        if self.reward and there:
            texts, examples = [text for _, text in there], [s.wanted.example for s, _ in there]
            rewards = ask("reward", self.reward, self.reward.__call__, texts, examples)
        return [_row(s, reward) for (s, _), reward in zip(there, rewards, strict=True)]

    def _totals(self, rows: Sequence[Row], questions: int) -> dict[str, float]:
        """Return what there is so far, of so many questions."""
        found: dict[str, float] = {
            "generate/responses": len(rows),
            "generate/unanswered": questions * self.keys.samples - len(rows),
        }
        if self.reward:
            judged = [row for row in rows if _judged(row)]
            found["generate/kept"] = sum(map(self._earned, rows))
            if judged:
                found["generate/reward"] = fmean(row["reward"] for row in judged)
            if len(judged) < len(rows):
                found["generate/unjudged"] = len(rows) - len(judged)
        return found

    def _earned(self, row: Row) -> bool:
        """Whether a response was judged, and good enough."""
        return _judged(row) and row["reward"] >= self.keys.min_reward


def _judged(row: Row) -> bool:
    """Whether there was a verdict; without one the reward is that of other responses."""
    return not row.get("unjudged_reward")


def _row(said: Said, reward: Reward | None) -> Row:
    example = said.wanted.example
    judged = {}
    if reward is not None:
        parts = {f"{name}_reward": value for name, value in reward.parts.items()}
        judged = {"reward": reward.total, **parts}
    return {
        "id": example.id,
        "sample": said.sample,
        "question": example.question,
        "answer": example.answer,
        "prompt": said.prompt,
        "response": str(said.text),
        "finish_reason": said.finish_reason,
        **judged,
    }


def _write(path: Path, rows: Sequence[Row]) -> None:
    from alignkit.lifecycle.files import write_whole

    write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
