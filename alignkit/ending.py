"""What ``alignkit run`` prints last."""

from __future__ import annotations

from alignkit.errors import shown
from alignkit.run import Run


def summary(run: Run) -> str:
    """Say how the headline metrics moved, where the run is, and what can be done next."""
    lines = [f"done in {run.elapsed():.0f} s"]
    for key in ("eval/answer_reward", "eval/reward", "eval/format_reward"):
        if key in run.last:
            moved = f"{run.first[key]:.3f} -> " if run.rows_logged > 1 else ""
            lines.append(f"  {key}: {moved}{run.last[key]:.3f}")
    folder = shown(run.dir)
    lines.append(f"run directory: {folder}  (metrics.jsonl, eval/, rollouts/)")
    if (run.dir / "final").is_dir():
        lines.append(f"model: {folder}/final  (AutoModelForCausalLM.from_pretrained loads it)")
        lines.append(f"next: alignkit run recipes/evaluate.toml -s policy.path={folder}/final")
    return "\n".join(lines)
