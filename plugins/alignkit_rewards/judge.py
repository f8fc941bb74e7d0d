"""The reward ``judge``: its keys, and how the model that judges is reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from alignkit import RecipePath
from alignkit.abilities import StartsTogether
from alignkit.engine.sampling.endpoint_table import EndpointFields
from alignkit.lifecycle import ranks
from alignkit.protocols import Policy, PromptTemplate, RewardFn, RolloutBackend


class Judge(EndpointFields[RewardFn]):
    """The score another model gives a response.

    It is asked through an OpenAI-compatible endpoint, or, with ``[reward.policy]`` and
    ``[reward.rollout]``, by any rollout backend; ``[reward.template]`` is then the prompt template
    around the judge's prompt. The score is scaled to [0, 1]. Replies are kept in ``cache`` as they
    arrive, so that nothing is asked twice, even after a kill. A response for which there was no
    verdict is marked by the part ``unjudged``: evaluations leave it out of their means, and in
    training its reward is the mean of the judged responses to its question.
    """

    prompt: RecipePath
    """UTF-8 file with the judge's prompt; ``{question}``, ``{response}`` and ``{answer}`` (the
    gold) are replaced, verbatim."""

    pattern: str = r"[Ss]core:\s*(-?\d+(?:\.\d+)?)"
    """Regular expression with one group, the score; the last match in a reply counts."""

    worst: float = 0.0
    """Score that becomes the reward 0."""

    best: float = 10.0
    """Score that becomes the reward 1; scores outside this range are no verdict."""

    def build(
        self,
        *,
        policy: Policy | None = None,
        rollout: RolloutBackend | None = None,
        template: PromptTemplate | None = None,
    ) -> RewardFn:
        import re
        from functools import partial

        from alignkit_rewards.judged import JudgeReward, Model, verdict

        pattern = re.compile(self.pattern)
        read = partial(verdict, pattern=pattern, worst=self.worst, best=self.best)
        text = self.prompt.read_text(encoding="utf-8")
        if policy is None or rollout is None:
            return JudgeReward(self.endpoint(), text, read)
        from alignkit.engine.sampling.local_model import LocalModel

        model: Model = LocalModel(policy, rollout, template)
        return JudgeReward(model, text, read)

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        import re

        yield from self._asked_how(tables)
        if not self.prompt.is_file():
            yield "prompt", f"there is no file {self.prompt.name}"
        elif "{response}" not in self.prompt.read_text(encoding="utf-8"):
            yield "prompt", "the judge would not see the response; write {response} in the file"
        if self.worst == self.best:
            yield "best", "worst and best are equal, so no score says anything"
        try:
            if re.compile(self.pattern).groups != 1:
                yield "pattern", "it takes exactly one group, which is the score"
        except re.error as error:
            yield "pattern", f"no regular expression: {error}"

    def _asked_how(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        """Yield what is wrong unless an endpoint is named, or a policy with its backend."""
        local = {"policy", "rollout", "template"} & tables.keys()
        if not local:
            yield from self.named()
            return
        for lacking in sorted({"policy", "rollout"} - tables.keys()):
            yield "", f"a judge that is run here needs a table [reward.{lacking}] as well"
        rollout = tables.get("rollout")
        if ranks.size() > 1 and isinstance(rollout, StartsTogether) and rollout.together:
            yield (
                "rollout",
                f"its engine would be shared by all {ranks.size()} ranks, and each asks its judge "
                "at times of its own: choose an engine for each rank, or an endpoint",
            )
        endpoint = {*EndpointFields.model_fields}
        for key in sorted(self.model_fields_set & endpoint):
            if getattr(self, key) != type(self).model_fields[key].default:
                yield key, "is for an endpoint; the judge is [reward.policy]"
