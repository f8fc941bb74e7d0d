"""Answers of an engine in this process, as they are finished."""

from types import SimpleNamespace

import pytest

from alignkit_vllm.engines.local import LocalEngine
from vllm_answers import answer, request


class FakeLlm:
    """Finishes one request per step, the last one first, and keeps what is not taken back."""

    def __init__(self):
        self.llm_engine = self
        self.queue, self.steps, self.count = [], 0, 7

    def enqueue(self, prompts, how, *, use_tqdm):
        names = []
        for prompt, given in zip(prompts, how, strict=True):
            names.append(f"{self.count}-a1b2c3d4")
            self.queue.append((str(self.count), prompt["prompt_token_ids"], given.n))
            self.count += 1
        return names

    def step(self):
        self.steps += 1
        if self.steps % 2:
            return [SimpleNamespace(request_id=self.queue[0][0], finished=False, outputs=[])]
        name, ids, n = self.queue.pop()
        output = SimpleNamespace(
            token_ids=ids, logprobs=SimpleNamespace(logprobs=[-0.5] * len(ids)), text="",
            finish_reason="stop", stop_reason=None,
        )  # fmt: skip
        return [SimpleNamespace(request_id=name, finished=True, outputs=[output] * n)]

    def abort_request(self, names, *, internal):
        assert internal
        gone = {name.partition("-")[0] for name in names}
        self.queue = [item for item in self.queue if item[0] not in gone]


@pytest.fixture
def local(monkeypatch):
    from alignkit_vllm.engines import local as module

    made = LocalEngine({}, sleep=False)
    made._llm = FakeLlm()
    monkeypatch.setattr(module, "_sampling", lambda requests: requests)
    return made


def test_an_engine_s_answers_come_as_they_are_finished(local):
    answers = local.stream([request(1), request(2, n=3), request(3)])
    assert next(answers) == (2, [answer(3)])
    assert local._llm.steps == 2, "the engine went on before the first group was handed out"
    assert list(answers) == [(1, [answer(2)] * 3), (0, [answer(1)])]


def test_what_is_left_behind_does_not_come_out_of_the_next_call(local):
    left = local.stream([request(1), request(2)])
    next(left)
    left.close()
    assert local._llm.queue == []
    assert list(local.stream([request(9)])) == [(0, [answer(9)])]
