"""Environments of OpenEnv, unmodified, as episodes of alignkit.

The one that is trained on is what `openenv init` writes; faulty ones stand below. The adapter is a
distribution of its own, `tests/fixtures/alignkit-openenv`.
"""

import json
import sys
import threading
import tomllib
from pathlib import Path

import pytest
import tomli_w

from adapters import lacking, skipped_without
from alignkit import AlignkitError
from alignkit.engine.learning.learner import Learner
from alignkit.protocols import Completion, Example, Response
from alignkit.testing import conformance, run_cli
from alignkit_hf import HfPolicy

LACKING = lacking("openenv", "alignkit_openenv")
pytestmark = [pytest.mark.openenv, *skipped_without(LACKING)]

ROOT = Path(__file__).resolve().parents[3]
CUT = [
    "n_steps=2", "rollout_batch_size=16", "train_batch_size=16", "group_size=4", "eval.n=8",
    "rollout.max_tokens=48",
]  # fmt: skip
ECHO = {
    "environment": "word_echo.server.word_echo_environment:WordEchoEnvironment",
    "action": "word_echo.models:WordEchoAction",
}
FAULTY = '''
import asyncio, threading
from openenv.core.env_server.interfaces import Environment
from openenv.core.env_server.types import Action, Observation, State

class Move(Action):
    by: int

class Seen(Observation):
    place: int
    walls: list = []

class Walk(Environment[Move, Seen, State]):
    """Walk to place 3; what is raised, and where, is told by a file's name in the row."""

    SUPPORTS_CONCURRENT_SESSIONS = True
    closed = 0
    state = State()

    def reset(self, seed=None, episode_id=None, fault="", **kwargs):
        self.fault, self.place = fault, seed % 2
        if fault == "reset":
            raise OSError("reset")
        return Seen(place=self.place)

    def step(self, action, timeout_s=None, **kwargs):
        if self.fault == "step":
            raise OSError("step")
        self.place += action.by
        seen = Seen(place=self.place, walls=[1, None])
        seen.reward, seen.done = self._apply_rubric(action, seen), self.place == 3
        return seen

    def _apply_rubric(self, action, seen):
        if self.fault == "rubric":
            raise OSError("rubric")
        return 0.5 if seen.place == 3 else None

    def close(self):
        Walk.closed += 1

class Alone(Walk):
    SUPPORTS_CONCURRENT_SESSIONS = False

class Later(Walk):
    """Its own asynchronous calls, on one thread."""

    REQUIRES_SINGLE_THREAD_EXECUTOR = True

    def __init__(self):
        super().__init__()
        self.thread = threading.get_ident()

    async def step_async(self, action, timeout_s=None, **kwargs):
        await asyncio.sleep(0)
        assert threading.get_ident() == self.thread
        return self.step(action)
'''


@pytest.fixture(scope="session")
def modules(tmp_path_factory):
    """A folder with the environment that `openenv init` writes, and with a faulty one."""
    from openenv.cli.commands.init import init

    folder = tmp_path_factory.mktemp("openenv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", "")  # it would have `uv` ask an index
        init("word_echo", str(folder))
    (folder / "walks.py").write_text(FAULTY)
    return folder


@pytest.fixture(autouse=True)
def importable(modules, monkeypatch):
    monkeypatch.syspath_prepend(modules)


def said(text):
    ids = tuple(map(ord, text))
    return Response.of(Completion(text, ids, (-0.5,) * len(ids), "stop", 0))


def world(**keys):
    from alignkit_openenv import OpenEnvParams

    return OpenEnvParams(**{"environment": "walks:Walk", "action": "walks:Move", **keys}).build()


def test_an_environment_as_openenv_writes_it_trains(tmp_path, monkeypatch, gradients_where):
    trained, step = [], Learner.step
    monkeypatch.setattr(
        Learner,
        "step",
        lambda self, rows, *a, **k: trained.extend(rows) or step(self, rows, *a, **k),
    )
    shipped = tomllib.loads((ROOT / "recipes" / "grpo.toml").read_text())
    del shipped["reward"]  # the environment's own counts
    base = tomli_w.dumps(shipped).replace('"../data/', f'"{ROOT}/data/')
    (tmp_path / "mine.toml").write_text(
        f'{base}\n[environment]\nuse = "openenv"\ntext = "message"\nmax_turns = 2\n'
        + "".join(f'{key} = "{value}"\n' for key, value in ECHO.items())
        + 'shows = ["echoed_message", "message_length"]\nstop = ["</think>"]\n'
    )
    words = [w for s in CUT for w in ("-s", s)]
    done = run_cli("run", tmp_path / "mine.toml", *words, "--out", tmp_path / "run")
    assert done.status == 0, done.stdout + done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    assert rows[1]["train/turns"] > 1
    lines = (tmp_path / "run/rollouts/step_000002.jsonl").read_text().splitlines()
    for found in map(json.loads, lines):
        turns = found["turns"]
        for turn in turns[:-1]:
            assert turn["observation"].endswith(f"\n{len(turn['response'])}\n")
        assert found["reward"] == pytest.approx(
            sum(min(0.1 * len(turn["response"]), 1.0) for turn in turns)
        )
    row = max(trained, key=lambda r: sum(r.given or ()))
    assert any(row.given)
    policy = HfPolicy(path=str(tmp_path / "run" / "final")).build()
    assert gradients_where(policy, row) == [not given for given in row.given]


def test_an_episode_is_what_the_environment_says():
    opened = world().open(Example("0", "Go to 3.", ""), seed=4)
    assert opened.prompt == 'Go to 3.\n{"place":0,"walls":[]}'
    turn = opened.step(said('{"by": 2}'))
    assert (turn.observation, turn.reward, turn.done) == (
        '\n{"place":2,"walls":[1,null]}\n',
        0.0,
        False,
    )
    turn = opened.step(said('{"by": 1}'))
    assert (turn.reward, turn.done) == (0.5, True)
    opened.close()
    shown = world(shows=("place", "walls"), frame=("<", ">")).open(Example("0", "", ""), seed=1)
    assert shown.prompt == "1\n[]"
    assert shown.step(said('{"by": -1}')).observation == "<0\n[1, null]>"
    shown.close()


HOSTILE = [
    "",
    "{",
    "[1]",
    '{"by": "far"}',
    '{"by": 1, "to": 2}',
    "\ud800",
    '{"by": ' + "[" * 9999,
    "NaN",
]


@pytest.mark.parametrize("index", range(len(HOSTILE)))
def test_a_turn_that_is_no_action_is_told_why_and_is_not_the_environments_error(index):
    opened = world().open(Example("0", "", "", {"fault": "step"}), seed=0)
    turn = opened.step(said(HOSTILE[index]))
    assert turn.observation.startswith("\nnot an action: ")
    assert (turn.reward, turn.done) == (0.0, False)
    assert len(turn.observation) < 500
    opened.close()


@pytest.mark.parametrize("fault", ["reset", "step", "rubric"])
def test_what_it_raises_is_its_own_error_and_it_is_closed(fault):
    sys.modules.pop("walks", None)
    env = world(resets=("fault",))
    example = Example("0", "", "", {"fault": fault})
    opened = []

    def play():
        opened.append(env.open(example, seed=0))
        opened[0].step(said('{"by": 1}'))

    with pytest.raises(OSError, match=fault):
        play()
    for episode in opened:
        episode.close()
    assert env.kind.closed == 1


def test_its_own_asynchronous_calls_are_made_on_its_one_thread():
    opened = world(environment="walks:Later").open(Example("0", "", ""), seed=0)
    found = []
    for _ in range(2):
        thread = threading.Thread(target=lambda: found.append(opened.step(said('{"by": 1}'))))
        thread.start()
        thread.join()
    opened.close()
    assert [turn.observation for turn in found] == [
        f'\n{{"place":{n},"walls":[1,null]}}\n' for n in (1, 2)
    ]


@pytest.mark.parametrize(
    ("keys", "why"),
    [
        ({"environment": "walks:Alone"}, "SUPPORTS_CONCURRENT_SESSIONS"),
        ({"environment": "walks:Move"}, "is no class below .*Environment"),
        ({"action": "walks:Walk"}, "is no class below .*Action"),
        ({"text": "words"}, "is no field of walks:Move, which has metadata, by"),
    ],
)
def test_what_cannot_be_played_is_refused(keys, why):
    with pytest.raises(AlignkitError, match=why):
        world(**keys)


def test_concurrent_overrides_what_an_environment_does_not_say():
    world(environment="walks:Alone", concurrent=True).open(Example("0", "", ""), seed=0).close()


def test_a_row_without_a_column_that_reset_needs_is_refused():
    with pytest.raises(
        AlignkitError, match=r"example '0' has no column 'level', .* it has 'fault'"
    ):
        world(resets=("level",)).open(Example("0", "", "", {"fault": ""}), seed=0)


def test_what_is_not_installed_is_said_before_the_run():
    from alignkit_openenv import OpenEnvParams

    (told,) = OpenEnvParams(environment="nowhere.at:All", action="walks:Move").missing()
    assert "there is no module nowhere" in told


if not LACKING:
    test_conforms = conformance(
        "openenv", params={"environment/openenv": {**ECHO, "text": "message"}}
    )
