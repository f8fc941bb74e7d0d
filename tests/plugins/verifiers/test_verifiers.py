"""Environments of the `verifiers` package, unmodified, as episodes of alignkit.

Their modules are in `tests/fixtures/verifiers_environments`; the adapter is a distribution of its
own, `tests/fixtures/alignkit-verifiers`.
"""

import json
import signal
import time
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
import tomli_w

from adapters import lacking, skipped_without
from alignkit.engine.learning.learner import Learner
from alignkit.engine.sampling.opening import Opening
from alignkit.engine.sampling.transcript import Transcript
from alignkit.protocols import Completion, Example, Response
from alignkit.testing import conformance, run_cli
from alignkit_hf import HfPolicy

LACKING = lacking("verifiers", "alignkit_verifiers")
pytestmark = [pytest.mark.verifiers, *skipped_without(LACKING)]

ROOT = Path(__file__).resolve().parents[3]
ENVIRONMENTS = ROOT / "tests" / "fixtures" / "verifiers_environments"
CUT = [
    "n_steps=2", "rollout_batch_size=16", "train_batch_size=16", "group_size=4", "eval.n=8",
    "rollout.max_tokens=40",
]  # fmt: skip
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


@pytest.fixture(autouse=True)
def environments(monkeypatch):
    """The modules of the environments, as if they were installed."""
    monkeypatch.syspath_prepend(ENVIRONMENTS)


def said(text, finish="stop"):
    ids = tuple(map(ord, text))
    return Response.of(Completion(text, ids, (-0.5,) * len(ids), finish, 0))


def world(name, args=None, **keys):
    from alignkit_verifiers import VerifiersParams

    return VerifiersParams(id=name, args=args or {}, **keys).build()


def recipe(folder, base, named, keys=""):
    """Write a shipped recipe with the environment, its data and its reward; return its file."""
    shipped = tomllib.loads((ROOT / "recipes" / base).read_text())
    del shipped["data"]
    for dropped in ("reward", "environment"):
        shipped.pop(dropped, None)
    text = tomli_w.dumps(shipped).replace('"../data/', f'"{ROOT}/data/')
    path = folder / "recipe.toml"
    path.write_text(f"{text}\n[data]\n{named}[environment]\n{named}{keys}")
    return path


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


# ---------------------------------------------------------------- faults of the environment


def play(opened, texts=("a", "b", "c")):
    for text in texts:
        if opened.step(said(text)).done:
            break
    return opened.reward()


def begin_and_play(env, opened):
    opened.append(env.open(Example("0", "?", ""), seed=0))
    play(opened[0])


@pytest.mark.parametrize("fault", [
    "setup", "response", "cleanup", "reward", "setup, infrastructure", "response, infrastructure",
    "cleanup, infrastructure",
])  # fmt: skip
def test_what_it_raises_is_its_own_error(fault):
    where, comma, _ = fault.partition(",")
    opened = []
    with pytest.raises(Exception, match=where) as caught:
        begin_and_play(world("faulty", {"where": fault}), opened)
    assert type(caught.value).__name__ == ("SandboxError" if comma else "OutOfOrderError")
    for episode in opened:
        episode.close()  # does not hang


@pytest.mark.parametrize("grouped", [1, 2], ids=["in a group", "in a group of groups"])
def test_what_a_rubric_of_a_group_raises_is_its_error_too(grouped):
    """`EnvGroup` asks the rubric of the environment that a row belongs to."""
    good = world("faulty", {"grouped": grouped})
    assert play(good.open(_first(good), seed=0)).total == 5.0  # messages
    bad = world("faulty", {"grouped": grouped, "where": "reward"})
    opened = bad.open(_first(bad), seed=0)
    with pytest.raises(Exception, match="reward") as caught:
        play(opened)
    assert type(caught.value).__name__ == "OutOfOrderError"


def _first(env):
    """The first row of an environment's own data."""
    from alignkit_verifiers.rows import Rows

    return Rows(env.env, "train")[0]


def test_a_run_ends_with_its_error(tmp_path):
    named = 'use = "verifiers"\nid = "faulty"\nargs = { where = "response" }\n'
    path = recipe(tmp_path, "grpo.toml", named)
    done = run_cli("run", path, *[p for s in CUT for p in ("-s", s)], "--out", tmp_path / "run")
    assert done.status != 0
    assert "environment 'verifiers' raised OutOfOrderError: response" in done.stderr


def test_errors_of_a_reward_may_count_as_no_reward():
    opened = world("faulty", {"where": "reward"}, reward_errors="zero")
    assert play(opened.open(Example("0", "?", ""), seed=0)).total == 0.0


def test_an_error_for_what_the_model_wrote_ends_the_episode():
    opened = world("faulty", {"where": "response, tool"}).open(Example("0", "?", ""), seed=0)
    assert opened.step(said("a")).done
    assert opened.reward().total == 1.0  # of the turn that was taken
    opened.close()


def test_a_rewritten_dialogue_is_refused():
    opened = world("faulty", {"where": "rewrites"}).open(Example("0", "?", ""), seed=0)
    with pytest.raises(RuntimeError, match="ids of a transcript only grow"):
        opened.step(said("a"))
    opened.close()


def test_an_episode_that_is_cut_is_scored_as_far_as_it_went():
    opened = world("faulty").open(Example("0", "?", ""), seed=0)
    opened.step(said("a", "length"))
    assert opened.reward().total == 1.0
    opened.close()


def test_its_time_limit_is_its_error():
    opened = world("faulty", {"timeout_seconds": 0.2}).open(Example("0", "?", ""), seed=0)
    time.sleep(0.5)
    with pytest.raises(TimeoutError, match="timeout_seconds"):
        opened.step(said("a"))
    opened.close()


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
