"""The prompt template `chat`: its table, and the messages it makes of an example."""

import json

import pytest

from alignkit import AlignkitError
from alignkit.dialogues import Converses
from alignkit.engine.prompting import prompt_of
from alignkit.protocols import Example
from alignkit_prompts import Chat, QuestionOnly

TOLD = {"role": "system", "content": "Be brief."}
ASKED = {"role": "user", "content": "2 + 2?"}
SAID = {"role": "assistant", "content": "4"}
TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


class Policy:
    def __init__(self, tokenizer):
        self.tokenizer = tokenizer


def test_a_question_is_what_a_user_says():
    template = Chat().build()
    assert isinstance(template, Converses)
    assert template.messages(Example("0", "2 + 2?", "4")) == (ASKED,)
    assert not isinstance(QuestionOnly().build(), Converses)


def test_the_system_comes_first_unless_it_has_spoken():
    template = Chat(system="Be kind.").build()
    kind = {"role": "system", "content": "Be kind."}
    assert template.messages(Example("0", "2 + 2?", "4")) == (kind, ASKED)
    own = Example("0", "2 + 2?", "4", messages=(TOLD, ASKED))
    assert template.messages(own) == (TOLD, ASKED)
    developer = Example("0", "2 + 2?", "4", messages=({**TOLD, "role": "developer"}, ASKED))
    assert template.messages(developer) == developer.messages
    assert template.render("2 + 2?") == "Be kind.\n\n2 + 2?"
    empty = Chat(system="").build()
    assert empty.messages(Example("0", "2 + 2?", "4"))[0] == {"role": "system", "content": ""}
    assert empty.render("2 + 2?") == "2 + 2?"


@pytest.mark.parametrize("family", ["chatml", "qwen3", "llama3", "gemma", "mistral", "olmo2"])
def test_prompts_are_those_of_apply_chat_template(chats, family):
    tokenizer = chats.tokenizer_of(family)
    example = Example("0", "2 + 2?", "4", messages=(ASKED, SAID, ASKED, SAID))
    text, ids = prompt_of(example, Chat(system="Be kind.").build(), Policy(tokenizer))
    messages = [{"role": "system", "content": "Be kind."}, ASKED, SAID, ASKED]
    how = {"add_generation_prompt": True}
    assert list(ids) == tokenizer.apply_chat_template(messages, **how)["input_ids"]
    assert text == tokenizer.apply_chat_template(messages, tokenize=False, **how)


def test_the_table_reaches_the_template(chats, tmp_path):
    tools, template = tmp_path / "tools.json", tmp_path / "chat.jinja"
    tools.write_text(json.dumps([TOOL]))
    template.write_text(chats.template_of("qwen3") + "{{ day }}")
    params = Chat(tools=tools, template=template, thinking=False, template_kwargs={"day": "1 May"})
    assert params.facts({}) == {"tools": "add"}
    example = Example("0", "2 + 2?", "4", messages=(TOLD, ASKED))
    text, _ = prompt_of(example, params.build(), Policy(chats.tokenizer_of("chatml")))
    assert '"add"' in text
    assert text.endswith("<think>\n\n</think>\n\n1 May")


@pytest.mark.parametrize(
    ("key", "content", "says"),
    [
        ("tools", "{", "cannot be read as JSON"),
        ("tools", '[{"type": "function"}]', "tool 1 must be an object like"),
        ("tools", "[" * 100_000, "cannot be read as JSON"),
        ("tools", "[3]", "tool 1 must be an object like"),
        ("template", "{{ question }}", "goes through `messages`"),
        ("template", b"\xff\xfe", "cannot be read"),
    ],
    ids=["no JSON", "no function", "too deep", "no object", "no messages", "no UTF-8"],
)
def test_files_that_are_none_are_refused_before_the_run(tmp_path, key, content, says):
    path = tmp_path / "file"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    params = Chat(**{key: path})
    [(where, message)] = params.check({})
    assert where == key
    assert says in message
    with pytest.raises(AlignkitError, match="file: "):
        params.build()


@pytest.mark.parametrize("name", ["messages", "tools", "add_generation_prompt", "tokenize"])
def test_arguments_that_are_set_for_every_prompt_are_refused_before_the_run(name):
    [(key, message)] = Chat(template_kwargs={name: None, "date_string": "1 May"}).check({})
    assert (key, name in message) == ("template_kwargs", True)
    assert [*Chat(template_kwargs={"date_string": "1 May"}).check({})] == []


def test_an_example_is_named_where_its_dialogue_cannot_be_written(chats):
    example = Example("row 7", "2 + 2?", "4", messages=(SAID, SAID, ASKED))
    with pytest.raises(AlignkitError, match="example 'row 7': the chat template cannot write"):
        prompt_of(example, Chat().build(), Policy(chats.tokenizer_of("gemma")))


def test_a_template_of_text_refuses_a_dialogue_of_several_turns(chats):
    policy = Policy(chats.tokenizer_of("chatml"))
    one = Example("0", "2 + 2?", "4", messages=(TOLD, ASKED, SAID))
    assert prompt_of(one, QuestionOnly().build(), policy)[0] == "2 + 2?"
    more = Example("0", "2 + 2?", "4", messages=(ASKED, SAID, ASKED))
    with pytest.raises(AlignkitError, match=r"several turns.*use = \"chat\" shows all"):
        prompt_of(more, QuestionOnly().build(), policy)
