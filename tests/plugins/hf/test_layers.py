"""No module of the plugin imports, however indirectly, one that imports it: not for types either.

That each package knows only those below it is a contract in pyproject.toml.
"""

from graphlib import TopologicalSorter

import pytest


def imports_of(package):
    grimp = pytest.importorskip("grimp")
    graph = grimp.build_graph(package, exclude_type_checking_imports=False, cache_dir=None)
    return {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}


def test_no_circles():
    imports = imports_of("alignkit_hf")
    assert len(imports) > 20
    assert "alignkit_hf.policy.causal" in imports["alignkit_hf"]  # late imports count
    assert "alignkit_hf.fast.cache" in imports["alignkit_hf.fast.fused"]  # and those for types
    TopologicalSorter(imports).prepare()
