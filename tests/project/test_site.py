"""The documentation site: its blocks run as they stand, and it builds without a warning."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / ".github" / "docs"
PAGES = sorted(
    str(page.relative_to(DOCS))
    for folder in ("tutorials", "howto", "explanation")
    for page in (DOCS / folder).glob("*.md")
)
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page):
    return BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))


def run(language, text, folder):
    """Carry a block out in a folder; a first line ``# file: NAME`` writes it there instead."""
    if named := re.match(r"# file: (\S+)\n", text):
        (folder / named[1]).write_text(text)
        return
    command = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    scripts = str(Path(sys.executable).parent)
    done = subprocess.run(
        [*command[language], text], cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "PATH": f"{scripts}:{os.environ['PATH']}"},
    )  # fmt: skip
    assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}{done.stderr[-3000:]}"


@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p)])
def test_every_block_of_a_page_runs_in_order(tmp_path, page):
    for language, text in blocks(page):
        if language == "sh" and "cd mine" in text:
            run(language, text, tmp_path)
            tmp_path = tmp_path / "mine"
        elif language != "text":
            run(language, text, tmp_path)


def test_every_block_is_run_or_said_to_be_text():
    languages = {language for page in PAGES for language, _ in blocks(page)}
    assert languages <= {"sh", "python", "toml", "text"}
    for page in PAGES:
        for language, text in blocks(page):
            assert language != "toml" or text.startswith("# file: "), page


def test_every_page_is_in_the_contents():
    listed = (DOCS / "index.md").read_text()
    for page in PAGES:
        assert f"\n{page.removesuffix('.md')}\n" in listed


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    pytest.importorskip("sphinx", reason="needs pip install -e '.[docs]'")
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-b", "html"]
    done = subprocess.run(
        [*command, str(DOCS), str(tmp_path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "made" / "components" / "loss_type.html").read_text()
    assert "cliprange" in page
    assert "<math" in (tmp_path / "explanation" / "update.html").read_text()
    side = (tmp_path / "index.html").read_text().partition('class="sidebar-tree"')[2]
    names = re.findall(
        r'<li class="toctree-l1.*?<a class="reference internal"[^>]*>(.*?)</a>', side
    )
    assert len(names) > 20
    assert len(set(names)) == len(names), sorted(names)
