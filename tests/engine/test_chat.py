"""Dialogues as ids: those of the template, trained on the assistant's turns and nowhere else."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.engine.chat import chat_ids
from alignkit.engine.chat_rows import dialogue_rows
from alignkit.engine.forward.logprobs import response_logprobs
from chat_checks import CALL, DIALOGUE, FAMILIES, WITH_TOOLS, plain_ids, runs, trained_at

words = st.lists(
    st.sampled_from(
        [*"ab the.\n  9{}%", "an", "\n\n", "ü", "水", "<|im_start|>", "[INST] ", "</think>"]
    ),
    min_size=1,
    max_size=12,
).map("".join).filter(str.strip)  # fmt: skip

thoughts = st.sampled_from(["", "", "<think>\nthe sum\n</think>\n\n", "<think>an\n\nend</think>"])


@st.composite
def dialogues(draw, family):
    """A dialogue that the family's template takes, with at least one turn of the assistant."""
    messages = [{"role": "system", "content": draw(words)}] if draw(st.booleans()) else []
    for _ in range(draw(st.integers(1, 3))):
        messages.append({"role": "user", "content": draw(words)})
        if family in WITH_TOOLS and draw(st.booleans()):
            said = "so" + draw(words).replace("</think>", "")
            messages.append({"role": "assistant", "content": said, "tool_calls": [CALL]})
            messages.append({"role": "tool", "content": draw(words)})
        said = draw(thoughts) + draw(words).replace("</think>", "")
        messages.append({"role": "assistant", "content": said})
    return messages


def written(tokenizer, ids):
    """What ids stand for, spaces that a vocabulary adds at the beginning of a text aside."""
    return tokenizer.decode([tokenizer.bos_token_id, *ids])[len(tokenizer.bos_token) :]


def said(family, message):
    """What the assistant writes in a turn, by the documented format of each family."""
    content = message["content"]
    if family == "chatml":
        calls = '\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [2, 30]}}\n</tool_call>'
        return content + calls * ("tool_calls" in message) + "<|im_end|>"
    if family == "llama3":
        call = '{"name": "add", "parameters": {"a": 1, "b": [2, 30]}}'
        return (call if "tool_calls" in message else content.strip()) + "<|eot_id|>"
    if family == "gemma":
        return content.strip() + "<end_of_turn>"
    if family == "mistral":
        return " " + content + "</s>"
    if family == "olmo2":
        return content + "<|endoftext|>"
    thought, closed, answer = content.rpartition("</think>")
    thought = thought.replace("<think>", "").strip("\n") if closed else ""
    call = '\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": [2, 30]}}\n</tool_call>'
    whole = f"<think>\n{thought}\n</think>\n\n" + answer.lstrip("\n")
    return whole + call * ("tool_calls" in message) + "<|im_end|>"


def grows(tokenizer, messages, turn):
    """Whether the dialogue's ids up to a turn begin with the ids of the prompt for it."""
    prompt = plain_ids(tokenizer, messages[:turn], add_generation_prompt=True)
    return plain_ids(tokenizer, messages[: turn + 1])[: len(prompt)] == prompt


def check_rows(tokenizer, family, messages):
    turns = [i for i, m in enumerate(messages) if m["role"] == "assistant"]
    for turn in turns:
        prompt = plain_ids(tokenizer, messages[:turn], add_generation_prompt=True)
        assert chat_ids(tokenizer, messages[:turn]) == prompt
    assert chat_ids(tokenizer, messages, prompt=False) == plain_ids(tokenizer, messages)
    rows = dialogue_rows(tokenizer, messages)
    trained = [written(tokenizer, run) for row in rows for key, run in runs(row) if key]
    want = [said(family, messages[i]) for i in turns]
    if family == "mistral":  # the vocabulary puts a space of its own behind each special token
        trained, want = ([text.replace(" ", "") for text in texts] for texts in (trained, want))
    assert trained == want
    first = plain_ids(tokenizer, messages[: turns[0]], add_generation_prompt=True)
    assert rows[0].prompt_ids == first
    whole = plain_ids(tokenizer, messages)
    if len(rows) == 1 and all(grows(tokenizer, messages, i) for i in turns):
        ids = (*rows[0].prompt_ids, *rows[0].response_ids)
        assert ids == whole[: len(ids)]
        assert not tokenizer.decode(whole[len(ids) :]).strip()
    elif family != "qwen3":
        assert len(rows) == 1
        ids = (*rows[0].prompt_ids, *rows[0].response_ids)
        assert tokenizer.decode(whole).rstrip() == tokenizer.decode(ids).rstrip()
    return rows


def dialogues_of(family, count):
    return lambda test: settings(max_examples=count)(given(messages=dialogues(family))(test))


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_the_templates_and_turns_of_the_assistant_are_trained(chats, family):
    tokenizer = chats.tokenizer_of(family)

    @dialogues_of(family, 25)
    def check(messages):
        check_rows(tokenizer, family, messages)

    check()


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_a_thousand_dialogues_have_gradients_on_what_the_assistant_said_alone(
    chats, family, tiny_policy
):
    """167 dialogues of each family; gradients of the hidden states, exactly 0 elsewhere."""
    tokenizer = chats.tokenizer_of(family)
    sizes = {"max_position_embeddings": 2048, "num_hidden_layers": 1}
    policy = tiny_policy(vocab_size=len(tokenizer), **sizes)
    policy.max_length = 2048

    @dialogues_of(family, 167)
    def check(messages):
        for row in check_rows(tokenizer, family, messages):
            assert learned_at(policy, row) == trained_at(row)

    check()


def learned_at(policy, row):
    """The places whose hidden state gets a gradient that is not exactly 0."""
    kept = []
    hook = policy.model.model.norm.register_forward_hook(lambda *call: kept.append(call[-1]))
    try:
        logprobs, _, mask = response_logprobs(policy, [row])
        hidden = [h for h in kept if h.requires_grad]  # those of probes are unused
        found = torch.autograd.grad(-logprobs[mask].sum(), hidden, allow_unused=True)
        (grads,) = [g for g in found if g is not None]
    finally:
        hook.remove()
    return {i for i, g in enumerate(grads.reshape(-1, grads.shape[-1])) if bool((g != 0).any())}


@pytest.mark.parametrize("family", ["chatml", "mistral"])
def test_the_gradient_is_exactly_0_outside_the_turns(chats, family, tiny_policy):
    tokenizer = chats.tokenizer_of(family)
    policy = tiny_policy(vocab_size=len(tokenizer), max_position_embeddings=512)
    policy.max_length = 512
    messages = [
        *DIALOGUE,
        {"role": "user", "content": "More"},
        {"role": "assistant", "content": "9"},
    ]
    [row] = dialogue_rows(tokenizer, messages)
    assert any(row.given)
    assert learned_at(policy, row) == trained_at(row)
