"""What is known of types before any message is seen, and what is surely wrong then.

Types are CEL's names; `number` is an int, uint or double, `dyn` may be anything. Each function
returns the type of a result, or None where no value could make the operation work.
"""

from __future__ import annotations

from collections.abc import Mapping

Shape = str | Mapping[str, "Shape"]
"""What is known of a value of the scope: its type, or the fields that it has and no others."""
Roots = frozenset[str] | Mapping[str, Shape]
"""The roots that an expression may read: their names, or what is known of each."""

NUMERIC = frozenset({"int", "uint", "double", "number"})
# Pairs of which `+` and `-` know what to make.
_ADD = {
    ("string", "string"): "string",
    ("bytes", "bytes"): "bytes",
    ("list", "list"): "list",
    ("timestamp", "duration"): "timestamp",
    ("duration", "timestamp"): "timestamp",
    ("duration", "duration"): "duration",
}
_SUBTRACT = {
    ("timestamp", "timestamp"): "duration",
    ("timestamp", "duration"): "timestamp",
    ("duration", "duration"): "duration",
}
_OTHERS: dict[str, dict[tuple[str, str], str]] = {"+": _ADD, "-": _SUBTRACT}
_ORDERED = frozenset({"string", "bytes", "bool", "timestamp", "duration"})


def arithmetic(sign: str, left: str, right: str) -> str | None:
    """Return the type of `left sign right`."""
    if left in NUMERIC and right in NUMERIC:
        return _numeric(sign, left, right)
    known = _OTHERS.get(sign, {})
    if "dyn" not in (left, right):
        return known.get((left, right))
    types = {
        made for (one, two), made in known.items() if left in (one, "dyn") and right in (two, "dyn")
    }
    if left in NUMERIC or right in NUMERIC:
        double = "double" in (left, right)
        if double and sign == "%":
            return None
        types.add("double" if double else "number")
    elif left == right == "dyn":
        return "dyn"
    return types.pop() if len(types) == 1 else "dyn" if types else None


def _numeric(sign: str, left: str, right: str) -> str | None:
    if "double" in (left, right):
        return None if sign == "%" else "double"
    if "number" in (left, right):
        return "number"
    return "uint" if left == right == "uint" else "int"


def known(names: Roots | None, root: str) -> tuple[str, Mapping[str, Shape] | None]:
    """Return the type of a root of the scope, and its fields where they are known."""
    return typed(names[root]) if isinstance(names, Mapping) else ("dyn", None)


def typed(shape: Shape) -> tuple[str, Mapping[str, Shape] | None]:
    """Return a shape's type, and its fields where they are known."""
    return (shape, None) if isinstance(shape, str) else ("map", shape)


def ordered(left: str, right: str) -> bool:
    """Return whether `<` and its like may work."""
    if left in NUMERIC and right in NUMERIC:
        return True
    if "dyn" in (left, right):
        other = right if left == "dyn" else left
        return other == "dyn" or other in NUMERIC or other in _ORDERED
    return left == right and left in _ORDERED


def comparable(left: str, right: str) -> bool:
    """Return whether `==` may ever be true: types are equal, or may be; null asks anything."""
    if "dyn" in (left, right) or "null" in (left, right):
        return True
    return left == right or (left in NUMERIC and right in NUMERIC)


def contained(container: str) -> bool:
    """Return whether `in` may work on it."""
    return container in ("list", "map", "dyn")


def joined(left: str, right: str) -> str:
    """Return the type of a value that is the one or the other."""
    if left == right:
        return left
    return "number" if left in NUMERIC and right in NUMERIC else "dyn"
