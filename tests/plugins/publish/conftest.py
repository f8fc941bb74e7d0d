"""A stand-in for the Hub's API: it takes repositories, uploads and commits, and keeps them."""

import base64
import hashlib
import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import tomli_w

from alignkit.shipped import shipped

KEY = "hf_standin"


class Hub(ThreadingHTTPServer):
    """Repositories by name, files by path, messages of commits; ``KEY`` may write."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.repos, self.blobs, self.private = {}, {}, {}
        self.commits, self.refused = [], 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *error):
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *words):
        """Print nothing."""

    def answer(self, what, status=200):
        body = json.dumps(what).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def body(self):
        if self.headers.get("Transfer-Encoding") == "chunked":
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def do_PUT(self):
        self.server.blobs[self.path.rpartition("/")[2]] = self.body()
        self.answer({})

    def do_GET(self):
        self.answer({"error": "not found"}, 404)

    def do_POST(self):
        sent = self.body()
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self.server.refused += 1
            self.answer({"error": "Invalid username or password."}, 401)
        elif self.path == "/api/repos/create":
            self.create(json.loads(sent))
        elif self.path.endswith("/preupload/main"):
            self.preupload(json.loads(sent))
        elif self.path.endswith("/info/lfs/objects/batch"):
            self.batch(json.loads(sent))
        elif "/commit/main" in self.path:
            self.commit(self.path.split("/api/models/")[1].split("/commit/")[0], sent)
        else:
            self.answer({}, 200 if "verify" in self.path or "validate-yaml" in self.path else 404)

    def create(self, asked):
        name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
        taken = name in self.server.repos
        self.server.repos.setdefault(name, {})
        self.server.private.setdefault(
            name, asked.get("private") or asked.get("visibility") == "private"
        )
        where = {"url": f"{self.server.url}/{name}"}
        self.answer(
            {"error": "You already created this", **where} if taken else where, 409 * taken or 200
        )

    def preupload(self, asked):
        modes = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in asked["files"]
        ]
        self.answer({"files": modes})

    def batch(self, asked):
        objects = [
            {
                **o,
                "actions": {"upload": {"href": f"{self.server.url}/blob/{o['oid']}", "header": {}}},
            }
            for o in asked["objects"]
        ]
        self.answer({"transfer": "basic", "objects": objects})

    def commit(self, repo, sent):
        for line in sent.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "header":
                self.server.commits.append(value["summary"])
            elif item["key"] == "file":
                self.server.repos[repo][value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                blob = self.server.blobs[value["oid"]]
                assert hashlib.sha256(blob).hexdigest() == value["oid"]
                self.server.repos[repo][value["path"]] = blob
        oid = f"{len(self.server.commits):040x}"
        self.answer({"commitUrl": f"{self.server.url}/{repo}/commit/{oid}", "commitOid": oid})


@pytest.fixture
def hub():
    with Hub() as server:
        yield server


PLAN = {
    "use": "grpo",
    "seed": 3,
    "policy": {"use": "hf", "path": "somebody/Small-Model_1"},
    "data": {"use": "jsonl", "path": "/somewhere/problems/train.jsonl"},
    "loss": {"use": "mine"},
}


@pytest.fixture
def finished(tmp_path):
    """Write a run directory with a model; ``plan``, ``facts`` and ``values`` as given."""

    def make(plan=None, values=(0.25, 0.5, 0.875), status="done", **facts):
        folder = tmp_path / "runs" / "one"
        shutil.copytree(shipped() / "data" / "tiny_policy", folder / "final")
        (folder / "recipe.toml").write_text(tomli_w.dumps(plan or PLAN))
        component = {"key": "loss", "kind": "loss_type", "use": "mine", "plugin": "mine"}
        facts = {
            "status": status,
            "seed": 3,
            "seconds": 75.0,
            "components": [{**component, "dist": "alignkit", "version": "0.1.0"}],
            "versions": {"python": "3.11.7", "torch": "2.13.0"},
            "hardware": {"cpu": "A | CPU", "gpus": []},
        } | facts
        (folder / "manifest.json").write_text(json.dumps(facts))
        rows = [{"step": i, "time": i, "eval/answer_reward": v} for i, v in enumerate(values)]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        return folder

    return make
