"""Check what a plugin's module offers before anything is registered."""

from __future__ import annotations

from itertools import chain
from types import ModuleType
from typing import Any

import pluggy

from alignkit import hookspecs
from alignkit.component import Component, Params, slots_of
from alignkit.errors import did_you_mean
from alignkit.kinds import HOOKS, KINDS

GROUP = "alignkit"
"""Of the entry points and the hooks."""
OURS = "alignkit"
"""The distribution whose plugins take precedence in names."""


def components_of(module: Any) -> list[tuple[str, Component[Any]]]:
    """Return ``(kind, component)`` for all a plugin module offers.

    Raises TypeError, with what is wrong, if any of it is not a component.
    """
    manager = pluggy.PluginManager(GROUP)
    manager.add_hookspecs(hookspecs)
    manager.register(module)
    for hook in manager.get_hookcallers(module) or ():
        if not hook.has_spec():
            raise TypeError(f"unknown hook {hook.name!r}.{did_you_mean(hook.name, HOOKS)}")
    found: dict[tuple[str, str], Component[Any]] = {}
    for kind in HOOKS:
        hook = getattr(manager.hook, kind)
        if not hook.get_hookimpls() and isinstance(getattr(module, kind, None), ModuleType):
            raise TypeError(f"its submodule {kind!r} hides a hook; rename the submodule")
        for component in chain.from_iterable(hook()):
            _vet_component(kind, component)
            if (kind, component.name) in found:
                raise TypeError(f"offers {kind} {component.name!r} twice")
            found[kind, component.name] = component
    return [(kind, component) for (kind, _), component in found.items()]


def _vet_component(kind: str, component: Any) -> None:
    if not isinstance(component, Component):
        raise TypeError(f"hook {kind} yielded {component!r}, which is not a Component")
    if not (isinstance(component.name, str) and component.name.isidentifier()):
        raise TypeError(f"{kind} name {component.name!r} is not an identifier")
    if not (isinstance(component.params, type) and issubclass(component.params, Params)):
        raise TypeError(f"{kind} {component.name!r}: {component.params!r} is no subclass of Params")
    if kind == "command" and component.params.model_fields:
        raise TypeError(f"command {component.name!r} has fields; its options are click's")
    slots_of(component.params, KINDS)
