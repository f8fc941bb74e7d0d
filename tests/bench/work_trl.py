"""TRL's side of a comparison: started by ``turns``, does one round at each line it reads.

Options: ``micro_batch``, rows per forward pass (the rest is gradient accumulation; ``None`` is
the whole optimizer step at once); ``compile``; ``grouped``, rows of similar length together
(sft). DPO precomputes the reference's log-probs.
"""

from __future__ import annotations

import sys
import tempfile

from cases import Case, prompts, reward, rows
from datasets import Dataset, disable_progress_bars
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from transformers.utils import logging
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer
from worker import Rounds, read_job


class Turns(TrainerCallback):
    """Waits before the first optimizer step of each round and reports after the last."""

    def __init__(self, rounds: Rounds, per_round: int) -> None:
        self.rounds, self.per_round = rounds, per_round
        self.work: dict[str, float] = {}

    def count(self, **work: float) -> None:
        for name, number in work.items():
            self.work[name] = self.work.get(name, 0) + number

    def on_step_begin(self, args, state, control, **_):
        if state.global_step % self.per_round == 0:
            self.work = {}
            self.rounds.begin()

    def on_step_end(self, args, state, control, **_):
        self.count(optimizer_steps=1)
        if state.global_step % self.per_round == 0:
            self.rounds.end(self.work)


def counting(trainer_class, turns: Turns, tokens):
    """Return the trainer, also counting what ``tokens`` finds in each micro-batch."""

    class Counting(trainer_class):
        def _prepare_inputs(self, inputs):
            prepared = super()._prepare_inputs(inputs)
            turns.count(trained_tokens=tokens(prepared))
            return prepared

    return Counting


def common(case: Case, options: dict, batch: int) -> dict:
    micro = options.get("micro_batch") or batch
    return {
        "output_dir": tempfile.mkdtemp(),
        "per_device_train_batch_size": micro,
        "gradient_accumulation_steps": batch // micro,
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "adam_beta2": 0.95,
        "optim": "adamw_torch_fused",
        "max_grad_norm": 1.0,
        "bf16": bool(options["bf16"]),
        "gradient_checkpointing": False,
        "use_cpu": options["device"] == "cpu",
        "report_to": "none",
        "logging_strategy": "no",
        "save_strategy": "no",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "torch_compile": options.get("compile", False),
    }


def main() -> None:
    logging.set_verbosity_error()
    disable_progress_bars()
    case, folder, options = read_job(sys.argv)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    kind = {"grpo": grpo, "sft": sft, "dpo": dpo}[case.kind]
    kind(case, options, Rounds(options), model, tokenizer).train()


def grpo(case: Case, options, rounds, model, tokenizer):
    batch = case.prompts * case.group
    turns = Turns(rounds, case.epochs)
    config = GRPOConfig(
        **common(case, options, batch),
        max_steps=options["total"] * case.epochs,
        num_generations=case.group,
        max_completion_length=case.max_tokens,
        num_iterations=case.epochs,
        beta=0.0,
        loss_type="grpo",
    )
    trainer = counting(GRPOTrainer, turns, lambda x: int(x["completion_mask"].sum()))
    return trainer(
        model=model,
        args=config,
        processing_class=tokenizer,
        reward_funcs=lambda completions, **_: [reward(text) for text in completions],
        train_dataset=Dataset.from_list([{"prompt": text} for text in prompts(case)]),
        callbacks=[turns],
    )


def sft(case: Case, options, rounds, model, tokenizer):
    turns = Turns(rounds, case.prompts // case.batch)
    config = SFTConfig(
        **common(case, options, case.batch),
        num_train_epochs=options["total"],
        max_length=None,
        completion_only_loss=True,
        train_sampling_strategy="group_by_length" if options.get("grouped") else "random",
    )
    trainer = counting(SFTTrainer, turns, lambda x: int((x["labels"] != -100).sum()))
    return on_rows(trainer, case, turns, model=model, args=config, processing_class=tokenizer)


def dpo(case: Case, options, rounds, model, tokenizer):
    turns = Turns(rounds, case.prompts // case.batch)
    config = DPOConfig(
        **common(case, options, case.batch),
        num_train_epochs=options["total"],
        max_length=None,
        beta=0.1,
        precompute_ref_log_probs=True,
    )
    trainer = counting(DPOTrainer, turns, lambda x: int(x["completion_mask"].sum()))
    return on_rows(trainer, case, turns, model=model, args=config, processing_class=tokenizer)


def on_rows(trainer, case: Case, turns: Turns, **given):
    return trainer(train_dataset=Dataset.from_list(rows(case)), callbacks=[turns], **given)


if __name__ == "__main__":
    main()
