"""Every contract of converters on every engine that has it, through the port that the stages use.

The first half is one suite over `CASES`: what a codec of the field looks like in each contract, and
what all of them promise. The second half shows the holes closed that script engines are known for
(measured or read elsewhere: lupa, quickjs, mini-racer, The Things Stack, ChirpStack, ThingsBoard):

| hole | test |
|---|---|
| Lua keeps os, io, debug, package, load when builtins are off | test_lua_reaches_nothing |
| LuaJIT's ffi is native memory; its compiled loops call no hook | test_lua_is_not_luajit |
| lupa leaves the table `python` behind | test_lua_reaches_nothing |
| a Python function handed in leads to its globals | test_a_script_is_given_plain_values |
| item access passes by lupa's attribute filter | test_a_script_is_given_plain_values |
| binary chunks and bytecode are not checked | test_only_text_is_compiled |
| string.rep makes giants in one step | test_one_step_makes_no_giant |
| the metatable of strings is shared and writable | test_nothing_stays_behind |
| string.dump, collectgarbage, setfenv | test_lua_reaches_nothing |
| an endless loop, caught or not | test_a_loop_ends_with_its_time |
| a regular expression or pattern that backtracks for ever | test_a_pattern_ends_with_its_time |
| native code that no hook sees | test_native_code_ends_with_its_process |
| time by the clock, so that a slow machine fails decodes | test_time_is_the_scripts_own |
| a time limit that counts other threads of the process | test_time_is_the_scripts_own |
| no limit of memory, or one that buffers pass by | test_memory_ends |
| no limit of the stack | test_recursion_ends |
| no limit of results | test_results_have_a_size |
| what one call leaves is seen by the next | test_nothing_stays_behind |
| an engine in the process that has the credentials | test_a_script_has_a_process_of_its_own |
| files, network, processes | test_a_script_has_a_process_of_its_own |
| three errors switch a script off for a minute | test_a_script_is_never_switched_off |
| a script that kills its process takes others along | test_who_kills_the_process_is_lost_alone |
| one tenant's scripts take all the time | test_a_tenant_has_a_budget |
| the source is read again for each call | test_a_script_is_compiled_once |
| V8 hangs where it is forked, and passes its memory limit by | test_the_engines_are_not_v8 |
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.convert import thingsboard
from pipeline.convert.codec_port import CodecPort
from pipeline.errors import ScriptError
from pipeline.metrics import Registry
from pipeline.ports import Contract, Script, ScriptCall
from pipeline.script import ScriptLimits, ScriptProcesses
from tests.contract.converter_cases import CASES, Case

LIMITS = ScriptLimits(call_ms=80, memory_bytes=16 << 20, slice_ms=10)


@pytest.fixture(scope="module")
def processes() -> Iterator[ScriptProcesses]:
    processes = ScriptProcesses(LIMITS, Registry())
    yield processes
    processes.close()


@pytest.fixture(scope="module")
def port(processes: ScriptProcesses) -> CodecPort:
    return CodecPort(processes)


def decoding(case: Case, payload: bytes | None = None, source: str = "") -> ScriptCall:
    raw = b64encode(case.payload if payload is None else payload).decode()
    argument: dict[str, Any] = {"bytes": raw, "fPort": 1, "recvTime": 0, "variables": {}}
    if case.contract == "thingsboard":
        argument = {"payload": raw, "metadata": {"name": "a", "fPort": 1}}
    script = Script(f"acme/{case.name}", case.language, source or case.decode)
    return ScriptCall("t", script, "decode_uplink", argument, case.contract)


def encoding(case: Case) -> ScriptCall:
    fields = {"target": 21}
    argument: dict[str, Any] = {"data": fields, "fPort": None, "variables": {}}
    if case.contract == "thingsboard":
        argument = {"msg": fields, "metadata": {}, "msgType": "X", "integrationMetadata": {}}
    source = case.decode if case.encode == "same" else case.encode
    script = Script(f"acme/{case.name}", case.language, source)
    return ScriptCall("t", script, "encode_downlink", argument, case.contract)


def bytes_of(case: Case, value: Any) -> bytes:
    if case.contract == "lorawan":
        return bytes(value["bytes"])
    if value["contentType"] == "BINARY":
        return b64decode(value["data"])
    return value["data"].encode()


every = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every
def test_decodes(port: CodecPort, case: Case) -> None:
    """A codec gives the same telemetry in each contract, alone and in a batch."""
    (alone,) = port.call([decoding(case)])
    assert not isinstance(alone, ScriptError), alone
    if case.contract == "lorawan":
        assert alone["data"] == case.telemetry
    else:
        readings = thingsboard.read(alone, device="a", time_ms=0, readings_max=9)
        assert {reading.device for reading in readings} == {"a"}
        found = [reading.telemetry for reading in readings]
        assert {key: value for each in found for key, value in each.items()} == case.telemetry
    assert port.call([decoding(case)] * 50) == [alone] * 50


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.encode], ids=lambda case: case.name
)
def test_encodes(port: CodecPort, case: Case) -> None:
    """What a rule asks for becomes the same bytes in each contract."""
    (value,) = port.call([encoding(case)])
    assert not isinstance(value, ScriptError), value
    assert bytes_of(case, value) == case.sent


@every
def test_a_bad_payload_is_an_error_of_its_own(port: CodecPort, case: Case) -> None:
    """A payload that the codec cannot read, of any kind, touches no other of the batch; an error
    names the codec.
    """
    before, bad, after = port.call([decoding(case), decoding(case, b"\xff"), decoding(case)])
    assert not isinstance(before, ScriptError)
    assert before == after
    if isinstance(bad, ScriptError):
        assert bad.message.startswith(f"acme/{case.name}")
        assert bad.detail["script"] == f"acme/{case.name}"
    else:
        assert bad != before


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.language != "codec"], ids=lambda case: case.name
)
def test_a_script_that_is_none_says_where(port: CodecPort, case: Case) -> None:
    """What does not compile fails each call with file and line, whatever the contract."""
    source = f"{case.decode}\n\n) = = (\n"
    for result in port.call([decoding(case, source=source)] * 2):
        assert isinstance(result, ScriptError)
        assert result.code == "script_syntax"
        line = case.decode.count("\n") + 3
        assert result.message.startswith(f"acme/{case.name}:{line}"), result.message


# ---- the holes ----


@dataclass(frozen=True)
class Language:
    """How a body is said in one language, in the contract that it has here."""

    name: str
    around: str
    contract: Contract

    def call(self, body: str, **argument: Any) -> ScriptCall:
        script = Script("acme/x", self.name, self.around.format(body))  # type: ignore[arg-type]
        given = {"bytes": "AQ==", "payload": "AQ==", "metadata": {}, "fPort": 1, **argument}
        return ScriptCall("t", script, "decode_uplink", given, self.contract)


JAVASCRIPT = Language("javascript", "function decodeUplink(i) {{ {} }}", "lorawan")
TBEL = Language("tbel", "{}", "thingsboard")
LUA = Language("lua", "function decode_uplink(i) {} end", "lorawan")
engines = pytest.mark.parametrize(
    "language", [JAVASCRIPT, TBEL, LUA], ids=lambda language: language.name
)


def one(processes: ScriptProcesses, call: ScriptCall) -> Any:
    (result,) = processes.call([call])
    return result


def refused(result: Any, *codes: str) -> ScriptError:
    assert isinstance(result, ScriptError), result
    assert result.code in codes, result
    return result


def in_each(language: Language, javascript: str, lua: str) -> str:
    return lua if language is LUA else javascript


@engines
def test_a_loop_ends_with_its_time(processes: ScriptProcesses, language: Language) -> None:
    """A loop ends, also one that catches everything."""
    body = in_each(
        language,
        "while (true) { }" if language is TBEL else "try { for (;;) {} } finally { for (;;) {} }",
        "while true do pcall(function() while true do end end) end",
    )
    refused(one(processes, language.call(body)), "script_time")


@engines
def test_a_pattern_ends_with_its_time(processes: ScriptProcesses, language: Language) -> None:
    """A regular expression, or Lua's pattern, ends with its call's time."""
    body = in_each(
        language,
        "return {data: {b: 'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab'.matches('(a+)+$')}}"
        if language is TBEL
        else "return {data: {b: /^(a+)+$/.test('a'.repeat(50) + 'b')}}",
        "return {data = {b = ('a'):rep(20000):find(('.-'):rep(20) .. 'b')}}",
    )
    refused(one(processes, language.call(body)), "script_time")


def test_native_code_ends_with_its_process(processes: ScriptProcesses) -> None:
    """A search inside the engine's own code, which nothing interrupts, ends with its process; the
    calls beside it do not.
    """
    stuck = JAVASCRIPT.call("'a'.repeat(4e6).indexOf('a'.repeat(2e6) + 'b'); return {data: {}}")
    good = JAVASCRIPT.call("return {data: {n: 1}}")
    first, second, third = processes.call([good, stuck, good])
    refused(second, "script_time")
    assert first == third == {"data": {"n": 1}, "warnings": []}


def test_time_is_the_scripts_own(processes: ScriptProcesses) -> None:
    """What is counted is the script's CPU time: on a machine whose cores are all at work, a call
    that takes half of its time is not stopped.
    """
    body = "var end = 0; for (var k = 0; k < 300000; k++) end += k; return {data: {n: 1}}"
    call = JAVASCRIPT.call(body)
    began = time.process_time()
    burners = [os.posix_spawn(sys.executable, [sys.executable, "-c", "while True: pass"], {})
               for _ in range(2 * (os.cpu_count() or 1))]  # fmt: skip
    try:
        results = processes.call([call] * 5)
    finally:
        for burner in burners:
            os.kill(burner, 9)
            os.waitpid(burner, 0)
    assert results == [{"data": {"n": 1}, "warnings": []}] * 5, time.process_time() - began


@engines
def test_memory_ends(processes: ScriptProcesses, language: Language) -> None:
    """Texts, lists and buffers end at the limit; the next call has all of its memory."""
    bodies = [
        in_each(
            language,
            "var a = []; while (true) { a.push('x'.repeat(100000) + a.length); }",
            "local t = {} while true do t[#t + 1] = ('x'):rep(100000) .. #t end",
        )
    ]
    if language is JAVASCRIPT:
        bodies += [
            "var a = []; for (;;) a.push(new Uint8Array(1 << 20).fill(1))",
            "new ArrayBuffer(1 << 30); return {data: {}}",
        ]
    for body in bodies:
        good = language.call(in_each(language, "return {data: {n: 1}}", "return {data = {n = 1}}"))
        bad, after = processes.call([language.call(body), good])
        refused(bad, "script_memory", "script_threw")
        assert not isinstance(after, ScriptError)


@engines
def test_recursion_ends(processes: ScriptProcesses, language: Language) -> None:
    """A function that calls itself for ever costs its own call."""
    body = in_each(
        language,
        "function f() { return f() + 1; } return {data: {n: f()}};",
        "local function f() return f() + 1 end return {data = {n = f()}}",
    )
    refused(one(processes, language.call(body)), "script_threw", "script_memory")


@engines
def test_results_have_a_size(processes: ScriptProcesses, language: Language) -> None:
    """A result past the limit is refused, not carried on."""
    body = in_each(
        language,
        "return {data: {s: 'x'.repeat(1100000)}}",
        "local s = ('x'):rep(1000000) return {data = {s = s .. s}}",
    )
    assert "at most" in refused(one(processes, language.call(body)), "script_result").message


def test_one_step_makes_no_giant(processes: ScriptProcesses) -> None:
    """One native step that would make a giant is refused before it is made."""
    refused(one(processes, LUA.call("local s = ('x'):rep(1e9) return {data = {}}")), "script_threw")
    huge = JAVASCRIPT.call("'x'.repeat(1 << 29); return {data: {}}")
    refused(one(processes, huge), "script_memory", "script_threw")


LEAKS = {
    JAVASCRIPT: (
        "n = (typeof n == 'undefined' ? 0 : n) + 1; return {data: {n: n}}",
        "String.prototype.n = (''.n || 0) + 1; return {data: {n: ''.n}}",
        "Math.round = () => 0; Math.n = (Math.n || 0) + 1; return {data: {n: Math.n}}",
    ),
    TBEL: ("n = (typeof n == 'undefined' ? 0 : n) + 1; return {data: {n: n}};",),
    LUA: (
        "n = (n or 0) + 1 return {data = {n = n}}",
        "string.n = (string.n or 0) + 1 return {data = {n = string.n}}",
        "getmetatable('').__index = nil return {data = {n = 1}}",
    ),
}


@engines
def test_nothing_stays_behind(processes: ScriptProcesses, language: Language) -> None:
    """Globals, built-in objects and the metatable of strings are as new in each call."""
    for body in LEAKS[language]:
        results = processes.call([language.call(body)] * 4)
        for result in results:
            if isinstance(result, ScriptError):
                assert "index" in result.message  # strings' metatable is out of reach
            else:
                assert result["data"] == {"n": 1}


NAMES = (
    *("io", "debug", "package", "require", "load", "loadstring", "loadfile", "dofile", "module"),
    *("collectgarbage", "newproxy", "getfenv", "setfenv", "python", "jit", "ffi", "bit"),
)


def test_lua_reaches_nothing(processes: ScriptProcesses) -> None:
    """No name leads to files, processes, compiled code, hooks, the collector or Python."""
    listed = ", ".join(f"{name} = type({name})" for name in NAMES)
    found = one(processes, LUA.call(f"return {{data = {{{listed}}}}}"))
    assert set(found["data"].values()) == {"nil"}
    beside = "return {data = {a = type(os.getenv), b = type(os.execute), c = type(string.dump)}}"
    assert set(one(processes, LUA.call(beside))["data"].values()) == {"nil"}


def test_lua_is_not_luajit(processes: ScriptProcesses) -> None:
    """The engine is plain Lua, whose loops all call the hook."""
    assert one(processes, LUA.call("return {data = {v = _VERSION}}"))["data"] == {"v": "Lua 5.4"}


def test_a_script_is_given_plain_values(processes: ScriptProcesses) -> None:
    """No value that a script is given is Python's: neither its fields nor its items lead out."""
    body = (
        "local function kinds(t, into) for k, v in pairs(t) do into[type(v)] = true"
        " if type(v) == 'table' then kinds(v, into) end end return into end"
        " return {data = {kinds = kinds(i, {}), g = tostring(i.bytes.__globals__)}}"
    )
    call = LUA.call(body, variables={"a": [1, {"b": True}], "c": "x"})
    found = one(processes, call)["data"]
    assert set(found["kinds"]) <= {"string", "number", "boolean", "table"}
    assert found["g"] == "nil"
    script = "return {data: {g: String(i.__globals__), c: i.constructor === Object}}"
    assert one(processes, JAVASCRIPT.call(script))["data"] == {"g": "undefined", "c": True}


def test_only_text_is_compiled(processes: ScriptProcesses) -> None:
    """Compiled code, which no engine checks, is not loaded: neither as the script nor by it."""
    binary = Script("acme/x", "lua", "\x1bLua\x54\x00")
    refused(one(processes, ScriptCall("t", binary, "decode_uplink", {})), "script_syntax")
    module = "import * as std from 'qjs:std'; function decodeUplink() { return {data: {}} }"
    script = Script("acme/x", "javascript", module)
    refused(one(processes, ScriptCall("t", script, "decode_uplink", {})), "script_syntax")
    names = "typeof std + typeof os + typeof bjson + typeof loadScript + typeof process"
    found = one(processes, JAVASCRIPT.call(f"return {{data: {{n: {names}}}}}"))
    assert found["data"] == {"n": "undefined" * 5}


def test_a_script_has_a_process_of_its_own(processes: ScriptProcesses) -> None:
    """Each tenant's engine is a child without this process's environment, files and network."""
    processes.call([JAVASCRIPT.call("return {data: {}}")])
    seat = processes._seats._seats["t", "javascript"]
    assert seat._process is not None
    pid = seat._process.pid
    assert pid != os.getpid()
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    assert status["Seccomp"].strip() == "2", "a filter of system calls"
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Threads"].strip() == "1"
    command = Path(f"/proc/{pid}/cmdline").read_bytes()
    assert b"pipeline.script.serve" in command


@engines
def test_a_script_is_never_switched_off(processes: ScriptProcesses, language: Language) -> None:
    """A script that fails on one payload a hundred times still serves the next one."""
    bad = language.call(in_each(language, "null.x", "error('no')"))
    body = in_each(
        language,
        "if (payload[0] == 1) { null.x; } return {n: 1};"
        if language is TBEL
        else "if (i.bytes[0] == 1) null.x; return {data: {n: 1}}",
        "if i.bytes:byte(1) == 1 then error('no') end return {data = {n = 1}}",
    )
    for _ in range(4):
        for result in processes.call([language.call(body)] * 25):
            assert isinstance(result, ScriptError)
    good = language.call(body, bytes="Ag==", payload="Ag==")
    assert not isinstance(one(processes, good), ScriptError)
    assert isinstance(one(processes, bad), ScriptError)


def test_who_kills_the_process_is_lost_alone(processes: ScriptProcesses) -> None:
    """Of a batch in which two calls end their process, just these are lost."""
    body = (
        "if (i.fPort == 13) 'a'.repeat(4e6).indexOf('a'.repeat(2e6) + 'b');"
        " return {data: {n: i.fPort}}"
    )
    ports = [*range(1, 41)]
    ports[7] = ports[29] = 13
    results = processes.call([JAVASCRIPT.call(body, fPort=port) for port in ports])
    for port, result in zip(ports, results, strict=True):
        if port == 13:
            refused(result, "script_time")
        else:
            assert result["data"] == {"n": port}


def test_a_tenant_has_a_budget() -> None:
    """What is over a tenant's time in a batch is not tried; the other tenant's calls are done."""
    limits = ScriptLimits(call_ms=80, slice_ms=10, batch_beside_ms_max=120)
    processes = ScriptProcesses(limits, Registry())
    try:
        slow = JAVASCRIPT.call("var e = Date.now() + 20; while (Date.now() < e); return {data: {}}")
        quick = JAVASCRIPT.call("return {data: {}}")
        other = ScriptCall("other", quick.script, "decode_uplink", quick.argument)
        results = processes.call([slow] * 60 + [other] * 20)
    finally:
        processes.close()
    refused(results[59], "script_budget")
    assert not any(isinstance(result, ScriptError) for result in results[60:])


@engines
def test_a_script_is_compiled_once(processes: ScriptProcesses, language: Language) -> None:
    """A long script costs its compilation once: a hundred calls take no hundred times as long."""
    filler = "\n".join(
        f"function f{k}(x) return x + {k} end" if language is LUA
        else f"function f{k}(x) {{ return x + {k}; }}"
        for k in range(3_000)
    )  # fmt: skip
    good = in_each(language, "return {data: {n: 1}};", "return {data = {n = 1}}")
    call = language.call(good)
    source = f"{filler}\n{call.script.source}"
    call = ScriptCall(
        "t", Script("acme/x", call.script.language, source), "decode_uplink", call.argument,
        call.contract,
    )  # fmt: skip
    seat = (call.tenant, call.script.language)
    processes.call([call])
    first = _cpu_s(processes, seat)
    before = first
    processes.call([call] * 20)
    assert not isinstance(one(processes, call), ScriptError)
    per_call = (_cpu_s(processes, seat) - before) / 21
    assert per_call < 0.05, "fresh functions, not a compilation, in each call"


def _cpu_s(processes: ScriptProcesses, seat: tuple[str, str]) -> float:
    process = processes._seats._seats[seat]._process
    assert process is not None
    fields = Path(f"/proc/{process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_the_engines_are_not_v8() -> None:
    """What runs the stages loads no engine of its own: each starts in a child, never by a fork, and
    none of them is V8.
    """
    code = (
        "import sys; from pipeline.wiring import script_port; "
        "print(*({'_quickjs', 'lupa', 'py_mini_racer'} & set(sys.modules)), 'loaded')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "loaded"


def test_each_hole_has_its_test() -> None:
    """The table above names tests that are here."""
    assert __doc__ is not None
    named = set(re.findall(r"\| (test_\w+) \|", __doc__))
    assert len(named) > 15
    assert named <= set(globals())
