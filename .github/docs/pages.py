"""Writes the generated pages before the site is built: from the registry, and from the guides."""

import inspect
import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from alignkit import plugins, protocols
from alignkit.component import Params, slots_of
from alignkit.docs import field_docs
from alignkit.kinds import HOOKS, KINDS
from alignkit_explain.describe import _default, _type

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
MADE = HERE / "made"
GUIDES = {
    "README.md": "readme", "plugins/README.md": "plugins", "recipes/README.md": "recipes",
    "recipes/scale/README.md": "scales", "data/README.md": "data", "tests/README.md": "tests",
    "plugins/alignkit_data/README.md": "data_files", "plugins/alignkit_hf/README.md": "hf",
    "plugins/alignkit_environments/README.md": "environments",
    "plugins/alignkit_grading/README.md": "grading",
    ".github/CONTRIBUTING.md": "contributing", ".github/CHANGELOG.md": "changelog",
    ".github/SECURITY.md": "security",
}  # fmt: skip
"""Guides of the repository, and the names of their pages."""


def write(_: Sphinx | None = None) -> None:
    """Write all generated pages."""
    (MADE / "guides").mkdir(parents=True, exist_ok=True)
    (MADE / "components").mkdir(exist_ok=True)
    for file, name in GUIDES.items():
        text = (ROOT / file).read_text(encoding="utf-8")
        (MADE / "guides" / f"{name}.md").write_text(_linked(text, (ROOT / file).parent))
    registry = plugins.load()
    for kind in HOOKS:
        (MADE / "components" / f"{kind}.rst").write_text(_kind(kind, registry))


def _linked(text: str, folder: Path) -> str:
    """Point links at pages of the site; a link to a file without a page becomes the file's name."""

    def link(found: re.Match[str]) -> str:
        image, label, target, anchor = found.groups()
        path = (folder / target).resolve()
        if not path.is_relative_to(ROOT):
            return found[0]
        name = str(path.relative_to(ROOT))
        if image and path.is_file():
            return _image(path, label)
        if name in GUIDES:
            return f"[{label}]({GUIDES[name]}.md{anchor or ''})"
        return label if label.startswith("`") else f"{label} (`{name}`)"

    return re.sub(r"(!?)\[([^\]]*)\]\((?!https?:|#|mailto:)([^)#\s]+)(#[^)]*)?\)", link, text)


def _image(path: Path, label: str) -> str:
    copy = MADE / "guides" / path.name
    copy.write_bytes(path.read_bytes())
    return f"![{label}]({path.name})"


def _kind(kind: str, registry: plugins.Registry) -> str:
    """Return the page of a kind: its protocol, then every component that is installed."""
    protocol = next((p for p, name in KINDS.items() if name == kind), None)
    lines = [_heading(f"{kind}", "=")]
    if protocol is not None:
        lines += [
            f".. autoclass:: {protocols.__name__}.{protocol.__name__}",
            "   :members:",
            "   :special-members: __call__",
            "   :exclude-members: __init__, __new__",
            "",
        ]
    else:
        lines += [inspect.cleandoc("Commands of the command line; no recipe chooses one."), ""]
    for name in registry.names(kind):
        for plugin, component in registry.offers[kind, name]:
            lines += _component(name, plugin.dist, component.params)
    return "\n".join(lines)


def _component(name: str, dist: str, params: type[Params[Any]]) -> list[str]:
    lines = [_heading(name, "-"), inspect.getdoc(params) or "", ""]
    if dist != "alignkit":
        lines += [f"Of the package {dist}.", ""]
    docs = field_docs(params)
    if params.model_fields:
        lines += [".. list-table::", "   :header-rows: 1", "   :widths: 18 22 60", ""]
        lines += _row("key", "type and default", "meaning")
        for key, info in params.model_fields.items():
            default = "required" if info.is_required() else f"= {_default(info)}"
            lines += _row(f"``{key}``", f"``{_type(info.annotation)} {default}``", docs[key])
    tables = [
        f"``[{slot.name}]``" + (f" (:doc:`{slot.kind}`)" if slot.kind else "")
        for slot in slots_of(params, KINDS).values()
    ]
    if tables:
        lines += ["", f"Tables: {', '.join(tables)}."]
    return [*lines, ""]


def _row(*cells: str) -> list[str]:
    first, *rest = [_cell(c) for c in cells]
    return [f"   * - {first}", *(f"     - {cell}" for cell in rest)]


def _cell(text: str) -> str:
    return " ".join(text.split()) or "–"


def _heading(text: str, line: str) -> str:
    return f"{text}\n{line * len(text)}\n"


def setup(app: Sphinx) -> dict[str, bool]:
    """Write the pages before Sphinx reads any."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}
