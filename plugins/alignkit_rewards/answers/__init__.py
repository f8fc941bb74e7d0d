r"""Decide whether an answer equals the gold answer, from text alone; README.md says how.

>>> judge([r"\frac{3}{4}", "75\\%"], r"so she gets \boxed{\tfrac34} of it", Conventions()).correct
True
"""

from alignkit_rewards.answers.judge import judge, quick
from alignkit_rewards.answers.verdict import Conventions, Verdict

__all__ = ["Conventions", "Verdict", "judge", "quick"]
