"""The documentation site: its pages here, the guides of the repository, and the registry.

Sphinx, because docstrings are reStructuredText already, because it checks every cross-reference
(``-n -W``), and because its search works without a server. furo has light and dark, desk and phone.
"""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

project = "alignkit"
author = project_copyright = "the authors of alignkit"
version = release = version_of("alignkit")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "mathml", "pages"]
myst_enable_extensions = ["dollarmath", "colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["myst.header"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"alignkit {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_math_renderer = "mathml"
autodoc_class_signature = "separated"
autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "undoc-members": True}
copybutton_exclude = ".linenos, .gp, .go"
nitpicky = False
