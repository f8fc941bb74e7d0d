"""Where the rows of a named data set come from: local files, or the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from alignkit.data_files.reader import UNPACKED_GIB
from alignkit_data import hub
from alignkit_data.load import Convert, Loaded, load_local, load_rows


def as_text(path: object) -> object:
    """Return a path as its text, as recipes give it; anything else as it is."""
    return str(path) if isinstance(path, Path) else path


@dataclass(frozen=True, slots=True)
class Source:
    """One split of a data set that is a local file or folder, or else a name on the Hub."""

    path: str
    config: str | None
    split: str
    limit: int | None
    convert: Convert
    unpacked_gib: float = UNPACKED_GIB
    """Most GiB that a local gzip file may unpack to."""

    @property
    def local(self) -> bool:
        """Whether the rows can be read here and now."""
        return Path(self.path).exists()

    def load(self) -> Loaded:
        """Read every row; AlignkitError if the Hub cannot be reached."""
        if self.local:
            return load_local(
                Path(self.path), self.convert, self.limit, self.unpacked_gib, self.split
            )
        rows = hub.rows(self.path, self.config, self.split)
        return load_rows(rows, self.convert, self.limit, where=f"{self.path} {self.split}")

    def problems(self) -> Iterator[tuple[str, str]]:
        """Yield what is wrong with local rows; rows from the Hub are checked when fetched."""
        if self.local:
            yield from self.load().problems()
        elif hub.is_no_name(self.path):
            yield "path", f"no such file or folder: {self.path}"

    def missing(self) -> Iterator[str]:
        """Yield what has to be installed to read the rows."""
        return iter(()) if self.local else hub.missing(self.path)

    def facts(self) -> Mapping[str, str]:
        """Return the number of rows, or where they will come from."""
        if self.local:
            return {"rows": f"{len(self.load().examples):,}"}
        most = f", at most {self.limit:,}" if self.limit else ""
        part = "" if hub.FILE.fullmatch(self.path) else f"{self.split} of "
        return {"rows": f"{part}{self.path} on the Hub{most}"}
