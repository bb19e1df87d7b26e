-- The driver: runs one script's functions, each call in an environment of its own.
--
-- In: the limits (numbers). Out: `compile(source)`, `call(chunk, name, input)`, and `said()`: what
-- the last call printed.
-- The chunk is loaded once; each call runs it anew with fresh globals and fresh copies of the
-- libraries, so that nothing which a call leaves is seen by the next. What a script can reach is
-- what `base` and `libraries` name here, and nothing else.
local call_s, rep_max, hook_instructions, lines_max, chars_max = ...

local clock, sethook, setupvalue, getinfo = os.clock, debug.sethook, debug.setupvalue, debug.getinfo
local load, pcall, xpcall, error, type, select = load, pcall, xpcall, error, type, select
local rawget, rawset, next, tostring = rawget, rawset, next, tostring
local setmetatable, getmetatable = setmetatable, getmetatable
local rep, format = string.rep, string.format
local sub, concat = string.sub, table.concat
local never = math.huge
local said = {}

-- Names of what is thrown by the driver itself; no script can have these tables.
local TIME, MISSING = {}, {}
local deadline, stopped_line = never, 0

-- Reads the clock every so many instructions. `error` from here unwinds the script.
local function on_count()
  if clock() > deadline then
    if stopped_line == 0 then
      local info = getinfo(2, "l")
      stopped_line = info and info.currentline or 0
    end
    error(TIME, 0)
  end
end

local function is_over()
  return clock() > deadline
end

-- A script may catch its own errors, but not the end of its time.
local function after_pcall(ok, ...)
  if not ok and is_over() then error(TIME, 0) end
  return ok, ...
end

local base = {
  assert = assert, error = error, getmetatable = getmetatable, ipairs = ipairs, next = next,
  pairs = pairs, rawequal = rawequal, rawget = rawget, rawlen = rawlen, rawset = rawset,
  select = select, tonumber = tonumber, tostring = tostring, type = type, _VERSION = _VERSION,
  pcall = function(...) return after_pcall(pcall(...)) end,
  -- A handler runs where the clock is not read, so it never sees the end of the time.
  xpcall = function(f, handler, ...)
    return after_pcall(xpcall(f, function(thrown)
      if thrown == TIME then return thrown end
      return handler(thrown)
    end, ...))
  end,
  -- Finalizers run where the clock is not read.
  setmetatable = function(t, metatable)
    if type(metatable) == "table" and rawget(metatable, "__gc") ~= nil then
      error("__gc is not available in a script", 2)
    end
    return setmetatable(t, metatable)
  end,
  print = function(...)
    local count = #said
    if count > lines_max then return end
    if count == lines_max then
      said[count + 1] = "… and more lines"
      return
    end
    local words = {}
    for index = 1, select("#", ...) do
      words[index] = sub(tostring((select(index, ...))), 1, chars_max)
      if index == 20 then break end
    end
    said[count + 1] = sub(concat(words, "\t"), 1, chars_max)
  end,
}

local libraries = {
  string = {
    byte = string.byte, char = string.char, find = string.find, format = string.format,
    gmatch = string.gmatch, gsub = string.gsub, len = string.len, lower = string.lower,
    match = string.match, pack = string.pack, packsize = string.packsize, reverse = string.reverse,
    sub = string.sub, unpack = string.unpack, upper = string.upper,
    rep = function(s, n, separator)
      if type(s) == "string" and type(n) == "number" and n > 0 then
        local bytes = (#s + (type(separator) == "string" and #separator or 0)) * n
        if bytes > rep_max then
          local message = "string.rep would make %.0f bytes; at most %d are allowed"
          error(format(message, bytes, rep_max), 2)
        end
      end
      return rep(s, n, separator)
    end,
  },
  table = {
    concat = table.concat, insert = table.insert, move = table.move, pack = table.pack,
    remove = table.remove, sort = table.sort, unpack = table.unpack,
  },
  utf8 = {
    char = utf8.char, charpattern = utf8.charpattern, codepoint = utf8.codepoint,
    codes = utf8.codes, len = utf8.len, offset = utf8.offset,
  },
  os = {clock = os.clock, date = os.date, time = os.time},
  math = {},
}
for name, value in next, math do
  if name ~= "randomseed" then libraries.math[name] = value end
end

local function copy(from)
  local to = {}
  for key, value in next, from do to[key] = value end
  return to
end

-- Methods of strings: the library as the running script sees it, hidden from the script.
local strings = getmetatable("")
strings.__metatable = false

-- A library is copied when the script first asks for it; most ask for one.
local lazy = {__metatable = false}

local function fresh_environment()
  local environment = copy(base)
  environment._G = environment
  strings.__index = libraries.string
  return setmetatable(environment, lazy)
end

function lazy.__index(environment, name)
  local library = libraries[name]
  if library == nil then return nil end
  local copied = copy(library)
  rawset(environment, name, copied)
  if name == "string" then strings.__index = copied end
  return copied
end

local function deep_copy(value, levels)
  if type(value) ~= "table" or levels == 0 then return value end
  local to = {}
  for key, item in next, value do to[key] = deep_copy(item, levels - 1) end
  return to
end

-- With `normalize`, what the script's normalizer makes of the decoded data is a second result; its
-- failure, a text that follows, is no failure of the first.
local function run(chunk, environment, name, input, normalize, describe)
  setupvalue(chunk, 1, environment)
  chunk()
  local f = rawget(environment, name)
  if type(f) ~= "function" then error(MISSING, 0) end
  if not normalize then return f(input) end
  local g = rawget(environment, "normalize_uplink")
  local result = f(input)
  if type(g) ~= "function" or type(result) ~= "table" or rawget(result, "errors") ~= nil then
    return result
  end
  local data = rawget(result, "data")
  local ok, made = xpcall(g, describe, {data = type(data) == "table" and deep_copy(data, 64) or {}})
  if ok then return result, made end
  if made == TIME then error(TIME, 0) end
  local message = type(made) == "table" and rawget(made, "message") or tostring(made)
  return result, nil, message
end

local SOURCE = "=(script)"

-- Adds the script's line where the error stands. A table of the script's own is not called.
local function describe(thrown)
  if thrown == TIME or thrown == MISSING then return thrown end
  local line = 0
  for level = 2, 100 do
    local info = getinfo(level, "Sl")
    if not info then break end
    if info.source == SOURCE and info.currentline > 0 then
      line = info.currentline
      break
    end
  end
  local message = thrown
  if type(thrown) == "table" and type(rawget(thrown, "message")) == "string" then
    message = rawget(thrown, "message")
  end
  if type(message) == "number" then message = tostring(message) end
  if type(message) ~= "string" then message = "a " .. type(thrown) .. " was thrown" end
  return {message = message, line = line}
end

local function finish(ok, result, normalized, fault)
  deadline = never
  if ok then return "value", result, normalized, fault end
  if result == TIME then return "script_time", "", stopped_line end
  if result == MISSING then return "script_missing", "", 0 end
  if type(result) == "table" then
    return "script_threw", rawget(result, "message"), rawget(result, "line")
  end
  -- No handler ran: the engine had no room for it.
  if result == "not enough memory" then return "script_memory", "", 0 end
  return "script_threw", tostring(result), 0
end

local driver = {}

-- Text only: what was compiled elsewhere could do anything. Returns nil and why, on a fault.
function driver.compile(source)
  return load(source, SOURCE, "t", {})
end

function driver.call(chunk, name, input, normalize)
  local environment = fresh_environment()
  if #said > 0 then said = {} end
  stopped_line = 0
  deadline = clock() + call_s
  return finish(xpcall(run, describe, chunk, environment, name, input, normalize, describe))
end

function driver.said()
  return said
end

-- Runs the script's top and says which of the names are functions, as one text.
function driver.functions(chunk, names)
  local environment = fresh_environment()
  stopped_line = 0
  deadline = clock() + call_s
  local found = {}
  local kind, message, line = finish(xpcall(function()
    setupvalue(chunk, 1, environment)
    chunk()
    for _, name in ipairs(names) do
      if type(rawget(environment, name)) == "function" then found[#found + 1] = name end
    end
  end, describe))
  return kind, message or table.concat(found, " "), line
end

sethook(on_count, "", hook_instructions)
return driver
