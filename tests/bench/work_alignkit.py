"""alignkit's side of a comparison: started by ``turns``, does one round at each line it reads."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from cases import Case, prompts, reward, rows
from worker import Rounds, read_job

from alignkit.execution import Run
from alignkit.protocols import Example, Reward, Sampling, per_response
from alignkit_advantages import GroupStd
from alignkit_algorithms.dpo import Dpo
from alignkit_algorithms.grpo import Grpo
from alignkit_algorithms.sft import Sft
from alignkit_hf import HfPolicy
from alignkit_hf.sampling.backend import HfBackend
from alignkit_losses import GrpoClip
from alignkit_normalizers import MaskedMean, TokenMean
from alignkit_optimizers import AdamW


class Text:
    """The question as it stands."""

    stop = ()

    def render(self, question):
        return question


class Pacer(Run):
    """A run of which each ``per_round`` logged steps end a round."""

    def __init__(self, rounds: Rounds, per_round: int) -> None:
        super().__init__(Path(tempfile.mkdtemp()), {})
        self.rounds, self.per_round = rounds, per_round
        self.printer = lambda text: None
        self.work = {}

    def log(self, step, metrics):
        if step == 0:
            self.rounds.begin()
            return
        done = {
            "optimizer_steps": metrics.get("train/updates", 1),
            "trained_tokens": metrics["train/response_tokens"],
        }
        for name, count in done.items():
            self.work[name] = self.work.get(name, 0) + count
        if step % self.per_round == 0:
            self.rounds.end(self.work)
            self.work = {}
            self.rounds.begin()


def main() -> None:
    case, folder, options = read_job(sys.argv)
    how = {
        None: {},
        "autocast": {"autocast": "bfloat16"},
        "masters": {"dtype": "bfloat16", "masters": True},
    }[options["bf16"]]
    policy = HfPolicy(path=folder, device=options["device"], **how).build()
    optimizer = AdamW(lr=1e-5).build()
    rounds = Rounds(options)
    kind = {"grpo": grpo, "sft": sft, "dpo": dpo}[case.kind]
    algorithm, per_round = kind(case, policy, optimizer, options["total"])
    pacer = Pacer(rounds, per_round)
    if case.kind == "grpo":  # it logs nothing before the first step
        rounds.begin()
    algorithm.run(pacer)


def grpo(case: Case, policy, optimizer, total):
    batch = case.prompts * case.group
    keys = Grpo(
        n_steps=total,
        rollout_batch_size=batch,
        train_batch_size=batch,
        group_size=case.group,
        epochs_per_rollout_batch=case.epochs,
        save_rollouts_every=0,
    )
    algorithm = keys.build(
        policy=policy,
        data=[Example(str(i), text, "") for i, text in enumerate(prompts(case))],
        prompt=Text(),
        reward=per_response(lambda text, _: Reward(reward(text))),
        advantage=GroupStd().build(),
        loss=GrpoClip().build(),
        normalizer=MaskedMean().build(),
        rollout=HfBackend(Sampling(max_tokens=case.max_tokens), kv_cache_tokens=2**18),
        optimizer=optimizer,
    )
    return algorithm, 1


def examples(case: Case):
    return [Example(str(i), row.pop("prompt"), "", row) for i, row in enumerate(rows(case))]


def sft(case: Case, policy, optimizer, total):
    per_round = case.prompts // case.batch
    keys = Sft(
        n_steps=total * per_round,
        train_batch_size=case.batch,
        response_column="completion",
        append_eos="always",
    )
    algorithm = keys.build(
        policy=policy,
        data=examples(case),
        prompt=Text(),
        normalizer=TokenMean().build(),
        optimizer=optimizer,
    )
    return algorithm, per_round


def dpo(case: Case, policy, optimizer, total):
    per_round = case.prompts // case.batch
    keys = Dpo(
        n_steps=total * per_round,
        train_batch_size=case.batch,
        chosen_column="chosen",
        append_eos="always",
    )
    algorithm = keys.build(policy=policy, data=examples(case), prompt=Text(), optimizer=optimizer)
    return algorithm, per_round


if __name__ == "__main__":
    main()
