"""A planted bug per property of rewards, prompts, datasets and trackers."""

import json
import random
import signal
import textwrap
from types import SimpleNamespace

import pytest

from alignkit.dialogues import ChatFormat
from alignkit.protocols import Example, Reward, per_response

# ---------------------------------------------------------------- rewards


def exact(response, example):
    right = any(answer in response for answer in example.answers)
    return Reward(float(right), {"length": float(len(response))})


def reward(judge):
    return lambda: per_response(judge)


def batched(judge):
    return lambda: judge


def uses_alarm(responses, examples):
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    return per_response(exact)(responses, examples)


REWARD_BUGS = {
    "judges_hostile_text": reward(lambda r, e: Reward(float(r.split("<answer>")[1][:1] == "2"))),
    "gives_one_finite_reward_each": reward(
        lambda r, e: Reward(0.0, {"share": 1 / len(r) if r else float("nan")})
    ),
    "keeps_the_order": batched(  # every response is judged against the first example
        lambda responses, examples: [exact(r, examples[0]) for r in responses]
    ),
    "is_deterministic": reward(lambda r, e: Reward(random.random())),
    "refuses_uneven_lists": batched(
        lambda responses, examples: [exact(r, e) for r, e in zip(responses, examples, strict=False)]
    ),
    "works_off_the_main_thread": batched(uses_alarm),
    "takes_any_answer": reward(lambda r, e: Reward(float(r == e.answer))),
    "reads_any_text": lambda: Reader(lambda text: text.split("<answer>")[1]),
}


class Reader:
    """A sound reward that reads answers its own way."""

    def __init__(self, read):
        self.read = read

    def __call__(self, responses, examples):
        return per_response(exact)(responses, examples)


def test_a_sound_reward_passes(planted, failing):
    assert failing("reward_fn", planted(reward(exact))) == {}


@pytest.mark.parametrize("read", [lambda text: 4, lambda text: str(random.random())])
def test_a_reward_that_reads_no_text_or_never_the_same_is_caught(planted, failing, read):
    assert "reads_any_text" in failing("reward_fn", planted(lambda: Reader(read)))
    assert failing("reward_fn", planted(lambda: Reader(str.strip))) == {}


@pytest.mark.parametrize("check", REWARD_BUGS)
def test_bug_in_a_reward_is_caught(planted, failing, check):
    assert check in failing("reward_fn", planted(REWARD_BUGS[check]), only=check)


def test_a_reward_that_sorts_its_results_is_caught(planted, failing):
    def by_total(responses, examples):
        return sorted(per_response(exact)(responses, examples), key=lambda r: r.total)

    assert "keeps_the_order" in failing("reward_fn", planted(batched(by_total)))


def test_the_response_that_breaks_a_reward_is_named(planted, failing):
    params = planted(reward(lambda r, e: Reward(float(r[0] == "4"))))
    said = failing("reward_fn", params, only="judges_hostile_text")
    assert "IndexError" in said["judges_hostile_text"]
    assert "on the response ''" in said["judges_hostile_text"]


def test_responses_that_earn_the_same_cannot_show_the_order(planted, failing):
    fussy = planted(reward(lambda r, e: Reward(float(r in [f"ANSWER={a}" for a in e.answers]))))
    said = failing("reward_fn", fussy, only="keeps_the_order")
    assert "conformance(responses=" in said["keeps_the_order"]
    asked = Example("one", "1 + 1?", "2")
    tried = [("ANSWER=2", asked), ("2", asked)]
    assert failing("reward_fn", fussy, responses={"reward_fn/planted": tried}) == {}


# ---------------------------------------------------------------- prompts


def prompt(render, stop=("</answer>",)):
    return lambda: SimpleNamespace(render=render, stop=stop)


PROMPT_BUGS = {
    "contains_the_question": prompt(lambda q: f"Q: {q.strip()}\nA:"),
    "surrounds_every_question_alike": prompt(
        lambda q: textwrap.dedent(f"        Question:\n        {q}\n        Answer:")
    ),
    "names_its_stops": prompt(lambda q: q, stop="</answer>"),
    "converses_with_what_is_there": lambda: dialogues(lambda messages: messages[-1:]),
}


def dialogues(change, form=None):
    """A template of dialogues, sound but for what ``change`` does to the messages."""

    def messages(example):
        asked = {"role": "user", "content": example.question}
        return change([*(example.messages or (asked,))])

    form = ChatFormat() if form is None else form
    return SimpleNamespace(render=lambda q: q, stop=(), form=form, messages=messages)


def test_a_sound_template_of_dialogues_passes(planted, failing):
    told = {"role": "system", "content": "Be brief."}
    assert failing("prompt_template", planted(lambda: dialogues(lambda m: [told, *m]))) == {}


@pytest.mark.parametrize(
    "change",
    [
        lambda messages: messages[::-1],
        lambda messages: [{**m, "content": m["content"].strip()} for m in messages],
        lambda messages: [{k: m[k] for k in ("role", "content")} for m in messages],
        lambda messages: [*messages, {"role": "user", "content": "Well?"}],
        lambda messages: [str(random.random()), *messages],
        lambda messages: [{"role": "system", "content": str(random.random())}, *messages],
    ],
    ids=["order", "text", "keys", "behind", "no message", "chance"],
)
def test_a_template_that_changes_a_dialogue_is_caught(planted, failing, change):
    check = "converses_with_what_is_there"
    assert check in failing("prompt_template", planted(lambda: dialogues(change)), only=check)


def test_a_form_that_is_none_is_caught(planted, failing):
    check = "converses_with_what_is_there"
    made = planted(lambda: dialogues(list, form={"tools": []}))
    assert "form is a dict" in failing("prompt_template", made, only=check)[check]


def test_a_sound_prompt_passes(planted, failing):
    assert failing("prompt_template", planted(prompt(lambda q: f"Q: {q}\nA:"))) == {}


@pytest.mark.parametrize("check", PROMPT_BUGS)
def test_bug_in_a_prompt_is_caught(planted, failing, check):
    assert check in failing("prompt_template", planted(PROMPT_BUGS[check]), only=check)


@pytest.mark.parametrize(
    "render",
    [
        lambda q: "{} Think.".replace("{}", q).format(),  # the question is formatted too
        lambda q: "%s Think." % q.replace("%", "%%"),  # noqa: UP031
        lambda q: __import__("re").sub("QUESTION", q, "QUESTION Think."),
        lambda q: __import__("string").Template(f"{q} Think.").safe_substitute(x="1"),
        lambda q: " ".join(q.split()),
    ],
    ids=["format", "percent", "re.sub", "Template", "split"],
)
def test_careless_templating_is_caught(planted, failing, render):
    check = "contains_the_question"
    assert check in failing("prompt_template", planted(prompt(render)), only=check)


@pytest.mark.parametrize("stop", [("",), iter(["x"]), (1,)], ids=["empty", "iterator", "number"])
def test_stops_that_are_none_are_caught(planted, failing, stop):
    check = "names_its_stops"
    params = planted(prompt(lambda q: q, stop=stop))
    assert check in failing("prompt_template", params, only=check)


# ---------------------------------------------------------------- datasets


def rows(make=lambda i: Example(str(i), f"{i} + 1?", str(i + 1)), count=5):
    return lambda: [make(i) for i in range(count)]


class Circle(list):
    def __getitem__(self, index):
        return super().__getitem__(index % len(self))


class Forgets(list):
    """Counts what it was asked for, outside its state."""

    asked = 0

    def choose(self, count, /, *, step, position):
        Forgets.asked += count
        return [(Forgets.asked + i) % len(self) for i in range(count)]


DATASET_BUGS = {
    "holds_examples": rows(lambda i: {"question": "1 + 1?", "answer": "2"}),
    "has_unique_ids": rows(lambda i: Example("0", "1 + 1?", "2")),
    "is_stable": lambda: random.sample(rows(count=50)(), 50),
    "ends": lambda: Circle(rows()()),
    "chooses_its_rows": lambda: Forgets(rows()()),
}


def test_a_sound_dataset_passes(planted, failing):
    assert failing("dataset", planted(rows())) == {}


@pytest.mark.parametrize("check", DATASET_BUGS)
def test_bug_in_a_dataset_is_caught(planted, failing, check):
    assert check in failing("dataset", planted(DATASET_BUGS[check]), only=check)


@pytest.mark.parametrize(
    "row",
    [
        Example(1, "q", "a"),
        Example("1", " \n", "a"),
        Example("1", "q", 2),
        Example("1", "\ud800", "a"),
    ],
    ids=["id", "blank", "answer", "surrogate"],
)
def test_rows_that_are_no_examples_are_caught(planted, failing, row):
    assert "holds_examples" in failing("dataset", planted(lambda: [row]), only="holds_examples")


# ---------------------------------------------------------------- trackers


class Lines:
    """Writes everything to one file of its own."""

    def start(self, run):
        self.run = run
        self.file = run.dir / "lines.txt"

    def log(self, step, metrics):
        self.write({"step": step, **metrics})

    def rollouts(self, step, name, table):
        self.write([step, name, *table])

    def write(self, value, **how):
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(value, **how) + "\n")

    def close(self, status):
        self.write(status)


class RefusesNan(Lines):
    def write(self, value):
        super().write(value, allow_nan=False)


class NeedsAStep(Lines):
    def log(self, step, metrics):
        self.last = step

    def close(self, status):
        self.write([self.last, status])


class PopsTheTime(Lines):
    def log(self, step, metrics):
        self.write([metrics.pop("time"), metrics])


class PopsRows(Lines):
    def rollouts(self, step, name, table):
        self.write([row.pop("reward") for row in table])


class WritesMetrics(Lines):
    def log(self, step, metrics):
        with (self.run.dir / "metrics.jsonl").open("a") as file:
            file.write("{}\n")


TRACKER_BUGS = {
    "takes_a_whole_run": RefusesNan,
    "closes_whatever_happened": NeedsAStep,
    "leaves_metrics_alone": PopsTheTime,
    "leaves_the_run_files_alone": WritesMetrics,
}


def test_a_sound_tracker_passes(planted, failing):
    assert failing("tracker", planted(Lines)) == {}


@pytest.mark.parametrize("check", TRACKER_BUGS)
def test_bug_in_a_tracker_is_caught(planted, failing, check):
    assert check in failing("tracker", planted(TRACKER_BUGS[check]), only=check)


def test_a_tracker_that_changes_rows_is_caught(planted, failing):
    check = "leaves_metrics_alone"
    assert check in failing("tracker", planted(PopsRows), only=check)


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize(
    ("kind", "bugs"),
    [
        ("reward_fn", REWARD_BUGS),
        ("prompt_template", PROMPT_BUGS),
        ("dataset", DATASET_BUGS),
        ("tracker", TRACKER_BUGS),
    ],
)
def test_every_check_has_a_planted_bug(names, kind, bugs):
    assert names(kind) == set(bugs)
