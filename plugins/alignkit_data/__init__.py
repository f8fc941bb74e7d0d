"""Built-in data sets: jsonl, chat, gsm8k, math, hh, mmlu, choices."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field

from alignkit import Component, Params, hookimpl
from alignkit.component import PathOrName
from alignkit.data_files.reader import UNPACKED_GIB
from alignkit.protocols import Dataset, Example
from alignkit.security.names import name_problem, refused
from alignkit_data import columns
from alignkit_data.chats import Dialogue
from alignkit_data.choices import Choices
from alignkit_data.hh import Hh
from alignkit_data.load import Loaded, load_file
from alignkit_data.mmlu import Mmlu
from alignkit_data.ordered import InOrder
from alignkit_data.source import Source, as_text

Column = Annotated[str, Field(min_length=1)]
Limit = Annotated[int, Field(ge=1)]
Gib = Annotated[float, Field(gt=0)]


def _of_a_file(name: str) -> str:
    if problem := name_problem(name):
        raise ValueError(refused(name, "a part of a data set", problem))
    return name


PartName = Annotated[str, AfterValidator(_of_a_file)]
"""Name of a split; folders have a file or a folder of that name."""


class _Ordered(Params[Dataset]):
    """Data whose questions can be asked in the order of their rows."""

    order: Literal["shuffled", "given"] = "shuffled"
    """Order in which algorithms that sample ask the questions: "shuffled" anew for each pass, by
    the run's seed, or "given", in the order of the rows, starting again after the last."""

    def in_order(self, examples: Sequence[Example]) -> Dataset:
        """Return the examples as a data set that gives its questions in the order chosen."""
        return examples if self.order == "shuffled" else InOrder(examples)


class Jsonl(_Ordered):
    """Rows in a file of your own, or on the Hub; any columns.

    Formats: JSON Lines, a JSON array, JSON objects over several lines, CSV and TSV with a header,
    and Parquet (``pip install 'alignkit[parquet]'``), each also with gzip; the format is recognised
    by content, not by name. Dots reach into objects: ``reward_model.ground_truth``. For supervised
    fine-tuning, ``answer`` names the column with the response to imitate.
    """

    path: Annotated[PathOrName, BeforeValidator(as_text)]
    """UTF-8 file, or Parquet; blank lines are skipped. On the Hub: a data set's name, or one of its
    files, ``hf://datasets/OWNER/NAME/FILE``, with ``NAME@REVISION`` for a fixed version."""

    config: Column | None = None
    """Which configuration of a data set to read from the Hub, if it has several."""

    split: PartName = "train"
    """Which part of a data set to read from the Hub; a file is read whole."""

    question: Column = "question"
    """Column with the question or prompt: text or a number, never empty. A list of messages with
    roles, one turn of a chat, becomes the system message, an empty line, and the user's message."""

    answer: Column = "answer"
    """Column with the gold answer (or response to imitate): text or a number, never empty. A list
    holds alternative right answers; from a list of messages the assistant's message is taken."""

    no_answer: bool = False
    """Rows need no gold answer, as for rewards that compare with none; ``answer`` is not read."""

    input: str | None = None
    """Column whose text, if not empty, is added to the question below a line "### Input:"; "" =
    none. Left out = "input" if ``question`` is "instruction" (Stanford Alpaca)."""

    id: Column | None = None
    """Column with an id of each row, all different; without it ``FILE:LINE`` is the id."""

    skip: Annotated[int, Field(ge=0)] = 0
    """Leave out so many rows at the beginning, such as those used for validation."""

    limit: Limit | None = None
    """Take only this many rows, from the first on; without it all."""

    max_unpacked_gib: Gib = UNPACKED_GIB
    """Most GiB that a gzip file may unpack to."""

    def build(self) -> Dataset:
        return self.in_order(self._load().checked()[self.skip :])

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        source = self._source()
        if not source.local:
            yield from source.problems()
            return
        loaded = self._load()
        yield from loaded.problems()
        if not loaded.faults and self.skip >= len(loaded.examples):
            yield "skip", f"leaves none of the {len(loaded.examples):,} rows"

    def missing(self) -> Iterable[str]:
        return self._source().missing()

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        source = self._source()
        if not source.local:
            return source.facts()
        examples = self._load().examples[self.skip :]
        facts = {"rows": f"{len(examples):,}"}
        if not self._input:
            return facts
        more = sum(columns.INPUT in example.question for example in examples)
        shown = {"input": f"column {self._input!r} follows the question in {more:,} rows"}
        return {**facts, **(shown if more else {})}

    @property
    def _input(self) -> str:
        """The column that follows the question, "" for none."""
        if self.input is not None:
            return self.input
        alpaca = self.question == "instruction" and "input" not in (self.answer, self.id)
        return "input" if alpaca else ""

    def _load(self) -> Loaded:
        source = self._source()
        if not source.local:
            return source.load()
        return load_file(Path(self.path), source.convert, source.limit, self.max_unpacked_gib)

    def _source(self) -> Source:
        answer = "" if self.no_answer else self.answer
        convert = columns.Plain(self.question, answer, self.id, self._input)
        limit = self.limit and self.skip + self.limit
        return Source(self.path, self.config, self.split, limit, convert, self.max_unpacked_gib)


class _Split(_Ordered):
    """A data set of which one split is read, from local files or the Hub."""

    def build(self) -> Dataset:
        return self.in_order(self._source().load().checked())

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return self._source().problems()

    def missing(self) -> Iterable[str]:
        return self._source().missing()

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        return self._source().facts()

    @abstractmethod
    def _source(self) -> Source:
        """Return where the rows come from and how they are converted."""


class Chat(_Split):
    """Dialogues: rows with ``messages``, ShareGPT's ``conversations``, or a ``prompt`` of messages.

    Reads all files that ``jsonl`` reads (in CSV and TSV a cell holds JSON), a folder that
    `datasets` saved, and data sets on the Hub. For ``[prompt] use = "chat"``; text templates accept
    dialogues of one turn. Rows with ``chosen`` and ``rejected`` are pairs for ``dpo``: texts, or
    dialogues that differ in their last answer; a ``completion`` continues where ``prompt`` ends.
    """

    path: PathOrName
    """A file, a folder with ``SPLIT.jsonl`` in it or saved by `datasets`, or a name on the Hub."""

    config: Column | None = None
    """Which configuration to read from the Hub, if it has several."""

    split: PartName = "train"
    """Which part to read from the Hub or a folder; a single file is read whole."""

    messages: str = ""
    """Column with the dialogue. "" = ``messages``, ``conversations`` or ``prompt``: the first that
    is there."""

    answer: str = "answer"
    """Column with the gold answer. In rows without it, and in pairs, it is the assistant's last
    message; "" = no gold answer is needed."""

    id: Column | None = None
    """Column with an id of each row, all different; without it ``FILE:LINE`` is the id."""

    limit: Limit | None = None
    """Take only this many rows, from the first on; without it all."""

    max_unpacked_gib: Gib = UNPACKED_GIB
    """Most GiB that a gzip file may unpack to."""

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        source = self._source()
        if not source.local:
            return source.facts()
        examples = source.load().examples
        turns = sum(m["role"] == "assistant" for example in examples for m in example.messages)
        return {**source.facts(), "turns of the assistant": f"{turns:,}"}

    def _source(self) -> Source:
        convert = Dialogue(self.messages, self.answer, self.id)
        return Source(
            self.path, self.config, self.split, self.limit, convert, self.max_unpacked_gib
        )


class Gsm8k(_Split):
    """Grade-school word problems whose worked solution ends in ``#### 72``.

    Cobbe et al. 2021, arXiv:2110.14168. The gold answer is the number after ``####`` without
    commas; ``extra["solution"]`` is the text before it, without ``<<48/2=24>>`` marks.
    """

    path: PathOrName = "openai/gsm8k"
    """A file, a folder with ``SPLIT.jsonl`` in it, or a name on the Hub."""

    config: Column = "main"
    """Which configuration to read from the Hub."""

    split: PartName = "train"
    """Which part to read from the Hub or a folder; a single file is read whole."""

    question: Column = "question"
    """Column with the problem."""

    answer: Column = "answer"
    """Column with the worked solution."""

    limit: Limit | None = None
    """Take only this many rows, from the first on; without it all."""

    max_unpacked_gib: Gib = UNPACKED_GIB
    """Most GiB that a gzip file may unpack to."""

    def _source(self) -> Source:
        convert = columns.Gsm8k(self.question, self.answer)
        return Source(
            self.path, self.config, self.split, self.limit, convert, self.max_unpacked_gib
        )


class Math(_Split):
    r"""Competition problems with the gold answer in a column or in the last ``\boxed{}``.

    Hendrycks et al. 2021, arXiv:2103.03874; MATH-500 is the subset of Lightman et al. 2023,
    arXiv:2305.20050. Local folders with one JSON file per problem are read as well.
    """

    path: PathOrName = "HuggingFaceH4/MATH-500"
    """A file, a folder with ``SPLIT.jsonl`` or ``SPLIT/**.json`` in it, or a name on the Hub."""

    config: Column | None = None
    """Which configuration to read from the Hub, if it has several."""

    split: PartName = "test"
    """Which part to read from the Hub or a folder; a single file is read whole."""

    question: Column = "problem"
    """Column with the problem."""

    answer: Column = "answer"
    r"""Column with the gold answer; in rows without it, the last ``\boxed{}`` is used."""

    solution: Column = "solution"
    """Column with the worked solution."""

    limit: Limit | None = None
    """Take only this many rows, from the first on; without it all."""

    max_unpacked_gib: Gib = UNPACKED_GIB
    """Most GiB that a gzip file may unpack to."""

    def _source(self) -> Source:
        convert = columns.Boxed(self.question, self.answer, self.solution)
        return Source(
            self.path, self.config, self.split, self.limit, convert, self.max_unpacked_gib
        )


@hookimpl
def dataset() -> Iterable[Component[Dataset]]:
    yield Component("jsonl", Jsonl)
    yield Component("gsm8k", Gsm8k)
    yield Component("math", Math)
    yield Component("hh", Hh)
    yield Component("mmlu", Mmlu)
    yield Component("chat", Chat)
    yield Component("choices", Choices)
