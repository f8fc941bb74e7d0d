"""Grade saved responses: audit a reward against any model's outputs, without a model."""

from alignkit.grading.files import grade_file, reward_for
from alignkit.grading.summary import Summary

__all__ = ["Summary", "grade_file", "reward_for"]
