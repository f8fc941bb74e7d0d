"""Token ids of a dialogue from turn to turn."""

import pytest

from alignkit.dialogues import ChatFormat
from alignkit.engine.chat import chat_ids, continuation, turn_end
from alignkit.engine.chat_rows import dialogue_rows
from alignkit.errors import AlignkitError
from chat_checks import CALL, DIALOGUE, FAMILIES, WITH_TOOLS, plain_ids


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
