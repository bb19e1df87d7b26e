// The driver: runs one script over a batch of calls, inside the script's own context.
//
// In: the script as a factory (its source in a function, so that every call starts from fresh
// variables), and a batch as JSON text. Out: JSON text, one outcome a call:
// {"value": …} or {"error": {code, message, name, line, column}}.
// Evaluates to a function that takes (limits as JSON text) and gives an object of functions for
// the Python side. Functions whose frames may stand in a script's stack have names that begin
// with '#', which no function declaration can have: so a line number is always the script's own.
(function (limitsText, tables, watching) {
  'use strict';
  const {parse, stringify} = JSON;
  const {apply, defineProperty, ownKeys} = Reflect;
  const {isArray, of, prototype: {join, map, slice}} = Array;
  const {isFinite, isInteger} = Number;
  const {isView} = ArrayBuffer;
  const fromBase64 = Uint8Array.fromBase64;
  const {fromCharCode, fromCodePoint} = String;
  const {test} = RegExp.prototype;
  const ARGUMENTS_MAX = 8192;
  const LISTED_MAX = 64;
  const DIRECT = 5;
  const NO_BYTES = new Uint8Array(0);
  const NativeInt8Array = Int8Array;
  const NativeDate = Date;
  const NativeFunction = Function;
  const NativeError = Error;
  const NativePromise = Promise;
  const now = Date.now;
  const global = globalThis;
  const limits = parse(limitsText);

  let factory = null;
  let operation = '';
  let thingsboard = false;
  let calls = [];
  let position = 0;
  let out = [];
  let outLength = 0;
  let broken = false;
  let restoring = false;
  let listening = false;
  let leaking = false;
  let lines = [];
  let watch = null;
  let stateless = false;
  let kept = null;  // of a stateless script, its `decodeUplink`
  let table = null;  // of `tables`, where results go to it now
  let direct = DIRECT;  // how the factory is asked for `decodeUplink`

  // ---- what goes into a script ----

  // Functions that make an Array of so many bytes, which is faster than any way for all lengths.
  const listings = [];
  function listing(length) {
    let items = '';
    for (let i = 0; i < length; i++) items += `${i ? ',' : ''}bytes[${i}]`;
    return listings[length] = new NativeFunction('bytes', `return[${items}]`);
  }
  function toBytes(text) {
    if (!text) return [];
    let bytes = fromBase64(text);
    if (limits.signed_bytes) bytes = new NativeInt8Array(bytes.buffer);
    const {length} = bytes;
    if (length <= LISTED_MAX) return (listings[length] || listing(length))(bytes);
    return length > ARGUMENTS_MAX ? slice.call(bytes) : apply(of, null, bytes);
  }
  // Text as UTF-8, as JSON bodies are; a broken sequence is U+FFFD.
  function decodeUtf8(bytes) {
    let text = '';
    // Mostly it is ASCII alone, which the engine makes a text of in one step.
    if (isArray(bytes)) {
      for (let i = 0; i < bytes.length; i += ARGUMENTS_MAX) {
        text += apply(fromCharCode, null, slice.call(bytes, i, i + ARGUMENTS_MAX));
      }
      if (!test.call(/[^\x00-\x7f]/, text)) return text;
      text = '';
    }
    for (let i = 0; i < bytes.length;) {
      const first = bytes[i++] & 255;
      let more = first < 0x80 ? 0 : first < 0xC2 ? -1 : first < 0xE0 ? 1 : first < 0xF0 ? 2
        : first < 0xF5 ? 3 : -1;
      let point = first & (more === 0 ? 127 : more === 1 ? 31 : more === 2 ? 15 : 7);
      let lowest = more === 2 ? 0x800 : more === 3 ? 0x10000 : 0;
      for (; more > 0; more--) {
        if (i >= bytes.length || (bytes[i] & 0xC0) !== 0x80) { more = -1; break; }
        point = point << 6 | bytes[i++] & 63;
      }
      const bad = more < 0 || point < lowest || point > 0x10FFFF
        || (point >= 0xD800 && point < 0xE000);
      if (bad) text += '\uFFFD';
      else text += fromCodePoint(point);
    }
    return text;
  }

  // One line of the console, as Node prints it, nearly: texts as they are, the rest as JSON.
  function line(items) {
    let text = '';
    for (const item of items) {
      if (text.length > limits.console_chars_max) break;
      if (text) text += ' ';
      try {
        const isPlain = typeof item === 'object' && item !== null && !(item instanceof NativeError);
        text += isPlain ? stringify(item) : String(item);
      } catch (error) {
        text += 'what cannot be shown';
      }
    }
    return text.slice(0, limits.console_chars_max);
  }

  const hidden = {
    ['#console'](...items) {
      if (!listening || lines.length > limits.console_lines_max) return;
      const isFull = lines.length === limits.console_lines_max;
      lines[lines.length] = isFull ? '… and more lines' : line(items);
    },
    ['#decodeToString'](payload) { return decodeUtf8(payload); },
    ['#decodeToJson'](payload) { return parse(decodeUtf8(payload)); },
  };
  const console = {};
  for (const name of ['log', 'debug', 'info', 'warn', 'error', 'trace']) {
    console[name] = hidden['#console'];
  }
  const offered = {
    console,
    decodeToString: hidden['#decodeToString'],
    decodeToJson: hidden['#decodeToJson'],
  };
  // The engine's own, not the field's, and the one enumerable global.
  delete global.performance;
  // Not enumerable, as all that is built in: what is enumerable on the global object is a script's
  // implicit global, and goes after its call.
  for (const name of ownKeys(offered)) {
    Object.defineProperty(global, name, {value: offered[name], writable: true, configurable: true});
  }

  // ---- what comes out ----

  class Refused extends NativeError {}
  function refuse(message, code) {
    const error = new Refused(message);
    error.code = code || 'script_result';
    return error;
  }

  // Typed arrays, but no DataView.
  const isTyped = (value) => value !== null && isView(value) && value.length !== undefined;

  // What JSON has no word for, met while a result is written.
  let odd = false;
  // As the field's engines write JSON: undefined is null and keeps its name, half a surrogate pair
  // is U+FFFD, a typed array is an array.
  function replacer(key, value) {
    switch (typeof value) {
      case 'number':
        if (!isFinite(value)) odd = true;
        return value;
      case 'boolean':
        return value;
      case 'string':
        return value.toWellFormed();
      case 'object':
        return isTyped(value) ? slice.call(value) : value;
      case 'undefined':
        return null;
      default:
        odd = true;
        return null;
    }
  }

  function isDeeper(value, levels) {
    if (levels === 0) return true;
    for (const key in value) {
      const item = value[key];
      if (typeof item === 'object' && item !== null && isDeeper(item, levels - 1)) return true;
    }
    return false;
  }

  // Says where the walk met what JSON cannot say.
  function complain(value, path, root, depth) {
    const type = typeof value;
    if (depth > limits.depth_max) {
      return `${root} is nested deeper than ${limits.depth_max} levels, or refers to itself`;
    }
    const noWord = 'which JSON has no word for';
    if (type === 'number' && !isFinite(value)) return `${path} is ${value}, ${noWord}`;
    if (type === 'function' || type === 'symbol' || type === 'bigint') {
      return `${path} is a ${type}, ${noWord}`;
    }
    if (type === 'object' && value !== null) {
      for (const key in value) {
        const inner = isArray(value) ? `${path}[${key}]` : `${path}.${key}`;
        const found = complain(value[key], inner, root, depth + 1);
        if (found) return found;
      }
    }
    return '';
  }

  function toJson(value, path) {
    let text;
    odd = false;
    try {
      text = stringify(value, replacer);
    } catch (error) {
      // A circle, or too deep for the engine; or a getter of the script's own threw.
      if (error === null || error instanceof InternalError) throw error;
      throw refuse(complain(value, path, path, 0) || String(error));
    }
    // A level takes two characters at least.
    if (text.length > 2 * limits.depth_max && isDeeper(value, limits.depth_max)) odd = true;
    if (odd) throw refuse(complain(value, path, path, 0) || `${path} is not JSON`);
    if (text.length > limits.result_bytes_max) {
      const limit = limits.result_bytes_max;
      throw refuse(`${path} has ${text.length} characters as JSON; at most ${limit} are allowed`);
    }
    return text;
  }

  function words(list) {
    if (list === undefined || list === null || list === '') return [];
    return (isArray(list) ? list : [list]).map((word) => {
      if (typeof word === 'string') return word;
      if (word instanceof NativeError) return String(word);
      return typeof word === 'object' ? stringify(word) : String(word);
    });
  }

  function wordsToJson(list) {
    if (list === undefined || list === null || list.length === 0) return '[]';
    return toJson(words(list), 'warnings');
  }

  function named(value) {
    if (value === null || value === undefined) return String(value);
    if (isArray(value)) return 'an array';
    return typeof value === 'object' ? 'an object' : `a ${typeof value}`;
  }
  function shown(value) {
    if (typeof value === 'string') return stringify(value.slice(0, 20));
    return typeof value === 'number' ? value : named(value);
  }
  const isObject = (value) => typeof value === 'object' && value !== null && !isArray(value);

  function requireObject(result, name) {
    if (!isObject(result)) {
      throw refuse(`${name} returned ${named(result)} where an object is needed`);
    }
    // A Promise has no fields of its own; to ask each result for its class costs more than this.
    if (result.data === undefined && result instanceof NativePromise) {
      throw refuse(`${name} returned a Promise; a script cannot wait`);
    }
    if (result.errors === undefined) return;
    const errors = words(result.errors);
    if (errors.length) throw refuse(errors.join(', '), 'script_errors');
  }

  // What the older functions return is the data itself; a field `errors` is one of its fields.
  function requireData(data, name) {
    if (!isObject(data)) {
      throw refuse(`${name} returned ${named(data)} where an object is needed`);
    }
  }

  // The Things Stack takes one measurement or a list of them; here it is always a list.
  function normalized(result) {
    requireObject(result, 'normalizeUplink');
    let {data} = result;
    if (data === undefined || data === null) data = [];
    else if (isObject(data)) data = [data];
    if (!isArray(data)) throw refuse(`data is ${named(data)} where measurements are needed`);
    return `{"data":${toJson(data, 'data')},"warnings":${wordsToJson(result.warnings)}}`;
  }

  function decoded(result, name) {
    requireObject(result, name);
    const {data, warnings} = result;
    return withData(data === undefined || data === null ? requireKnown(result, name) : data, warnings);
  }

  // No data: fine with warnings, or of an empty object; else the name was forgotten.
  function requireKnown(result, name) {
    let known = false, any = false;
    for (const key in result) {
      any = true;
      if (key === 'data' || key === 'warnings' || key === 'errors') known = true;
    }
    if (any && !known) throw refuse(`${name} returned no \`data\`: return {data: {…}}`);
    return {};
  }

  // What the normalizer makes of decoded data goes beside it; its failure is a warning, since the
  // data are there.
  function decodedAndNormalized(result, normalizeUplink) {
    requireObject(result, 'decodeUplink');
    let {data, warnings} = result;
    if (data === undefined || data === null) data = requireKnown(result, 'decodeUplink');
    if (!isObject(data)) return withData(data, warnings);
    const text = toJson(data, 'data');
    let made;
    try {
      made = normalized(normalizeUplink({data: parse(text)}));
    } catch (error) {
      const {message, line} = describe(error);
      if (broken) throw error;
      const place = line ? ` (line ${line})` : '';
      warnings = [...words(warnings), `normalizeUplink: ${message}${place}`];
      return `{"data":${text},"warnings":${wordsToJson(warnings)}}`;
    }
    return `{"data":${text},"warnings":${wordsToJson(warnings)},"normalized":${made}}`;
  }

  // Returns null where the data went into a table.
  function withData(data, warnings) {
    if (typeof data !== 'object' || data === null || isArray(data)) {
      throw refuse(`data is ${named(data)} where an object is needed`);
    }
    const isSilent = warnings === undefined || warnings === null || warnings.length === 0;
    if (isSilent && table !== null && table.put(data)) return null;
    return `{"data":${toJson(data, 'data')},"warnings":${wordsToJson(warnings)}}`;
  }

  function encoded(bytes, fPort, warnings) {
    if (typeof bytes === 'object' && isTyped(bytes)) bytes = slice.call(bytes);
    if (!isArray(bytes)) throw refuse(`bytes is ${named(bytes)} where an array of bytes is needed`);
    if (bytes.length > limits.encoded_bytes_max) {
      const limit = limits.encoded_bytes_max;
      throw refuse(`bytes has ${bytes.length} bytes; at most ${limit} are allowed`);
    }
    for (let i = 0; i < bytes.length; i++) {
      const byte = bytes[i];
      if (!isInteger(byte) || byte < 0 || byte > 255) {
        throw refuse(`bytes[${i}] is ${shown(byte)}, not a whole number from 0 to 255`);
      }
    }
    if (fPort === undefined || fPort === null) fPort = null;
    else if (!isInteger(fPort) || fPort < 0 || fPort > 255) {
      throw refuse(`fPort is ${shown(fPort)}, not a whole number from 0 to 255`);
    }
    return `{"bytes":${stringify(bytes)},"fPort":${fPort},"warnings":${wordsToJson(warnings)}}`;
  }

  function plain(result, name) {
    if (!isArray(result)) requireData(result, name);
    return toJson(result, 'the result');
  }

  function plainOrErrors(result, name) {
    if (!isArray(result)) requireObject(result, name);
    return plain(result, name);
  }

  function missing(...names) {
    return refuse(`the script defines no function ${names.join(' or ')}`, 'script_missing');
  }

  // ---- the contracts ----

  // What was parsed for this call becomes its input: names that only an example has go along.
  function input(argument) {
    argument.bytes = toBytes(argument.bytes);
    const time = argument.recvTime;
    if (time === null) delete argument.recvTime;
    else if (time !== undefined) argument.recvTime = new NativeDate(time);
    return argument;
  }

  // What `input` and `decoded` do, in one step where all is as it mostly is: a call of a function
  // costs as much as eight bytes.
  function directly(argument, decodeUplink) {
    // With `var`, which the engine need not check for being there.
    var text = argument.bytes, recvTime = argument.recvTime;
    var bytes = text ? fromBase64(text) : NO_BYTES;
    var list = listings[bytes.length];
    if (list === undefined || typeof recvTime !== 'number' || table === null) {
      return decoded(decodeUplink(input(argument)), 'decodeUplink');
    }
    argument.bytes = list(bytes);
    argument.recvTime = new NativeDate(recvTime);
    var result = decodeUplink(argument);
    if (typeof result === 'object' && result !== null) {
      var data = result.data;
      if (typeof data === 'object' && data !== null && result.warnings === undefined
        && result.errors === undefined && table.put(data)) return null;
    }
    return decoded(result, 'decodeUplink');
  }

  const operations = {
    decode_uplink(argument) {
      if (kept !== null && !thingsboard) return directly(argument, kept);
      const defined = factory.call(global, thingsboard ? 0 : direct);
      if (typeof defined === 'function') {
        if (stateless) kept = defined;
        return directly(argument, defined);
      }
      const decodeUplink = defined[0];
      if (decodeUplink && !thingsboard) {
        const result = decodeUplink(input(argument));
        const normalizeUplink = defined[5];
        return normalizeUplink ? decodedAndNormalized(result, normalizeUplink)
          : decoded(result, 'decodeUplink');
      }
      const [, Decoder, Converter, Validator, Decode] = defined;
      if (thingsboard) {
        if (Decoder) return plain(Decoder(toBytes(argument.payload), argument.metadata), 'Decoder');
        if (!decodeUplink) throw missing('Decoder', 'decodeUplink');
        const {payload, metadata} = argument;
        const given = {bytes: toBytes(payload), fPort: metadata && metadata.fPort, metadata};
        return plainOrErrors(decodeUplink(given), 'decodeUplink');
      }
      const port = argument.fPort;
      if (Decode && !Decoder) {
        const data = Decode(port, toBytes(argument.bytes), argument.variables || {});
        requireData(data, 'Decode');
        return withData(data);
      }
      if (!Decoder) throw missing('decodeUplink', 'Decoder', 'Decode');
      let data = Decoder(toBytes(argument.bytes), port);
      requireData(data, 'Decoder');
      if (Converter) {
        data = Converter(data, port);
        requireData(data, 'Converter');
      }
      if (Validator) {
        const verdict = Validator(data, port);
        if (verdict === false) throw refuse('the Validator refused it', 'script_errors');
        if (verdict !== true) {
          throw refuse(`Validator returned ${named(verdict)}, not true or false`);
        }
      }
      return withData(data);
    },
    encode_downlink(argument) {
      const [encodeDownlink, Encoder, Encode] = factory.call(global, 1);
      if (thingsboard) {
        const {msg, metadata, msgType, integrationMetadata} = argument;
        if (Encoder) return plain(Encoder(msg, metadata, msgType, integrationMetadata), 'Encoder');
        if (!encodeDownlink) throw missing('Encoder', 'encodeDownlink');
        const given = {data: msg, metadata, msgType, integrationMetadata};
        return plainOrErrors(encodeDownlink(given), 'encodeDownlink');
      }
      const {data, fPort, variables} = argument;
      if (encodeDownlink) {
        if (fPort === null) argument.fPort = undefined;
        const result = encodeDownlink(argument);
        requireObject(result, 'encodeDownlink');
        return encoded(result.bytes, result.fPort, result.warnings);
      }
      if (Encode && !Encoder) return encoded(Encode(fPort, data, variables || {}), null);
      if (!Encoder) throw missing('encodeDownlink', 'Encoder', 'Encode');
      return encoded(Encoder(data, fPort), null);
    },
    decode_downlink(argument) {
      const [decodeDownlink] = factory.call(global, 2);
      if (!decodeDownlink) throw missing('decodeDownlink');
      return decoded(decodeDownlink(input(argument)), 'decodeDownlink');
    },
    normalize_uplink(argument) {
      const [normalizeUplink] = factory.call(global, 3);
      if (!normalizeUplink) throw missing('normalizeUplink');
      return normalized(normalizeUplink({data: argument.data}));
    },
    // A message in a rule chain: any JSON comes out. A body has ThingsBoard's names.
    handle_message(argument) {
      const [handleMessage, Body] = factory.call(global, 4);
      if (!handleMessage && !Body) throw missing('handleMessage');
      const {telemetry, metadata, msgType} = argument;
      const result = handleMessage ? handleMessage(argument)
        : Body(telemetry, metadata, msgType, {});
      if (result instanceof NativePromise) {
        throw refuse('the script returned a Promise; a script cannot wait');
      }
      return toJson(result, 'the result');
    },
  };

  // ---- errors ----

  // The topmost frame that is the script's: not native, not the driver's; and not the place in a
  // JSON text that JSON.parse adds, which has no function.
  function place(stack) {
    for (const frame of stack.split('\n')) {
      const found = /^ {4}at (.*) \(<input>:(\d+):(\d+)\)$/.exec(frame);
      if (found === null || found[1].startsWith('#')) continue;
      const line = +found[2], column = +found[3];
      return {line, column: line === 1 ? column - limits.column_offset : column};
    }
    return {line: 0, column: 0};
  }

  function describe(error) {
    if (error instanceof Refused) return {code: error.code, message: error.message};
    if (error === null) {
      // The engine throws null where there is no memory left for an error.
      broken = true;
      return {code: 'script_memory', message: 'the script ran out of memory (or threw null)'};
    }
    let name = '', message, line = 0, column = 0;
    if (typeof error === 'object' && typeof error.message === 'string') {
      name = String(error.name);
      message = name ? `${name}: ${error.message}` : error.message;
      if (error.message === 'out of memory') {
        broken = true;
        return {code: 'script_memory', message: 'the script ran out of memory'};
      }
      if (error.message === 'Maximum call stack size exceeded') broken = true;
      if (typeof error.stack === 'string') ({line, column} = place(error.stack));
    } else {
      message = typeof error === 'object' ? stringify(error) : String(error);
    }
    message = String(message).slice(0, limits.message_max);
    return {code: 'script_threw', name, message, line, column};
  }

  function failure(error) {
    try {
      return `{"error":${stringify(describe(error), replacer)}}`;
    } catch (worse) {
      broken = true;
      const message = 'an error that cannot be shown was thrown';
      return `{"error":{"code":"script_threw","message":"${message}"}}`;
    }
  }

  // ---- all outcomes as one text ----

  // Half a surrogate pair in a name, which JSON.stringify writes as an escape, is refused: looked
  // for in all that comes out at once.
  const ESCAPED = /(?:^|[^\\])(?:\\\\)*\\ud/;
  function joined() {
    let text = join.call(out, ',');
    if (text.indexOf('\\ud') >= 0 && test.call(ESCAPED, text)) {
      const refused = failure(refuse('a name in the result is not Unicode'));
      text = join.call(map.call(out, (one) => test.call(ESCAPED, one) ? refused : one), ',');
    }
    const head = table === null ? '' : table.text();
    // A long text that was put together otherwise is a kind that the binding does not know.
    return head && text ? join.call([head, text], ',') : head || text;
  }

  // ---- what Python calls ----

  return {
    // `Buffer` only where a script asks for it: each object here is looked at after each slice.
    prepare(compiled, words, isNormalizing, isComputing, isStateless, Buffer) {
      factory = compiled;
      direct = isNormalizing ? 0 : DIRECT;
      if (isComputing) tables = null;
      // Signed bytes are made by `input`.
      if (limits.signed_bytes) direct = 0;
      stateless = isStateless;
      if (Buffer) {
        const modules = {buffer: {Buffer}, 'node:buffer': {Buffer}};
        const offers = {
          Buffer,
          require: {['#require'](name) {
            const found = modules[name];
            if (found === undefined) throw new NativeError(`there is no module ${name}`);
            return {...found};
          }}['#require'],
        };
        for (const name of ownKeys(offers)) {
          defineProperty(global, name, {value: offers[name], writable: true, configurable: true});
        }
      }
      watch = watching(words);
    },
    load(text, wanted, isThingsboard, isAltering, isListening, isLeaking) {
      calls = parse(text);
      operation = wanted;
      thingsboard = isThingsboard;
      restoring = isAltering;
      listening = isListening;
      leaking = isLeaking;
      lines = [];
      table = isListening ? null : tables;
      position = 0;
      out = [];
      return calls.length;
    },
    run(slice_ms, count_max) {
      out = [];
      outLength = 0;
      if (table !== null) table.begin();
      const step = operations[operation];
      const end = calls.length - position > count_max ? position + count_max : calls.length;
      const stop = now() + slice_ms;
      while (position < end && !broken) {
        var text;
        try {
          text = step(calls[position]);
          if (text !== null) text = `{"value":${text}}`;
        } catch (error) {
          text = failure(error);
        }
        if (listening && lines.length) {
          text = `${text.slice(0, -1)},"console":${stringify(lines, replacer)}}`;
          lines = [];
        }
        if (restoring && !watch.restore()) broken = true;
        if (leaking) watch.forget();
        if (text !== null) {
          out[out.length] = text;
          outLength += text.length;
        }
        if (table !== null) outLength += table.count(text === null);
        calls[position] = null;
        position += 1;
        if (now() >= stop || outLength > limits.slice_bytes_max) break;
      }
      return joined();
    },
    drain() { return joined(); },
    position() { return position; },
    isBroken() { return broken; },
    isAltered() { return watch.isAltered(); },
    // Whether implicit globals were all that a script left; they are gone then.
    leaksOnly() {
      watch.forget();
      return !watch.isAltered();
    },
    functions() {
      const found = [];
      limits.names.forEach((names, which) => {
        const values = factory.call(global, which);
        names.forEach((name, i) => { if (values[i] && !found.includes(name)) found.push(name); });
      });
      return stringify(found);
    },
  };
})
