"""What the generated code calls where Python's own operators say something else than CEL.

Values in, a value out, or `Failure`. Numbers behave as in JSON: int, uint and double mix; what a
double takes part in is a double. bool is no number. Where work can grow with a value, the
evaluation's budget is handed in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, NoReturn

from pipeline.expression.kinds import (
    CONTAINERS,
    INT_MAX,
    INT_MIN,
    NUMBERS,
    UINT_MAX,
    WHOLE,
    Budget,
    Failure,
    Kind,
    OverLimit,
    UInt,
    kind_name,
    spend_size,
    spend_steps,
)
from pipeline.expression.times import checked_duration, checked_timestamp

_ORDERED = frozenset({int, float, UInt, str, bytes, bool, datetime, timedelta})
_LEAVES = frozenset({int, float, bool, type(None), datetime, timedelta})
_MISSING = object()
# Of a map that lacks a key, an error looks at so many keys and names so many: a message of 100,000
# keys must not make its error dear.
KEYS_LOOKED_AT_MAX = 100
KEYS_SHOWN_MAX = 10


def no_overload(sign: str, left: Any, right: Any) -> NoReturn:
    """Raise the failure of an operator that does not take these two types."""
    raise Failure(f"cannot compute {kind_name(left)} {sign} {kind_name(right)}")


# Arithmetic


def _whole(value: int, left: Any, right: Any) -> int:
    """Return the result of two whole numbers in their type, or fail for want of bits."""
    if type(left) is UInt and type(right) is UInt:
        if 0 <= value <= UINT_MAX:
            return UInt(value)
        raise Failure("the result does not fit into 64 bits (uint)")
    if INT_MIN <= value <= INT_MAX:
        return value
    raise Failure("the result does not fit into 64 bits (int)")


def add(left: Any, right: Any, budget: Budget) -> Any:
    """`left + right`: numbers, texts, bytes, lists, times."""
    kind, other = type(left), type(right)
    if kind in NUMBERS and other in NUMBERS:
        value = left + right
        return value if type(value) is float else _whole(value, left, right)
    if kind is other and (kind is str or kind is bytes or kind is list):
        spend_size(budget, len(left) + len(right))
        return left + right
    if kind is timedelta:
        if other is timedelta:
            return checked_duration(left + right)
        if other is datetime:
            return checked_timestamp(right, left)
    if kind is datetime and other is timedelta:
        return checked_timestamp(left, right)
    if kind in (list, tuple) and other in (list, tuple):
        spend_size(budget, len(left) + len(right))
        return [*left, *right]
    return no_overload("+", left, right)


def subtract(left: Any, right: Any) -> Any:
    """`left - right`: numbers and times."""
    kind, other = type(left), type(right)
    if kind in NUMBERS and other in NUMBERS:
        value = left - right
        return value if type(value) is float else _whole(value, left, right)
    if other is timedelta:
        if kind is timedelta:
            return checked_duration(left - right)
        if kind is datetime:
            return checked_timestamp(left, -right)
    if kind is datetime and other is datetime:
        return checked_duration(left - right)
    return no_overload("-", left, right)


def multiply(left: Any, right: Any) -> Any:
    """`left * right`: numbers."""
    if type(left) in NUMBERS and type(right) in NUMBERS:
        value = left * right
        return value if type(value) is float else _whole(value, left, right)
    return no_overload("*", left, right)


def divide(left: Any, right: Any) -> Any:
    """`left / right`: two whole numbers give a whole one, cut towards zero."""
    kind, other = type(left), type(right)
    if kind in WHOLE and other in WHOLE:
        if right == 0:
            raise Failure("division by zero")
        value = abs(left) // abs(right)
        return _whole(value if (left < 0) == (right < 0) else -value, left, right)
    if kind in NUMBERS and other in NUMBERS:
        if right:
            return left / right
        # IEEE 754: Python alone raises here. The sign of zero counts.
        return float(left) * float("inf") * (1.0 if str(float(right)) == "0.0" else -1.0)
    return no_overload("/", left, right)


def modulo(left: Any, right: Any) -> Any:
    """`left % right`: whole numbers; the sign is the left one's."""
    if type(left) in WHOLE and type(right) in WHOLE:
        if right == 0:
            raise Failure("modulus by zero")
        if left == INT_MIN and right == -1:
            raise Failure("the result does not fit into 64 bits (int)")
        value = abs(left) % abs(right)
        return _whole(-value if left < 0 else value, left, right)
    if type(left) in NUMBERS and type(right) in NUMBERS:
        raise Failure("% is for whole numbers; write int(…) % int(…)")
    return no_overload("%", left, right)


def negate(value: Any) -> Any:
    """`-value`: int and double."""
    if type(value) is float:
        return -value
    if type(value) is int:
        return _whole(-value, value, value)
    raise Failure(f"cannot compute -{kind_name(value)}")


# Logic


def not_bool(value: Any) -> NoReturn:
    """Raise the failure of a value that had to be a bool."""
    raise Failure(f"{kind_name(value)} is not a bool")


# Order and equality


def _ordered(sign: str, left: Any, right: Any) -> None:
    kind, other = type(left), type(right)
    if not (kind is other and kind in _ORDERED) and not (kind in NUMBERS and other in NUMBERS):
        no_overload(sign, left, right)


def less(left: Any, right: Any) -> bool:
    """`left < right`."""
    _ordered("<", left, right)
    return bool(left < right)


def less_equal(left: Any, right: Any) -> bool:
    """`left <= right`."""
    _ordered("<=", left, right)
    return bool(left <= right)


def greater(left: Any, right: Any) -> bool:
    """`left > right`."""
    _ordered(">", left, right)
    return bool(left > right)


def greater_equal(left: Any, right: Any) -> bool:
    """`left >= right`."""
    _ordered(">=", left, right)
    return bool(left >= right)


def equal(left: Any, right: Any, budget: Budget) -> bool:
    """`left == right`: values of different types differ, numbers among each other apart."""
    kind, other = type(left), type(right)
    if kind in CONTAINERS and other in CONTAINERS:
        return _deep_equal(left, right, budget)
    if kind is other or (kind in NUMBERS and other in NUMBERS):
        return bool(left == right)
    if isinstance(left, Mapping) and isinstance(right, Mapping):
        return _deep_equal(left, right, budget)
    return False


def _deep_equal(left: Any, right: Any, budget: Budget) -> bool:
    """Compare lists and maps. Not recursive: a message may nest deeper than Python's stack."""
    pairs = [(left, right)]
    while pairs:
        one, two = pairs.pop()
        spend_steps(budget, 1)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            if len(one) != len(two):
                return False
            for key, value in one.items():
                found = _lookup(two, key)
                if found is _MISSING:
                    return False
                pairs.append((value, found))
        elif isinstance(one, list | tuple) and isinstance(two, list | tuple):
            if len(one) != len(two):
                return False
            pairs.extend(zip(one, two, strict=True))
        elif isinstance(one, list | tuple | Mapping) or not equal(one, two, budget):
            return False
    return True


def is_in(value: Any, container: Any, budget: Budget) -> bool:
    """`value in container`: elements of a list, keys of a map."""
    kind = type(container)
    if kind is list or kind is tuple:
        spend_steps(budget, len(container) >> 3)
        if type(value) is str or value is None:
            return value in container
        return any(equal(value, element, budget) for element in container)
    if isinstance(container, Mapping):
        if type(value) in CONTAINERS or value is None:
            no_overload("in", value, container)
        return _lookup(container, value) is not _MISSING
    return no_overload("in", value, container)


# Access


def _lookup(container: Mapping[Any, Any], key: Any) -> Any:
    """Return the entry of a key or `_MISSING`. To Python, true and 1 are one key; to CEL not."""
    if key not in container:
        return _MISSING
    if type(key) is not str and key in (0, 1):
        is_bool = type(key) is bool
        if not any(own == key and (type(own) is bool) is is_bool for own in container):
            return _MISSING
    return container[key]


def index(container: Any, key: Any) -> Any:
    """`container[key]`: an element of a list, an entry of a map."""
    kind = type(key)
    if isinstance(container, Mapping):
        if kind is not str and kind is not bool and kind not in NUMBERS:
            raise Failure(f"{kind_name(key)} cannot be a key of a map")
        value = _lookup(container, key)
        if value is _MISSING:
            raise Failure(f"no such key: {key_text(key)}{known_keys(container)}")
        return value
    if not isinstance(container, list | tuple):
        raise Failure(f"{kind_name(container)} is neither a list nor a map")
    if kind is float and key.is_integer():
        key = int(key)
    elif kind not in WHOLE:
        raise Failure(f"{kind_name(key)} cannot be the index of a list")
    if 0 <= key < len(container):
        return container[key]
    raise Failure(f"index {key} is outside of the list; it has {len(container)} elements")


def has(container: Any, field: str) -> bool:
    """`has(container.field)`."""
    if isinstance(container, Mapping):
        return field in container
    raise Failure(f"{kind_name(container)} is not a map; it has no fields")


def key_text(key: Any) -> str:
    """Return a key as a user would write it, not longer than a line."""
    text = str(key).lower() if type(key) is bool else str(key)
    return text if len(text) <= 80 else f"{text[:80]}…"


def known_keys(container: Mapping[Any, Any]) -> str:
    """Return "; known: a, b" for a message to the user."""
    names = sorted(key_text(key) for key in islice(container, KEYS_LOOKED_AT_MAX))
    if not names:
        return "; the map is empty"
    more = ", …" if len(container) > KEYS_SHOWN_MAX else ""
    return f"; known: {', '.join(names[:KEYS_SHOWN_MAX])}{more}"


def iterate(container: Any) -> Iterable[Any]:
    """Return what a macro goes over: the elements of a list, the keys of a map."""
    if isinstance(container, list | tuple | Mapping):
        return container
    raise Failure(f"{kind_name(container)} is neither a list nor a map")


def make_map(keys: tuple[Any, ...], values: tuple[Any, ...]) -> dict[Any, Any]:
    """Return the map of a literal whose keys are computed."""
    made: dict[Any, Any] = {}
    for key, value in zip(keys, values, strict=True):
        if type(key) not in (str, int, bool, UInt):
            raise Failure(f"{kind_name(key)} cannot be a key of a map")
        if key in made:
            raise Failure(f"the key {key_text(key)} stands twice in the map")
        made[key] = value
    return made


def over_steps() -> NoReturn:
    """Raise what ends an evaluation of too many steps."""
    raise OverLimit("the expression takes too many steps", "steps_max")


# The way out


def finish(value: Any, budget: Budget, depth: int = 0) -> Any:
    """Return a result as the caller may have it: plain ints, names of types; measure it.

    A few lists that refer to each other may stand for very many once they are written as JSON;
    so the result is counted through all levels.
    """
    kind = type(value)
    if kind in _LEAVES:
        return value
    if kind is str or kind is bytes:
        spend_size(budget, len(value))
        return value
    if kind is UInt:
        return int(value)
    if kind is Kind:
        return value.name
    if kind is not list and kind is not tuple and not isinstance(value, Mapping):
        return value
    if depth > 200:
        raise OverLimit("the result is nested too deep", "nesting_max")
    spend_size(budget, len(value))
    if isinstance(value, Mapping):
        return {
            int(key) if type(key) is UInt else key: finish(entry, budget, depth + 1)
            for key, entry in value.items()
        }
    return [finish(element, budget, depth + 1) for element in value]
