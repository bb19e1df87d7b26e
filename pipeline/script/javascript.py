"""JavaScript by quickjs-ng, inside the child process: requests in, outcomes out.

Why quickjs-ng 0.17 and not V8 (mini-racer 0.14), by `python -m tests.bench.script_engines` on
2 cores, a LoRaWAN decoder, one context of 64 MiB:

|                                        | quickjs-ng       | mini-racer                   |
|----------------------------------------|------------------|------------------------------|
| import, context, first result          | 0.6 ms           | 98 ms                        |
| another context                        | 0.2 ms           | 8 ms                         |
| memory and threads it adds             | 1 MiB, none      | 52 MiB, 2 threads            |
| calls a second, in batches of 500      | 241,000          | 1,540,000                    |
| calls a second, one by one             | 181,000          | 14,000                       |
| a loop that may take 50 ms             | stopped at 54    | stopped at 51                |
| a regular expression without end       | stopped at 55    | stopped at 51                |
| a native text search of 3 s            | not stopped      | has a faster search          |
| objects without end                    | stopped at 63 MiB| stopped at 130 MiB           |
| buffers of 1 GiB                       | stopped at 48 MiB| not stopped: 1 GiB taken     |
| goes on without threads, in 512 MiB    | yes              | hangs                        |

A process a tenant, with walls around it, needs the engine that starts at once, is small, holds its
memory limit and lives behind those walls; what quickjs-ng does not stop, the kernel's clock does.
Other bindings of QuickJS, on the same batches in µs a call: quickjs-ng 4.3, jsbox 0.1 4.4,
quickjs-bindings 0.1 4.5, cyjs 0.4 4.7, python-quickjs-ng 0.15 5.1, quickjs 1.19 5.2.

One context (a JavaScript world of its own) a script. Every call starts from fresh variables: the
source is a function that is run anew for each call, unless it holds none (`stateless`). A script
that alters what is built in (adds to `String.prototype`, replaces `Math.round`) or sets variables
that it never declared is found out (`watch.js`): its outcomes are thrown away, its calls run again,
and from then on all is put back after each call. So a call never sees what another left, as in The
Things Stack.

To write a result as JSON costs more than to decode eight bytes; results that are alike therefore
leave as tables (`table.js`), in half the time.

What only other places offer is there for a script that names it, and for no other, so that the
guards by `typeof` find what they expect: `Buffer` and `require("buffer")` (ChirpStack), `module`
and `exports` where a script sets them without asking. What a script says on the `console` goes
out with the outcome where somebody listens, else nowhere.
"""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from pathlib import Path
from typing import TYPE_CHECKING, Any

# The package `quickjs` wraps this module, and starts a thread that a confined child cannot have.
from _quickjs import (  # type: ignore[import-not-found]  # compiled, without stubs
    Context,
    JSException,
    StackOverflow,
)

from pipeline.script.confinement import arm
from pipeline.script.frames import Request
from pipeline.script.stateless import is_stateless

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.script.serve import Emit

_DRIVER = Path(__file__).with_name("driver.js").read_text(encoding="utf-8")
_TABLES = Path(__file__).with_name("table.js").read_text(encoding="utf-8")
_WATCH = Path(__file__).with_name("watch.js").read_text(encoding="utf-8")
# Read now, evaluated where a script names it: the confined process cannot open files.
_BUFFER = Path(__file__).with_name("buffer.js").read_text(encoding="utf-8")

# Which of its functions a script defines, by the operation that asks: see `operations` in
# driver.js.
_NAMES = (
    ("decodeUplink", "Decoder", "Converter", "Validator", "Decode", "normalizeUplink"),
    ("encodeDownlink", "Encoder", "Encode"),
    ("decodeDownlink",),
    ("normalizeUplink",),
    ("handleMessage", "Encoder"),  # the second is a body
)
# `ArrayBuffer` is another word.
_NAMES_BUFFER = re.compile(r"\bBuffer\b|\brequire\(\s*['\"](?:node:)?buffer['\"]\s*\)")
# What may make an object whose fields are computed when they are read.
_COMPUTES_FIELDS = re.compile(
    r"\bget\s+(?:[\w$]+|'[^'\n]*'|\"[^\"\n]*\"|\[[^\]\n]*\])\s*\("
    r"|\b(?:defineProperty|defineProperties|__defineGetter__|Proxy|create)\b"
)
_WORD = re.compile(r"[A-Za-z_$][\w$]*", re.ASCII)
_SETS_EXPORTS = re.compile(r"\bmodule\s*\.\s*exports\b|\bexports\s*\.\s*\w")
_ASKS_FOR_EXPORTS = re.compile(r"\btypeof[\s(]+(?:module|exports)\b")


def _tail(found: Callable[[str], str], which: str = "arguments[0]") -> str:
    """Return what gives the functions of one operation."""
    cases = (
        f"case {index}:return[{','.join(map(found, names))}];" for index, names in enumerate(_NAMES)
    )
    # Most scripts have `decodeUplink`, which then needs no list around it.
    direct = f"case {len(_NAMES)}:return typeof decodeUplink=='function'?decodeUplink:"
    others = ",".join(map(found, _NAMES[0]))
    return f"\n;switch({which}){{" + "".join(cases) + f"{direct}[{others}];}}}})"


def _declared(name: str) -> str:
    return f"typeof {name}=='function'?{name}:void 0"


def _declared_or_exported(name: str) -> str:
    exported = f"((typeof module=='object'&&module||0).exports||0).{name}"
    return (
        f"typeof {name}=='function'?{name}:typeof {exported}=='function'?module.exports.{name}"
        ":void 0"
    )


# What stands around a script.
# Which operation it is has a name that no script has; `arguments` would be made for each call.
_WHICH = "$funicular$"
_PLAIN = (f"(function({_WHICH}){{", _tail(_declared, _WHICH))
# With a `module` of its own, in a scope around the script's, which may have that name too.
_MODULE = (
    "(function(){var module={exports:{}},exports=module.exports;return(function(){",
    _tail(_declared_or_exported).removesuffix(")") + ").apply(this,arguments)})",
)
# A frame of the script's. A loop that was stopped has no place of its own: its function's stands.
_PLACE = re.compile(r"^ {4}at (?!#)[^\n]* \(<input>:(\d+):(\d+)\)$", re.MULTILINE)


class _Unusable(Exception):  # noqa: N818 - not an error of ours: an outcome on its way
    """The script cannot be run at all; `outcome` says why, for each of its calls."""

    def __init__(self, outcome: str) -> None:
        super().__init__(outcome)
        self.outcome = outcome


def _failed(code: str, message: str, line: int = 0, column: int = 0) -> str:
    error = {"code": code, "message": message, "line": line, "column": column}
    return json.dumps({"error": error})


# ThingsBoard's converters are bodies of functions; which one, the operation says.
_PARAMETERS = "payload,metadata,msgType,integrationMetadata"
BODY = (
    f"(function(){{var Decoder=function({_PARAMETERS}){{var msg=payload;{{",
    "\n}},Encoder=Decoder;" + _tail(_declared).removeprefix("\n;"),
)


def _around(source: str) -> tuple[str, str]:
    """Return what stands before and behind a script that is no body."""
    if _SETS_EXPORTS.search(source) and not _ASKS_FOR_EXPORTS.search(source):
        return _MODULE
    return _PLAIN


class _World:
    """One script's context, with the driver in it."""

    def __init__(
        self, source: str, around: tuple[str, str], limits: dict[str, Any], engine: JavaScript
    ) -> None:
        context = self._context = Context()
        context.set_memory_limit(limits["memory_bytes"])
        context.set_max_stack_size(limits["stack_bytes"])
        context.set_time_limit((limits["call_ms"] + limits["slice_ms"]) / 1000)
        head, tail = self.around = around
        settings = {
            "depth_max": limits["depth_max"],
            "result_bytes_max": limits["result_bytes_max"],
            "encoded_bytes_max": limits["encoded_bytes_max"],
            "message_max": limits["message_max"],
            "slice_bytes_max": limits["slice_bytes_max"],
            "console_lines_max": limits["console_lines_max"],
            "console_chars_max": limits["console_chars_max"],
            "column_offset": len(head),
            "signed_bytes": engine.signed_bytes,
            "names": _NAMES,
        }
        tables = context.eval(_TABLES)(limits["result_bytes_max"])
        driver = context.eval(_DRIVER)(json.dumps(settings), tables, context.eval(_WATCH))
        pick = context.eval("(function (driver, name) { return driver[name]; })")
        self.load = pick(driver, "load")
        self.run = pick(driver, "run")
        self.drain = pick(driver, "drain")
        self.position = pick(driver, "position")
        self.is_broken = pick(driver, "isBroken")
        self.is_altered = pick(driver, "isAltered")
        self.leaks_only = pick(driver, "leaksOnly")
        self.functions = pick(driver, "functions")
        if engine.prelude:
            context.eval(engine.prelude)()
        script = context.eval(head + source + tail)
        offered = (context.eval(_BUFFER)(),) if _NAMES_BUFFER.search(source) else ()
        # What is around a script that was translated may name what it does not.
        words = "" if engine.prelude else json.dumps(sorted(set(_WORD.findall(source))))
        pick(driver, "prepare")(
            script,
            words,
            "normalizeUplink" in source,
            bool(_COMPUTES_FIELDS.search(source)),
            not engine.prelude and is_stateless(source),
            *offered,
        )

    def has_jobs(self) -> bool:
        """Whether the script left promises behind; tells by starting one, so drop the world."""
        return bool(self._context.execute_pending_job())


class JavaScript:
    """The engine of a JavaScript child. `prelude` makes what its scripts find beside the driver's;
    `translate` gives the JavaScript of a script, `body` what stands around one that is a body, and
    `signed_bytes` says whether its bytes are from -128 to 127, as Java's are.
    """

    prelude = ""
    body = BODY
    signed_bytes = False

    def translate(self, source: str) -> str:
        """Return the JavaScript of a script."""
        return source

    def __init__(self, limits: dict[str, Any]) -> None:
        self._limits = limits
        self._worlds: OrderedDict[bytes, _World] = OrderedDict()
        self._altering: OrderedDict[bytes, None] = OrderedDict()
        self._leaking: OrderedDict[bytes, None] = OrderedDict()
        self._hard_s = (limits["call_ms"] * 3 + limits["slice_ms"]) / 1000

    def run(self, request: Request, emit: Emit) -> None:
        """See `serve.Engine`."""
        if request.operation == "check":
            emit(f"[{self._check(request.source)}]".encode())
            return
        begin = 0
        while begin < request.count:
            begin = self._run_in_one_world(request, begin, emit)

    def _run_in_one_world(self, request: Request, begin: int, emit: Emit) -> int:
        """Run calls from `begin` until the world must go; return the first call not yet run."""
        altering, leaking = request.source in self._altering, request.source in self._leaking
        arm(self._hard_s)
        try:
            world = self._take(request.source)
        except _Unusable as unusable:
            arm(0)
            emit(("[" + ",".join([unusable.outcome] * (request.count - begin)) + "]").encode())
            return request.count
        text = request.text(begin, request.count)
        try:
            world.load(
                text,
                request.operation,
                request.contract == "thingsboard",
                altering,
                request.console,
                leaking or altering,
            )
        except JSException:
            self._worlds.pop(request.source, None)
            return self._emit_one(_failed("script_memory", "no room for the input"), begin, emit)
        start = begin
        while begin < request.count:
            arm(self._hard_s)
            outcomes, done, keep = self._slice(world, 1 if request.careful else request.count)
            alone = start + done - begin == 1  # no other call could leave it anything
            if alone:
                emit(f"[{outcomes}]".encode())
            altered = not altering and _is_altered(world)
            arm(0)
            if altered:
                # One call may have seen what another left: these outcomes are not to be trusted.
                self._remember(world, request.source)
                return begin + 1 if alone else begin
            begin = start + done
            if not alone:
                emit(f"[{outcomes}]".encode())
            if not keep:
                del self._worlds[request.source]
                return begin
        return begin

    @staticmethod
    def _emit_one(outcome: str, begin: int, emit: Emit) -> int:
        arm(0)
        emit(f"[{outcome}]".encode())
        return begin + 1

    def _slice(self, world: _World, count: int) -> tuple[str, int, bool]:
        """Return outcomes, how many calls of the load are done, whether the world can go on."""
        try:
            outcomes = world.run(self._limits["slice_ms"], count)
            return outcomes, world.position(), not (world.is_broken() or world.has_jobs())
        except (JSException, StackOverflow) as error:
            outcomes, done = world.drain(), world.position()
            outcome = self._stopped(str(error), world.around[0])
            return f"{outcomes},{outcome}" if outcomes else outcome, done + 1, False

    def _stopped(self, text: str, head: str) -> str:
        """Return the outcome of a call that the driver could not catch."""
        found = _PLACE.search(text)
        line, column = (int(found[1]), int(found[2])) if found else (0, 0)
        if line == 1:
            column = max(0, column - len(head))
        message = text.partition("\n")[0]
        if message == "InternalError: interrupted":
            limit = self._limits["call_ms"]
            return _failed("script_time", f"stopped after {limit} ms", line, column)
        if message in {"InternalError: out of memory", "null"}:
            return _failed("script_memory", "the script ran out of memory", line, column)
        return _failed("script_threw", message[: self._limits["message_max"]], line, column)

    def _take(self, source: bytes) -> _World:
        world = self._worlds.get(source)
        if world is not None:
            self._worlds.move_to_end(source)
            return world
        text = self.translate(source.decode())
        around = self._compile(text)
        try:
            world = _World(text, around, self._limits, self)
        except (JSException, StackOverflow) as error:
            raise _Unusable(_syntax(str(error), text, len(around[0]))) from error
        self._worlds[source] = world
        if len(self._worlds) > self._limits["contexts_max"]:
            self._worlds.popitem(last=False)
        return world

    def _compile(self, text: str) -> tuple[str, str]:
        """Return what must stand around a script; raise _Unusable where it is none by itself."""
        # It is read whole and then throws 0 before its first statement.
        head = "throw 0;"
        fault = self._probe(head + text)
        if fault.startswith("0\n"):
            return _around(text)
        if "return not in a function" in fault:
            head = "(function(){{"
            fault = self._probe(f"{head}{text}\n}}}})")
            if not fault:
                return self.body
        raise _Unusable(_syntax(fault, text, len(head)))

    def _probe(self, text: str) -> str:
        """Return what a text throws, with its stack; in a context of its own, because its
        functions become that context's globals.
        """
        probe = Context()
        probe.set_memory_limit(self._limits["memory_bytes"])
        probe.set_max_stack_size(self._limits["stack_bytes"])
        try:
            probe.eval(text)
        except (JSException, StackOverflow) as error:
            return str(error)
        except ValueError:
            message = "SyntaxError: the script has a NUL character"
            raise _Unusable(_failed("script_syntax", message, 1, 1)) from None
        return ""

    def _remember(self, world: _World, source: bytes) -> None:
        """Have what the script leaves taken away after each of its calls from now on."""
        left = self._altering
        if source not in self._leaking and _leaks_only(world):
            left = self._leaking
        else:
            del self._worlds[source]
        left[source] = None
        if len(left) > self._limits["contexts_max"]:
            left.popitem(last=False)

    def _check(self, source: bytes) -> str:
        """Compile the script, run its top, and return the names of its functions."""
        arm(self._hard_s)
        try:
            world = self._take(source)
        except _Unusable as unusable:
            arm(0)
            return unusable.outcome
        del self._worlds[source]
        try:
            return f'{{"value":{world.functions()}}}'
        except (JSException, StackOverflow) as error:
            return self._stopped(str(error), world.around[0])
        finally:
            arm(0)


def _is_altered(world: _World) -> bool:
    try:
        return bool(world.is_altered())
    except (JSException, StackOverflow):
        return False  # No memory left to look: this world goes anyway.


def _leaks_only(world: _World) -> bool:
    try:
        return bool(world.leaks_only())
    except (JSException, StackOverflow):
        return False


def _syntax(text: str, source: str, offset: int) -> str:
    """Return the outcome for what the compiler said, placed in the user's lines."""
    found = re.search(r"<input>:(\d+):(\d+)", text)
    line, column = (int(found[1]), int(found[2])) if found else (1, 1)
    if line == 1:
        column = max(1, column - offset)
    lines = source.split("\n")
    if line > len(lines):  # Something is open at the end of the script.
        line, column = len(lines), len(lines[-1]) + 1
    return _failed("script_syntax", text.partition("\n")[0], line, column)
