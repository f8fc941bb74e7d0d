"""Dialogues as ids: those of the template, trained on the assistant's turns and nowhere else."""

from itertools import groupby

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alignkit.dialogues import ChatFormat
from alignkit.engine.chat import asked, chat_ids, continuation, turn_end
from alignkit.engine.chat_rows import dialogue_rows
from alignkit.engine.forward.logprobs import response_logprobs
from alignkit.errors import AlignkitError

FAMILIES = ("chatml", "qwen3", "llama3", "gemma", "mistral", "olmo2")
WITH_TOOLS = ("chatml", "qwen3", "llama3")

CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1, "b": [2, 30]}}}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}

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


def plain_ids(tokenizer, messages, **how):
    return tuple(tokenizer.apply_chat_template(messages, tokenize=True, **how)["input_ids"])


def written(tokenizer, ids):
    """What ids stand for, spaces that a vocabulary adds at the beginning of a text aside."""
    return tokenizer.decode([tokenizer.bos_token_id, *ids])[len(tokenizer.bos_token) :]


def runs(row):
    """The ids of a row in stretches: (trained or not, ids); the prompt is the first."""
    flags = row.given or (False,) * len(row.response_ids)
    marked = [(False, i) for i in row.prompt_ids]
    marked += [(not flag, i) for flag, i in zip(flags, row.response_ids, strict=True)]
    return [(key, [i for _, i in run]) for key, run in groupby(marked, key=lambda pair: pair[0])]


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


def trained_at(row):
    flags = row.given or (False,) * len(row.response_ids)
    return {len(row.prompt_ids) - 1 + i for i, flag in enumerate(flags) if not flag}


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


DIALOGUE = [
    {"role": "system", "content": "Answer the sum."},
    {"role": "user", "content": "2 + 2"},
    {"role": "assistant", "content": "It is 4."},
]


# ---------------------------------------------------------------- from turn to turn


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("cut", [False, True], ids=["ended", "cut"])
def test_the_ids_of_an_episode_only_grow(chats, family, cut):
    """Sampled ids stay; what follows them is what the template writes behind the turn."""
    tokenizer = chats.tokenizer_of(family)
    end = turn_end(tokenizer)
    more = [{"role": "user", "content": "And the\n\nnext?"}]
    ids = [
        *chat_ids(tokenizer, DIALOGUE[:2]),
        *tokenizer.encode("It is 4.", add_special_tokens=False),
    ]
    ids += [] if cut else [end.id]
    added = continuation(tokenizer, ids, DIALOGUE, [*DIALOGUE, *more])
    whole = plain_ids(tokenizer, [*DIALOGUE, *more], add_generation_prompt=True)
    assert whole[-len(added) :] == added
    assert (added[0] == end.id) == cut
    text = tokenizer.decode([*ids, *added])
    assert text.replace(" ", "") == tokenizer.decode(whole).replace(" ", "")


@pytest.mark.parametrize("family", WITH_TOOLS)
def test_an_episode_goes_on_behind_the_answer_of_a_tool(chats, family):
    tokenizer = chats.tokenizer_of(family)
    call = {"role": "assistant", "content": "<think>\nso\n</think>\n\nhm", "tool_calls": [CALL]}
    before = [*DIALOGUE[:2], call]
    after = [*before, {"role": "tool", "content": "4"}]
    ids = plain_ids(tokenizer, before)
    ids = ids[: len(ids) - ids[::-1].index(turn_end(tokenizer).id)]
    added = continuation(tokenizer, ids, before, after)
    assert (*ids, *added) == plain_ids(tokenizer, after, add_generation_prompt=True)


def test_a_template_that_rewrites_the_turn_is_refused_by_its_number(chats):
    tokenizer = chats.tokenizer_of("qwen3")
    thinking = {"role": "assistant", "content": "<think>\nso\n</think>\n\nIt is 4."}
    before = [*DIALOGUE[:2], thinking]
    after = [*before, {"role": "user", "content": "And?"}]
    with pytest.raises(AlignkitError, match=r"message 3, the assistant's, is written otherwise"):
        continuation(tokenizer, [1], before, after)
    first, second = dialogue_rows(tokenizer, [*after, {"role": "assistant", "content": "no"}])
    assert "so" in tokenizer.decode(first.response_ids)
    assert "<think>\nso" not in tokenizer.decode(second.prompt_ids)  # as the model will see it


def test_a_turn_that_does_not_follow_its_prompt_is_refused_by_its_number(chats):
    tokenizer = chats.tokenizer_of("chatml")
    form = ChatFormat(template=chats.template_of("chatml").replace(
        "'<|im_start|>assistant\\n'", "'<|im_start|>assistant\\n<think>\\n'"))  # fmt: skip
    with pytest.raises(AlignkitError, match=r"message 3, the assistant's, does not follow"):
        dialogue_rows(tokenizer, DIALOGUE, form)


OPENED = (
    "{% for m in messages %}{% if m.role == 'assistant' %}"
    "{{ '<|im_start|>assistant\\n' + m.content.split('</think>')[-1] }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\\n' + m.content }}{% endif %}{{ '<|im_end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)


def test_a_thought_that_the_prompt_opens_is_trained_though_the_template_drops_it(chats):
    """As the templates of DeepSeek-R1 do."""
    tokenizer, form = chats.tokenizer_of("chatml"), ChatFormat(template=OPENED)
    think = {"role": "assistant", "content": "<think>\nso\n</think>\n\nIt is 4."}
    messages = [*DIALOGUE[:2], think, DIALOGUE[1], {**think, "content": "<think>\nno</think>5"}]
    first, second = dialogue_rows(tokenizer, messages, form)
    how = {"chat_template": OPENED, "add_generation_prompt": True}
    assert first.prompt_ids == plain_ids(tokenizer, messages[:2], **how)
    assert second.prompt_ids == plain_ids(tokenizer, messages[:4], **how)
    assert tokenizer.decode(first.response_ids) == "so\n</think>\n\nIt is 4.<|im_end|>"
    assert tokenizer.decode(second.response_ids) == "no</think>5<|im_end|>"
    with pytest.raises(AlignkitError, match="message 3, the assistant's, does not follow"):
        dialogue_rows(tokenizer, DIALOGUE, form)
    with pytest.raises(AlignkitError, match="message 3, the assistant's, does not follow"):
        dialogue_rows(tokenizer, [*DIALOGUE[:2], {**think, "content": "\nIt is 4."}], form)


# ---------------------------------------------------------------- what templates can do


MASKED = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% if m.role == 'assistant' %}{{ 'Well: ' }}{% generation %}{{ m.content + '<|im_end|>' }}"
    "{% endgeneration %}{{ '\\n' }}{% else %}{{ m.content + '<|im_end|>\\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


@pytest.mark.parametrize("ends", [True, False], ids=["end inside", "end outside"])
def test_what_the_template_marks_as_generated_is_trained_and_no_more(chats, ends):
    tokenizer = chats.tokenizer_of("chatml")
    inside = "{{ m.content + '<|im_end|>' }}{% endgeneration %}"
    outside = "{{ m.content }}{% endgeneration %}{{ '<|im_end|>' }}"
    template = MASKED if ends else MASKED.replace(inside, outside)
    assert ends == (template == MASKED)
    messages = [
        *DIALOGUE,
        {"role": "user", "content": "More"},
        {"role": "assistant", "content": "9"},
    ]
    [row] = dialogue_rows(tokenizer, messages, ChatFormat(template=template))
    trained = [tokenizer.decode(run) for key, run in runs(row) if key]
    assert trained == ["It is 4.<|im_end|>", "9<|im_end|>"]
    if ends:
        found = tokenizer.apply_chat_template(
            messages, chat_template=template, return_assistant_tokens_mask=True, return_dict=True
        )
        mask = [i for i, m in enumerate(found["assistant_masks"]) if m]
        assert mask == sorted(place + 1 for place in trained_at(row))
    [unended] = dialogue_rows(tokenizer, messages, ChatFormat(template=template), train_end=False)
    assert [tokenizer.decode(run) for key, run in runs(unended) if key] == ["It is 4.", "9"]


def test_turns_before_the_first_asked_for_are_read_only(chats):
    tokenizer = chats.tokenizer_of("chatml")
    messages = [
        *DIALOGUE,
        {"role": "user", "content": "More"},
        {"role": "assistant", "content": "9"},
    ]
    [row] = dialogue_rows(tokenizer, messages, first=4)
    assert row.prompt_ids == plain_ids(tokenizer, messages[:4], add_generation_prompt=True)
    assert tokenizer.decode(row.response_ids) == "9<|im_end|>"


@pytest.mark.parametrize(("thinking", "empty"), [(False, True), (True, False), (None, False)])
def test_the_switch_for_thoughts_is_the_templates_own(chats, thinking, empty):
    tokenizer = chats.tokenizer_of("qwen3")
    ids = chat_ids(tokenizer, DIALOGUE[:2], ChatFormat(thinking=thinking))
    how = {} if thinking is None else {"enable_thinking": thinking}
    assert ids == plain_ids(tokenizer, DIALOGUE[:2], add_generation_prompt=True, **how)
    assert tokenizer.decode(ids).endswith("<think>\n\n</think>\n\n") == empty


def test_tools_are_shown(chats):
    tokenizer = chats.tokenizer_of("llama3")
    ids = chat_ids(tokenizer, DIALOGUE[:2], ChatFormat(tools=(TOOL,)))
    assert ids == plain_ids(tokenizer, DIALOGUE[:2], add_generation_prompt=True, tools=[TOOL])
    assert '"add"' in tokenizer.decode(ids)


@pytest.mark.parametrize(
    ("family", "form", "says"),
    [
        ("chatml", {"thinking": False}, "thinking is false, but the chat template has no switch"),
        ("qwen3", {"arguments": {"enable_thinkin": 1}}, "Did you mean 'enable_thinking'"),
        ("gemma", {"tools": (TOOL,)}, "the chat template shows no tools"),
        ("chatml", {"template": "{% if %}"}, "is no Jinja|cannot write a dialogue"),
        ("chatml", {"template": "{{ nothing.at.all }}"}, "cannot write a dialogue of the roles"),
        ("chatml", {"template": "{{ messages[-1].content }}."}, "writes '.' behind what the assis"),
    ],
    ids=["thinking", "argument", "tools", "syntax", "error", "end"],
)  # fmt: skip
def test_what_a_template_cannot_do_is_refused(chats, family, form, says):
    with pytest.raises(AlignkitError, match=says):
        dialogue_rows(chats.tokenizer_of(family), DIALOGUE, ChatFormat(**form))


def test_a_tokenizer_without_a_template_asks_for_one(chats):
    from transformers import PreTrainedTokenizerFast

    bare = PreTrainedTokenizerFast(tokenizer_object=chats.tokenizer_of("olmo2").backend_tokenizer)
    with pytest.raises(AlignkitError, match=r"has no chat template.*template = \"FILE\""):
        chat_ids(bare, DIALOGUE)


def test_a_dialogue_without_a_turn_of_the_assistant_is_refused(chats):
    with pytest.raises(AlignkitError, match="no turn of the assistant"):
        dialogue_rows(chats.tokenizer_of("chatml"), DIALOGUE[:2])


def test_the_prompt_ends_before_the_assistants_last_turn():
    assert [*asked(DIALOGUE)] == DIALOGUE[:2]
    assert asked([]) == ()
    assert [*asked([*DIALOGUE, DIALOGUE[-1]])] == DIALOGUE[:2]
    assert [*asked([*DIALOGUE, DIALOGUE[1]])] == [*DIALOGUE, DIALOGUE[1]]
