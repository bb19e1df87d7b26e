"""How rooms find the files that anyone may add: by what each defines, without a list to edit."""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any


def defined(package: str, name: str, plug_ins: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what each module of a package has under a name, with the module's own name; modules
    without it are passed over. Then the same of the entry points of a group, `plug_ins`.
    """
    for module in pkgutil.iter_modules(import_module(package).__path__):
        found = getattr(import_module(f"{package}.{module.name}"), name, None)
        if found is not None:
            yield module.name, found
    if plug_ins:
        for plug_in in entry_points(group=plug_ins):
            yield plug_in.name, plug_in.load()
