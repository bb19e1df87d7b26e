// What TBEL has and JavaScript lacks: Java's methods and classes, and ThingsBoard's functions
// (thingsboard.io/docs/user-guide/tbel, written from its description).
//
// In: nothing; defines globals that cannot be enumerated. Bytes are signed, as Java's are.
// Functions have names that begin with '#', see driver.js.
(function () {
  'use strict';
  const {isArray} = Array;
  const {isFinite, isInteger} = Number;
  const {parse, stringify} = JSON;
  const parseWhole = parseInt;
  const fail = (message) => { throw new Error(message); };
  const signed = (byte) => byte << 24 >> 24;
  const isMap = (value) => typeof value === 'object' && value !== null && !isArray(value)
    && !(value instanceof Date);

  // ---- Java's methods, by the names that the translation gives them ----

  const shown = (value) => value === null || value === undefined ? 'null'
    : typeof value === 'object' ? stringify(value) : String(value);
  function same(a, b) {
    if (a === b || (a === undefined ? null : a) === (b === undefined ? null : b)) return true;
    return typeof a === 'object' && typeof b === 'object' && stringify(a) === stringify(b);
  }
  // Java's expressions are JavaScript's, but for inline flags at their begin.
  function pattern(text, flags) {
    const found = /^\(\?([imsu]+)\)/.exec(text);
    if (found === null) return new RegExp(text, flags);
    return new RegExp(text.slice(found[0].length), flags + found[1]);
  }
  const lists = {
    add(at, item) {
      if (arguments.length === 1) { this.push(at); return true; }
      this.splice(at, 0, item);
      return undefined;
    },
    addAll(at, items) {
      if (arguments.length === 1) for (const item of each(at)) this.push(item);
      else this.splice(at, 0, ...items);
      return true;
    },
    clear() { this.length = 0; },
    contains(item) { return this.some((own) => same(own, item)); },
    get(index) {
      if (index < 0 || index >= this.length) {
        fail(`Index ${index} out of bounds for length ${this.length}`);
      }
      return this[index];
    },
    isEmpty() { return this.length === 0; },
    indexOf(item) { return this.findIndex((own) => same(own, item)); },
    lastIndexOf(item) {
      for (let i = this.length - 1; i >= 0; i--) if (same(this[i], item)) return i;
      return -1;
    },
    length() { return this.length; },
    remove(index) {
      if (isInteger(index)) return this.splice(index, 1)[0];
      const at = lists.indexOf.call(this, index);
      if (at >= 0) this.splice(at, 1);
      return at >= 0;
    },
    removeAll(items) {
      const before = this.length;
      const kept = this.filter((own) => !items.some((item) => same(own, item)));
      this.splice(0, before, ...kept);
      return kept.length < before;
    },
    set(index, item) { const before = this[index]; this[index] = item; return before; },
    size() { return this.length; },
    shift() { return this.shift(); },
    sort(isAscending) {
      this.sort((a, b) => typeof a === 'number' && typeof b === 'number' ? a - b
        : shown(a) < shown(b) ? -1 : shown(a) > shown(b) ? 1 : 0);
      if (isAscending === false) this.reverse();
      return this;
    },
    subList(from, to) { return this.slice(from, to); },
    sum() { return this.reduce((sum, item) => sum + item, 0); },
    avg() { return this.reduce((sum, item) => sum + item, 0) / this.length; },
    keysOf() { return Array.from(this.keys()); },
    sizeOf() { return this.length; },
    toArray() { return this.slice(); },
    toList() { return this.slice(); },
    toString() { return `[${this.map(shown).join(', ')}]`; },
    equals(other) { return same(this, other); },
  };
  const maps = {
    clear() { for (const key of Object.keys(this)) delete this[key]; },
    containsKey(key) { return Object.hasOwn(this, key); },
    contains(key) { return Object.hasOwn(this, key); },
    containsValue(value) { return Object.values(this).some((own) => same(own, value)); },
    entrySet() { return Object.keys(this).map((key) => new Entry(this, key)); },
    equals(other) { return same(this, other); },
    get(key) { const value = Object.hasOwn(this, key) ? this[key] : null; return value; },
    getKey() { return this.key; },
    getOrDefault(key, otherwise) { return Object.hasOwn(this, key) ? this[key] : otherwise; },
    getValue() { return this.value; },
    isEmpty() { return Object.keys(this).length === 0; },
    keySet() { return Object.keys(this); },
    keys() { return Object.keys(this); },
    keysOf() { return Object.hasOwn(this, 'keys') ? this.keys : Object.keys(this); },
    sizeOf() { return Object.hasOwn(this, 'size') ? this.size : Object.keys(this).length; },
    put(key, value) { const before = this[key]; this[key] = value; return before; },
    putAll(other) { if (other) Object.assign(this, other); else fail('putAll of null'); },
    putIfAbsent(key, value) { if (!Object.hasOwn(this, key)) this[key] = value; },
    remove(key) { const before = this[key]; delete this[key]; return before; },
    size() { return Object.keys(this).length; },
    toString() {
      return `{${Object.keys(this).map((key) => `${key}=${shown(this[key])}`).join(', ')}}`;
    },
    values() { return Object.values(this); },
  };
  const texts = {
    compareTo(other) { return this < other ? -1 : this > other ? 1 : 0; },
    contains(other) { return this.includes(other); },
    equals(other) { return String(this) === other; },
    equalsIgnoreCase(other) { return this.toLowerCase() === String(other).toLowerCase(); },
    getBytes() { return utf8(String(this)).map(signed); },
    indexOf(other, from) { return this.indexOf(other, from); },
    isBlank() { return this.trim() === ''; },
    isEmpty() { return this.length === 0; },
    lastIndexOf(other) { return this.lastIndexOf(other); },
    length() { return this.length; },
    matches(text) { return pattern(`^(?:${text})$`, '').test(this); },
    replace(from, to) { return this.split(from).join(to); },
    replaceAll(text, to) { return this.replace(pattern(text, 'g'), to); },
    replaceFirst(text, to) { return this.replace(pattern(text, ''), to); },
    size() { return this.length; },
    split(text, limit) { return this.split(pattern(text, ''), limit); },
    strip() { return this.trim(); },
    toLowerCase() { return this.toLowerCase(); },
    toString() { return String(this); },
    toUpperCase() { return this.toUpperCase(); },
  };
  const numbers = {
    byteValue() { return signed(this); },
    doubleValue() { return +this; },
    equals(other) { return +this === other; },
    floatValue() { return +this; },
    intValue() { return Math.trunc(this) | 0; },
    longValue() { return Math.trunc(this); },
    toString() { return String(this); },
  };
  class Entry {
    constructor(map, key) { this.key = key; this.value = map[key]; }
  }

  // ---- loops and arrays ----

  function each(list) {
    if (list === null || list === undefined) return fail('nothing to go over: it is null');
    if (isArray(list) || typeof list === 'string') return list;
    if (ArrayBuffer.isView(list)) return Array.from(list);
    if (isInteger(list)) return Array.from({length: list}, (_, index) => index + 1);
    return maps.entrySet.call(list);
  }

  // ---- bytes and numbers ----

  function utf8(text) {
    const bytes = [];
    for (const character of text) {
      const point = character.codePointAt(0);
      if (point < 0x80) bytes.push(point);
      else if (point < 0x800) bytes.push(0xC0 | point >> 6, 0x80 | point & 63);
      else if (point < 0x10000) {
        bytes.push(0xE0 | point >> 12, 0x80 | point >> 6 & 63, 0x80 | point & 63);
      } else {
        bytes.push(0xF0 | point >> 18, 0x80 | point >> 12 & 63, 0x80 | point >> 6 & 63,
          0x80 | point & 63);
      }
    }
    return bytes;
  }
  const toBytes = (data) => typeof data === 'string' ? hexToBytes(data) : data;
  function hexDigits(text) {
    if (text === null || text === undefined) fail('a hexadecimal text is null');
    text = String(text).replace(/^(0x|#)/i, '');
    if (!/^[0-9A-Fa-f]*$/.test(text)) fail(`not hexadecimal: ${text.slice(0, 40)}`);
    return text;
  }
  // Lists that hold Java's bytes.
  const byteLists = new WeakSet();
  function asBytes(list) { byteLists.add(list); return list; }
  function hexToBytes(text) {
    text = hexDigits(text);
    if (text.length % 2) text = `0${text}`;
    const bytes = [];
    for (let i = 0; i < text.length; i += 2) {
      bytes.push(signed(parseWhole(text.slice(i, i + 2), 16)));
    }
    return asBytes(bytes);
  }
  const hexOf = (bytes) => Array.from(bytes, (byte) => (byte & 255).toString(16).padStart(2, '0'))
    .join('');
  const binary = (bytes) => Array.from(bytes, (byte) => String.fromCharCode(byte & 255)).join('');

  // A part of the bytes, the highest first.
  function part(data, offset, length, isBig, most) {
    data = toBytes(data);
    if (offset === undefined) offset = 0;
    if (length === undefined) length = Math.min(most, data.length - offset);
    if (offset < 0 || offset > data.length) {
      fail(`Offset: ${offset} is out of bounds for array with length: ${data.length}!`);
    }
    if (length > most) fail(`Length: ${length} is too large. Maximum ${most} bytes is allowed!`);
    if (offset + length > data.length) {
      fail(`Offset: ${offset} and Length: ${length} is out of bounds for array with length: `
        + `${data.length}!`);
    }
    const bytes = data.slice(offset, offset + length).map((byte) => byte & 255);
    return isBig === false ? bytes.reverse() : bytes;
  }
  function whole(bytes, isSigned) {
    let value = 0n;
    for (const byte of bytes) value = value << 8n | BigInt(byte);
    return Number(isSigned ? BigInt.asIntN(8 * bytes.length, value) : value);
  }
  // Whole numbers of fewer bytes than the type has are never below zero.
  const toInt = (bytes) => whole(bytes, bytes.length === 4);
  const toLong = (bytes) => whole(bytes, bytes.length === 8);
  // A float is printed in Java by as few digits as tell it from its neighbours.
  function float(value) {
    for (let digits = 1; digits < 9 && isFinite(value); digits++) {
      const short = Number(value.toPrecision(digits));
      if (Math.fround(short) === value) return short;
    }
    return value;
  }
  function view(bytes) {
    const made = new DataView(new ArrayBuffer(8));
    bytes.forEach((byte, index) => made.setUint8(8 - bytes.length + index, byte));
    return made;
  }
  const toFloat = (bytes) => float(view(bytes).getFloat32(4));
  const toDouble = (bytes) => view(bytes).getFloat64(0);

  // Half away from zero, of the number as it is printed: BigDecimal's HALF_UP.
  function toFixed(value, digits) {
    const shifted = (number, by) => {
      const [base, exponent] = String(number).split('e');
      return Number(`${base}e${+(exponent || 0) + by}`);
    };
    const size = shifted(Math.round(shifted(Math.abs(value), digits)), -digits);
    return value < 0 ? -size : size;
  }

  function parseNumber(text, radix, isWhole) {
    if (text === null || text === undefined) return null;
    if (typeof text === 'number') return isWhole ? Math.trunc(text) : text;
    text = String(text).trim();
    if (!isWhole) {
      const value = Number(text);
      return text === '' ? null : value !== value ? fail(`NumberFormatException: ${text}`) : value;
    }
    if (text === '') return null;
    if (radix === undefined || radix === 0) radix = /^[+-]?0x/i.test(text) ? 16 : 10;
    const digits = radix === 16 ? text.replace(/^([+-]?)(0x|#)/i, '$1') : text;
    const value = parseWhole(digits, radix);
    if (value !== value) fail(`NumberFormatException: for input string "${text}"`);
    return value;
  }

  function pad(text, length, fill, isStart) {
    return isStart ? String(text).padStart(length, fill) : String(text).padEnd(length, fill);
  }
  function toHex(value, width, isBig, isPrefixed, length) {
    let text = BigInt.asUintN(width, BigInt(Math.trunc(value))).toString(16).toUpperCase();
    if (value >= 0 && text.length % 2) text = `0${text}`;
    if (length) text = text.padStart(length, '0').slice(-length);
    if (isBig === false) text = text.match(/../g).reverse().join('');
    return isPrefixed ? `0x${text}` : text;
  }

  function format(text, ...values) {
    let next = 0;
    return text.replace(/%(?:(\d+)\$)?([-#+ 0,(]*)(\d+)?(?:\.(\d+))?([a-zA-Z%])/g,
      (found, index, flags, width, precision, kind) => {
        if (kind === '%') return '%';
        if (kind === 'n') return '\n';
        const value = values[index ? index - 1 : next++];
        let made;
        switch (kind) {
          case 'd': made = String(Math.trunc(value)); break;
          case 'x': case 'X': {
            // A number that a byte can be is taken for one: most are, of those below zero.
            const number = BigInt(Math.trunc(value));
            const width = value >= -128 ? 8 : 32;
            made = (number < 0n ? BigInt.asUintN(width, number) : number).toString(16);
            break;
          }
          case 'o': made = Math.trunc(value).toString(8); break;
          case 'f': made = Math.abs(value) < 1e21
            ? toFixed(value, precision === undefined ? 6 : +precision)
              .toFixed(precision === undefined ? 6 : +precision) : String(value); break;
          case 'e': made = value.toExponential(precision === undefined ? 6 : +precision); break;
          case 'c': made = typeof value === 'number' ? String.fromCodePoint(value) : shown(value);
            break;
          default: made = shown(value);
            if (precision !== undefined) made = made.slice(0, +precision);
        }
        if (kind === 'X' || kind === 'S') made = made.toUpperCase();
        if (flags.includes('+') && value >= 0) made = `+${made}`;
        if (!width) return made;
        if (flags.includes('-')) return made.padEnd(+width);
        return made.padStart(+width, flags.includes('0') ? '0' : ' ');
      });
  }

  function flat(map, excluded, isPathed, prefix, into) {
    for (const key of Object.keys(map)) {
      if (excluded.includes(key)) continue;
      const value = map[key];
      const name = isPathed && prefix ? `${prefix}.${key}` : key;
      if (typeof value === 'object' && value !== null) {
        flat(value, excluded, isPathed, name, into);
      } else into[name] = value;
    }
    return into;
  }

  const bits = (value, length) =>
    Array.from({length}, (_, i) => Number(BigInt(value) >> BigInt(i) & 1n));

  // ---- ThingsBoard's functions ----

  const functions = {
    $each: each,
    $bytes(payload) { return isArray(payload) ? asBytes(payload) : payload; },
    // A byte divided by a whole number stays whole, what functions return does not.
    $quotient(list, value) { return byteLists.has(list) ? Math.trunc(value) : value; },
    $int(value) {
      return typeof value === 'string' ? parseNumber(value, 10, true) : Math.trunc(value);
    },
    // Java's Double.toString.
    $double(value) {
      if (typeof value !== 'number' || !isFinite(value)) return value;
      const size = Math.abs(value);
      if (size === 0 || (size >= 1e-3 && size < 1e7)) {
        const text = Object.is(value, -0) ? '-0' : String(value);
        return text.includes('.') ? text : `${text}.0`;
      }
      const [digits, exponent] = value.toExponential().split('e');
      return `${digits.includes('.') ? digits : `${digits}.0`}E${+exponent}`;
    },
    $char(value) { return typeof value === 'number' ? String.fromCodePoint(value) : value; },
    $float(value) { return float(Math.fround(value)); },
    $array(length) { return new Array(length).fill(0); },
    base64ToBytes(text) { return asBytes(Array.from(atob(text), (c) => signed(c.charCodeAt(0)))); },
    base64ToBytesList(text) { return functions.base64ToBytes(text); },
    base64ToHex(text) { return hexOf(functions.base64ToBytes(text)).toUpperCase(); },
    bytesToBase64(bytes) { return btoa(binary(bytes)); },
    bytesToHex(bytes) { return hexOf(bytes).toUpperCase(); },
    bytesToString(bytes) { return decodeToString(bytes); },
    bytesToExecutionArrayList(bytes) { return Array.from(bytes); },
    stringToBytes(text) { return utf8(String(text)).map(signed); },
    hexToBytes,
    hexToBytesArray: hexToBytes,
    hexToBase64(text) { return btoa(binary(hexToBytes(text))); },
    intToHex(value, isBig, isPrefixed, length) {
      return toHex(value, 32, isBig, isPrefixed, length);
    },
    longToHex(value, isBig, isPrefixed, length) {
      return toHex(value, 64, isBig, isPrefixed, length);
    },
    parseInt(text, radix) { return parseNumber(text, radix, true); },
    parseLong(text, radix) { return parseNumber(text, radix, true); },
    parseFloat(text) {
      const value = parseNumber(text, undefined, false);
      return value === null ? null : float(Math.fround(value));
    },
    parseDouble(text) { return parseNumber(text, undefined, false); },
    parseHexToInt(text, isBig) { return toInt(part(text, 0, undefined, isBig, 4)); },
    parseBigEndianHexToInt(text) { return toInt(part(text, 0, undefined, true, 4)); },
    parseLittleEndianHexToInt(text) { return toInt(part(text, 0, undefined, false, 4)); },
    parseHexToLong(text, isBig) { return toLong(part(text, 0, undefined, isBig, 8)); },
    parseBigEndianHexToLong(text) { return toLong(part(text, 0, undefined, true, 8)); },
    parseLittleEndianHexToLong(text) { return toLong(part(text, 0, undefined, false, 8)); },
    parseHexToFloat(text, isBig) { return toFloat(part(text, 0, undefined, isBig, 4)); },
    parseHexToDouble(text, isBig) { return toDouble(part(text, 0, undefined, isBig, 8)); },
    parseBytesToInt(data, offset, length, isBig) {
      return toInt(part(data, offset, length, isBig, 4));
    },
    parseBytesToLong(data, offset, length, isBig) {
      return toLong(part(data, offset, length, isBig, 8));
    },
    parseBytesToFloat(data, offset, length, isBig) {
      if (typeof length === 'boolean') { isBig = length; length = 4; }
      return toFloat(part(data, offset, length, isBig, 4));
    },
    parseBytesIntToFloat(data, offset, length, isBig) {
      if (typeof length === 'boolean') { isBig = length; length = 4; }
      return toInt(part(data, offset, length, isBig, 4));
    },
    parseBytesToDouble(data, offset, length, isBig) {
      if (typeof length === 'boolean') { isBig = length; length = 8; }
      return toDouble(part(data, offset, length, isBig, 8));
    },
    parseBytesLongToDouble(data, offset, length, isBig) {
      if (typeof length === 'boolean') { isBig = length; length = 8; }
      return toLong(part(data, offset, length, isBig, 8));
    },
    parseByteToBinaryArray(byte, length, isBig) {
      const made = bits(byte & 255, length || 8);
      return isBig === false ? made : made.reverse();
    },
    parseBytesToBinaryArray(bytes, length) {
      const made = [].concat(...Array.from(bytes, (byte) => bits(byte & 255, 8).reverse()));
      return length ? made.slice(-length) : made;
    },
    parseLongToBinaryArray(value, length) { return bits(value, length || 64).reverse(); },
    parseBinaryArrayToInt(list, offset, length) {
      const from = offset || 0;
      const chosen = list.slice(from, length === undefined ? list.length : from + length);
      return chosen.reduce((value, bit) => value * 2 + bit, 0);
    },
    toFixed,
    toInt(value) { return Math.round(value); },
    toFlatMap(map, excluded, isPathed) {
      if (typeof excluded === 'boolean') { isPathed = excluded; excluded = []; }
      return flat(map, excluded || [], isPathed !== false, '', {});
    },
    padStart(text, length, fill) { return pad(text, length, fill, true); },
    padEnd(text, length, fill) { return pad(text, length, fill, false); },
    raiseError(message) { return fail(shown(message)); },
    isBinary(text) { return /^[01]+$/.test(text) ? 2 : -1; },
    isOctal(text) { return /^[0-7]+$/.test(text) ? 8 : -1; },
    isDecimal(text) { return /^[-+]?\d+(\.\d+)?$/.test(text) ? 10 : -1; },
    isHexadecimal(text) { return /^(0x|#)?[0-9A-Fa-f]+$/.test(text) ? 16 : -1; },
    isNaN(value) { return Number.isNaN(value); },
    isMap,
    isList: isArray,
    isArray,
    decodeToString(payload) { return decodeUtf8(payload); },
    decodeToJson(payload) {
      return parse(typeof payload === 'string' ? payload : decodeUtf8(payload));
    },
    reverse(list) { return list.slice().reverse(); },
  };
  const decodeUtf8 = globalThis.decodeToString;

  // ---- Java's classes ----

  const box = (radixed) => (text, radix) => parseNumber(text, radix, radixed);
  const classes = {
    Integer: {
      MIN_VALUE: -2147483648, MAX_VALUE: 2147483647,
      parseInt: box(true), valueOf: box(true),
      toString(value, radix) { return value.toString(radix || 10); },
      toHexString(value) { return (value >>> 0).toString(16); },
      toBinaryString(value) { return (value >>> 0).toString(2); },
      toUnsignedLong(value) { return value >>> 0; },
      bitCount(value) { return (value >>> 0).toString(2).replace(/0/g, '').length; },
      compare(a, b) { return a < b ? -1 : a > b ? 1 : 0; },
    },
    Long: {
      MIN_VALUE: -(2 ** 63), MAX_VALUE: 2 ** 63 - 1,
      parseLong: box(true), valueOf: box(true),
      toString(value, radix) { return value.toString(radix || 10); },
      toHexString(value) { return BigInt.asUintN(64, BigInt(value)).toString(16); },
    },
    Double: {
      MAX_VALUE: Number.MAX_VALUE, MIN_VALUE: Number.MIN_VALUE, NaN,
      parseDouble: box(false), valueOf: box(false), toString: (value) => shown(value),
      isNaN(value) { return value !== value; },
      compare(a, b) { return a < b ? -1 : a > b ? 1 : 0; },
    },
    Float: {
      parseFloat(text) { return functions.parseFloat(text); },
      valueOf(text) { return functions.parseFloat(text); },
      intBitsToFloat(value) {
        const made = new DataView(new ArrayBuffer(4));
        made.setInt32(0, value);
        return float(made.getFloat32(0));
      },
      isNaN(value) { return value !== value; },
    },
    Byte: {parseByte: box(true), toUnsignedInt(value) { return value & 255; }},
    Arrays: {
      asList(...items) { return items; },
      copyOfRange(list, from, to) {
        const part = list.slice(from, to);
        return byteLists.has(list) ? asBytes(part) : part;
      },
      copyOf(list, length) {
        return Array.from({length}, (_, i) => i < list.length ? list[i] : 0);
      },
      toString(list) { return lists.toString.call(list); },
    },
    Collections: {reverse(list) { list.reverse(); }, sort(list) { lists.sort.call(list); }},
  };
  const truth = (value) => String(value).toLowerCase() === 'true';

  function hide(object, name, value) {
    Object.defineProperty(object, name, {value, writable: true, configurable: true});
  }
  function rename(members) {
    for (const name of Object.keys(members)) {
      if (typeof members[name] !== 'function') continue;
      Object.defineProperty(members[name], 'name', {value: `#${name}`, configurable: true});
    }
  }
  for (const [prototype, members] of [
    [Array.prototype, lists], [Object.prototype, maps], [String.prototype, texts],
    [Number.prototype, numbers],
  ]) {
    rename(members);
    for (const name of Object.keys(members)) hide(prototype, `$${name}`, members[name]);
  }
  // A script's own function of such a name, or one of JavaScript, that is called as a method.
  for (const name of new Set([...Object.keys(lists), ...Object.keys(texts), 'toString'])) {
    if (Object.hasOwn(maps, name)) continue;
    const own = {['#own'](...given) { return this[name](...given); }};
    hide(Object.prototype, `$${name}`, own['#own']);
  }
  rename(functions);
  for (const name of Object.keys(functions)) hide(globalThis, name, functions[name]);
  for (const name of Object.keys(classes)) {
    rename(classes[name]);
    hide(globalThis, name, classes[name]);
  }
  hide(String, 'format', format);
  hide(String, 'valueOf', shown);
  hide(String, 'join', (separator, ...items) =>
    (items.length === 1 && isArray(items[0]) ? items[0] : items).map(shown).join(separator));
  hide(Boolean, 'parseBoolean', truth);
  hide(Boolean, 'valueOf', truth);
  class MapClass { static [Symbol.hasInstance](value) { return isMap(value); } }
  hide(globalThis, 'java', {
    util: {
      ArrayList: Array, List: Array, Map: MapClass, HashMap: MapClass, LinkedHashMap: MapClass,
      Arrays: classes.Arrays, Collections: classes.Collections,
    },
    lang: {
      ...classes, Math, String, Boolean,
    },
  });
  for (const inner of [asBytes, each, part, fail, hexDigits, whole, parseNumber, format]) {
    Object.defineProperty(inner, 'name', {value: `#${inner.name}`, configurable: true});
  }
})
