"""A reward's verdicts on a file of responses, as counts and a table."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from alignkit.errors import shown

CATEGORIES: Mapping[str, str] = {
    "(1,1)": "format and answer right",
    "(1,0)": "format right, answer wrong",
    "(0,0)": "neither",
    "(0,1)": "answer right, format wrong",
}


@dataclass
class Summary:
    """A reward's verdicts on a file of responses."""

    verdicts: Path
    """JSON lines, one per response: id, line, gold, response, reward, its parts, category, why."""
    n: int = 0
    categories: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    """What decided the answers, if the reward reports it."""
    total: float = 0.0
    squares: float = 0.0
    seconds: float = 0.0
    """Time spent in the reward."""

    @property
    def mean(self) -> float:
        """Mean reward."""
        return self.total / self.n if self.n else math.nan

    @property
    def standard_error(self) -> float:
        """Standard error of the mean reward, responses taken as independent; NaN below 2."""
        if self.n < 2:
            return math.nan
        variance = max(0.0, self.squares / self.n - self.mean**2) * self.n / (self.n - 1)
        return math.sqrt(variance / self.n)

    def table(self) -> str:
        """Return the category table, the reasons and the speed, for a terminal."""
        lines = ["(format, answer)         n    share"]
        for name, meaning in CATEGORIES.items():
            if (count := self.categories[name]) or name != "(0,1)":
                lines.append(f"{name:<6} {count:>19}  {_percent(count, self.n)}  {meaning}")
        spread = f" ± {self.standard_error:.4f}" if self.n > 1 else ""
        lines += [f"total  {self.n:>19}", f"mean reward {self.mean:.4f}{spread}"]
        if self.reasons:
            known = ", ".join(f"{why}: {n}" for why, n in self.reasons.most_common())
            lines.append(f"decided by {known}")
        rate = self.n / self.seconds if self.seconds else math.inf
        lines.append(f"{rate:.0f} verdicts a second; each one in {shown(self.verdicts)}")
        return "\n".join(lines)


def _percent(count: int, n: int) -> str:
    return f"{100 * count / n:5.1f} %" if n else "    - %"
