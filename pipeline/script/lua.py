"""Lua 5.4 by lupa, inside the child process: requests in, outcomes out.

Not LuaJIT: its compiled code calls no hook, so that nothing in the process could stop a loop.
No Python object ever enters Lua, not even a string: what goes in are tables of bytes and numbers,
and lupa's own `python` table is out of reach as everything that driver.lua does not name.

A script defines `decode_uplink(input)`, `encode_downlink(input)`, `decode_downlink(input)`,
`normalize_uplink(input)`, `handle_message(input)`.
`input` has the names of JavaScript's in snake case (`f_port`, `recv_time`, `variables`, `data`,
`msg_type`, …); `bytes` (contract thingsboard: `payload`, and `bytes` too) is a string.
Results have the shapes of JavaScript's: `{data = {}, warnings = {}, errors = {}}` and
`{bytes = "…" or {1, 2}, f_port = 1}`. A table whose keys are 1 to n is an array; an empty one is
an object.
"""

from __future__ import annotations

import base64
import re
from collections import OrderedDict
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import islice
from math import isfinite
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

import orjson
from lupa.lua54 import LuaError, LuaMemoryError, LuaRuntime

from pipeline.script.confinement import arm
from pipeline.script.frames import Request

if TYPE_CHECKING:
    from pipeline.script.serve import Emit

_DRIVER = Path(__file__).with_name("driver.lua").read_text(encoding="utf-8")
_HOOK_INSTRUCTIONS = 5_000  # about 50 µs between two looks at the clock
_SYNTAX = re.compile(r"^\(script\):(\d+): (.*)$", re.DOTALL)
_STEPS_MAX = 100  # characters of a path in an error
_NAMES = (
    b"decode_uplink",
    b"encode_downlink",
    b"decode_downlink",
    b"normalize_uplink",
    b"handle_message",
)
_INTEGERS = range(-(2**63), 2**63)
_Outcome = dict[str, Any]


class _Refused(Exception):  # noqa: N818 - an outcome on its way
    """What the script returned cannot be used; the text says why."""

    def __init__(self, message: str, code: str = "script_result") -> None:
        super().__init__(message)
        self.code = code


class _Odd(Exception):  # noqa: N818 - becomes a _Refused
    """A value that is not JSON; `steps` lead to it, the last one first."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.steps: list[str] = []


def _failed(code: str, message: str, line: int = 0) -> _Outcome:
    return {"error": {"code": code, "message": message, "line": line, "column": 0}}


class _World:
    """One script's Lua runtime, with the driver in it and the script compiled."""

    def __init__(self, source: bytes, limits: dict[str, Any]) -> None:
        runtime = LuaRuntime(
            encoding=None,
            source_encoding="utf-8",
            register_eval=False,
            register_builtins=False,
            attribute_filter=_no_attributes,
            unpack_returned_tuples=True,
            max_memory=limits["memory_bytes"],
        )
        driver = runtime.execute(
            _DRIVER,
            limits["call_ms"] / 1000,
            limits["string_rep_max"],
            _HOOK_INSTRUCTIONS,
            limits["console_lines_max"],
            limits["console_chars_max"],
        )
        runtime.globals().python = None
        self.runtime = runtime
        self.table_type = type(driver)
        self.call = driver.call
        self.said = driver.said
        self.functions = driver.functions
        compiled = driver.compile(source)
        self.fault: bytes | None = None
        if isinstance(compiled, tuple):
            self.fault = compiled[1]
        else:
            self.chunk = compiled


def _no_attributes(_object: Any, _name: Any, _is_setting: Any) -> Any:
    raise AttributeError("no Python object is open to a script")


class Lua:
    """The engine of a Lua child."""

    def __init__(self, limits: dict[str, Any]) -> None:
        self._limits = limits
        self._worlds: OrderedDict[bytes, _World] = OrderedDict()
        self._hard_s = (limits["call_ms"] * 3 + limits["slice_ms"]) / 1000
        self._budget = limits["result_bytes_max"] // 2  # a value takes two characters of JSON

    def run(self, request: Request, emit: Emit) -> None:
        """See `serve.Engine`."""
        if request.operation == "check":
            emit(orjson.dumps([self._check(request.source)]))
            return
        outcomes: list[bytes] = []
        size, begun = 0, monotonic()
        for argument in request.arguments():
            outcome = self._outcome(request, argument)
            outcomes.append(outcome)
            size += len(outcome)
            late = (monotonic() - begun) * 1000 >= self._limits["slice_ms"]
            if request.careful or late or size > self._limits["slice_bytes_max"]:
                emit(b"[" + b",".join(outcomes) + b"]")
                outcomes, size, begun = [], 0, monotonic()
        arm(0)
        if outcomes:
            emit(b"[" + b",".join(outcomes) + b"]")

    def _outcome(self, request: Request, argument: dict[str, Any]) -> bytes:
        arm(self._hard_s)
        outcome = self._made(request, argument)
        if not request.console or request.source not in self._worlds:
            return outcome
        said = self._worlds[request.source].said()
        lines = [said[index].decode(errors="replace") for index in range(1, len(said) + 1)]
        if not lines:
            return outcome
        return outcome[:-1] + b',"console":' + orjson.dumps(lines) + b"}"

    def _made(self, request: Request, argument: dict[str, Any]) -> bytes:
        try:
            text = orjson.dumps(self._run(request, argument))
        except _Refused as refused:
            return orjson.dumps(_failed(refused.code, str(refused)))
        except (LuaMemoryError, MemoryError):
            self._worlds.pop(request.source, None)
            return orjson.dumps(_failed("script_memory", "the script ran out of memory"))
        except (LuaError, orjson.JSONEncodeError) as error:
            return orjson.dumps(_failed("script_result", str(error)[: self._limits["message_max"]]))
        if len(text) > self._limits["result_bytes_max"]:
            limit = self._limits["result_bytes_max"]
            message = f"the result has {len(text)} bytes as JSON; at most {limit} are allowed"
            return orjson.dumps(_failed("script_result", message))
        return text

    def _run(self, request: Request, argument: dict[str, Any]) -> _Outcome:
        world = self._take(request.source)
        if world.fault is not None:
            return self._syntax(world.fault)
        operation = request.operation
        given = world.runtime.table_from(_given(request, argument), recursive=True)
        normalizes = (
            operation == "decode_uplink"
            and request.contract != "thingsboard"
            and b"normalize_uplink" in request.source
        )
        kind, *rest = world.call(world.chunk, operation.encode(), given, normalizes)
        if kind != b"value":
            return self._failure(request.source, operation, kind, rest)
        values = _Values(world.table_type, self._budget, self._limits["depth_max"])
        result = rest[0] if rest else None
        if operation == "handle_message":
            return {"value": values.plain(result, "the result")}
        if type(result) is not world.table_type:
            raise _Refused(f"{operation} returned {_kind(result)} where a table is needed")
        value = self._value(request, values, result)
        if normalizes and len(rest) > 1:
            _add_normalized(values, value, rest[1], rest[2] if len(rest) > 2 else None)
        return {"value": value}

    def _value(self, request: Request, values: _Values, result: Any) -> Any:
        if request.contract == "thingsboard":
            plain = values.plain(result, "the result")
            if isinstance(plain, dict) and plain.get("errors"):
                raise _Refused(", ".join(values.listed(plain["errors"])), "script_errors")
            return plain
        try:
            fields = values.fields(result)
        except _Odd as odd:
            raise _Refused(f"the result {odd}") from None
        errors = values.words(fields.get(b"errors"), "errors")
        if errors:
            raise _Refused(", ".join(errors), "script_errors")
        warnings = values.words(fields.get(b"warnings"), "warnings")
        if request.operation == "normalize_uplink":
            return _measurements(values, fields.get(b"data"), warnings)
        if request.operation == "encode_downlink":
            return self._encoded(values, fields, warnings)
        data = fields.get(b"data")
        if data is None:
            if fields and not fields.keys() & {b"warnings", b"errors"}:
                raise _Refused(f"{request.operation} returned no `data`: return {{data = {{…}}}}")
            return {"data": {}, "warnings": warnings}
        plain = values.plain(data, "data")
        if not isinstance(plain, dict):
            raise _Refused("data is not a table with names, as an object needs")
        return {"data": plain, "warnings": warnings}

    def _failure(self, source: bytes, operation: str, kind: bytes, rest: list[Any]) -> _Outcome:
        message, line = rest
        if kind == b"script_time":
            return _failed("script_time", f"stopped after {self._limits['call_ms']} ms", line)
        if kind == b"script_missing":
            return _failed("script_missing", f"the script defines no function {operation}")
        if kind == b"script_memory":
            raise LuaMemoryError(message)
        text = message[: self._limits["message_max"]].decode(errors="replace")
        if "stack overflow" in text:
            self._worlds.pop(source, None)
        found = _SYNTAX.match(text)
        if found is None:
            return _failed("script_threw", text, line)
        return _failed("script_threw", found[2], int(found[1]))

    def _encoded(
        self, values: _Values, fields: dict[bytes, Any], warnings: list[str]
    ) -> dict[str, Any]:
        given = fields.get(b"bytes")
        if isinstance(given, bytes):
            encoded = list(given)
        else:
            if type(given) is not values.table_type:
                raise _Refused(f"bytes is {_kind(given)} where a string or bytes are needed")
            plain = values.plain(given, "bytes")
            encoded = [] if plain == {} else plain
            if not isinstance(encoded, list):
                raise _Refused("bytes is a table with names where a list of bytes is needed")
        limit = self._limits["encoded_bytes_max"]
        if len(encoded) > limit:
            raise _Refused(f"bytes has {len(encoded)} bytes; at most {limit} are allowed")
        for index, byte in enumerate(encoded):
            if type(byte) is float and byte.is_integer():
                byte = encoded[index] = int(byte)  # noqa: PLW2901 - 7 // 1.0 is a float in Lua
            if type(byte) is not int or not 0 <= byte <= 255:
                shown = f"{byte!r}" if isinstance(byte, int | float) else _kind(byte)
                raise _Refused(f"bytes[{index + 1}] is {shown}, not a whole number from 0 to 255")
        f_port = fields.get(b"f_port")
        if isinstance(f_port, float) and f_port.is_integer():
            f_port = int(f_port)
        if f_port is not None and (type(f_port) is not int or not 0 <= f_port <= 255):
            shown = f"{f_port!r}" if isinstance(f_port, int | float) else _kind(f_port)
            raise _Refused(f"f_port is {shown}, not a whole number from 0 to 255")
        return {"bytes": encoded, "fPort": f_port, "warnings": warnings}

    def _take(self, source: bytes) -> _World:
        world = self._worlds.get(source)
        if world is None:
            world = self._worlds[source] = _World(source, self._limits)
            if len(self._worlds) > self._limits["contexts_max"]:
                self._worlds.popitem(last=False)
        else:
            self._worlds.move_to_end(source)
        return world

    @staticmethod
    def _syntax(fault: bytes) -> _Outcome:
        text = fault.decode(errors="replace")
        found = _SYNTAX.match(text)
        if found is None:
            return _failed("script_syntax", text, 1)
        return _failed("script_syntax", found[2], int(found[1]))

    def _check(self, source: bytes) -> _Outcome:
        """Compile the script, run its top, and return the names of its functions."""
        arm(self._hard_s)
        try:
            world = self._take(source)
            if world.fault is not None:
                return self._syntax(world.fault)
            names = world.runtime.table_from(_NAMES)
            kind, message, line = world.functions(world.chunk, names)
            if kind != b"value":
                return self._failure(source, "", kind, [message, line])
            return {"value": message.decode().split()}
        except (LuaMemoryError, MemoryError):
            return _failed("script_memory", "the script ran out of memory")
        finally:
            self._worlds.pop(source, None)
            arm(0)


def _add_normalized(values: _Values, value: dict[str, Any], result: Any, fault: Any) -> None:
    """Put what the normalizer made beside the decoded data; its failure is a warning."""
    try:
        if fault is not None:
            raise _Refused(fault.decode(errors="replace"))
        if type(result) is not values.table_type:
            raise _Refused(f"it returned {_kind(result)} where a table is needed")
        fields = values.fields(result)
        errors = values.words(fields.get(b"errors"), "errors")
        if errors:
            raise _Refused(", ".join(errors))
        warnings = values.words(fields.get(b"warnings"), "warnings")
        value["normalized"] = _measurements(values, fields.get(b"data"), warnings)
    except (_Refused, _Odd) as refused:
        value["warnings"].append(f"normalize_uplink: {refused}")


def _measurements(values: _Values, data: Any, warnings: list[str]) -> dict[str, Any]:
    """Return measurements as a list, be it one or several of them."""
    plain = [] if data is None else values.plain(data, "data")
    if isinstance(plain, dict):
        plain = [plain] if plain else []
    if not isinstance(plain, list):
        raise _Refused("data is no table, as measurements need")
    return {"data": plain, "warnings": warnings}


def _given(request: Request, argument: dict[str, Any]) -> dict[bytes, Any]:
    """Return the `input` of a script as lupa takes it."""
    given: dict[bytes, Any] = {}
    for name, value in argument.items():
        if name == "recvTime" and isinstance(value, int):
            given[b"recv_time"] = _rfc3339(value)
        elif name in {"bytes", "payload"}:
            given[_snake(name)] = base64.b64decode(value or "")
        elif value is not None:
            given[_snake(name)] = _to_lua(value)
    if request.contract == "thingsboard" and b"payload" in given:
        given[b"bytes"] = given[b"payload"]
    return given


_SNAKE = {
    "fPort": b"f_port",
    "recvTime": b"recv_time",
    "msgType": b"msg_type",
    "integrationMetadata": b"integration_metadata",
}


@lru_cache(256)
def _rfc3339(time_ms: int) -> bytes:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    return (moment.isoformat(timespec="milliseconds")[:23] + "Z").encode()


def _snake(name: str) -> bytes:
    return _SNAKE.get(name) or name.encode()


def _to_lua(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode(errors="surrogatepass")
    if isinstance(value, dict):
        return {name.encode(): _to_lua(item) for name, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_to_lua(item) for item in value]
    if type(value) is int and value not in _INTEGERS:
        return float(value)
    return value


def _kind(value: Any) -> str:
    if value is None:
        return "nil"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, bytes | str):
        return "a string"
    return "a table or a function"


class _Values:
    """Makes JSON of Lua's values; counts them, so that no table outgrows the result's limit."""

    def __init__(self, table_type: type, budget: int, depth_max: int) -> None:
        self.table_type = table_type
        self._budget = budget
        self._depth_max = depth_max

    def fields(self, table: Any) -> dict[Any, Any]:
        """Return a table's own entries; no metamethod is called."""
        entries = dict(islice(table.items(), self._budget + 1))
        self._budget -= len(entries)
        if self._budget < 0:
            raise _Refused("the result has too many values")
        if (1 in entries or 0 in entries) and bool in map(type, table):
            raise _Odd("has a key that is neither text nor a whole number")  # True is 1 to Python
        return entries

    def words(self, value: Any, path: str) -> list[str]:
        """Return a list of texts: of a list, of one text, of nothing."""
        if value is None:
            return []
        return self.listed(self.plain(value, path))

    @staticmethod
    def listed(plain: Any) -> list[str]:
        """Likewise of a value as JSON has it."""
        listed = [] if plain == {} else plain if isinstance(plain, list) else [plain]
        return [
            item if isinstance(item, str) else orjson.dumps(item).decode()
            for item in listed
            if item != ""
        ]

    def plain(self, value: Any, path: str) -> Any:
        """Return a value as JSON has it; _Refused says where it cannot be."""
        try:
            return self._plain(value, self._depth_max)
        except _Odd as odd:
            steps = "".join(reversed(odd.steps))
            if len(steps) > _STEPS_MAX:
                steps = f"{steps[:_STEPS_MAX]}…"
            raise _Refused(f"{path}{steps} {odd}") from None

    def _plain(self, value: Any, levels: int) -> Any:
        kind = type(value)
        if kind is bytes:
            try:
                return value.decode()
            except UnicodeDecodeError:
                raise _Odd("is not UTF-8 text; say bytes as hex") from None
        if kind is float:
            if not isfinite(value):
                raise _Odd(f"is {value}, which JSON has no word for")
            return value
        if kind is int or kind is bool or value is None:
            return value
        if kind is not self.table_type:
            raise _Odd("is a function, which JSON has no word for")
        if levels == 0:
            raise _Odd(f"is nested deeper than {self._depth_max} levels, or refers to itself")
        entries = self.fields(value)
        if 1 in entries and all(map(entries.__contains__, range(2, len(entries) + 1))):
            return self._list(entries, levels - 1)
        return self._object(entries, levels - 1)

    def _list(self, entries: dict[Any, Any], levels: int) -> list[Any]:
        items: list[Any] = []
        for index in range(1, len(entries) + 1):
            try:
                items.append(self._plain(entries[index], levels))
            except _Odd as odd:
                odd.steps.append(f"[{index}]")
                raise
        return items

    def _object(self, entries: dict[Any, Any], levels: int) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for key, item in entries.items():
            if type(key) is bytes:
                try:
                    name = key.decode()
                except UnicodeDecodeError:
                    raise _Odd("has a name that is not UTF-8 text") from None
            elif type(key) is int:
                name = str(key)
            else:
                raise _Odd("has a key that is neither text nor a whole number")
            try:
                named[name] = self._plain(item, levels)
            except _Odd as odd:
                odd.steps.append(f".{name}")
                raise
        # In order of name: Lua's own order differs from run to run.
        return {name: named[name] for name in sorted(named)}
