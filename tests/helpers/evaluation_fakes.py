"""A backend and rewards for tests of evaluation."""

from alignkit.protocols import Completion, Example, Reward, Sampling


class Template:
    stop = ("END",)

    def __init__(self, mark="?"):
        self.mark = mark

    def render(self, question):
        return question + self.mark


class Tokenizer:
    def encode(self, text, add_special_tokens):
        return [2 + ord(c) % 20 for c in text]


class Backend:
    """Answers a prompt of key k: sample j is right when j < k % 3; lengths differ."""

    sampling = Sampling(temperature=0.7, max_tokens=9)

    def __init__(self, policy):
        self.policy, self.calls = policy, []

    def generate(self, prompts, sampling):
        self.calls.append(sampling)
        return [[self.answer(key, j) for j in range(sampling.n)] for key in sampling.prompt_keys]

    def answer(self, key, j):
        text = f"<answer> {key if j < key % 3 else -1} </answer>"
        ids = (3, 4, 5, 6)[: 1 + key % 4]
        return Completion(text, ids, (0.0,) * len(ids), "stop", self.policy.version)


def judge(responses, examples):
    right = [
        r == f"<answer> {e.answer} </answer>" for r, e in zip(responses, examples, strict=True)
    ]
    return [Reward(float(x), {"format": 1.0, "answer": float(x)}) for x in right]


def strict(responses, examples):
    return [Reward(0.0, {"format": 0.0, "answer": 0.0}) for _ in responses]


def problems(count, long=()):
    return [Example(f"id{i}", "q" * (90 if i in long else 2), str(i)) for i in range(count)]
