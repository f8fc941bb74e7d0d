"""Inspect the batches that are learned from: show a row of the first, save those that fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING, Any

from torch import Tensor

from alignkit.engine.tokens import TrainRow, text_after
from alignkit.errors import AlignkitError, shown
from alignkit.security.text import printable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from alignkit.protocols import Run

OPEN, CLOSE = "⟦", "⟧"
"""Markers around the tokens that are trained on."""

MOST = 400
"""Characters shown of a prompt (its end) and of a response (its beginning)."""


class Inspector:
    """Inspects the optimizer steps of one run."""

    def __init__(self, run: Run, tokenizer: PreTrainedTokenizerBase, *, limit: int) -> None:
        """``limit`` steps in a row without a finite loss and gradient stop the run; 0 = never."""
        self._run, self._tokenizer, self._limit = run, tokenizer, limit
        self._seen = False

    def before(self, rows: Sequence[TrainRow]) -> None:
        """Show a row of the first batch as the learner gets it."""
        if not self._seen:
            self._seen = True
            self._run.say(first_batch(rows, self._tokenizer))

    def skipped(self, rows: Sequence[TrainRow], *, times: int, loss: float, norm: float) -> None:
        """Report the first skipped step in a row; stop the run at the limit."""
        what = f"loss {loss:.4g}, gradient norm {norm:.4g}"
        if times == 1:
            self._run.say(f"an optimizer step was skipped, weights are as before it: {what}")
        if self._limit and times >= self._limit:
            path = self._run.dir / "nonfinite" / "batch.jsonl"
            path.parent.mkdir(exist_ok=True)
            lines = (json.dumps(as_row(row, self._tokenizer)) for row in rows)
            path.write_text("\n".join(lines) + "\n", encoding="utf-8")
            raise AlignkitError(
                f"{times} optimizer steps in a row had no finite loss and gradient ({what}); none "
                f"of them changed the weights. The last batch is in {shown(path)}.\n"
                f"  Usual cause: a learning rate too high for weights that have grown, 16-bit "
                f"numbers that overflow, or a loss that divides by zero.\n"
                f"  Try: a lower optimizer.lr, a smaller optimizer.max_grad_norm, policy.dtype = "
                f'"float32". How many are put up with: [watch] nonfinite = {self._limit}.'
            )


def first_batch(rows: Sequence[TrainRow], tokenizer: PreTrainedTokenizerBase) -> str:
    """Describe one row, the first with a token to learn from if there is one."""
    chosen = [r for r in rows if r.trained_ids and r.pushes] or [r for r in rows if r.trained_ids]
    row = (chosen or list(rows))[0]
    trained, whole = len(row.trained_ids), row.length
    note = "" if chosen else "; NO ROW HOLDS A TRAINED TOKEN"
    return (
        f"first batch: {len(rows)} rows; one of them, its trained tokens ({trained} of {whole}, "
        f"{_advantage(row)}) between {OPEN} and {CLOSE}{note}\n{marked(row, tokenizer)}"
    )


def _advantage(row: TrainRow) -> str:
    a = row.advantage
    if isinstance(a, Tensor):
        return f"advantages {float(a.min()):.4g} to {float(a.max()):.4g}"
    return f"advantage {a:.4g}"


def marked(row: TrainRow, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the row as text, special tokens included, with its trained tokens marked."""
    prompt = printable(str(tokenizer.decode(list(row.prompt_ids))))
    before = "…" if len(prompt) > MOST else ""
    return f"{before}{prompt[-MOST:]}{_marked_response(row, tokenizer)}"


def _marked_response(row: TrainRow, tokenizer: PreTrainedTokenizerBase) -> str:
    """Return the first ``MOST`` characters of a response, each run of trained tokens marked."""
    given = row.given or [False] * max(len(row.response_ids), 1)  # an empty one is marked too
    runs, left, at, ids = [], MOST, len(row.prompt_ids), (*row.prompt_ids, *row.response_ids)
    for is_given, run in groupby(given):
        end = at + len([*run])
        text = printable(text_after(tokenizer, ids[:at], ids[at:end]))
        at = end
        shown = text[: max(left, 0)] + ("…" if 0 < left < len(text) else "")
        left -= len(text)
        if shown or not text:
            runs.append(shown if is_given else f"{OPEN}{shown}{CLOSE}")
    return "".join(runs)


def as_row(row: TrainRow, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return all that the learner knew of a row; numbers that are not finite become text."""
    return {
        "prompt": tokenizer.decode(list(row.prompt_ids)),
        "response": tokenizer.decode(list(row.response_ids)),
        "advantage": _values(row.advantage)
        if isinstance(row.advantage, Tensor)
        else _plain(row.advantage),
        "prompt_ids": list(row.prompt_ids),
        "response_ids": list(row.response_ids),
        **({} if row.given is None else {"given": list(row.given)}),
        **{
            name: _values(getattr(row, name))
            for name in ("old_logprobs", "ref_logprobs", "rollout_logprobs")
        },
    }


def _values(values: Tensor | None) -> list[float | str] | None:
    return None if values is None else [_plain(float(v)) for v in values]


def _plain(value: float) -> float | str:
    return value if abs(value) < float("inf") else str(value)  # NaN is not below it either
