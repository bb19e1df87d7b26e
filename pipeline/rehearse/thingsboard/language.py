"""ThingsBoard's texts → ours: patterns with `${…}` and `$[…]`, places, and plain conditions.

A script's condition becomes an expression only where both surely mean the same: comparisons of one
value with a constant, joined by `&&`, `||` and `!`. All else stays a script, which ours run too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

_KNOWN = {
    "deviceName": "device.name",
    "deviceType": "device.type",
    "customerTitle": "device.customer",
}
"""What stands in the metadata of ThingsBoard's messages, and is known of the device here."""
_PATTERN = re.compile(r"\$\{([^{}]+)\}|\$\[([^\[\]]+)\]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TOKEN = re.compile(
    r"""\s*(?:(?P<number>\d+(?:\.\d+)?)
    |(?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
    |(?P<sign>===|!==|==|!=|<=|>=|&&|\|\||[<>!()-])
    |(?P<path>(?:msg|metadata)(?:\.[A-Za-z_]\w*|\['[^'\\]+'\]|\["[^"\\]+"\])+)
    |(?P<word>true|false|typeof|undefined|null|msgType))""",
    re.VERBOSE,
)
_STEP = re.compile(r"\.([A-Za-z_]\w*)|\[(?:'([^']+)'|\"([^\"]+)\")\]")
_TYPES = {
    "POST_TELEMETRY_REQUEST": "uplink",
    "POST_ATTRIBUTES_REQUEST": "uplink",
    "ATTRIBUTES_UPDATED": "attributes_updated",
}
_ORDER = frozenset({"<", ">", "<=", ">="})
_EQUAL = {"===": "==", "==": "==", "!==": "!=", "!=": "!="}


def selected(root: str, keys: Iterator[str] | tuple[str, ...]) -> str:
    """Return an expression that leads to a value: `telemetry.a`, or `telemetry["odd name"]`."""
    made = root
    for key in keys:
        made += f".{key}" if _NAME.fullmatch(key) else f"[{quoted(key)}]"
    return made


def quoted(text: str) -> str:
    """Return a text as a literal of an expression."""
    inner = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{inner}"'


def metadata(key: str) -> str:
    """Return the expression for a key of ThingsBoard's metadata."""
    return _KNOWN.get(key) or selected("metadata", (key,))


def pattern(text: str) -> str:
    """Return a pattern (`${key}` of the metadata, `$[key]` of the message) as text of ours."""

    def replaced(found: re.Match[str]) -> str:
        if found[1] is not None:
            return f"${{{metadata(found[1])}}}"
        return f"${{{selected('telemetry', tuple(found[2].split('.')))}}}"

    return _PATTERN.sub(replaced, text)


def condition(script: str) -> str | None:
    """Return the expression of a script that only returns a plain condition; None: it is more."""
    body = re.sub(r"//[^\n]*|/\*.*?\*/", "", script, flags=re.DOTALL).strip()
    found = re.fullmatch(r"return\s+(.+?);?", body, flags=re.DOTALL)
    if found is None or ";" in found[1]:
        return None
    tokens = list(_tokens(found[1]))
    if not tokens or tokens[-1] is None:
        return None
    reader = _Reader([token for token in tokens if token is not None])
    try:
        made = reader.either()
    except _More:
        return None
    return made if reader.done else None


class _More(Exception):  # noqa: N818 - never leaves this module: the script is more than we read
    """The script is no plain condition."""


def _tokens(text: str) -> Iterator[tuple[str, str] | None]:
    """Yield kinds and texts; None, and no more, where something else stands."""
    at, text = 0, text.rstrip()
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            yield None
            return
        yield str(found.lastgroup), found[str(found.lastgroup)]
        at = found.end()


class _Reader:
    """Reads a condition by descent; `_More` where it is none."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0

    @property
    def done(self) -> bool:
        return self._at == len(self._tokens)

    def either(self) -> str:
        return self._row("||", self._both)

    def _both(self) -> str:
        return self._row("&&", self._one)

    def _row(self, sign: str, inner: Callable[[], str]) -> str:
        parts = [inner()]
        while self._take("sign", sign):
            parts.append(inner())
        return f" {sign} ".join(parts)  # `&&` binds closer than `||` in both

    def _one(self) -> str:
        if self._take("sign", "!"):
            return f"!{self._enclosed()}"
        if self._peek() == ("sign", "("):
            return self._enclosed()
        if self._take("word", "typeof"):
            return self._typeof()
        if self._take("word", "true"):
            return "true"
        if self._take("word", "false"):
            return "false"
        if self._take("word", "msgType"):
            return self._type()
        return self._comparison()

    def _enclosed(self) -> str:
        self._need("sign", "(")
        made = self.either()
        self._need("sign", ")")
        return f"({made})"

    def _typeof(self) -> str:
        place = _place(self._need("path"))
        sign = _EQUAL.get(self._need("sign"))
        if sign is None or self._need("text")[1:-1] != "undefined":
            raise _More
        return f"{'!' if sign == '==' else ''}has({place})"

    def _type(self) -> str:
        sign = _EQUAL.get(self._need("sign"))
        name = _TYPES.get(self._need("text")[1:-1])
        if sign is None or name is None:
            raise _More
        return f"message.type {sign} {quoted(name)}"

    def _comparison(self) -> str:
        path = self._need("path")
        place, sign = _place(path), self._need("sign")
        if sign in _EQUAL and (self._take("word", "null") or self._take("word", "undefined")):
            return f"{'!' if _EQUAL[sign] == '==' else ''}has({place})"
        if sign in _ORDER and path.startswith("msg"):
            minus = "-" if self._take("sign", "-") else ""
            return self._guarded(place, f"{place} {sign} {minus}{self._need('number')}")
        if _EQUAL.get(sign) == "==":
            return self._guarded(place, f"{place} == {self._constant(of=path)}")
        raise _More

    def _guarded(self, place: str, test: str) -> str:
        """What is not there is unequal and unordered in JavaScript; here it would be a mistake."""
        return test if place.startswith("device.") else f"has({place}) && {test}"

    def _constant(self, *, of: str) -> str:
        kind, text = self._peek()
        self._at += 1
        if kind == "text" and "\\" not in text:
            return quoted(text[1:-1])
        # All of ThingsBoard's metadata is text, where 1 == "1".
        if of.startswith("msg") and (kind == "number" or text in ("true", "false")):
            return text
        raise _More

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if not self.done else ("end", "")

    def _take(self, kind: str, text: str) -> bool:
        taken = self._peek() == (kind, text)
        self._at += taken
        return taken

    def _need(self, kind: str, text: str | None = None) -> str:
        found, said = self._peek()
        if found != kind or text not in (None, said):
            raise _More
        self._at += 1
        return said


def _place(path: str) -> str:
    """Return the expression for `msg.a.b` or `metadata.key`; it must be one that `has` takes."""
    root, rest = ("telemetry", path[3:]) if path.startswith("msg") else ("metadata", path[8:])
    keys = tuple(next(filter(None, found)) for found in _STEP.findall(rest))
    if root == "metadata" and len(keys) == 1 and keys[0] in _KNOWN:
        return _KNOWN[keys[0]]
    if not all(_NAME.fullmatch(key) for key in keys):
        raise _More
    return selected(root, keys)
