"""A real SLURM of one node, for the plugins that submit to one."""

import getpass
import json
import os
import shutil
import socket
import subprocess
import time

import pytest

CONF = """
ClusterName=one
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={control}
SlurmdPort={node}
AuthType=auth/none
AuthInfo=cred_expire=5
CredType=cred/none
SlurmUser={user}
SlurmdUser={user}
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/control.pid
SlurmdPidFile={folder}/node.pid
SlurmctldLogFile={folder}/control.log
SlurmdLogFile={folder}/node.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,bf_interval=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


@pytest.fixture(scope="session")
def lasting_rows():
    """Return a function that reads a run's whole rows, without what differs each time."""
    measured = ("time", "seconds", "per_second", "peak")

    def read(run):
        file = run / "metrics.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]
        return [{k: v for k, v in r.items() if not any(w in k for w in measured)} for r in rows]

    return read


def _free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture(scope="session")
def slurm(tmp_path_factory):
    """Start a cluster of this machine alone; yield the environment in which its commands work."""
    if not shutil.which("slurmctld") or not shutil.which("slurmd"):
        pytest.skip("needs SLURM: apt-get install slurm-wlm")
    if os.getuid():
        pytest.skip("a SLURM node must be started as root")
    folder = tmp_path_factory.mktemp("slurm")
    for name in ("state", "spool"):
        (folder / name).mkdir()
    (folder / "slurm.conf").write_text(
        CONF.format(
            host=socket.gethostname().partition(".")[0], folder=folder, user=getpass.getuser(),
            control=_free_port(), node=_free_port(), cpus=len(os.sched_getaffinity(0)),
        )
    )  # fmt: skip
    environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf")}
    with (folder / "output").open("w") as output:
        started = [
            subprocess.Popen([name, "-D"], env=environment, stdout=output, stderr=output)
            for name in ("slurmctld", "slurmd")
        ]
    try:
        for _ in range(60):
            found = subprocess.run(
                ["sinfo", "-h", "-o", "%t"], env=environment, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            if found.stdout.strip() == "idle":
                break
            time.sleep(0.5)
        else:
            pytest.fail(f"the cluster did not start:\n{(folder / 'output').read_text()[-2000:]}")
        yield environment
    finally:
        for process in reversed(started):
            process.terminate()
        for process in reversed(started):
            process.wait(30)


@pytest.fixture
def gradients_where():
    """Return a function that says, for each token of a response, whether it has a gradient.

    It is that of the hidden state that predicts the token, as only its own log-prob reads it. The
    tokens of the prompt must have none.
    """

    def look(policy, row):
        from alignkit.engine.forward.logprobs import response_logprobs

        seen = []

        def keep(module, inputs, output):
            if output.last_hidden_state.requires_grad:
                output.last_hidden_state.retain_grad()
                seen.append(output.last_hidden_state)

        hook = policy.model.model.register_forward_hook(keep)
        values, _, mask = response_logprobs(policy, [row])
        values[mask].sum().backward()
        hook.remove()
        hidden = seen[-1]  # before it, the model may have been tried out
        grads = hidden.grad.reshape(-1, hidden.shape[-1])
        first = len(row.prompt_ids) - 1
        assert not bool(grads[:first].any())
        return [bool(g.any()) for g in grads[first : first + len(row.response_ids)]]

    return look
