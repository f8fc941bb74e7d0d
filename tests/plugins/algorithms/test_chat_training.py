"""Dialogues through whole trainings: what is sampled, judged, imitated and preferred."""

import json
from dataclasses import replace

import pytest

from alignkit.dialogues import SampledResponse
from alignkit.engine.chat import turn_end
from alignkit.engine.evaluation.eval_table import EvalPlan, EvalSet
from alignkit.engine.learning.supervised import supervised_row, supervised_rows
from alignkit.engine.prompting import end_turns
from alignkit.engine.training.checkpoint import EncodedState, StoredState
from alignkit.engine.training.parts import Parts
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Example, Reward
from alignkit_algorithms.dpo import Dpo
from alignkit_algorithms.sft import Sft, unique_pairs
from alignkit_prompts import Chat

ASKED = {"role": "user", "content": "2 + 2?"}
SAID = {"role": "assistant", "content": "<think>\nadd\n</think>\n\n4"}
MORE = {"role": "user", "content": "3 + 3?"}
THEN = {"role": "assistant", "content": "6"}
DIALOGUE = Example("d", "3 + 3?", "6", messages=(ASKED, SAID, MORE, THEN))


@pytest.fixture
def policy(chats, chat_folder):
    """Return a function that loads the random model of a family."""
    from alignkit_hf import HfPolicy

    def load(family):
        made = HfPolicy(path=str(chat_folder(family))).build()
        made.tokenizer = chats.tokenizer_of(family)  # transformers reads any as Qwen2's, from there
        return made

    return load


def trained(row, tokenizer):
    flags = row.given or (False,) * len(row.response_ids)
    return tokenizer.decode([i for i, f in zip(row.response_ids, flags, strict=True) if not f])


# ---------------------------------------------------------------- rows


def test_all_that_the_assistant_says_is_imitated(policy):
    chatml = policy("chatml")
    [row] = supervised_rows(DIALOGUE, "6", Chat().build(), chatml, "auto")
    said = f"{SAID['content']}<|im_end|>6<|im_end|>"
    assert trained(row, chatml.tokenizer) == said
    [row] = supervised_rows(DIALOGUE, "6", Chat().build(), chatml, "never")
    assert trained(row, chatml.tokenizer) == said.replace("<|im_end|>", "")


def test_thoughts_that_a_template_drops_make_a_row_of_each_turn(policy):
    qwen3 = policy("qwen3")
    first, second = supervised_rows(DIALOGUE, "6", Chat().build(), qwen3, "auto")
    assert trained(first, qwen3.tokenizer) == "<think>\nadd\n</think>\n\n4<|im_end|>"
    assert trained(second, qwen3.tokenizer) == "<think>\n\n</think>\n\n6<|im_end|>"
    assert "add" not in qwen3.tokenizer.decode(second.prompt_ids)


def test_another_response_is_imitated_alone(policy):
    chatml = policy("chatml")
    [row] = supervised_rows(DIALOGUE, "seven", Chat().build(), chatml, "auto")
    assert trained(row, chatml.tokenizer) == "seven<|im_end|>"
    asked = [*DIALOGUE.messages[:3]]
    ids = chatml.tokenizer.apply_chat_template(asked, add_generation_prompt=True)["input_ids"]
    assert list(row.prompt_ids) == ids


def test_a_question_without_a_dialogue_is_one_turn(policy):
    gemma = policy("gemma")
    [row] = supervised_rows(Example("q", "2 + 2?", "4"), "4", Chat().build(), gemma, "auto")
    assert gemma.tokenizer.decode(row.prompt_ids) == (
        "<bos><start_of_turn>user\n2 + 2?<end_of_turn>\n<start_of_turn>model\n"
    )
    assert trained(row, gemma.tokenizer) == "4<end_of_turn>"


@pytest.mark.parametrize("family", ["chatml", "qwen3", "llama3", "gemma", "mistral", "olmo2"])
def test_both_answers_of_a_pair_follow_the_same_ids(policy, family):
    example = replace(DIALOGUE, extra={"rejected": "\n\n5"})
    made = [
        supervised_row(example, r, Chat().build(), policy(family), "auto") for r in ("6", "\n\n5")
    ]
    assert made[0].prompt_ids == made[1].prompt_ids
    assert made[0].response_ids != made[1].response_ids
    assert made[0].response_ids[-1] == made[1].response_ids[-1]


def test_a_message_with_more_than_text_is_preferred_to_or_refused(policy):
    from alignkit.engine.learning.supervised import reply

    qwen3, chat = policy("qwen3"), Chat().build()
    example = replace(DIALOGUE, extra={"rejected": {**THEN, "reasoning_content": "hm"}})
    row = supervised_row(example, reply(example, "rejected"), chat, qwen3, "auto")
    assert "hm" in trained(row, qwen3.tokenizer)
    plain = Example("p", "?", "6", extra=example.extra)
    with pytest.raises(AlignkitError, match="'p': the response is a message that holds more"):
        supervised_row(plain, reply(plain, "rejected"), _Text(), qwen3, "auto")


class _Text:
    stop = ()

    def render(self, question):
        return question


def test_dialogues_that_end_alike_are_different_rows():
    other = replace(DIALOGUE, id="e", messages=(MORE, THEN, MORE, THEN))
    again = replace(DIALOGUE, id="f")
    assert [e.id for e, _ in unique_pairs([DIALOGUE, other, again], "")] == ["d", "e"]


# ---------------------------------------------------------------- the end of a turn


def test_responses_end_where_the_template_ends_a_turn(policy, tmp_path):
    chatml = policy("chatml")
    end = turn_end(chatml.tokenizer)
    had = chatml.eos_ids
    assert end.id not in had
    end_turns(chatml, [_Text(), Chat().build(), Chat().build()])
    assert chatml.eos_ids == had | {end.id}
    chatml.save(tmp_path / "saved")
    saved = json.loads((tmp_path / "saved" / "generation_config.json").read_text())
    assert set(saved["eos_token_id"]) == chatml.eos_ids


def test_ends_that_are_there_already_are_left_alone(policy):
    olmo2 = policy("olmo2")
    config = olmo2.generation_config.to_dict()
    end_turns(olmo2, [Chat().build()])
    assert olmo2.generation_config.to_dict() == config


def test_a_policy_that_cannot_be_told_its_end_is_refused(policy):
    class Deaf:
        name, eos_ids, tokenizer = "deaf", frozenset(), policy("chatml").tokenizer

    with pytest.raises(AlignkitError, match=r"deaf does not end a response at '<\|im_end\|>'"):
        end_turns(Deaf(), [Chat().build()])


def test_the_prompts_of_evaluation_sets_count(policy):
    chat = Chat().build()
    plan = EvalPlan({"own": EvalSet(data=[DIALOGUE], prompt=chat), "": EvalSet(data=[DIALOGUE])})
    parts = Parts(policy=policy("chatml"), seed=0, token_budget=64)
    parts.plan = plan
    assert parts.prompts() == [chat]


# ---------------------------------------------------------------- whole runs


class Notes:
    """A reward that keeps what it is given; longer answers earn more."""

    def __init__(self):
        self.seen = []

    def __call__(self, responses, examples):
        self.seen += zip(responses, examples, strict=True)
        return [Reward(len(r) / 10) for r in responses]


def test_a_policy_is_sampled_and_trained_behind_its_chat_template(toys, policy, grpo, tmp_path):
    notes, chatml = Notes(), policy("chatml")
    data = [
        replace(DIALOGUE, id=f"d{i}", messages=({**ASKED, "content": f"{i}?"},)) for i in range(8)
    ]
    algorithm = grpo(
        {"n_steps": 1}, policy=chatml, data=data, prompt=Chat(system="Add.").build(), reward=notes
    )
    toys.carry_out(algorithm, tmp_path / "run")
    assert turn_end(chatml.tokenizer).id in chatml.eos_ids
    assert all(e in data for _, e in notes.seen)
    assert all(isinstance(r, SampledResponse) for r, _ in notes.seen)
    [file] = (tmp_path / "run" / "rollouts").glob("*1.jsonl")
    row = json.loads(file.read_text().splitlines()[0])
    assert row["prompt"].startswith("<|im_start|>system\nAdd.<|im_end|>\n<|im_start|>user\n")
    assert row["prompt"].endswith("<|im_start|>assistant\n")


def test_fine_tuning_counts_the_tokens_of_the_assistant_alone(toys, policy, tmp_path):
    qwen3 = policy("qwen3")
    data = [DIALOGUE, replace(DIALOGUE, id="e", messages=(MORE, THEN))]
    rows = [r for e in data for r in supervised_rows(e, "6", Chat().build(), qwen3, "auto")]
    algorithm = toys.assemble(
        Sft(train_batch_size=8), policy=qwen3, data=data, prompt=Chat().build(),
        optimizer=toys.adamw(), normalizer=toys.normalizer("token_mean"),
    )  # fmt: skip
    first, step = toys.carry_out(algorithm, tmp_path / "run")
    assert (first["data/rows"], first["data/used"]) == (2, 3)
    assert step["train/rows"] == 3
    assert step["train/response_tokens"] == sum(len(r.trained_ids) for r in rows)


def test_preferences_are_learned_behind_a_chat_template(toys, policy, tmp_path):
    pairs = [
        Example(f"p{i}", "?", "aa", {"rejected": "b"}, messages=({**ASKED, "content": f"{i}?"},))
        for i in range(8)
    ]
    algorithm = toys.assemble(
        Dpo(train_batch_size=4, epochs=4), policy=policy("llama3"), data=pairs,
        prompt=Chat().build(), optimizer=toys.adamw(3e-3),
    )  # fmt: skip
    rows = toys.carry_out(algorithm, tmp_path / "run")
    assert rows[1]["train/margin"] == 0
    assert rows[-1]["train/preference_accuracy"] == 1


def test_messages_survive_a_checkpoint(tmp_path):
    deep = {**THEN, "tool_calls": [{"function": {"name": "f", "arguments": {"a": [1, None]}}}]}
    example = replace(DIALOGUE, messages=(ASKED, deep))
    for name, write in EncodedState({"kept": example}).files().items():
        write(tmp_path / name)
    assert StoredState(tmp_path).value()["kept"] == example


# ---------------------------------------------------------------- thoughts


@pytest.mark.parametrize(
    ("prompt", "text", "thought", "answer"),
    [
        ("", "It is 4.", "", "It is 4."),
        ("", "<think>\nadd\n</think>\n\nIt is 4.", "add", "It is 4."),
        ("", "<think>\n\n</think>\n\nIt is 4.", "", "It is 4."),
        ("", "<think> add, ad", "add, ad", ""),
        ("x <think>\n", "add\n</think>\n\nIt is 4.", "add", "It is 4."),
        ("x <think>", "add, ad", "add, ad", ""),
        ("<think>\n\n</think>\n\n", "It is 4.", "", "It is 4."),
        ("", "It is </think> 4.", "", "It is </think> 4."),
        ("", "<think>a</think>b</think>", "a", "b</think>"),
        ("", "", "", ""),
    ],
)
def test_the_answer_stands_apart_from_the_thought(prompt, text, thought, answer):
    response = SampledResponse.after(prompt, Completion(text, (1,), (0.0,), "stop", 0))
    assert (response.thought, response.answer) == (thought, answer)
    assert response == text


def test_a_reward_knows_whether_the_prompt_opened_the_thought(toys, policy, grpo, tmp_path, chats):
    template = tmp_path / "open.jinja"
    template.write_text(chats.template_of("chatml") + "<think>")
    notes = Notes()
    algorithm = grpo(
        {"n_steps": 1},
        policy=policy("chatml"),
        prompt=Chat(template=template).build(),
        reward=notes,
    )
    toys.carry_out(algorithm, tmp_path / "run")
    assert all(r.opened for r, _ in notes.seen)
