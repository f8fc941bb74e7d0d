"""A model card made from a run: what was trained, how, with what result, and by whose code."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignkit.run_data.runs import RunData, duration
from alignkit.run_result import SHOWN, RunResult
from alignkit.security.text import printable

_HUB = re.compile(r"[\w.-]+/[\w.-]+")
POINTS = 9
"""Rows of the table of results at most."""


def card(run: RunResult, repo: str, licence: str | None, curves: str) -> str:
    """Return the card: YAML for the Hub, then Markdown. ``curves`` names the chart, if any."""
    data = run.data
    return "\n".join(
        [*_front(data, repo, licence), *_about(data, repo), *_results(data, curves), *_made(run)]
    )


def without_home(text: str) -> str:
    """Return a text with the user's home folder written ``~``."""
    home = str(Path.home())
    return re.sub(re.escape(home) + r"(?=[/\"'\s]|$)", "~", text) if len(home) > 1 else text


def _front(data: RunData, repo: str, licence: str | None) -> Iterator[str]:
    """Yield the metadata that the Hub reads; JSON strings are YAML strings too."""
    yield "---"
    yield "library_name: transformers"
    yield "pipeline_tag: text-generation"
    if licence:
        yield f"license: {json.dumps(licence)}"
    if base := base_model(data.plan):
        yield f"base_model: {json.dumps(base)}"
    yield "tags:"
    yield from (f"- {json.dumps(tag)}" for tag in ("alignkit", str(data.plan.get("use", "run"))))
    yield from _index(data, repo)
    yield "---\n"


def base_model(plan: Mapping[str, Any]) -> str:
    """Return the Hub name of the model that was trained, ``""`` for one from a folder."""
    policy = plan.get("policy")
    path = policy.get("path") if isinstance(policy, Mapping) else None
    return path if isinstance(path, str) and _HUB.fullmatch(path) else ""


def _index(data: RunData, repo: str) -> Iterator[str]:
    """Yield the result as the Hub's ``model-index``, if there is one."""
    metric, series = headline(data)
    if not metric.startswith("eval/"):
        return
    yield "model-index:"
    yield f"- name: {json.dumps(repo.rpartition('/')[2])}"
    yield "  results:"
    yield "  - task: {type: text-generation}"
    yield f"    dataset: {{type: {json.dumps(_data(data))}, name: {json.dumps(_data(data))}}}"
    yield f"    metrics: [{{type: {json.dumps(metric)}, value: {series[-1][1]:.4f}}}]"


def headline(data: RunData) -> tuple[str, list[tuple[int, float]]]:
    """Return the most important metric that was logged, with its series; ``("", [])`` if none."""
    found = ((name, data.series(name)) for name in SHOWN)
    return next(((name, series) for name, series in found if series), ("", []))


def _data(data: RunData) -> str:
    """Return what the run was evaluated on: the dataset's name or its file's."""
    evaluated = data.plan.get("eval")
    table = evaluated.get("data") if isinstance(evaluated, Mapping) else None
    table = table or data.plan.get("data") or {}
    path = table.get("path") if isinstance(table, Mapping) else None
    return "/".join(Path(path).parts[-2:]) if path else str(table.get("use", "unknown"))


def _about(data: RunData, repo: str) -> Iterator[str]:
    name = repo.rpartition("/")[2]
    start = base_model(data.plan) or "A model from a local folder"
    yield f"# {name}\n"
    yield f"{_cell(start)}, trained with `{_cell(data.plan.get('use', '?'))}` by alignkit.\n"
    if data.status != "done":
        yield f"The run did not end by itself: {_cell(data.status)}. {_cell(data.reason)}\n"
    yield "```python"
    yield "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
    yield f"model = AutoModelForCausalLM.from_pretrained({json.dumps(repo)})"
    yield f"tokenizer = AutoTokenizer.from_pretrained({json.dumps(repo)})"
    yield "```\n"


def _results(data: RunData, curves: str) -> Iterator[str]:
    metric, series = headline(data)
    yield "## Results\n"
    if not series:
        yield "No metric was logged.\n"
        return
    yield f"`{metric}`, on {_cell(_data(data))}:\n"
    gap = max(1, -(-(len(series) - 1) // (POINTS - 1)))
    points = [*series[:-1:gap], series[-1]]
    yield from table(["step", metric], [[str(s), f"{v:.4f}"] for s, v in points])
    if curves:
        yield f"\n![{metric} and others against steps]({curves})"
    yield ""


def _made(run: RunResult) -> Iterator[str]:
    """Yield how it was trained: data, components with their packages, versions, the recipe."""
    data = run.data
    facts = data.manifest
    yield "## How it was trained\n"
    yield f"Data: {_cell(_source(data.plan.get('data')))}. Seed: {data.seed}. "
    yield f"Time: {duration(data.seconds)} on {_cell(_machine(facts))}.\n"
    parts = [c for c in facts.get("components", ()) if isinstance(c, Mapping)]
    rows = [
        [str(c.get(k, "")) for k in ("key", "kind", "use")] + [_package(c)]
        for c in parts
        if c.get("kind") != "tracker"
    ]
    yield from table(["table", "kind", "component", "from"], rows)
    versions = facts.get("versions", {})
    yield "\nVersions: " + ", ".join(f"{_cell(k)} {_cell(v)}" for k, v in versions.items()) + ".\n"
    yield "The whole recipe, which repeats the run (`alignkit/recipe.toml`):\n"
    yield "```toml"
    yield without_home((run.dir / "recipe.toml").read_text("utf-8")).strip().replace("```", "'''")
    yield "```\n"
    yield "## Licence\n"
    yield "The plugins' own licences apply to their code: " + ", ".join(_licences(parts)) + "."
    yield "The weights are under the licence that the metadata above names, if any; the licences of"
    yield "the model and the data they were made from may bind it.\n"


def _source(table: Any) -> str:
    if not isinstance(table, Mapping):
        return "that of the recipe"
    path = table.get("path")
    return (
        f"{table.get('use')} {'/'.join(Path(path).parts[-2:])}" if path else str(table.get("use"))
    )


def _machine(facts: Mapping[str, Any]) -> str:
    hardware = facts.get("hardware", {})
    return ", ".join(hardware.get("gpus") or []) or str(hardware.get("cpu") or "a CPU")


def _package(component: Mapping[str, Any]) -> str:
    return f"{component.get('dist')} {component.get('version')}"


def _licences(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return each package that the run used with the licence it states."""
    from importlib.metadata import PackageNotFoundError, metadata

    found = {}
    for name in sorted({str(part.get("dist")) for part in parts}):
        try:
            stated = metadata(name).json
            found[name] = str(stated.get("license_expression") or stated.get("license") or "")
        except (PackageNotFoundError, ValueError):
            found[name] = "in alignkit/plugins/" if name.endswith(".py") else ""
    return [f"{_cell(n)} ({_cell(text.splitlines()[0] if text else 'none stated')})"
            for n, text in found.items()]  # fmt: skip


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    yield f"| {' | '.join(map(_cell, heads))} |"
    yield f"|{'---|' * len(heads)}"
    yield from (f"| {' | '.join(map(_cell, row))} |" for row in rows)


def _cell(value: object) -> str:
    """Return a text from a run as Markdown shows it: on one line, with nothing that acts."""
    text = printable(" ".join(str(value).split()))
    return re.sub(r"([\\`*_<>|\[\]])", r"\\\1", text)
