"""Multiple-choice questions of MMLU: Hendrycks et al. 2021, arXiv:2009.03300."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from alignkit import Params
from alignkit.component import PathOrName
from alignkit.data_files.columns import BadRow, bad, text_of
from alignkit.errors import shown
from alignkit.protocols import Dataset, Example
from alignkit_data.load import Loaded, load_rows
from alignkit_data.rows import Fault, Row
from alignkit_data.source import Source, as_text

LETTERS = "ABCD"


class Mmlu(Params[Dataset]):
    """Questions of many subjects with four options, one of which is right (arXiv:2009.03300).

    Reads the published folder of CSV files without a header (``SPLIT/SUBJECT_SPLIT.csv``: question,
    four options, letter) and files of rows with the columns ``question``, ``choices``, ``answer``
    (a letter, or a number from 0) and ``subject``. The question asks for the letter of one option;
    the answer is that letter, and ``choices`` and ``subject`` are kept.
    """

    path: Annotated[PathOrName, BeforeValidator(as_text)] = "cais/mmlu"
    """A file of rows, the folder with the CSV files of the split, or a name on the Hub."""

    config: Annotated[str, Field(min_length=1)] = "all"
    """Which configuration to read from the Hub: a subject, or all."""

    split: Annotated[str, Field(min_length=1)] = "test"
    """Which files of a folder, or part of a data set on the Hub, are read; a file is read whole."""

    limit: Annotated[int, Field(ge=1)] | None = None
    """Take only the first so many rows; without it all."""

    def build(self) -> Dataset:
        return self._load().checked()

    def check(self, tables: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
        source = self._source()
        return self._load().problems() if source.local else source.problems()

    def missing(self) -> Iterable[str]:
        return self._source().missing()

    def facts(self, tables: Mapping[str, Any]) -> Mapping[str, str]:
        if not self._source().local:
            return self._source().facts()
        examples = self._load().examples
        subjects = {example.extra["subject"] for example in examples}
        return {"rows": f"{len(examples):,} of {len(subjects)} subjects"}

    def _source(self) -> Source:
        return Source(self.path, self.config, self.split, self.limit, example_of)

    def _load(self) -> Loaded:
        path = Path(self.path)
        files = sorted(path.rglob(f"*_{self.split}.csv")) if path.is_dir() else []
        if path.is_file() and path.name.endswith(f"_{self.split}.csv"):
            files = [path]
        if not files:
            return self._source().load()
        rows = (row for file in files for row in records(file, self.split))
        return load_rows(rows, example_of, self.limit, where=shown(path))


def records(file: Path, split: str) -> Iterator[Row | Fault]:
    """Yield the rows of a CSV file without a header, whose name gives the subject."""
    subject = file.name.removesuffix(f"_{split}.csv")
    with file.open(encoding="utf-8", newline="") as stream:
        for number, fields in enumerate(csv.reader(stream), 1):
            where = f"{shown(file)}:{number}"
            if len(fields) != 2 + len(LETTERS):
                yield Fault(
                    where, f"{len(fields)} fields; question, four options, letter are wanted"
                )
                continue
            question, *choices, answer = fields
            values = {"question": question, "choices": choices, "answer": answer}
            yield Row(where, f"{file.name}:{number}", {**values, "subject": subject}, number)


def example_of(row: Row | Fault) -> Example:
    """Return the example of a row; BadRow where it has no four options or no right one."""
    if isinstance(row, Fault):
        raise BadRow(row)
    choices = row.values.get("choices")
    if not isinstance(choices, list) or [type(c) for c in choices] != [str] * len(LETTERS):
        raise bad(row, "path", f"column 'choices' must hold four texts, got {choices!r:.60}")
    answer = text_of(row, "answer", "path").strip()
    letter = LETTERS[int(answer)] if answer in {"0", "1", "2", "3"} else answer
    if letter not in {*LETTERS}:
        raise bad(
            row, "path", f"column 'answer' must hold A, B, C, D or 0 to 3, got {answer!r:.60}"
        )
    subject = text_of(row, "subject", "path")
    asked = question_text(text_of(row, "question", "path").strip(), choices, subject)
    return Example(row.name, asked, letter, {"choices": list(choices), "subject": subject})


def question_text(question: str, choices: Sequence[str], subject: str) -> str:
    """Return the question for the policy, with the sentence that its reply should consist of."""
    options = "".join(f"{a}. {text}\n" for a, text in zip(LETTERS, choices, strict=True))
    return (
        f"Here is a multiple-choice question about {subject.replace('_', ' ')}. Reply with one "
        f'sentence, "The correct answer is _", with the letter of the right option in place of _.\n'
        f"\nQuestion: {question}\n{options}Answer:"
    )
