"""`alignkit chat`: what the policy is asked, what is shown, and what is kept."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from alignkit import plugins
from alignkit.cli import main
from alignkit.errors import AlignkitError, RecipeError
from alignkit.protocols import Completion, Sampling
from alignkit_algorithms.conversation import (
    Conversation,
    Parts,
    model_of,
    parts_of,
    talk,
    transcript_for,
)
from alignkit_data import Chat as ChatData
from alignkit_prompts import Chat, QuestionOnly

TINY = Path(__file__).resolve().parents[3] / "data" / "tiny_policy"


class Says:
    """A backend that says what it is told to, and notes what it was asked."""

    def __init__(self, policy, *texts):
        self.policy, self.texts, self.asked, self.state = policy, list(texts), [], []
        self.sampling = Sampling(max_tokens=9, temperature=0.5)

    def start(self, policy):
        self.state.append("started")

    def sync(self, policy):
        pass

    def close(self):
        self.state.append("closed")

    def generate(self, prompts, sampling):
        self.asked.append((self.policy.tokenizer.decode(list(prompts[0])), sampling))
        text = self.texts.pop(0)
        made = Completion(
            text=text,
            token_ids=(1,),
            logprobs=(0.0,),
            finish_reason="stop",
            weight_version=self.policy.version,
        )
        return [[made]]


@pytest.fixture
def talked(tmp_path, chat_folder):
    """Have a conversation with a policy of a chat template, or of plain text."""
    from alignkit_hf import HfPolicy

    def run(lines, *texts, prompt=None, system=None):
        policy = HfPolicy(path=str(chat_folder("chatml"))).build()
        backend = Says(policy, *texts)
        parts = Parts(policy, prompt or Chat(system=system).build(), backend)
        said = Conversation(parts, 7, tmp_path / "kept" / "chat.jsonl", {"model": "m"})
        shown = []
        talk(said, lambda: iter(lines), shown.append)
        return backend, shown, said

    return run


def test_the_policy_is_shown_what_was_said_before(talked):
    backend, shown, said = talked(["one", "", "two\n", "/new", "three"], "A", "B", "C")
    first, second, third = (text for text, _ in backend.asked)
    assert "one" in first
    assert "A" in second
    assert second.index("one") < second.index("A") < second.index("two")
    assert "one" not in third
    assert backend.state == ["started", "closed"]
    assert [line for line in shown if line in "ABC"] == ["A", "B", "C"]
    rows = [json.loads(line) for line in said.transcript.read_text().splitlines()]
    assert [[m["content"] for m in row["messages"]] for row in rows] == [
        ["one", "A", "two", "B"],
        ["three", "C"],
    ]
    assert {row["model"] for row in rows} == {"m"}
    examples = ChatData(path=str(said.transcript)).build()
    assert [m["role"] for m in examples[0].messages] == ["user", "assistant"] * 2


def test_draws_are_keyed_by_seed_conversation_and_turn(talked):
    backend, _, _ = talked(["one", "two", "/new", "three"], "A", "B", "C")
    keyed = [(s.seed, s.prompt_keys, s.step, s.n, s.temperature) for _, s in backend.asked]
    assert keyed == [(7, (0,), 0, 1, 0.5), (7, (0,), 1, 1, 0.5), (7, (1,), 0, 1, 0.5)]


def test_without_a_chat_template_each_question_stands_alone(talked):
    prompt = QuestionOnly().build()
    backend, shown, said = talked(["one", "two"], "A", "B", prompt=prompt)
    assert [text for text, _ in backend.asked] == ["one", "two"]
    assert "each question stands alone" in shown[0]
    row = json.loads(said.transcript.read_text())
    assert [m["content"] for m in row["messages"]] == ["one", "A", "two", "B"]


def test_a_thought_is_shown_and_not_repeated_to_the_policy(talked):
    backend, shown, _ = talked(["one", "two"], "<think>hm</think>A", "B")
    assert "<think>hm</think>A" in shown
    assert "hm" not in backend.asked[1][0]


def test_a_system_message_comes_first(talked):
    backend, _, _ = talked(["one"], "A", system="Be brief.")
    assert backend.asked[0][0].index("Be brief.") < backend.asked[0][0].index("one")


def test_a_question_without_room_says_so_and_is_not_kept(talked):
    backend, shown, said = talked(["x" * 5000, "short"], "A")
    assert any("leave no room" in line for line in shown)
    assert len(backend.asked) == 1
    assert [m["content"] for m in said.messages] == ["short", "A"]


def test_an_end_that_says_nothing_keeps_nothing(talked):
    _, shown, said = talked(["/new", "/exit", "never"])
    assert not said.transcript.exists()
    assert not any("kept" in line for line in shown)


@pytest.fixture
def chat(monkeypatch, tmp_path):
    """Run `alignkit chat ARGS` in an empty folder, with lines typed."""
    monkeypatch.chdir(tmp_path)
    return lambda *args, typed: CliRunner().invoke(main, ["chat", *map(str, args)], input=typed)


def test_escape_sequences_of_the_model_are_spelt_out(chat, monkeypatch):
    from alignkit_algorithms import conversation

    said = "\x1b]0;title\x07 \x1b[31mred\u202e"
    monkeypatch.setattr(conversation.Conversation, "reply", lambda self, text: said)
    done = chat(TINY, typed="hello\n")
    assert done.exit_code == 0, done.output
    assert "\x1b" not in done.output
    assert "\u202e" not in done.output
    assert r"\x1b[31mred\u202e" in done.output


def test_a_model_answers_in_the_terminal(chat, tmp_path):
    keys = ["-s", "rollout.temperature=0.0", "-s", "rollout.max_tokens=24"]
    done = chat(TINY, *keys, "--out", tmp_path / "t.jsonl", typed="Mina has 3 toys.\n/exit\n")
    assert done.exit_code == 0, done.output
    row = json.loads((tmp_path / "t.jsonl").read_text())
    assert row["messages"][0]["content"] == "Mina has 3 toys."
    assert row["messages"][1]["content"] in done.output


def test_a_run_is_asked_as_its_recipe_asks(tmp_path):
    run = tmp_path / "run"
    (run / "checkpoints" / "step_000004" / "model").mkdir(parents=True)
    (run / "metrics.jsonl").write_text('{"step": 0}\n')
    (run / "recipe.toml").write_text(
        f'use = "grpo"\n[policy]\nuse = "hf"\npath = "{TINY}"\ndtype = "float32"\n'
        '[prompt]\nuse = "r1_zero"\n[rollout]\nuse = "hf"\nmax_tokens = 17\n'
    )
    assert model_of(run) == run / "checkpoints" / "step_000004" / "model"
    (run / "final").symlink_to(TINY)
    assert model_of(run) == run / "final"
    parts = parts_of(str(run), plugins.load(), ["rollout.temperature=0.25"])
    assert Path(parts.policy.name).resolve() == TINY
    assert parts.prompt.stop == ("</answer>",)
    assert (parts.rollout.sampling.max_tokens, parts.rollout.sampling.temperature) == (17, 0.25)
    assert transcript_for(str(run), None) == run / "chats" / "chat_0001.jsonl"
    (run / "chats").mkdir()
    (run / "chats" / "chat_0001.jsonl").touch()
    assert transcript_for(str(run), None) == run / "chats" / "chat_0002.jsonl"


def test_a_model_without_a_run_has_its_chat_template(chat_folder):
    registry = plugins.load()
    with_template = parts_of(str(chat_folder("chatml")), registry, [])
    assert type(with_template.prompt).__name__ == "ChatPrompt"
    assert parts_of(str(TINY), registry, []).prompt == QuestionOnly().build()


def test_a_transcript_is_not_written_over(tmp_path):
    (tmp_path / "t.jsonl").touch()
    with pytest.raises(AlignkitError, match="exists"):
        transcript_for("m", tmp_path / "t.jsonl")


def test_wrong_settings_are_named():
    with pytest.raises(RecipeError, match="tempature"):
        parts_of(str(TINY), plugins.load(), ["rollout.tempature=1"])


@pytest.mark.parametrize("key", ["nope=1", "n_steps=4", "data.path=x", "eval.n=2", "sampling=3"])
def test_a_setting_that_a_conversation_does_not_read_is_refused(key):
    with pytest.raises(RecipeError, match="reads policy, prompt, rollout"):
        parts_of(str(TINY), plugins.load(), [key])


@pytest.mark.parametrize("table", ["", "policy = 3", '[policy]\npath = "x"', "policy = []"])
def test_a_run_whose_recipe_names_no_policy_is_a_wrong_recipe(tmp_path, table):
    (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    (tmp_path / "recipe.toml").write_text(f'use = "grpo"\n{table}\n')
    (tmp_path / "final").symlink_to(TINY)
    with pytest.raises(RecipeError, match="policy"):
        parts_of(str(tmp_path), plugins.load(), [])


@pytest.mark.parametrize("line", [b"\xff", b"a\xe9b", b"\xed\xa0\x80"])
def test_a_line_that_is_no_text_is_not_asked(chat, tmp_path, line):
    out = tmp_path / "t.jsonl"
    done = chat(TINY, "-s", "rollout.max_tokens=4", "--out", out, typed=line + b"\nhi\n")
    assert done.exit_code == 0, done.exception
    assert "no UTF-8" in done.output
    assert [m["content"] for m in json.loads(out.read_text())["messages"]][:1] == ["hi"]


def test_an_answer_that_cannot_be_kept_is_shown_and_kept_when_it_can(talked, tmp_path):
    (tmp_path / "kept").touch()

    def lines():
        yield "one"
        (tmp_path / "kept").unlink()
        yield "two"

    _, shown, said = talked(lines(), "A", "B")
    assert [line for line in shown if line in "AB"] == ["A", "B"]
    assert sum("not kept: cannot write" in line for line in shown) == 1
    row = json.loads(said.transcript.read_text())
    assert [m["content"] for m in row["messages"]] == ["one", "A", "two", "B"]
