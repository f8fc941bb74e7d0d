"""`jsonl` reads a repository or a file of the Hub, from a server that answers as the Hub does."""

import gzip
import hashlib
import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from alignkit_data import Hh, Jsonl

COMMITS = {"main": "5" * 40, "v2": "6" * 40}
ROWS = [{"prompt": f"p{n}", "response": f"r{n}"} for n in range(4)]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()
PAIRS = "".join(
    json.dumps({side: f"\n\nHuman: q{n}\n\nAssistant: {side}" for side in ("chosen", "rejected")})
    + "\n"
    for n in range(3)
).encode()
FILES = {
    ("org/hh", "main", "helpful-base/train.jsonl.gz"): gzip.compress(PAIRS),
    ("org/hh", "main", "helpful-base/test.jsonl.gz"): gzip.compress(PAIRS.replace(b"q", b"t")),
    ("org/hh", "main", "harmless-base/train.jsonl.gz"): gzip.compress(PAIRS.replace(b"q", b"h")),
    ("org/hh", "v2", "helpful-base/train.jsonl.gz"): gzip.compress(PAIRS.replace(b"q", b"Q")),
    ("org/traces", "main", "train.jsonl"): LINES,
    ("org/traces", "main", "parts/filtered.jsonl.gz"): gzip.compress(LINES[: len(LINES) // 2]),
    ("org/traces", "v2", "train.jsonl"): LINES.replace(b"r0", b"R0"),
}


def named(revision):
    """Return the branch of a commit, or the branch itself."""
    return {commit: branch for branch, commit in COMMITS.items()}.get(revision, revision)


class Hub(BaseHTTPRequestHandler):
    """Answers what huggingface_hub asks about data sets."""

    def do_GET(self):
        self.answer(body=True)

    def do_HEAD(self):
        self.answer(body=False)

    def answer(self, *, body):
        parts = self.path.split("?")[0].strip("/").split("/")
        if parts[:2] == ["api", "datasets"]:  # api/datasets/OWNER/NAME/revision|tree/REVISION
            repo, revision = "/".join(parts[2:4]), named(parts[5] if len(parts) > 5 else "main")
            names = [f for r, v, f in FILES if (r, v) == (repo, revision)]
            files = [{"type": "file", "path": f, "size": 1, "oid": "0" * 40} for f in names]
            siblings = [{"rfilename": f} for f in names]
            about = {"id": repo, "sha": COMMITS[revision], "siblings": siblings}
            content = json.dumps(files if "tree" in parts else about).encode()
        else:  # datasets/OWNER/NAME/resolve/REVISION/FILE
            revision = named(parts[4])
            content = FILES.get(("/".join(parts[1:3]), revision, "/".join(parts[5:])))
        self.send_response(404 if content is None else 200)
        self.send_header("X-Repo-Commit", COMMITS[revision])
        content = b"" if content is None else content
        self.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def hub():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


READ = """
import json, sys
from alignkit.errors import AlignkitError
from alignkit_data import Hh, Jsonl, hub
find = hub.find_spec
hub.find_spec = lambda name: None if name == "datasets" else find(name)
for path, keys in json.loads(sys.argv[1]):
    try:
        if "/hh" in path:
            made = Hh(path=path, **keys).build()
            print(json.dumps([[e.extra["source"], e.question] for e in made]))
            continue
        made = Jsonl(path=path, question="prompt", answer="response", **keys).build()
        print(json.dumps([[e.id, e.answer] for e in made]))
    except AlignkitError as error:
        print(json.dumps(str(error)))
"""


@pytest.fixture(scope="module")
def read(hub, tmp_path_factory):
    """Read data sets in one process whose Hub is the server here; its results in order."""
    home = tmp_path_factory.mktemp("hub")
    asked = [
        ("hf://datasets/org/traces/train.jsonl", {}),
        ("hf://datasets/org/traces/parts/filtered.jsonl.gz", {"limit": 1}),
        ("hf://datasets/org/traces@v2/train.jsonl", {"skip": 0, "limit": 1}),
        ("org/traces", {"skip": 1, "limit": 2}),
        ("hf://datasets/org/traces/absent.jsonl", {}),
        ("org/traces", {"split": "test"}),
        ("org/hh", {}),
        ("org/hh", {"split": "test", "part": "validation", "validation": 2}),
        ("hf://datasets/org/hh@v2/helpful-base/train.jsonl.gz", {}),
        ("org/hh", {"part": "train"}),
        ("org/hh", {"split": "valid"}),
        ("hf://datasets/org/hh/absent.jsonl", {}),
    ]
    from os import environ

    own = {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", READ, json.dumps(asked)],
        env={**environ, **own, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_a_file_of_a_repository_is_read_whole(read):
    assert read[0] == [[f"train.jsonl:{n + 1}", f"r{n}"] for n in range(4)]


def test_a_gzip_file_in_a_folder_is_read(read):
    assert read[1] == [["filtered.jsonl.gz:1", "r0"]]


def test_a_revision_is_another_version(read):
    assert read[2] == [["train.jsonl:1", "R0"]]


def test_a_repository_is_read_by_its_split(read):
    assert read[3] == [["train.jsonl:2", "r1"], ["train.jsonl:3", "r2"]]


def test_a_file_that_is_not_there_says_so(read):
    assert "cannot read the data set 'hf://datasets/org/traces/absent.jsonl'" in read[4]


def test_a_split_that_is_not_there_says_so(read):
    assert "no test.jsonl or test.json on the Hub" in read[5]


def test_pairs_are_read_from_all_files_of_a_split(read):
    kinds = {"harmless-base/train.jsonl.gz": "h", "helpful-base/train.jsonl.gz": "q"}
    assert read[6] == [[file, f"{kind}{n}"] for file, kind in kinds.items() for n in range(3)]


def test_pairs_are_held_out(read):
    assert len(read[7]) == 2
    assert {source for source, _ in read[7]} == {"helpful-base/test.jsonl.gz"}


def test_pairs_of_a_file_keep_its_path_in_the_repository(read):
    assert read[8] == [["helpful-base/train.jsonl.gz", f"Q{n}"] for n in range(3)]


def test_too_few_pairs_of_the_hub_are_said_when_they_are_there(read):
    assert read[9] == "org/hh: there are 6 pairs, so none would be left to train on"


def test_pairs_that_are_not_there_say_so(read):
    files = "valid.jsonl.gz or NAME-valid.jsonl.gz"
    assert read[10] == f"org/hh: the data set on the Hub holds no {files}"
    assert "cannot read the data set 'hf://datasets/org/hh/absent.jsonl' from the Hub" in read[11]


def test_facts_of_pairs_on_the_hub():
    assert Hh(path="Anthropic/hh-rlhf").facts({}) == {
        "pairs": "train of Anthropic/hh-rlhf on the Hub"
    }
    assert list(Hh(path="Anthropic/hh-rlhf", part="train").check({})) == []
    assert list(Hh(path="a/b.jsonl").check({})) == [("path", "no such file or folder: a/b.jsonl")]


@pytest.mark.parametrize(
    "path",
    ["hf://models/a/b/c.jsonl", "hf://datasets/a/b", "hf://datasets/a/b/../c.jsonl", "a/b.jsonl"],
)
def test_what_is_no_address_of_a_file_is_a_missing_path(path):
    assert list(Jsonl(path=path).check({})) == [("path", f"no such file or folder: {path}")]


def test_facts_name_the_file():
    path = "hf://datasets/org/traces@v2/train.jsonl"
    assert Jsonl(path=path, limit=9).facts({}) == {"rows": f"{path} on the Hub, at most 9"}
    assert list(Jsonl(path=path).check({})) == []
    assert Jsonl(path="org/traces").facts({}) == {"rows": "train of org/traces on the Hub"}


def test_rows_are_skipped_before_they_are_counted(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"question": f"q{n}", "answer": n}) + "\n" for n in range(5))
    )
    for skip, limit, want in [(0, None, "01234"), (2, None, "234"), (2, 2, "23"), (4, 9, "4")]:
        made = Jsonl(path=path, skip=skip, limit=limit)
        assert "".join(e.answer for e in made.build()) == want
        assert made.facts({}) == {"rows": str(len(want))}
    assert dict(Jsonl(path=path, skip=5).check({})) == {"skip": "leaves none of the 5 rows"}
    assert list(Jsonl(path=path, skip=4).check({})) == []
