"""Made-up run directories, and a real browser spoken to over the WebDriver protocol."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
import tomli_w

from alignkit.run_data import groups, runs

PLAN = {
    "use": "grpo",
    "seed": 0,
    "n_steps": 2,
    "optimizer": {"use": "adamw", "lr": 1e-4},
    "trackers": [{"use": "console"}],
}


@pytest.fixture
def sample():
    """Return a row of a file of responses."""
    return _sample


def _sample(right: bool, text: str = "an answer", **more) -> dict:
    return {
        "question": "2 + 2 = ?",
        "gold": "4",
        "response": text,
        "reward": float(right),
        "answer_reward": float(right),
        "response_length": len(text),
        "finish_reason": "stop",
        **more,
    }


@pytest.fixture
def make_run(tmp_path):
    """Write a run directory: rows of metrics, plan values, manifest facts, sampled responses."""

    def make(name, rows=(), *, samples=None, status="done", lr=1e-4, seed=0, **manifest) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        plan = PLAN | {"seed": seed, "optimizer": {"use": "adamw", "lr": lr}}
        (folder / "recipe.toml").write_text(tomli_w.dumps(plan))
        facts = {"status": status, "seed": seed, "seconds": 10.0} | manifest
        (folder / "manifest.json").write_text(json.dumps(facts))
        lines = [json.dumps({"step": i, "time": 2.0 * i} | row) for i, row in enumerate(rows)]
        (folder / "metrics.jsonl").write_text("".join(line + "\n" for line in lines))
        for where, found in (samples or {}).items():
            file = folder / where
            file.parent.mkdir(exist_ok=True)
            file.write_text("".join(json.dumps(row) + "\n" for row in found))
        return folder

    return make


@pytest.fixture
def load():
    """Read and group what is in a directory."""
    return lambda *folders: groups.group(runs.find(folders))


class Browser:
    """Chromium, driven by chromedriver; only what these tests need of the protocol."""

    def __init__(self, width: int, height: int) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/session"
        self.driver = subprocess.Popen(
            ["chromedriver", f"--port={port}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"NO_PROXY": "127.0.0.1"},
        )
        self.direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        self.url += "/" + self._start(width, height)

    def _start(self, width: int, height: int) -> str:
        metrics = {"width": width, "height": height, "pixelRatio": 1, "mobile": width < 600}
        options = {
            "args": ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"],
            "mobileEmulation": {"deviceMetrics": metrics},
        }
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        for _ in range(100):
            try:
                return self.call("", capabilities={"alwaysMatch": wanted})["sessionId"]
            except ConnectionError:
                time.sleep(0.1)
            except urllib.error.URLError as error:
                if not isinstance(error.reason, ConnectionError):
                    raise
                time.sleep(0.1)
        raise RuntimeError("chromedriver did not start")

    def call(self, command: str, **body):
        data = json.dumps(body).encode()
        request = urllib.request.Request(self.url + command, data)
        with self.direct.open(request, timeout=60) as answer:
            return json.load(answer)["value"]

    def open(self, path: Path) -> None:
        self.call("/url", url=path.absolute().as_uri())

    def js(self, script: str):
        return self.call("/execute/sync", script=f"return {script}", args=[])

    def console(self) -> list:
        return self.call("/se/log", type="browser")

    def screenshot(self, path: Path) -> None:
        height = self.js("document.documentElement.scrollHeight")
        width = self.js("window.innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        made = self.call(
            "/goog/cdp/execute",
            cmd="Page.captureScreenshot",
            params={"format": "png", "captureBeyondViewport": True, "clip": clip},
        )
        path.write_bytes(base64.b64decode(made["data"]))

    def close(self) -> None:
        try:
            urllib_request = urllib.request.Request(self.url, method="DELETE")
            self.direct.open(urllib_request, timeout=30).close()
        finally:
            self.driver.terminate()
            self.driver.wait(10)


@pytest.fixture
def browser():
    """Open a browser of a given width; skipped where Chromium is not installed."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs chromium and chromedriver: apt-get install chromium chromium-driver")
    opened = []

    def start(width: int, height: int = 900) -> Browser:
        opened.append(Browser(width, height))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


@pytest.fixture
def drawn(monkeypatch):
    """The figures that are saved from now on, by the name of their file."""
    figures = pytest.importorskip("matplotlib.figure")
    seen, save = {}, figures.Figure.savefig

    def watched(figure, path):
        save(figure, path)
        seen[path.name] = figure

    monkeypatch.setattr(figures.Figure, "savefig", watched)
    return seen


@pytest.fixture
def settings(make_run, load, tmp_path):
    """Write settings: a value at the end of each seed's run, after a start at 0.1."""

    def make(**values):
        for name, ends in values.items():
            for seed, end in enumerate(ends):
                if end is not None:
                    rows = [{"eval/answer_reward": 0.1}, {"eval/answer_reward": end}]
                    make_run(f"s/{name}/seed_{seed}", rows, seed=seed, lr=len(name) * 1e-4)
        found = {g.name: g for g in load(tmp_path / "s")}
        return [found[name] for name in values]

    return make
