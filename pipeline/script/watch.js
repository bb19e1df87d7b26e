// The watch: finds out what a script altered of all that its calls share, and puts it back.
//
// Evaluates to a function that takes (the words of the script's text as a JSON array, or '' where
// they are not known) and gives `isAltered`, `restore` and `forget` for the driver. It remembers all
// as it is at that moment. To look at everything costs as much as 25 calls, at the end of each
// batch: what a script cannot reach because it never names it is not looked at.
(function (wordsText) {
  'use strict';
  const {defineProperty, deleteProperty, getOwnPropertyDescriptor, getPrototypeOf, ownKeys} =
    Reflect;
  const {keys: enumerables} = Object;
  const global = globalThis;
  const words = wordsText ? new Set(JSON.parse(wordsText)) : null;

  // Reached without a name: by a literal, an operator, an input, or what the engine throws.
  const NAMELESS = new Set(['Object', 'Function', 'Array', 'String', 'Number', 'Boolean', 'BigInt',
    'Symbol', 'RegExp', 'Date', 'Promise', 'Error', 'EvalError', 'RangeError', 'ReferenceError',
    'SyntaxError', 'TypeError', 'URIError', 'InternalError', 'AggregateError']);
  // With these a script may reach names that its text has not.
  const OPEN = ['globalThis', 'this', 'eval', 'Function', 'constructor', '__proto__',
    'getPrototypeOf', 'setPrototypeOf'];
  // Without these what it adds can be counted by `Object.keys`, and it takes nothing away.
  const HIDING = ['Symbol', 'delete', 'defineProperty', 'defineProperties', '__defineGetter__',
    '__defineSetter__', 'captureStackTrace', 'Reflect'];
  const has = (names) => words === null || names.some((name) => words.has(name));
  const isOpen = has(OPEN);
  const listed = isOpen || has(HIDING) ? ownKeys : enumerables;

  // Every object that is watched: values of data properties, and how many properties there are.
  const snapshot = [];
  const seen = new Set([global]);
  function remember(object) {
    const keys = [], values = [], properties = [];
    const names = ownKeys(object);
    for (const key of names) {
      const property = getOwnPropertyDescriptor(object, key);
      if (!('value' in property)) continue;
      keys.push(key);
      values.push(property.value);
      properties.push(property);
    }
    const count = listed(object).length;
    const prototype = getPrototypeOf(object);
    snapshot.push({object, names, count, keys, values, properties, prototype});
    for (let i = 0; i < values.length; i++) {
      const value = values[i];
      if (object === global && !isOpen && !NAMELESS.has(keys[i]) && !words.has(keys[i])) continue;
      const isConstructor = typeof value === 'function' && ownKeys(value).includes('prototype');
      const isShared = isConstructor || (typeof value === 'object' && value !== null);
      if (isShared && !seen.has(value)) { seen.add(value); remember(value); }
    }
  }

  remember(global);
  for (const hidden of [[][Symbol.iterator](), (function* () {})(), new Map().entries()]) {
    for (let proto = getPrototypeOf(hidden); proto !== null; proto = getPrototypeOf(proto)) {
      if (!seen.has(proto)) { seen.add(proto); remember(proto); }
    }
  }

  // With `var`, which the engine need not check for being there.
  function isAltered() {
    for (var j = 0; j < snapshot.length; j++) {
      var one = snapshot[j], object = one.object, keys = one.keys, values = one.values;
      if (listed(object).length !== one.count) return true;
      if (getPrototypeOf(object) !== one.prototype) return true;
      for (var i = 0, length = keys.length; i < length; i++) {
        if (object[keys[i]] !== values[i] && values[i] === values[i]) return true;
      }
    }
    return false;
  }

  return {
    isAltered,

    // Takes a script's implicit globals away.
    forget() {
      for (const name in global) deleteProperty(global, name);
    },

    // Puts everything back; false where that is not possible, so that this context must go.
    restore() {
      let isDone = true;
      for (const {object, names: before, keys, values, properties} of snapshot) {
        for (let i = 0; i < keys.length; i++) {
          if (object[keys[i]] !== values[i] && values[i] === values[i]) {
            if (!defineProperty(object, keys[i], properties[i])) isDone = false;
          }
        }
        const names = ownKeys(object);
        if (names.length === before.length) continue;
        for (const name of names) {
          if (!before.includes(name) && !deleteProperty(object, name)) isDone = false;
        }
      }
      return isDone && !isAltered();
    },
  };
})
