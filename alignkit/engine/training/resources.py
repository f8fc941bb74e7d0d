"""What a training holds open while it runs: ranks, trackers, rewards, the rollout backend.

However it ends, they are closed; if it ends early, what can be saved is saved.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from alignkit.engine.asking import AskedTracker, Source, closing
from alignkit.engine.observing.inspector import Inspector
from alignkit.engine.prompting import end_turns
from alignkit.engine.sampling.rollouts import Computes, serving
from alignkit.engine.seeds import seed_everything
from alignkit.engine.training.checkpoint_table import CheckpointPlan, seconds
from alignkit.engine.training.failures import explained, name_of
from alignkit.engine.training.loop import Frame
from alignkit.engine.training.parts import Parts
from alignkit.engine.training.saver import Saver
from alignkit.engine.training.together import together
from alignkit.errors import AlignkitError
from alignkit.lifecycle.ranks import follows
from alignkit.lifecycle.signals import Interrupted
from alignkit.protocols import Closes

if TYPE_CHECKING:
    from alignkit.protocols import RolloutBackend, Run


@contextmanager
def opened(parts: Parts, run: Run) -> Iterator[Frame]:
    """Attach the trackers, seed every generator, and keep the rollout backend running.

    Rewards and backend are closed, however the block ends.
    The run's state is saved when a signal, the time limit or an error ends the block.
    """
    plan = parts.checkpoint or CheckpointPlan()
    if plan.stop_after:
        run.signals.stop_in(seconds(plan.stop_after), f"stop_after = {plan.stop_after}")
    seed_everything(parts.seed)  # a model may draw weights when it is loaded, as adapters do
    with together(run, parts):
        saver = Saver(run, parts.policy, plan)
        with explained(run, parts, saver), _served(parts, run, saver) as frame:
            yield frame


@contextmanager
def _served(parts: Parts, run: Run, saver: Saver) -> Iterator[Frame]:
    """Seed, attach and serve what a training needs; save what can be when it ends early."""
    run.attach([*_asked(parts, run), parts.watch])
    if not follows():
        parts.inspector = Inspector(run, parts.policy.tokenizer, limit=parts.watch.nonfinite)
    seed_everything(parts.seed)
    end_turns(parts.policy, parts.prompts())
    if parts.backend and not parts.policy.eos_ids:
        run.say(_without_end(parts))
    with _rewards(parts), serving(parts.backend, parts.policy), _recorded(parts.backend, run):
        frame = Frame(parts, run, saver)
        try:
            yield frame
        except Interrupted as interrupted:
            run.signals.take()
            if lost := _find_again(run):
                run.say(str(lost))
            if saver.save_last() and interrupted.state == "stopped":
                frame.leave_model()
            raise
        except BaseException as error:
            lost = _find_again(run)
            saver.save_what_can_be()
            if lost and isinstance(error, OSError):
                raise lost from error
            raise


@contextmanager
def _recorded(backend: RolloutBackend | None, run: Run) -> Iterator[None]:
    """Record how the backend does its work: at the start, and what became of that by the end."""
    told = backend if isinstance(backend, Computes) else None
    run.computed.update(told.computed if told else {})
    try:
        yield
    finally:
        run.computed.update(told.computed if told else {})


@contextmanager
def _rewards(parts: Parts) -> Iterator[None]:
    """Close the rewards that hold resources, including evaluations', however the block ends."""
    sets = parts.plan.sets.values() if parts.plan else ()
    rewards = {id(r): r for r in (parts.reward, *(s.reward for s in sets))}
    with ExitStack() as stack:
        for reward in rewards.values():
            if isinstance(reward, Closes):
                stack.enter_context(closing("reward", reward))
        yield


def _find_again(run: Run) -> AlignkitError | None:
    """Save the run's state where its directory is now; return why, if it has changed."""
    try:
        run.stay()
    except AlignkitError as error:
        return error
    return None


def _asked(parts: Parts, run: Run) -> Iterator[AskedTracker]:
    for tracker in parts.trackers:
        yield AskedTracker(tracker, name_of(Source("tracker", tracker), parts, run.plan))


def _without_end(parts: Parts) -> str:
    tables = {"prompt": parts.prompt, "environment": parts.environment}
    stops = [
        f"the stop string {', '.join(map(repr, part.stop))} of [{name}]"
        for name, part in tables.items()
        if part is not None and part.stop
    ]
    where = " and ".join(stops) or "rollout.max_tokens"
    return (
        f"{parts.policy.name} names no end-of-sequence token, so responses end only at {where}; "
        f"add eos_token_id to its generation_config.json"
    )
