"""Episodes that a chat template writes: observations follow as the template has them."""

import re
from dataclasses import dataclass, field

import pytest

from alignkit.engine.chat import chat_ids, chat_text, turn_end
from alignkit.engine.observing.clock import Clock
from alignkit.engine.sampling.opening import Opening
from alignkit.engine.sampling.questions import make_prompt
from alignkit.engine.sampling.rollouts import collect, with_stops
from alignkit.engine.tokens import encode, encode_response
from alignkit.episodes import EpisodeLimits, Turn
from alignkit.errors import AlignkitError
from alignkit.protocols import Completion, Example, Reward, Sampling
from alignkit_prompts import Chat

FAMILIES = ("chatml", "llama3", "gemma", "mistral", "olmo2", "qwen3")


@dataclass
class ChatPolicy:
    tokenizer: object
    max_length: int = 4000
    version: int = 0


@dataclass
class Says:
    """Says one text after the other, each ended as the template ends turns, or cut by a stop."""

    tokenizer: object
    texts: list
    ends: bool = True
    asked: list = field(default_factory=list)

    def generate(self, prompts, sampling):
        self.asked += prompts
        text = self.texts[len(self.asked) - 1]
        ids = follows(self.tokenizer, text)
        ids = (*ids, turn_end(self.tokenizer).id) if self.ends else ids
        return [[Completion(text, ids, (0.0,) * len(ids), "stop", 0)]]


def follows(tokenizer, text):
    """Return the ids of a text as a model says it, not as one that begins a document."""
    return encode_response(tokenizer, "[/INST]", text)


def squeezed(tokenizer, ids):
    """Return their text; SentencePiece may have a space more where a model begins to speak."""
    return re.sub(" +", " ", tokenizer.decode(list(ids)))


class Answers:
    stop = ()

    def __init__(self, observations, role="user"):
        self.limits, self.role = EpisodeLimits(turns=9), role
        self.observations, self.heard = observations, []

    def open(self, example, /, *, seed):
        return Answered(self)


class Answered:
    prompt = "What is 3 times 4?"

    def __init__(self, world):
        self.world, self.left = world, list(world.observations)

    def step(self, response):
        self.world.heard.append((str(response), response.opened))
        return Turn(self.left.pop(0) if self.left else "", not self.left, role=self.world.role)

    def close(self):
        pass


def played(tokenizer, backend, world, reward=None, **chat):
    policy = ChatPolicy(tokenizer)
    opening = Opening(world, Chat(**chat).build(), 0)
    example = Example("0", "not asked", "12")
    prompts = [make_prompt(0, 0, example, opening, policy)]
    (found,) = collect(
        prompts,
        policy=policy,
        backend=backend,
        reward=reward,
        sampling=with_stops(Sampling(), opening),
        clock=Clock(),
        opening=opening,
    )
    return found


def dialogue(says, observations):
    said = [{"role": "user", "content": "What is 3 times 4?"}]
    for text, observation in zip(says, [*observations, None], strict=True):
        said.append({"role": "assistant", "content": text})
        if observation is not None:
            said.append({"role": "user", "content": observation})
    return said


@pytest.mark.parametrize("ends", [True, False], ids=["ended", "stopped"])
@pytest.mark.parametrize("family", [f for f in FAMILIES if f != "qwen3"])
def test_a_transcript_is_what_the_template_writes(chats, family, ends):
    tokenizer = chats.tokenizer_of(family)
    says, observations = ["[3*4]", "[12]", "It is 12."], ["12", "yes"]
    backend = Says(tokenizer, says, ends)
    found = played(tokenizer, backend, Answers([*observations, ""]))
    whole = dialogue(says, observations)
    assert backend.asked[0] == chat_ids(tokenizer, whole[:1])
    assert found.prompt_text == chat_text(tokenizer, whole[:1])
    for turn, ids in enumerate(backend.asked):
        want = chat_text(tokenizer, whole[: 2 * turn + 1])
        assert squeezed(tokenizer, ids) == squeezed(tokenizer, encode(tokenizer, want))
    for before, after in zip(backend.asked, backend.asked[1:], strict=False):
        assert tuple(after[: len(before)]) == tuple(before)  # ids only grow
    given = found.completion.given
    sampled = [i for i, g in zip(found.completion.token_ids, given, strict=True) if not g]
    end = (turn_end(tokenizer).id,) if ends else ()
    assert tuple(sampled) == tuple(i for text in says for i in (*follows(tokenizer, text), *end))


def test_a_template_that_rewrites_what_was_said_is_refused(chats):
    tokenizer = chats.tokenizer_of("qwen3")
    backend = Says(tokenizer, ["<think>\nthree fours\n</think>\n\n12", "12"])
    with pytest.raises(AlignkitError, match="does not grow from turn to turn"):
        played(tokenizer, backend, Answers(["Are you sure?", ""]))


def test_a_tool_may_say_it(chats):
    tokenizer = chats.tokenizer_of("qwen3")
    backend = Says(tokenizer, ["<think>\n\n</think>\n\n[3*4]", "<think>\n\n</think>\n\n12"])
    played(tokenizer, backend, Answers(["12", ""], role="tool"))
    assert "tool_response" in tokenizer.decode(list(backend.asked[1]))


def test_the_system_speaks_first_and_a_reward_judges_all_that_was_said(chats):
    tokenizer = chats.tokenizer_of("chatml")
    heard = []

    def judge(responses, examples):
        heard.extend(responses)
        return [Reward(1.0) for _ in responses]

    backend, world = Says(tokenizer, ["[3*4]", "12"]), Answers(["so 12", ""])
    found = played(tokenizer, backend, world, reward=judge, system="Use the tool.")
    assert "Use the tool." in found.prompt_text
    assert found.reward.total == 1.0
    (said,) = heard
    assert said.startswith("[3*4]")
    assert "so 12" in said
    assert said.endswith("12")
    assert [text for text, _ in world.heard] == ["[3*4]", "12"]


TOOL = {
    "type": "function",
    "function": {
        "name": "times",
        "description": "Multiply.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}},
    },
}
BEGUN = (
    {"role": "system", "content": "Answer briefly."},
    {"role": "user", "content": "What is 2 times 2?"},
    {"role": "assistant", "content": "4"},
    {"role": "user", "content": "And 3 times 4?"},
)
HEARD = (
    {"role": "tool", "content": "12"},
    {"role": "tool", "content": "13"},
    {"role": "user", "content": "Well?"},
)


class Begun(Answered):
    prompt = "And 3 times 4?"
    messages = BEGUN

    def step(self, response):
        turn = super().step(response)
        return Turn(turn.observation, turn.done, messages=() if turn.done else self.world.tells)


class Equipped(Answers):
    tools, tells = (TOOL,), HEARD

    def open(self, example, /, *, seed):
        return Begun(self)


@pytest.mark.parametrize("family", ["qwen3", "llama3"])
def test_an_environment_may_bring_its_messages_and_tools(chats, family):
    tokenizer = chats.tokenizer_of(family)
    says = ["12", "so it is"]
    if family == "qwen3":
        says = [f"<think>\n\n</think>\n\n{text}" for text in says]
    backend, world = Says(tokenizer, says), Equipped(["12 13 Well?", ""])
    if family == "qwen3":  # which drops a thought as soon as the user speaks again
        world.tells = HEARD[:-1]
    found = played(tokenizer, backend, world, system="not used")
    written = {"tools": [TOOL], "add_generation_prompt": True, "tokenize": False}
    want = tokenizer.apply_chat_template(list(BEGUN), **written)
    assert found.prompt_text == want
    assert backend.asked[0] == encode(tokenizer, want)
    whole = [*BEGUN, {"role": "assistant", "content": says[0]}, *world.tells]
    want = tokenizer.apply_chat_template(whole, **written)
    assert tuple(backend.asked[1]) == encode(tokenizer, want)
    assert backend.asked[1][: len(backend.asked[0])] == backend.asked[0]


def test_a_text_template_gets_what_such_an_episode_says_as_text(chats):
    opening = Opening(Equipped([""]), None, 0)
    tokenizer = chats.tokenizer_of("chatml")
    made = make_prompt(0, 0, Example("0", "not asked", "12"), opening, ChatPolicy(tokenizer))
    assert made.text == "And 3 times 4?"
    assert made.dialogue == ()


def test_tools_that_the_template_does_not_show_are_refused(chats):
    tokenizer = chats.tokenizer_of("gemma")
    with pytest.raises(AlignkitError, match=r"shows no tools.*\[environment\]"):
        played(tokenizer, Says(tokenizer, ["12"]), Equipped([""]))
