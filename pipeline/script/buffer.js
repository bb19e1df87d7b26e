// Node's Buffer, as far as codecs of devices use it (nodejs.org/api/buffer.html), for scripts that
// name it; written from that page. ChirpStack offers it to its codecs.
//
// In: nothing. Evaluates to the class. Functions have names that begin with '#', see driver.js.
(function () {
  'use strict';
  const {fromCharCode, fromCodePoint} = String;
  const {isView} = ArrayBuffer;
  const {isInteger} = Number;
  const NativeArrayBuffer = ArrayBuffer;
  const View = DataView;
  const Bytes = Uint8Array;

  class Buffer extends Uint8Array {}

  const HEX = Array.from({length: 256}, (_, byte) => byte.toString(16).padStart(2, '0'));

  function encodingOf(name) {
    const known = {
      'utf8': 'utf8', 'utf-8': 'utf8', 'hex': 'hex', 'base64': 'base64', 'base64url': 'base64url',
      'ascii': 'ascii', 'latin1': 'latin1', 'binary': 'latin1',
      'ucs2': 'utf16le', 'ucs-2': 'utf16le', 'utf16le': 'utf16le', 'utf-16le': 'utf16le',
    };
    if (name === undefined || name === null) return 'utf8';
    const found = known[String(name).toLowerCase()];
    if (found === undefined) throw new TypeError(`Unknown encoding: ${name}`);
    return found;
  }

  function utf8Of(text) {
    const bytes = [];
    for (const character of text) {
      let point = character.codePointAt(0);
      if (point >= 0xD800 && point < 0xE000) point = 0xFFFD;
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

  // Node is lenient: it takes both alphabets, and passes over what is not of them.
  function base64Of(text) {
    const bytes = [];
    let bits = 0, count = 0;
    for (let i = 0; i < text.length; i++) {
      const code = text.charCodeAt(i);
      let value;
      if (code >= 65 && code <= 90) value = code - 65;
      else if (code >= 97 && code <= 122) value = code - 71;
      else if (code >= 48 && code <= 57) value = code + 4;
      else if (code === 43 || code === 45) value = 62;
      else if (code === 47 || code === 95) value = 63;
      else if (code === 61) break;
      else continue;
      bits = (bits << 6 | value) & 0xFFFFFF;
      count += 6;
      if (count >= 8) {
        count -= 8;
        bytes.push(bits >> count & 255);
      }
    }
    return bytes;
  }

  // Likewise: reading ends at the first pair that is no number.
  function hexOf(text) {
    const bytes = [];
    for (let i = 0; i + 1 < text.length; i += 2) {
      const pair = text.slice(i, i + 2);
      if (!/^[0-9A-Fa-f]{2}$/.test(pair)) break;
      bytes.push(parseInt(pair, 16));
    }
    return bytes;
  }

  function bytesOf(text, encoding) {
    switch (encodingOf(encoding)) {
      case 'hex': return hexOf(text);
      case 'base64': case 'base64url': return base64Of(text);
      case 'utf8': return utf8Of(text);
      case 'utf16le': {
        const bytes = [];
        for (let i = 0; i < text.length; i++) {
          const unit = text.charCodeAt(i);
          bytes.push(unit & 255, unit >> 8);
        }
        return bytes;
      }
      default: return Array.from(text, (character) => character.charCodeAt(0) & 255);
    }
  }

  function utf8Text(bytes, start, end) {
    let text = '';
    for (let i = start; i < end;) {
      const first = bytes[i++];
      let more = first < 0x80 ? 0 : first < 0xC2 ? -1 : first < 0xE0 ? 1 : first < 0xF0 ? 2
        : first < 0xF5 ? 3 : -1;
      if (more === 0) { text += fromCharCode(first); continue; }
      let point = more > 0 ? first & (63 >> more) : 0xFFFD;
      const lowest = more === 2 ? 0x800 : more === 3 ? 0x10000 : 0;
      for (; more > 0; more--) {
        if (i >= end || (bytes[i] & 0xC0) !== 0x80) { more = -1; break; }
        point = point << 6 | bytes[i++] & 63;
      }
      const bad = more < 0 || point < lowest || point > 0x10FFFF
        || (point >= 0xD800 && point < 0xE000);
      text += bad ? '\uFFFD' : fromCodePoint(point);
    }
    return text;
  }

  const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789';
  function base64Text(bytes, start, end, isUrl) {
    const alphabet = ALPHABET + (isUrl ? '-_' : '+/');
    let text = '';
    for (let i = start; i < end; i += 3) {
      const left = end - i;
      const second = left > 1 ? bytes[i + 1] : 0, third = left > 2 ? bytes[i + 2] : 0;
      const bits = bytes[i] << 16 | second << 8 | third;
      text += alphabet[bits >> 18] + alphabet[bits >> 12 & 63];
      if (left > 1) text += alphabet[bits >> 6 & 63];
      else if (!isUrl) text += '=';
      if (left > 2) text += alphabet[bits & 63];
      else if (!isUrl) text += '=';
    }
    return text;
  }

  function within(value, length, otherwise) {
    if (value === undefined) return otherwise;
    const whole = Math.trunc(+value) || 0;
    return whole < 0 ? 0 : whole > length ? length : whole;
  }

  function rangeError(name, value, low, high) {
    const error = new RangeError(`The value of "${name}" is out of range. `
      + `It must be >= ${low} and <= ${high}. Received ${value}`);
    error.code = 'ERR_OUT_OF_RANGE';
    return error;
  }

  function place(buffer, offset, width) {
    if (offset === undefined) offset = 0;
    if (typeof offset !== 'number') {
      throw new TypeError('The "offset" argument must be of type number');
    }
    const last = buffer.length - width;
    if (!isInteger(offset) || offset < 0 || offset > last) {
      if (last < 0) throw new RangeError('Attempt to access memory outside buffer bounds');
      throw rangeError('offset', offset, 0, last);
    }
    return offset;
  }

  function size(value) {
    if (!isInteger(value) || value < 1 || value > 6) throw rangeError('byteLength', value, 1, 6);
    return value;
  }

  function view(buffer) {
    return new View(buffer.buffer, buffer.byteOffset, buffer.byteLength);
  }

  function make(bytes) {
    const made = new Buffer(bytes.length);
    made.set(bytes);
    return made;
  }

  function from(value, encoding, length) {
    if (typeof value === 'string') return make(bytesOf(value, encoding));
    if (value instanceof NativeArrayBuffer) return new Buffer(value, encoding, length);
    if (isView(value)) return make(value);
    if (value !== null && typeof value === 'object') {
      if (value.type === 'Buffer' && Array.isArray(value.data)) return make(value.data);
      if (typeof value.length === 'number') return make(Array.from(value));
      const primitive = value.valueOf();
      if (primitive !== value && primitive !== null && primitive !== undefined) {
        return from(primitive, encoding, length);
      }
    }
    throw new TypeError('The first argument must be of type string or an instance of Buffer, '
      + `ArrayBuffer, or Array. Received ${value === null ? 'null' : `type ${typeof value}`}`);
  }

  function needle(value, encoding) {
    if (typeof value === 'number') return [value & 255];
    return typeof value === 'string' ? bytesOf(value, encoding) : value;
  }

  function find(buffer, value, start, encoding, step) {
    if (typeof start === 'string') { encoding = start; start = undefined; }
    const wanted = needle(value, encoding);
    const last = buffer.length - wanted.length;
    let at = start === undefined ? (step > 0 ? 0 : last) : Math.trunc(+start) || 0;
    if (at < 0) at += buffer.length;
    if (step > 0 && at < 0) at = 0;
    if (step < 0 && at > last) at = last;
    for (; at >= 0 && at <= last; at += step) {
      let i = 0;
      while (i < wanted.length && buffer[at + i] === wanted[i]) i++;
      if (i === wanted.length) return at;
    }
    return -1;
  }

  function order(a, b) {
    const shared = a.length < b.length ? a.length : b.length;
    for (let i = 0; i < shared; i++) {
      if (a[i] !== b[i]) return a[i] < b[i] ? -1 : 1;
    }
    return a.length === b.length ? 0 : a.length < b.length ? -1 : 1;
  }

  const statics = {
    from,
    alloc(length, fill, encoding) {
      const made = new Buffer(length);
      return fill === undefined || fill === 0 ? made : made.fill(fill, encoding);
    },
    allocUnsafe(length) { return new Buffer(length); },
    allocUnsafeSlow(length) { return new Buffer(length); },
    of(...bytes) { return make(bytes); },
    concat(list, length) {
      let total = 0;
      for (const part of list) total += part.length;
      const made = new Buffer(length === undefined ? total : length);
      let at = 0;
      for (const part of list) {
        if (at >= made.length) break;
        made.set(part.length > made.length - at ? part.subarray(0, made.length - at) : part, at);
        at += part.length;
      }
      return made;
    },
    isBuffer(value) { return value instanceof Buffer; },
    isEncoding(name) {
      try { return typeof name === 'string' && encodingOf(name) !== ''; } catch { return false; }
    },
    byteLength(value, encoding) {
      return typeof value === 'string' ? bytesOf(value, encoding).length : value.byteLength;
    },
    compare: order,
  };

  const methods = {
    toString(encoding, start, end) {
      const to = within(end, this.length, this.length);
      const begin = within(start, this.length, 0);
      switch (encodingOf(encoding)) {
        case 'utf8': return utf8Text(this, begin, to);
        case 'base64': return base64Text(this, begin, to, false);
        case 'base64url': return base64Text(this, begin, to, true);
        case 'hex': {
          let text = '';
          for (let i = begin; i < to; i++) text += HEX[this[i]];
          return text;
        }
        case 'utf16le': {
          let text = '';
          for (let i = begin; i + 1 < to; i += 2) text += fromCharCode(this[i] | this[i + 1] << 8);
          return text;
        }
        case 'ascii': {
          let text = '';
          for (let i = begin; i < to; i++) text += fromCharCode(this[i] & 127);
          return text;
        }
        default: {
          let text = '';
          for (let i = begin; i < to; i++) text += fromCharCode(this[i]);
          return text;
        }
      }
    },
    toJSON() { return {type: 'Buffer', data: Array.from(this)}; },
    equals(other) { return order(this, other) === 0; },
    compare(other, start, end, from, to) {
      return order(this.subarray(from, to), other.subarray(start, end));
    },
    // In Node a slice is a view of the same bytes, unlike that of a typed array.
    slice(start, end) { return this.subarray(start, end); },
    copy(target, at, start, end) {
      at = within(at, target.length, 0);
      const to = within(end, this.length, this.length);
      const part = this.subarray(within(start, this.length, 0), to);
      const count = part.length > target.length - at ? target.length - at : part.length;
      target.set(part.subarray(0, count), at);
      return count;
    },
    fill(value, start, end, encoding) {
      if (typeof start === 'string') { encoding = start; start = undefined; }
      const to = within(end, this.length, this.length);
      let pattern = typeof value === 'number' || typeof value === 'boolean' ? [+value & 255]
        : needle(value, encoding);
      if (pattern.length === 0) pattern = [0];
      for (let i = within(start, this.length, 0), k = 0; i < to; i++, k++) {
        this[i] = pattern[k % pattern.length];
      }
      return this;
    },
    write(text, at, length, encoding) {
      if (typeof at === 'string') { encoding = at; at = undefined; length = undefined; }
      else if (typeof length === 'string') { encoding = length; length = undefined; }
      at = within(at, this.length, 0);
      const bytes = bytesOf(text, encoding);
      const room = this.length - at;
      const count = Math.min(bytes.length, room, length === undefined ? room : length);
      for (let i = 0; i < count; i++) this[at + i] = bytes[i];
      return count;
    },
    indexOf(value, start, encoding) { return find(this, value, start, encoding, 1); },
    lastIndexOf(value, start, encoding) { return find(this, value, start, encoding, -1); },
    includes(value, start, encoding) { return find(this, value, start, encoding, 1) >= 0; },
    readUIntBE(offset, width) {
      offset = place(this, offset, size(width));
      let value = 0;
      for (let i = 0; i < width; i++) value = value * 256 + this[offset + i];
      return value;
    },
    readUIntLE(offset, width) {
      offset = place(this, offset, size(width));
      let value = 0;
      for (let i = width - 1; i >= 0; i--) value = value * 256 + this[offset + i];
      return value;
    },
    readIntBE(offset, width) {
      const value = this.readUIntBE(offset, width);
      return value >= 2 ** (8 * width - 1) ? value - 2 ** (8 * width) : value;
    },
    readIntLE(offset, width) {
      const value = this.readUIntLE(offset, width);
      return value >= 2 ** (8 * width - 1) ? value - 2 ** (8 * width) : value;
    },
    writeUIntBE(value, offset, width) {
      offset = place(this, offset, size(width));
      value = number(value, 0, 2 ** (8 * width) - 1);
      for (let i = width - 1; i >= 0; i--) {
        this[offset + i] = value % 256;
        value = Math.floor(value / 256);
      }
      return offset + width;
    },
    writeUIntLE(value, offset, width) {
      offset = place(this, offset, size(width));
      value = number(value, 0, 2 ** (8 * width) - 1);
      for (let i = 0; i < width; i++) {
        this[offset + i] = value % 256;
        value = Math.floor(value / 256);
      }
      return offset + width;
    },
    writeIntBE(value, offset, width) {
      const half = 2 ** (8 * size(width) - 1);
      value = number(value, -half, half - 1);
      return this.writeUIntBE(value < 0 ? Math.floor(value) + 2 * half : value, offset, width);
    },
    writeIntLE(value, offset, width) {
      const half = 2 ** (8 * size(width) - 1);
      value = number(value, -half, half - 1);
      return this.writeUIntLE(value < 0 ? Math.floor(value) + 2 * half : value, offset, width);
    },
    swap16() { return swap(this, 2); },
    swap32() { return swap(this, 4); },
    swap64() { return swap(this, 8); },
  };

  function number(value, low, high) {
    value = +value;
    if (value < low || value > high) throw rangeError('value', value, low, high);
    return value || 0;
  }

  function swap(buffer, width) {
    if (buffer.length % width) {
      throw new RangeError(`Buffer size must be a multiple of ${8 * width}-bits`);
    }
    for (let i = 0; i < buffer.length; i += width) buffer.subarray(i, i + width).reverse();
    return buffer;
  }

  // Reads and writes of one width: name in Buffer, name in DataView, bytes, lowest, highest.
  const whole = (bits) => [0, 2 ** bits - 1];
  const signed = (bits) => [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1];
  for (const [name, native, width, [low, high]] of [
    ['UInt8', 'Uint8', 1, whole(8)], ['Int8', 'Int8', 1, signed(8)],
    ['UInt16', 'Uint16', 2, whole(16)], ['Int16', 'Int16', 2, signed(16)],
    ['UInt32', 'Uint32', 4, whole(32)], ['Int32', 'Int32', 4, signed(32)],
    ['Float', 'Float32', 4, [-Infinity, Infinity]], ['Double', 'Float64', 8, [-Infinity, Infinity]],
    ['BigUInt64', 'BigUint64', 8, [0n, 2n ** 64n - 1n]],
    ['BigInt64', 'BigInt64', 8, [-(2n ** 63n), 2n ** 63n - 1n]],
  ]) {
    const get = View.prototype[`get${native}`], set = View.prototype[`set${native}`];
    const isBig = typeof low === 'bigint';
    for (const [suffix, isLittle] of width === 1 ? [['', false]] : [['LE', true], ['BE', false]]) {
      methods[`read${name}${suffix}`] = function (offset) {
        return get.call(view(this), place(this, offset, width), isLittle);
      };
      methods[`write${name}${suffix}`] = function (value, offset) {
        offset = place(this, offset, width);
        if (!isBig) value = +value;
        if (value < low || value > high) throw rangeError('value', value, low, high);
        set.call(view(this), offset, value, isLittle);
        return offset + width;
      };
    }
  }
  for (const name of Object.keys(methods)) {
    if (name.includes('UInt')) methods[name.replace('UInt', 'Uint')] = methods[name];
  }

  function offer(object, functions) {
    for (const name of Object.keys(functions)) {
      const value = functions[name];
      Object.defineProperty(value, 'name', {value: `#${name}`, configurable: true});
      Object.defineProperty(object, name, {value, writable: true, configurable: true});
    }
  }
  offer(Buffer, statics);
  offer(Buffer.prototype, methods);
  const inside = [place, size, make, from, find, number, swap, rangeError, encodingOf, bytesOf];
  for (const inner of inside) {
    Object.defineProperty(inner, 'name', {value: `#${inner.name}`, configurable: true});
  }
  // `Buffer(…)` and `new Buffer(…)`, long deprecated, live on in the field's codecs.
  const Callable = function (value, encoding, length) {
    if (typeof value === 'number') return new Buffer(value);
    return from(value, encoding, length);
  };
  Object.defineProperty(Callable, 'name', {value: 'Buffer', configurable: true});
  Object.setPrototypeOf(Callable, Bytes);
  offer(Callable, statics);
  Callable.prototype = Buffer.prototype;
  Object.defineProperty(Buffer.prototype, 'constructor', {
    value: Callable, writable: true, configurable: true,
  });
  // What a typed array makes of itself (subarray, map, …) is a Buffer too.
  Object.defineProperty(Callable, Symbol.species, {value: Buffer, configurable: true});
  return Callable;
})
