"""A server on 127.0.0.1: weights over a socket, kills in the middle, nothing left behind."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from alignkit import AlignkitError
from alignkit.engine.forward.frozen import detached_logprobs
from alignkit.engine.tokens import TrainRow
from alignkit.protocols import Sampling
from alignkit_hf import HfPolicy
from alignkit_vllm import VllmRollout, VllmTeacher
from alignkit_vllm.check import compare_columns
from alignkit_vllm.engines.client import Client
from alignkit_vllm.engines.process import Child, free_port
from alignkit_vllm.guard import KEY
from alignkit_vllm.requests import completions, requests
from alignkit_vllm.watchdog import DeadlineError

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

SMALL = {"kv_cache_gib": 0.0625, "max_num_seqs": 64}
PROMPTS = [tuple(5 + (i * k) % 80 for i in range(40 * k)) for k in (1, 2, 5)]


@pytest.fixture(scope="module")
def policy(tied_folder):
    return HfPolicy(path=str(tied_folder)).build()


@pytest.fixture(scope="module")
def served(policy, members):
    backend = VllmRollout(mode="server", **SMALL).build()
    backend.start(policy)
    yield backend
    group = backend._engine._child.process.pid
    backend.close()
    assert members(group) == []


def update(policy):
    torch.manual_seed(policy.version)
    with torch.no_grad():
        for parameter in policy.model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    policy.version += 1


def assert_same(policy, prompt, completion):
    with torch.no_grad():
        logits = policy.model(torch.tensor([[*prompt, *completion.token_ids]])).logits[0]
    scores = logits[len(prompt) - 1 : -1].log_softmax(-1)
    assert scores.argmax(-1).tolist() == list(completion.token_ids)
    want = scores.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]
    assert (torch.tensor(completion.logprobs) - want).abs().max() < 1e-4
    assert completion.weight_version == policy.version


def test_five_updates_in_a_row_each_reach_the_server(served, policy):
    for _ in range(5):
        update(policy)
        served.sync(policy)
        for prompt, (greedy,) in zip(
            PROMPTS,
            served.generate(PROMPTS, Sampling(temperature=0.0, max_tokens=16)),
            strict=True,
        ):
            assert_same(policy, prompt, greedy)


def test_a_sharded_policy_reaches_the_server_whole(served, tied_folder, sharded_trainer, tmp_path):
    """Two processes hold half of each weight; sharded.py scales all of them by 1.25."""
    client = served._engine.client
    key = client.key
    sharded_trainer(tied_folder, tmp_path / "done", client.url, **{KEY: key})
    assert served._engine.holds() == "sharded"
    whole = HfPolicy(path=str(tied_folder)).build()
    with torch.no_grad():
        for parameter in whole.model.parameters():
            parameter.mul_(1.25)
    assert compare_columns(whole, served._engine.columns()) > 500
    greedy = Sampling(temperature=0.0, max_tokens=16)
    asked = list(requests(PROMPTS, greedy, whole, 512))
    for place, (answer,) in served._engine.stream(asked):
        assert_same(whole, PROMPTS[place], *completions([answer], 1, whole.tokenizer, 0))


def test_it_scores_responses_as_a_teacher_to_a_ten_thousandth_of_a_nat(served, policy, monkeypatch):
    """Rows that share their beginning, too: a prefix cache would leave log-probs out."""
    update(policy)
    served.sync(policy)
    monkeypatch.setenv(KEY, served._engine.client.key)
    teacher = VllmTeacher(url=served._engine.client.url).build()
    teacher.meet(policy, temperature=1.0)
    rows = [TrainRow(prompt[:n], prompt[n:]) for prompt in PROMPTS for n in (1, 17, 39)]
    rows.append(TrainRow((5, 6), (7, 8, 9), given=(False, True, False)))
    rows.append(TrainRow((5,), tuple(5 + i % 80 for i in range(510))))  # as long as it takes
    for _ in range(2):
        found = detached_logprobs(teacher, rows, token_budget=0, temperature=1.0)
        wanted = detached_logprobs(policy, rows, token_budget=2048, temperature=1.0)
        for got, want in zip(found, wanted, strict=True):
            torch.testing.assert_close(got, want, rtol=0, atol=1e-4)
    with pytest.raises(AlignkitError, match=r"has 512 tokens, .* scores at most 511"):
        teacher.score([((5,) * 512, 1)])


def test_a_teacher_of_other_tokens_is_refused(served, chats, monkeypatch):
    monkeypatch.setenv(KEY, served._engine.client.key)
    teacher = VllmTeacher(url=served._engine.client.url).build()
    student = SimpleNamespace(tokenizer=chats.tokenizer_of("qwen3"), name="student")
    with pytest.raises(AlignkitError, match="different vocabularies"):
        teacher.meet(student, temperature=1.0)


def test_the_server_of_a_run_is_local_and_answers_nobody_without_its_key(served):
    client = served._engine.client
    assert client.url.startswith("http://127.0.0.1:")
    asked = {"method": "alignkit_version", "args": [], "timeout": 5}
    for path, body in [("/collective_rpc", asked), ("/v1/completions", {}), ("/metrics", None)]:
        with pytest.raises(AlignkitError, match="refuses the key"):
            Client(client.url, "guessed").post(path, body, 5)
    command = Path(f"/proc/{served._engine._child.process.pid}/cmdline").read_text()
    key = client.key
    assert len(key) >= 43
    assert key not in command


def test_many_prompts_come_back_in_order_with_their_seeds(served):
    prompts = [PROMPTS[0][: 1 + i % 30] for i in range(150)]
    how = Sampling(n=2, max_tokens=4, seed=1, step=2)
    first = served.generate(prompts, how)
    assert [len(group) for group in first] == [2] * 150
    assert_close(served.generate(prompts, how), first)
    ((alone, _),) = served.generate(prompts[77:78], Sampling(
        n=2, max_tokens=4, seed=1, step=2, prompt_keys=(77,)
    ))  # fmt: skip
    assert_close([[alone]], [first[77][:1]])


def assert_close(found, wanted):
    """Same tokens, log-probs to 1e-4: the engine batches as requests come, and rounds with it."""
    for got, want in zip(found, wanted, strict=True):
        assert [c.token_ids for c in got] == [c.token_ids for c in want]
        for a, b in zip(got, want, strict=True):
            assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


@pytest.mark.parametrize("victim", ["server", "engine"])
def test_a_server_killed_amid_a_batch_is_restarted_and_nothing_is_lost(
    members, emptied, served, policy, victim
):
    update(policy)
    served.sync(policy)
    # The first ten leave room for 12 tokens; when one of their groups comes, the others have far
    # to go, on a fast machine as on a slow one.
    how = Sampling(n=4, max_tokens=200, min_tokens=200, seed=5)
    prompts = [(7,) * 500 for _ in range(10)] + [PROMPTS[0][: 1 + i] for i in range(22)]
    calm = served.generate(prompts, how)
    group = served._engine._child.process.pid
    left = served._engine.restarts_left
    stream = served.stream(prompts, how)
    index, first = next(stream)
    os.kill(group if victim == "server" else max(members(group)), signal.SIGKILL)
    rest = dict(stream)
    assert served._engine.restarts_left == left - 1
    assert index not in rest
    disturbed = [group for _, group in sorted({**rest, index: first}.items())]
    # The engine batches as it comes, so a log-prob may differ in its last digits.
    flat = [[c for g in groups for c in g] for groups in (calm, disturbed)]
    assert [c.token_ids for c in flat[0]] == [c.token_ids for c in flat[1]]
    assert emptied(group)
    for prompt, (greedy,) in zip(
        PROMPTS, served.generate(PROMPTS, Sampling(temperature=0.0, max_tokens=8)), strict=True
    ):
        assert_same(policy, prompt, greedy)


def test_a_server_that_hangs_is_named_with_the_stacks_of_its_threads(emptied, served):
    served.keys = served.keys.model_copy(update={"generate_timeout": 8.0})
    group = served._engine._child.process.pid
    prompts = [(7,) * 500, *PROMPTS]  # the first leaves room for 12 tokens
    stream = served.stream(prompts, Sampling(max_tokens=300, min_tokens=300, n=16))
    with pytest.raises(DeadlineError) as raised:
        list(map(lambda _: os.killpg(group, signal.SIGSTOP), stream))
    message = str(raised.value)
    assert f"generation: the vLLM server of this run, {served._engine.client.url}" in message
    assert "not finished after 8 s; finished last: " in message
    assert "Fatal Python error: Aborted" in served._engine._child.log.read_text()
    assert emptied(group)


def test_without_restarts_the_run_stops_with_the_end_of_the_log(served):
    engine = served._engine
    engine.restarts_left = 0
    with pytest.raises(AlignkitError, match=r"max_restarts is used up \(exit status -\d") as error:
        served.generate(PROMPTS, Sampling(max_tokens=4))
    assert "the end of its log:\n  | " in str(error.value)


def test_a_server_of_somebody_else_is_used_and_taken_back_after_a_restart(
    policy, tied_folder, tmp_path, monkeypatch
):
    monkeypatch.setenv("ALIGNKIT_VLLM_KEY", "shared by server and trainer")
    url = f"http://127.0.0.1:{free_port()}"

    def somebody_starts_it():
        options = [
            "--host=127.0.0.1", f"--port={url.rpartition(':')[2]}", "--dtype=float32",
            "--enforce-eager", "--kv-cache-memory-bytes=67108864", "--max-num-seqs=64",
        ]  # fmt: skip
        return Child([str(tied_folder), *options], tmp_path / "server.log", {})

    server = somebody_starts_it()
    backend = VllmRollout(mode="server", url=url, **SMALL).build()
    try:
        backend.start(policy)
        server.kill()
        server = somebody_starts_it()
        for prompt, (greedy,) in zip(
            PROMPTS, backend.generate(PROMPTS, Sampling(temperature=0.0, max_tokens=8)), strict=True
        ):
            assert_same(policy, prompt, greedy)
        backend.close()
        assert server.alive, "a server that the run did not start is not the run's to end"
    finally:
        server.kill()


TRAINER = """
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background ignores it
from alignkit_hf import HfPolicy
from alignkit_vllm import VllmRollout, VllmTeacher
policy = HfPolicy(path=sys.argv[1]).build()
backend = VllmRollout(mode="device", kv_cache_gib=0.0625, max_num_seqs=64).build()
try:
    backend.start(policy)
    print(backend._engine._child.process.pid, flush=True)
    time.sleep(600)
finally:
    backend.close()
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_the_server_does_not_survive_its_trainer(members, emptied, end, tied_folder):
    trainer = subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(tied_folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    group = int(trainer.stdout.readline())
    assert len(members(group)) >= 2  # the server and its engine
    trainer.send_signal(end)
    trainer.wait(300)
    assert emptied(group)
