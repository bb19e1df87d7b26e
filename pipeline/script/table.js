// Tables: results that are alike leave without their names.
//
// Most calls of a script give one flat object of numbers, texts and booleans with the same names
// each time. To write such an object as JSON costs four times what its values cost, so that of a
// run's results those with the same names and types are written as one list of values (a column
// for each name), with the names once. All that is not just such an object is left to the driver.
//
// Evaluates to a function that takes (how many characters a result may have as JSON) and gives an
// object of functions for the driver. Data is judged by what JSON.stringify would do with it: its
// own enumerable names, in their order, each read through `Object.values` and once by its name.
(function (charsMax) {
  'use strict';
  const NativeFunction = Function;
  const quote = JSON.stringify;
  const {keys: keysOf, values: valuesOf, prototype: plainPrototype} = Object;
  const {apply, getPrototypeOf} = Reflect;
  const {isFinite} = Number;
  const {join} = Array.prototype;
  const {isWellFormed} = String.prototype;
  const {test} = RegExp.prototype;

  const SHAPES_MAX = 8;
  const COLUMNS_MAX = 48;
  const NAME_MAX = 64;  // characters
  const TEXT_MAX = 64;  // characters, each of which may be six in JSON
  const NUMBER_MAX = 26;  // characters, with a comma
  const MISSES_MAX = 200;  // results that fit no shape, before no more shapes are looked for
  const WORD = /^[A-Za-z_$][\w$]*$/;

  const shapes = [];
  let missed = '';
  let missesLeft = MISSES_MAX;
  let last = null;  // the shape of the latest result in a table
  let used = [];  // the shapes that have rows; their places are what `runs` names
  let runs = [];  // pairs: which of `used`, or -1 for the driver's own, and how many in a row
  let which = -2;

  // That a value read by its name (`a`) is the one in this place (`v`): so the names are these, in
  // this order. NaN is not what it is; what else JSON has no word for shows in the sum of numbers.
  const CHECKS = {
    number: (a, v) => `typeof ${a}!=='number'||${v}!==${a}`,
    boolean: (a, v) => `typeof ${a}!=='boolean'||${v}!==${a}`,
    string: (a, v) => `typeof ${a}!=='string'||${v}!==${a}||${a}.length>${TEXT_MAX}`,
  };

  // A shape puts the values of data that it fits behind those that it has; `items` are the data's
  // values, where they are known already.
  function shapeOf(names, types) {
    const count = names.length;
    let longest = 0, remembered = '', read = '', checks = '', sum = '0', texts = '', row = '';
    for (let i = 0; i < count; i++) {
      const name = names[i], type = types[i], comma = i ? ',' : '';
      const access = test.call(WORD, name) ? `.${name}` : `[${quote(name)}]`;
      longest += 6 * name.length + 4 + (type === 'string' ? 6 * TEXT_MAX + 3 : NUMBER_MAX);
      read += `,a${i}=data${access}`;
      checks += `||${CHECKS[type](`a${i}`, `v[${i}]`)}`;
      if (type === 'number') sum += `+a${i}`;
      if (type === 'string') {
        // Texts of devices are mostly the same few words.
        remembered += `,t${i}='',q${i}='""'`;
        texts += `if(a${i}!==t${i}){q${i}=quote(a${i}.toWellFormed());t${i}=a${i}}`;
        row += `${comma}q${i}`;
      } else {
        row += `${comma}a${i}`;
      }
    }
    if (longest > charsMax) return null;
    const make = new NativeFunction('quote', 'valuesOf', `'use strict';var none${remembered};`
      + `return{count:${count},values:[],rows:0,chars:0,index:-1,put(data,items){`
      + `var v=items===undefined?valuesOf(data):items${read};`
      + `if(v.length!==${count}${checks})return false;`
      + `var sum=${sum};if(sum-sum!==0)return false;`
      + `${texts}this.values.push(${row});return true}}`);
    const shape = make(quote, valuesOf);
    shape.names = quote(names);
    shape.chars = shape.names.length + count * NUMBER_MAX;
    return shape;
  }

  const signed = (names, types) => `${join.call(types, ',')} ${quote(names)}`;

  // A shape is made for the second of two results that are alike.
  function learn(data, items) {
    missesLeft -= 1;
    const count = items.length;
    if (count === 0 || count > COLUMNS_MAX) return null;
    const names = keysOf(data), types = [];
    if (names.length !== count) return null;
    for (let i = 0; i < count; i++) {
      const name = names[i], item = items[i], type = typeof item;
      const isGood = type === 'number' ? isFinite(item) : type === 'boolean'
        || (type === 'string' && item.length <= TEXT_MAX);
      if (!isGood || name.length > NAME_MAX || name === '__proto__') return null;
      if (!apply(isWellFormed, name, [])) return null;
      types[i] = type;
    }
    const signature = signed(names, types);
    if (signature !== missed) {
      missed = signature;
      return null;
    }
    const shape = shapeOf(names, types);
    if (shape !== null) shapes[shapes.length] = shape;
    return shape;
  }

  function found(data, items) {
    const count = items.length;
    for (let i = 0; i < shapes.length; i++) {
      const shape = shapes[i];
      if (shape !== last && shape.count === count && shape.put(data, items)) return shape;
    }
    if (missesLeft <= 0 || shapes.length >= SHAPES_MAX) return null;
    const shape = learn(data, items);
    return shape !== null && shape.put(data, items) ? shape : null;
  }

  // Takes away what is not a whole row that was counted.
  function trim(shape) {
    const length = shape.rows * shape.count;
    if (shape.values.length > length) shape.values.length = length;
  }

  return {
    // Forgets what was written.
    begin() {
      for (let i = 0; i < used.length; i++) {
        used[i].values = [];
        used[i].rows = 0;
        used[i].index = -1;
      }
      used = [];
      runs = [];
      which = -2;
    },

    // Whether the data are in a table now; what must be said by `count`.
    put(data) {
      if (missesLeft <= 0 && shapes.length === 0) return false;
      try {
        if (getPrototypeOf(data) !== plainPrototype || data.toJSON !== undefined) return false;
        if (last !== null && last.put(data)) return true;
        const shape = found(data, valuesOf(data));
        if (shape === null) return false;
        last = shape;
        return true;
      } catch (error) {
        // No memory for the row, or what a getter threw: the driver meets it again, and says it.
        for (let i = 0; i < shapes.length; i++) trim(shapes[i]);
        return false;
      }
    },

    // Counts the next result: that of the latest `put`, or one of the driver's own. Returns how
    // many characters it has, about. A row that was never counted (its call was stopped) is none.
    count(isRow) {
      var index = -1;
      if (isRow) {
        if (last.index < 0) {
          last.index = used.length;
          used[used.length] = last;
        }
        index = last.index;
        last.rows += 1;
      }
      if (index === which) {
        runs[runs.length - 1] += 1;
      } else {
        which = index;
        runs[runs.length] = index;
        runs[runs.length] = 1;
      }
      return isRow ? last.chars : 0;
    },

    // The tables with the order in which their rows and the driver's own results came, as JSON.
    text() {
      if (used.length === 0) return '';
      let tables = '';
      for (let i = 0; i < used.length; i++) {
        trim(used[i]);
        const {names, values} = used[i];
        tables += `${i ? ',' : ''}{"names":${names},"values":[${join.call(values, ',')}]}`;
      }
      // Joined, since the binding does not know the kind of text that a long template gives.
      return join.call(['{"tables":[', tables, '],"runs":[', join.call(runs, ','), ']}'], '');
    },
  };
})
