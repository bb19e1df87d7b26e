"""The Lua engine: what goes in and out, and what a script cannot reach."""

from __future__ import annotations

from typing import Any

import pytest


def decode(body: str) -> str:
    return f"function decode_uplink(i) {body} end"


def test_input_of_decode_uplink(lua_run: Any) -> None:
    """A decoder gets the bytes as a string and the other inputs by snake-case names."""
    body = (
        "local a, b = string.unpack('>bB', i.bytes) "
        "return {data = {a = a, b = b, n = #i.bytes, p = i.f_port, t = i.recv_time, "
        "v = i.variables.x, missing = type(i.variables.none)}}"
    )
    argument = {
        "bytes": "//8=",
        "fPort": 2,
        "recvTime": "2026-11-21T09:00:00Z",
        "variables": {"x": "ü", "none": None},
    }
    assert lua_run.value(decode(body), argument)["data"] == {
        "a": -1,
        "b": 255,
        "n": 2,
        "p": 2,
        "t": "2026-11-21T09:00:00Z",
        "v": "ü",
        "missing": "nil",
    }


def test_numbers_keep_their_kind(lua_run: Any) -> None:
    """Integers stay integers, floats floats, both ways; what has no 64-bit integer is a float."""
    body = "return {data = {i = 3, f = 3.0, h = 1 / 2, b = 7 // 2, v = i.variables}}"
    variables = {"i": 1, "f": 1.0, "big": 2**70}
    text = lua_run.value(decode(body), {"bytes": "", "fPort": 1, "variables": variables})
    assert repr(text["data"]) == (
        "{'b': 3, 'f': 3.0, 'h': 0.5, 'i': 3, "
        "'v': {'big': 1.1805916207174113e+21, 'f': 1.0, 'i': 1}}"
    )


def test_tables_as_json(lua_run: Any) -> None:
    """1 to n is an array, empty is an object, other integers are names; names are in order."""
    body = (
        "return {data = {z = {1, {2}}, e = {}, s = {[3] = 'c'}, m = {1, x = 2}, a = false}, "
        "warnings = {}, errors = {}}"
    )
    value = lua_run.value(decode(body))
    assert value["warnings"] == []
    assert list(value["data"].items()) == [
        ("a", False),
        ("e", {}),
        ("m", {"1": 1, "x": 2}),
        ("s", {"3": "c"}),
        ("z", [1, [2]]),
    ]


def test_encoders(lua_run: Any) -> None:
    """Bytes are a string or a list; whole floats, which Lua's arithmetic makes, are whole."""
    asked = {"data": {"t": 21.5, "l": [1, {"a": 2}]}, "fPort": 3}
    run = {"operation": "encode_downlink"}
    source = (
        "function encode_downlink(i) return {bytes = string.pack('>i2B', i.data.t * 10 // 1 | 0, "
        "i.data.l[2].a), f_port = i.f_port} end"
    )
    expected = {"bytes": [0, 215, 2], "fPort": 3, "warnings": []}
    assert lua_run.value(source, asked, **run) == expected
    listed = "function encode_downlink(i) return {bytes = {0, 430 / 2, 2}, f_port = 6 / 2} end"
    assert lua_run.value(listed, asked, **run) == expected
    empty = "function encode_downlink(i) return {bytes = {}} end"
    assert lua_run.value(empty, asked, **run)["bytes"] == []


def test_thingsboard(lua_run: Any) -> None:
    """The ThingsBoard contract hands payload and metadata, and what comes back passes whole."""
    source = decode(
        "return {{deviceName = i.metadata.n, telemetry = {a = i.payload:byte(1)}, "
        "same = i.bytes == i.payload}}"
    )
    argument = {"payload": "AQ==", "metadata": {"n": "d"}}
    assert lua_run.value(source, argument, contract="thingsboard") == [
        {"deviceName": "d", "telemetry": {"a": 1}, "same": True}
    ]
    refused = decode("return {errors = {'no', 'never'}}")
    error = lua_run.error(refused, argument, contract="thingsboard")
    assert (error["code"], error["message"]) == ("script_errors", "no, never")
    source = (
        "function encode_downlink(i) return {data = i.msg.x, metadata = {t = i.msg_type, "
        "m = i.metadata.a, g = i.integration_metadata.b}} end"
    )
    argument = {
        "msg": {"x": 1},
        "metadata": {"a": 2},
        "msgType": "T",
        "integrationMetadata": {"b": 3},
    }
    value = lua_run.value(source, argument, operation="encode_downlink", contract="thingsboard")
    assert value == {"data": 1, "metadata": {"t": "T", "m": 2, "g": 3}}


@pytest.mark.parametrize(
    ("body", "message", "line"),
    [
        ("\n return i.a.b", "attempt to index a nil value (field 'a')", 2),
        ("\n\n error('text')", "text", 3),
        ("\n error('text', 0)", "text", 2),
        ("\n error({message = 'of a table'})", "of a table", 2),
        ("\n error({})", "a table was thrown", 2),
        ("\n error()", "a nil was thrown", 2),
        ("\n error(5)", "5", 2),
        ("\n string.unpack('>i4', 'x')", "bad argument #2 to 'unpack' (data string too short)", 2),
        ("\n local f = function()\n error('inner') end f()", "inner", 3),
        (
            "\n error(setmetatable({}, {__tostring = function() while true do end end}))",
            "a table was thrown",
            2,
        ),
    ],
)
def test_whatever_is_thrown(lua_run: Any, body: str, message: str, line: int) -> None:
    """Any error has its text without the place, and the place apart."""
    error = lua_run.error(decode(body))
    assert (error["code"], error["message"], error["line"]) == ("script_threw", message, line)


@pytest.mark.parametrize(
    "body",
    [
        "while true do end",
        "while true do pcall(function() while true do end end) end",
        "while true do xpcall(function() while true do end end, function() return 1 end) end",
        "xpcall(function() while true do end end, function() while true do end end)",
        "local function f() return pcall(f) end while true do f() end",
        "return setmetatable({}, {__index = function(t, k) while true do end end}).x",
        "table.sort({3, 2, 1}, function() while true do end end)",
        "('x'):rep(100):gsub('x', function() while true do end end)",
        "local t <close> = setmetatable({}, {__close = function() while true do end end})",
    ],
)
def test_no_loop_outlasts_its_time(lua_run: Any, body: str) -> None:
    """The end of the time cannot be caught, nor escaped in a handler or a metamethod."""
    loops, good = lua_run(
        decode(f"if i.f_port == 1 then {body} end return {{data = {{}}}}"),
        {"bytes": "", "fPort": 1},
        {"bytes": "", "fPort": 2},
    )
    assert loops["error"]["code"] == "script_time"
    assert good == {"value": {"data": {}, "warnings": []}}


LOCKED = [
    "python",
    "ffi",
    "jit",
    "require",
    "load",
    "loadstring",
    "loadfile",
    "dofile",
    "io",
    "debug",
    "package",
    "collectgarbage",
    "coroutine",
    "newproxy",
    "getfenv",
    "setfenv",
    "module",
    "warn",
    "rawprint",
    "os.execute",
    "os.exit",
    "os.getenv",
    "os.remove",
    "os.rename",
    "os.tmpname",
    "os.setlocale",
    "os.difftime",
    "string.dump",
    "math.randomseed",
]


@pytest.mark.parametrize("name", LOCKED)
def test_what_is_locked_away(lua_run: Any, name: str) -> None:
    """No script can name what reaches files, processes, compiled code, hooks or Python."""
    assert lua_run.value(decode(f"return {{data = {{t = type({name})}}}}"))["data"] == {"t": "nil"}


def test_globals_are_exactly_these(lua_run: Any) -> None:
    """A script sees these names and no others."""
    body = (
        "local names = {} for name in pairs(_G) do names[#names + 1] = name end "
        "table.sort(names) return {data = {n = table.concat(names, ' ')}}"
    )
    assert lua_run.value(decode(body))["data"]["n"] == (
        "_G _VERSION assert decode_uplink error getmetatable ipairs next pairs pcall print "
        "rawequal rawget rawlen rawset select setmetatable tonumber tostring type xpcall"
    )


@pytest.mark.parametrize(
    ("library", "names"),
    [
        ("os", "clock date time"),
        ("table", "concat insert move pack remove sort unpack"),
        ("utf8", "char charpattern codepoint codes len offset"),
        (
            "string",
            (
                "byte char find format gmatch gsub len lower match pack packsize rep reverse sub "
                "unpack upper"
            ),
        ),
        (
            "math",
            (
                "abs acos asin atan ceil cos deg exp floor fmod huge log max maxinteger min "
                "mininteger modf pi rad random sin sqrt tan tointeger type ult"
            ),
        ),
    ],
)
def test_libraries_are_exactly_these(lua_run: Any, library: str, names: str) -> None:
    """A library has these names and no others."""
    body = (
        f"local names = {{}} for name in pairs({library}) do names[#names + 1] = name end "
        "table.sort(names) return {data = {n = table.concat(names, ' ')}}"
    )
    assert lua_run.value(decode(body))["data"]["n"] == names


def test_no_python_object_is_ever_inside(lua_run: Any) -> None:
    """Every value that a script is given, at any depth, is a Lua value of a plain kind."""
    body = """
      local kinds = {}
      local function look(value)
        kinds[type(value)] = true
        if type(value) == 'table' then
          if getmetatable(value) ~= nil then kinds.metatable = true end
          for key, item in pairs(value) do look(key) look(item) end
        end
      end
      look(i)
      return {data = kinds}
    """
    variables = {"s": "x", "n": None, "l": [None, 1, "a", {"b": [2.5, True]}], "big": 2**90}
    value = lua_run.value(decode(body), {"bytes": "AQ==", "fPort": 1, "variables": variables})
    assert value["data"] == {"boolean": True, "number": True, "string": True, "table": True}


def test_the_metatable_of_strings_is_hidden(lua_run: Any) -> None:
    """A script can neither read nor replace what strings' methods are."""
    assert lua_run.value(decode("return {data = {m = getmetatable('')}}"))["data"] == {"m": False}
    error = lua_run.error(decode("setmetatable('', {})"))
    assert error["code"] == "script_threw"


def test_own_string_functions_are_methods(lua_run: Any) -> None:
    """What a script adds to `string` is a method of strings, for this call."""
    source = "function string.twice(s) return s .. s end " + decode(
        "return {data = {t = ('a'):twice(), g = type(i.none)}}"
    )
    assert lua_run.value(source)["data"] == {"t": "aa", "g": "nil"}
    assert "twice" in lua_run.error(decode("return ('a'):twice()"))["message"]


def test_compiled_code_is_no_script(lua_run: Any) -> None:
    """A binary chunk is refused: its instructions could do anything."""
    error = lua_run.error("\x1bLua" + "T" * 40)
    assert error["code"] == "script_syntax"
    assert "binary chunk" in error["message"]


@pytest.mark.parametrize(
    "call", ["('x'):rep(2e6)", "string.rep('x', 2e6)", "('x'):rep(2, ('y'):rep(1e6))"]
)
def test_string_rep_is_capped(lua_run: Any, call: str) -> None:
    """string.rep makes no giant in one uninterruptible step."""
    error = lua_run.error(decode(f"local s = {call}"))
    assert "at most 1048576" in error["message"]


def test_finalizers_are_refused(lua_run: Any) -> None:
    """__gc, which runs where the clock is not read, cannot be set."""
    assert "__gc" in lua_run.error(decode("setmetatable({}, {__gc = print})"))["message"]
    late = "local m = {} local t = setmetatable({}, m) m.__gc = function() while true do end end "
    assert lua_run.value(decode(late + "t = nil return {data = {}}"))["data"] == {}


def test_results_call_no_metamethods(lua_run: Any) -> None:
    """A result is read raw: its metamethods, which nothing would stop, are not called."""
    body = (
        "local loop = function() while true do end end "
        "return setmetatable({data = setmetatable({a = 1}, {__index = loop, __pairs = loop, "
        "__len = loop})}, {__index = loop})"
    )
    assert lua_run.value(decode(body)) == {"data": {"a": 1}, "warnings": []}


def test_a_result_has_not_too_many_values(lua_run: Any) -> None:
    """A giant table is refused before it is copied."""
    lua_run.engine._budget = 100
    body = "local t = {} for n = 1, 100 do t[n] = true end return {data = {t = t}}"
    assert "too many values" in lua_run.error(decode(body))["message"]


def test_scripts_do_not_see_each_other(lua_run: Any) -> None:
    """Two scripts have a runtime each, and only so many are kept."""
    for n in (1, 2, 1, 3):
        lua_run(f"-- {n}")
    assert list(lua_run.engine._worlds) == [b"-- 1", b"-- 3"]


def test_careful_requests_answer_each_call_at_once(lua_run: Any) -> None:
    """A careful request's outcomes come one by one, others in one part."""
    arguments = [{"bytes": "", "fPort": n} for n in range(4)]
    source = decode("return {data = {n = i.f_port}}")
    assert len(lua_run(source, *arguments)) == 4
    assert len(lua_run.parts) == 1
    assert len(lua_run(source, *arguments, careful=True)) == 4
    assert len(lua_run.parts) == 4


def test_check_names_the_functions(lua_run: Any) -> None:
    """A check compiles, runs the top and names what a converter may call; it calls nothing."""
    source = decode("while true do end") + " encode_downlink = function() end"
    expected = [{"value": ["decode_uplink", "encode_downlink"]}]
    assert lua_run(source, operation="check") == expected
    assert lua_run.error("\nerror('top')", operation="check")["line"] == 2
    assert lua_run.error("while true do end", operation="check")["code"] == "script_time"
    assert lua_run.error("x = = 1", operation="check")["code"] == "script_syntax"


def test_the_normalizer(lua_run: Any) -> None:
    """normalize_uplink takes the decoded data, and gives a list of measurements."""
    source = "function normalize_uplink(i) return {data = {t = i.data.t + 1}} end"
    given = {"data": {"t": 5}}
    value = lua_run.value(source, given, operation="normalize_uplink")
    assert value == {"data": [{"t": 6}], "warnings": []}
    several = "function normalize_uplink(i) return {data = {{t = 1}, {t = 2}}} end"
    value = lua_run.value(several, given, operation="normalize_uplink")
    assert value["data"] == [{"t": 1}, {"t": 2}]
    nonsense = "function normalize_uplink(i) return {data = 5} end"
    assert "no table" in lua_run.error(nonsense, given, operation="normalize_uplink")["message"]


def test_what_is_printed_is_heard(lua_run: Any) -> None:
    """With somebody listening, an outcome carries what its own call printed, within limits."""
    source = (
        "function decode_uplink(i) if i.f_port == 1 then print('port', i.f_port) end "
        "if i.f_port == 3 then for k = 1, 500 do print(('x'):rep(600)) end end "
        "return {data = {n = 1}} end"
    )
    arguments = [{"bytes": "", "fPort": port} for port in (1, 2, 3)]
    first, second, third = lua_run(source, *arguments, console=True)
    assert first["console"] == ["port\t1"]
    assert "console" not in second
    assert len(third["console"]) == 101
    assert third["console"][0] == "x" * 500
    assert all("console" not in outcome for outcome in lua_run(source, *arguments))


def test_decoding_normalizes(lua_run: Any) -> None:
    """A script with a normalizer gives its measurements beside the data; its failure is a warning,
    and the data that it was given are a copy.
    """
    source = (
        "function decode_uplink(i) return {data = {t = i.f_port}} end "
        "function normalize_uplink(i) i.data.t = i.data.t + 1 "
        "if i.data.t > 9 then error('too hot') end "
        "return {data = {air = {temperature = i.data.t}}} end"
    )
    value = lua_run.value(source, {"bytes": "", "fPort": 5})
    assert value == {
        "data": {"t": 5},
        "warnings": [],
        "normalized": {"data": [{"air": {"temperature": 6}}], "warnings": []},
    }
    value = lua_run.value(source, {"bytes": "", "fPort": 9})
    assert value == {"data": {"t": 9}, "warnings": ["normalize_uplink: (script):1: too hot"]}


def test_a_time_in_milliseconds_is_text(lua_run: Any) -> None:
    """A script sees the time of reception as text, however the caller gave it."""
    source = "function decode_uplink(i) return {data = {at = i.recv_time}} end"
    value = lua_run.value(source, {"bytes": "", "fPort": 1, "recvTime": 1_767_225_600_123})
    assert value["data"] == {"at": "2026-01-01T00:00:00.123Z"}
