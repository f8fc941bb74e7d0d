"""Nothing is left running, however a trainer ends; with a stand-in for vLLM's server."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

FAKE = Path(__file__).with_name("fake_server.py")

TRAINER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from alignkit.engine.sampling.rollouts import serving
from alignkit.protocols import Sampling
from alignkit_hf import HfPolicy
from alignkit_vllm import VllmRollout
policy = HfPolicy(path=sys.argv[1]).build()
backend = VllmRollout(mode="device", max_logprob_gap=1e9, max_rollout_kl=1e9).build()
with serving(backend, policy):
    ((found,),) = backend.generate([[1, 2]], Sampling(max_tokens=3))
    assert found.token_ids == (1, 1, 1)
    print(backend._engine._child.process.pid, flush=True)
    if sys.argv[2] == "fails":
        raise SystemExit(3)
    if sys.argv[2] == "waits":
        time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "number", "status"),
    [
        ("ends", None, 0),
        ("fails", None, 3),
        ("waits", signal.SIGINT, -signal.SIGINT),
        ("waits", signal.SIGTERM, -signal.SIGTERM),
        ("waits", signal.SIGKILL, -signal.SIGKILL),
    ],
    ids=["success", "failure", "ctrl-c", "termination", "kill"],
)
def test_no_process_outlives_its_trainer(
    members, emptied, tied_folder, tmp_path, how, number, status
):
    package = tmp_path / "vllm"
    (package / "entrypoints" / "openai").mkdir(parents=True)
    for folder in (package, package / "entrypoints", package / "entrypoints" / "openai"):
        (folder / "__init__.py").touch()
    shutil.copy(FAKE, package / "entrypoints" / "openai" / "api_server.py")
    trainer = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", TRAINER, str(tied_folder), how],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )
    line = trainer.stdout.readline()
    assert line, trainer.stderr.read()
    group = int(line)
    if number is not None:
        assert len(members(group)) == 2  # the server and its helper
        trainer.send_signal(number)
    _, errors = trainer.communicate(timeout=120)
    assert trainer.returncode == status, errors
    assert emptied(group)
