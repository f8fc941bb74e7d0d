"""Upload a run's model to the Hugging Face Hub, with a card made from the run."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alignkit import open_run
from alignkit.errors import AlignkitError, in_shell, shown
from alignkit.run_result import RunResult
from alignkit_publish.card import card, without_home

CURVES = "curves.png"


@dataclass(frozen=True)
class Upload:
    """What goes to a repository: the files of ``final/``, and others made here."""

    run: RunResult
    repo: str
    made: dict[str, bytes]
    """Content by path in the repository."""

    @property
    def final(self) -> Path:
        """The folder with the model."""
        return self.run.dir / "final"

    def files(self) -> dict[str, Path | bytes]:
        """Return what stands at each path of the repository."""
        found = sorted(path for path in self.final.rglob("*") if path.is_file())
        model: dict[str, Path | bytes] = {p.relative_to(self.final).as_posix(): p for p in found}
        return model | self.made

    def write(self, folder: Path) -> Iterator[str]:
        """Write what is made here, all but the model, to a folder; yield each file.

        AlignkitError if it cannot be written.
        """
        for name, content in self.made.items():
            path = folder / name
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            except OSError as error:
                raise AlignkitError(f"cannot write {shown(path)}: {error.strerror}") from error
            yield shown(path)

    def send(self, *, private: bool = False, message: str | None = None) -> str:
        """Make the repository if it is new, and upload all files in one commit; return where."""
        import httpx2
        from huggingface_hub import CommitOperationAdd, HfApi
        from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

        api = HfApi(library_name="alignkit")
        adds = [
            CommitOperationAdd(name, content if isinstance(content, bytes) else str(content))
            for name, content in self.files().items()
        ]
        try:
            api.create_repo(self.repo, private=private or None, exist_ok=True)
            done = api.create_commit(
                self.repo, adds, commit_message=message or f"Upload {self.run.dir.name}"
            )
        except (HfHubHTTPError, httpx2.HTTPError, OfflineModeIsEnabled, OSError) as error:
            raise AlignkitError(f"{self.repo} was not uploaded: {_reason(error)}") from error
        return f"uploaded {len(adds)} files: {done.commit_url}"


def _reason(error: Exception) -> str:
    """Return the Hub's own words and, where the key is at fault, the remedy."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    said = " ".join(str(error).split())
    if status in (401, 403):
        return f"{said}; set HF_TOKEN to a key that may write, or run `hf auth login`"
    return said


def prepared(folder: Path, repo: str, licence: str | None) -> Upload:
    """Collect what goes to the repository; AlignkitError if the run has no model or it is no name.

    The files made here hold no secret, and the home folder is written ``~`` in them.
    """
    if not re.fullmatch(r"[A-Za-z0-9][\w.-]{0,95}(/[A-Za-z0-9][\w.-]{0,95})?", repo):
        raise AlignkitError(f"{repo!r:.80} cannot be a repository; write USER/NAME")
    run = open_run(folder)
    if not (run.dir / "final" / "config.json").is_file():
        raise AlignkitError(
            f"{shown(run.dir)} has no final/ with a model: the run is {run.status}; "
            f"`alignkit resume {in_shell(run.dir)}` may end it"
        )
    made = {
        "alignkit/recipe.toml": without_home((run.dir / "recipe.toml").read_text("utf-8")).encode(),
        "alignkit/metrics.jsonl": (run.dir / "metrics.jsonl").read_bytes(),
    }
    if picture := _curves(run):
        made[CURVES] = picture
    made["README.md"] = card(run, repo, licence, CURVES if picture else "").encode()
    for plugin in sorted((run.dir / "plugins").glob("*.py")):
        made[f"alignkit/plugins/{plugin.name}"] = plugin.read_bytes()
    return Upload(run, repo, made)


def _curves(run: RunResult) -> bytes:
    """Return a chart of the run as PNG; nothing without matplotlib, or without metrics."""
    try:
        figure = run.plot()
    except AlignkitError:
        return b""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=120)
    return file.getvalue()
