"""How rooms find the files that anyone may add: by what each defines, without a list to edit."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

T = TypeVar("T")


class Parts(Mapping[str, T]):
    """What each module of a package has under a name, by the module's own name; modules without it
    are passed over. Then the same of the entry points of a group, `plug_ins`, by theirs.

    A module is imported when its part is asked for: a folder of rules uses few of all that there
    are. Whoever goes through all of them, in order of name, has all imported. `of` makes what is
    wanted of what was found.
    """

    def __init__(
        self, package: str, name: str, plug_ins: str = "", *, of: Callable[[Any], T] | None = None
    ) -> None:
        self._package = package
        self._name = name
        self._group = plug_ins
        self._of = of
        self._found: dict[str, T] = {}

    def __getitem__(self, part: str) -> T:
        if part not in self._found:
            found = self._find(part)
            if found is None:
                raise KeyError(part)
            self._found[part] = found if self._of is None else self._of(found)
        return self._found[part]

    def __iter__(self) -> Iterator[str]:
        names = sorted({*self._modules, *self._plug_ins})
        return (name for name in names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def _find(self, part: str) -> Any:
        found = None
        if part in self._modules:
            found = getattr(import_module(f"{self._package}.{part}"), self._name, None)
        if found is None and part in self._plug_ins:
            found = self._plug_ins[part].load()
        return found

    @cached_property
    def _modules(self) -> frozenset[str]:
        path = import_module(self._package).__path__
        return frozenset(module.name for module in pkgutil.iter_modules(path))

    @cached_property
    def _plug_ins(self) -> dict[str, EntryPoint]:
        found = entry_points(group=self._group) if self._group else ()
        return {plug_in.name: plug_in for plug_in in found}
