"""Built-in data sets: jsonl, chat, gsm8k, math."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from alignkit import Component, Params, RecipePath, hookimpl
from alignkit.component import PathOrName
from alignkit.data_files.reader import UNPACKED_GIB
from alignkit.protocols import Dataset, Example
from alignkit.security.names import name_problem, refused
from alignkit_data import columns
from alignkit_data.chats import Dialogue
from alignkit_data.load import Loaded, load_file
from alignkit_data.ordered import InOrder
from alignkit_data.source import Source

Column = Annotated[str, Field(min_length=1)]
Limit = Annotated[int, Field(ge=1)]
Gib = Annotated[float, Field(gt=0)]


def _of_a_file(name: str) -> str:
    if problem := name_problem(name):
        raise ValueError(refused(name, "a part of a data set", problem))
    return name


PartName = Annotated[str, AfterValidator(_of_a_file)]
"""Of a split; folders have a file or a folder of that name."""


class _Ordered(Params[Dataset]):
    """Data that can be asked in the order of their rows."""

    order: Literal["shuffled", "given"] = "shuffled"
    """How algorithms that sample ask the questions: "shuffled", each pass by the run's seed, or
    "given", as the rows stand and from the first again after the last."""

    def in_order(self, examples: tuple[Example, ...]) -> Dataset:
        """Return the examples as a data set that is asked in the order that is asked for."""
        return examples if self.order == "shuffled" else InOrder(examples)


class Jsonl(_Ordered):
    """Rows in a file of your own; any columns.

    Read are JSON Lines, a JSON array, JSON objects over several lines, CSV and TSV with a header,
    and Parquet (``pip install 'alignkit[parquet]'``), each also with gzip; which one it is, the
    content says and not the name. Dots lead into objects: ``reward_model.ground_truth``. For
    supervised fine-tuning, ``answer`` names the column with the response to imitate.
    """

    path: RecipePath
    """UTF-8 file, or Parquet; blank lines are skipped."""

    question: Column = "question"
    """Column with the question or prompt: text or a number, never empty. Of a list of messages
    with roles, one turn of a chat: what the system says, an empty line, and what the user asks."""

    answer: Column = "answer"
    """Column with the gold answer (or response to imitate): text or a number, never empty. A list
    holds answers any of which is right; of a list of messages it is what the assistant says."""

    input: str | None = None
    """Column whose text follows the question below a line "### Input:", where it is not empty;
    "" = none. Left out = "input" if ``question`` is "instruction" (Stanford Alpaca)."""

    id: Column | None = None
    """Column with an id of each row, all different; without it ``FILE:LINE`` is the id."""

    limit: Limit | None = None
    """Take only the first so many rows; without it all."""

    max_unpacked_gib: Gib = UNPACKED_GIB
    """GiB that a file with gzip may unpack to, all of it in memory."""

    def build(self) -> Dataset:
        return self.in_order(self._load().checked())

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        return self._load().problems()

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        examples = self._load().examples
        more = sum(columns.INPUT in example.question for example in examples)
        shown = {"input": f"column {self._input!r} follows the question in {more:,} rows"}
        return {"rows": f"{len(examples):,}", **(shown if self._input and more else {})}

    @property
    def _input(self) -> str:
        """The column that follows the question, "" for none."""
        if self.input is not None:
            return self.input
        alpaca = self.question == "instruction" and "input" not in (self.answer, self.id)
        return "input" if alpaca else ""

    def _load(self) -> Loaded:
        convert = columns.Plain(self.question, self.answer, self.id, self._input)
        return load_file(self.path, convert, self.limit, self.max_unpacked_gib)


class _Split(_Ordered):
    """A data set of which one part is read, from local files or the Hub."""

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
        """Return where the rows come from and what is made of them."""


class Chat(_Split):
    """Dialogues: rows with ``messages``, ShareGPT's ``conversations``, or a ``prompt`` of messages.

    Read are all files that ``jsonl`` reads (in CSV and TSV a cell holds JSON), a folder that
    `datasets` saved, and data sets on the Hub. For ``[prompt] use = "chat"``; templates of text
    take those of one turn. Rows with ``chosen`` and ``rejected`` are pairs for ``dpo``: texts, or
    dialogues that differ in their last answer; a ``completion`` goes on where ``prompt`` ends.
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
    """Column with the gold answer. In rows without it, and in pairs, it is what the assistant says
    last; "" = there need not be any."""

    id: Column | None = None
    """Column with an id of each row, all different; without it ``FILE:LINE`` is the id."""

    limit: Limit | None = None
    """Take only the first so many rows; without it all."""

    max_unpacked_gib: Gib = UNPACKED_GIB
    """GiB that a file with gzip may unpack to, all of it in memory."""

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
    """Take only the first so many rows; without it all."""

    max_unpacked_gib: Gib = UNPACKED_GIB
    """GiB that a file with gzip may unpack to, all of it in memory."""

    def _source(self) -> Source:
        convert = columns.Gsm8k(self.question, self.answer)
        return Source(
            self.path, self.config, self.split, self.limit, convert, self.max_unpacked_gib
        )


class Math(_Split):
    r"""Competition problems with the gold answer in a column or in the last ``\boxed{}``.

    Hendrycks et al. 2021, arXiv:2103.03874; MATH-500 is the subset of Lightman et al. 2023,
    arXiv:2305.20050. Local folders of one JSON file a problem are read as well.
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
    r"""Column with the gold answer; in rows without it the last ``\boxed{}`` is the gold."""

    solution: Column = "solution"
    """Column with the worked solution."""

    limit: Limit | None = None
    """Take only the first so many rows; without it all."""

    max_unpacked_gib: Gib = UNPACKED_GIB
    """GiB that a file with gzip may unpack to, all of it in memory."""

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
    yield Component("chat", Chat)
