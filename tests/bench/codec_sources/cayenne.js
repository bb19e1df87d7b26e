var TYPES = {
  0: {name: 'digital_in', size: 1, signed: false, divisor: 1},
  1: {name: 'digital_out', size: 1, signed: false, divisor: 1},
  2: {name: 'analog_in', size: 2, signed: true, divisor: 100},
  3: {name: 'analog_out', size: 2, signed: true, divisor: 100},
  101: {name: 'luminosity', size: 2, signed: false, divisor: 1},
  102: {name: 'presence', size: 1, signed: false, divisor: 1},
  103: {name: 'temperature', size: 2, signed: true, divisor: 10},
  104: {name: 'relative_humidity', size: 1, signed: false, divisor: 2},
  113: {name: 'accelerometer', size: 6, signed: true, divisor: 1000},
  115: {name: 'barometric_pressure', size: 2, signed: false, divisor: 10},
  134: {name: 'gyrometer', size: 6, signed: true, divisor: 100},
  136: {name: 'gps', size: 9, signed: true, divisor: [10000, 10000, 100]}
};

function number(stream, signed, divisor) {
  var value = 0;
  for (var i = 0; i < stream.length; i++) value = value * 256 + stream[i];
  if (signed) {
    var edge = Math.pow(2, stream.length * 8);
    if (value & Math.pow(2, stream.length * 8 - 1)) value -= edge;
  }
  return value / divisor;
}

function decodeUplink(input) {
  var bytes = input.bytes;
  var data = {};
  var i = 0;
  while (i < bytes.length) {
    var channel = bytes[i++];
    var type = TYPES[bytes[i++]];
    if (type === undefined) return {errors: ['no such type: ' + bytes[i - 1]]};
    var part = bytes.slice(i, i + type.size);
    var key = type.name + '_' + channel;
    switch (type.name) {
      case 'accelerometer':
      case 'gyrometer':
        data[key] = {
          x: number(part.slice(0, 2), true, type.divisor),
          y: number(part.slice(2, 4), true, type.divisor),
          z: number(part.slice(4, 6), true, type.divisor)
        };
        break;
      case 'gps':
        data[key] = {
          latitude: number(part.slice(0, 3), true, type.divisor[0]),
          longitude: number(part.slice(3, 6), true, type.divisor[1]),
          altitude: number(part.slice(6, 9), true, type.divisor[2])
        };
        break;
      default:
        data[key] = number(part, type.signed, type.divisor);
    }
    i += type.size;
  }
  return {data: data};
}
