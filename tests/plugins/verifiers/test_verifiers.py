"""Environments of the `verifiers` package, unmodified, as episodes of alignkit.

Their modules are in `tests/fixtures/verifiers_environments`; the adapter is a distribution of its
own, `tests/fixtures/alignkit-verifiers`.
"""

import json
import signal
from importlib.util import find_spec

import pytest

from adapters import lacking, skipped_without
from alignkit.engine.learning.learner import Learner
from alignkit.engine.sampling.opening import Opening
from alignkit.engine.sampling.transcript import Transcript
from alignkit.protocols import Example
from alignkit.testing import conformance, run_cli
from alignkit_hf import HfPolicy
from verifiers_worlds import CUT, recipe, said, world

LACKING = lacking("verifiers", "alignkit_verifiers")

pytestmark = [pytest.mark.verifiers, *skipped_without(LACKING)]

ONE_TURN = """use = "verifiers"
id = "word_sums"
args = { system = "" }
"""

TURNS = """use = "verifiers"
id = "second_try"
"""

TOOL = """use = "verifiers"
id = "calculator_tool"
"""

CALLS = """call = ["<tool>", "</tool>"]
call_format = "argument"
stop = ["</tool>", "</answer>"]
observation = [" <result> ", " </result>"]
"""

AGAIN = """observation = ["\\n", "\\n<think>"]
"""

KINDS = {
    "one turn": ("grpo.toml", ONE_TURN, ""),
    "many turns": ("grpo.toml", TURNS, AGAIN),
    "tools": ("tool_use.toml", TOOL, CALLS),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_trains_and_every_id_is_the_one_that_was_sampled(
    tmp_path, monkeypatch, kind, gradients_where
):
    turns, transcripts, trained = {}, [], []
    say, played = Transcript.say, Transcript.played

    def note(self, completion, limit):
        turns.setdefault(id(self), (self, []))[1].extend(completion.token_ids)
        say(self, completion, limit)

    def compare(self, version):
        found = played(self, version)
        transcripts.append((turns[id(self)][1], found))
        return found

    step = Learner.step
    monkeypatch.setattr(
        Learner,
        "step",
        lambda self, rows, *a, **k: trained.extend(rows) or step(self, rows, *a, **k),
    )
    monkeypatch.setattr(Transcript, "say", note)
    monkeypatch.setattr(Transcript, "played", compare)
    path = recipe(tmp_path, *KINDS[kind])
    done = run_cli("run", path, *[p for s in CUT for p in ("-s", s)], "--out", tmp_path / "run")
    assert done.status == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    for row in rows[1:]:
        assert row["train/rollout_logprob_gap"] < 1e-4
    assert len(transcripts) >= 2 * 16
    for sampled, found in transcripts:
        given = found.completion.given or (False,) * len(found.completion.token_ids)
        pairs = list(zip(found.completion.token_ids, given, strict=True))
        assert [token for token, was_given in pairs if not was_given] == sampled
        assert any(given) == (len(found.turns) > 1)
        assert len(found.completion.logprobs) in (len(sampled), len(pairs))
    several = [found for _, found in transcripts if len(found.turns) > 1]
    assert bool(several) == (kind != "one turn")
    assert {found.reward.total for _, found in transcripts} != {0.0}  # the rubric's, below
    for _, found in transcripts:
        check_reward(kind, found)
    row = max(trained, key=lambda r: sum(r.given or ()))  # the one that was told the most
    assert bool(row.given) == (kind != "one turn")
    policy = HfPolicy(path=str(tmp_path / "run" / "final")).build()
    given = row.given or (False,) * len(row.response_ids)
    assert gradients_where(policy, row) == [not was_given for was_given in given]


def check_reward(kind, found):
    """Work a reward out again from the parts that the rubric gave and the turns."""
    parts, total = found.reward.parts, found.reward.total
    if kind == "one turn":
        assert total == parts["right_answer"] + 0.25 * parts["format_reward_func"]
    elif kind == "tools":
        assert total == parts["right_answer"]
        assert parts["multiply_calls"] == sum("<tool>" in t.response for t in found.turns)
    else:
        assert total in (0.0, 0.5 ** (len(found.turns) - 1))
        assert parts["num_turns"] == len(found.turns)


@pytest.mark.vllm
@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed; see tests/README.md")
def test_it_trains_on_vllm(tmp_path):
    """Episodes with tools; the engine's log-probs are the trainer's, so the ids are the same."""
    path = recipe(tmp_path, *KINDS["tools"])
    keys = [*CUT, "rollout.use=vllm", "rollout.kv_cache_gib=0.0625", "rollout.max_num_seqs=32"]
    done = run_cli("run", path, *[p for s in keys for p in ("-s", s)], "--out", tmp_path / "run")
    assert done.status == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    for row in rows[1:]:
        assert row["train/turns"] > 1
        assert row["train/given_tokens"] > 0
        assert row["train/rollout_logprob_gap"] < 1e-3


def test_a_tool_is_called_with_what_the_policy_wrote():
    opened = world("calculator_tool").open(Example("7", "What is 12 times 3?", "36"), seed=1)
    assert opened.prompt == "What is 12 times 3?"
    call = '<tool_call>\n{"name": "multiply", "arguments": {"expression": "12 * 3"}}\n</tool_call>'
    turn = opened.step(said(f"Let me see. {call}"))
    assert (turn.observation, turn.role, turn.done) == ("\n36\n", "tool", False)
    assert turn.messages == ({"role": "tool", "content": "36", "tool_call_id": "call_0_0"},)
    wrong = call.replace("12 * 3", "twelve")
    turn = opened.step(said(wrong + call))
    assert [m["content"] for m in turn.messages][1] == "36"
    assert "invalid literal" in turn.messages[0]["content"]  # the tool's error, for the policy
    turn = opened.step(said(call.replace("multiply", "divide")))
    assert "divide" in turn.observation
    assert opened.step(said("<answer> 36 </answer>")).done
    reward = opened.reward()
    assert (reward.total, reward.parts["total_tool_calls"]) == (1.0, 4.0)
    opened.close()


HOSTILE = (
    "", "<tool_call>", "<tool_call></tool_call>", '<tool_call>{"name": 3}</tool_call>',
    "<tool_call>[1]</tool_call>", "<tool_call>" + "[" * 5000, '<tool_call>{"name": "multiply"}',
    '<tool_call>{"name": "multiply", "arguments": "{"}</tool_call>',
    '<tool_call>{"name": "multiply", "arguments": [1]}</tool_call>', "\ud800",
)  # fmt: skip


@pytest.mark.parametrize("name", ["word_sums", "calculator_tool", "second_try"])
@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_nothing_that_a_model_writes_is_the_environments_error(name, index):
    opened = world(name).open(Example("1", "What is 2 times 3?", "6"), seed=0)
    opened.step(said(HOSTILE[index]))
    assert opened.reward().total < 0.25  # not right; some tags are in their place
    opened.close()


def test_its_messages_are_the_datas_own_or_made_as_they_are():
    from alignkit_verifiers import RowsParams

    env, rows = world("word_sums"), RowsParams(id="word_sums").build()
    own = rows[5]
    assert (own.id, own.messages[0]["role"], len(rows)) == ("5", "system", 64)
    other = Example("x", own.question, own.answer)
    first, second = (env.open(example, seed=0) for example in (own, other))
    assert first.messages == second.messages == own.messages
    assert first.prompt == f"{own.messages[0]['content']}\n\n{own.question}"
    first.close()
    second.close()


def test_a_chat_template_shows_its_messages_and_tools(chats):
    from alignkit.engine.sampling.questions import make_prompt
    from alignkit_prompts import Chat

    class Reads:
        tokenizer, max_length, version = chats.tokenizer_of("qwen3"), 4000, 0

    opening = Opening(world("calculator_tool"), Chat().build(), 0)
    made = make_prompt(0, 0, Example("0", "What is 2 times 3?", "6"), opening, Reads())
    assert '"name": "multiply"' in made.text
    assert "Multiply two whole numbers." in made.text
    opening = Opening(world("word_sums"), Chat().build(), 0)
    made = make_prompt(0, 0, Example("0", "What is 2 times 3?", "6"), opening, Reads())
    assert "between <answer> and </answer>" in made.text


def test_group_rewards_and_tools_of_more_arguments_are_refused():
    from alignkit.errors import AlignkitError

    with pytest.raises(AlignkitError, match="scores all rollouts of a question together"):
        world("word_sums", {"group": True})
    with pytest.raises(AlignkitError, match="one tool of one argument"):
        world("second_try", call_format="argument")


def test_loading_keeps_the_runs_signal_handlers():
    before = signal.getsignal(signal.SIGTERM)
    world("second_try", {"max_turns": 7})
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_is_not_installed_is_said_before_the_run():
    from alignkit_verifiers import VerifiersParams

    (said_so,) = VerifiersParams(id="no-such-environment").missing()
    assert "there is no module no_such_environment" in said_so
    assert list(VerifiersParams(id="word-sums").missing()) == []


def test_a_real_environment_trains(tmp_path, monkeypatch):
    """Puzzles of `reasoning-gym`, in the environment that `verifiers` ships for them."""
    pytest.importorskip("reasoning_gym")
    (tmp_path / "puzzles.py").write_text(
        "from verifiers.envs.integrations.reasoninggym_env import ReasoningGymEnv\n"
        "def load_environment(gym):\n"
        "    return ReasoningGymEnv(gym, num_train_examples=32, num_eval_examples=8)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    named = 'use = "verifiers"\nid = "puzzles"\nargs = { gym = "basic_arithmetic" }\n'
    path = recipe(tmp_path, "grpo.toml", named)
    done = run_cli("run", path, *[p for s in CUT for p in ("-s", s)], "--out", tmp_path / "run")
    assert done.status == 0, done.stdout + done.stderr
    saved = (tmp_path / "run/rollouts/step_000002.jsonl").read_text().splitlines()
    assert len(saved) >= 4


PARAMS = {
    "environment/verifiers": {"id": "calculator_tool"},
    "dataset/verifiers": {"id": "calculator_tool"},
}

if not LACKING:
    test_conforms = conformance("verifiers", params=PARAMS)
