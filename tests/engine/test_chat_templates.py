"""What chat templates can do, and what is refused."""

import pytest

from alignkit.dialogues import ChatFormat
from alignkit.engine.chat import asked, chat_ids
from alignkit.engine.chat_rows import dialogue_rows
from alignkit.errors import AlignkitError
from chat_checks import DIALOGUE, plain_ids, runs, trained_at

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}

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


@pytest.mark.parametrize("pairs", [1, 6, 7, 3000])
def test_an_error_of_a_template_is_short_however_long_the_dialogue(chats, pairs):
    form = ChatFormat(template="{{ messages.nothing.at.all }}")
    with pytest.raises(AlignkitError, match="cannot write a dialogue") as refused:
        chat_ids(chats.tokenizer_of("chatml"), DIALOGUE[1:] * pairs, form)
    assert len(str(refused.value)) < 400
    assert ("messages)" in str(refused.value)) is (len(DIALOGUE[1:]) * pairs > 12)


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
