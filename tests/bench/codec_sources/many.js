// Channel, type, value: a codec as vendors of multi-sensors publish them.
function decodeUplink(input) {
  return {data: decode(input.bytes, input.fPort)};
}

function u8(bytes, i) {
  return bytes[i];
}

function u16(bytes, i) {
  return (bytes[i + 1] << 8) + bytes[i] & 0xffff;
}

function i16(bytes, i) {
  var value = u16(bytes, i);
  return value > 0x7fff ? value - 0x10000 : value;
}

function u32(bytes, i) {
  return ((bytes[i + 3] << 24) + (bytes[i + 2] << 16) + (bytes[i + 1] << 8) + bytes[i]) >>> 0;
}

function version(bytes, i) {
  return 'v' + (bytes[i] >> 4) + '.' + (bytes[i] & 0x0f);
}

function serial(bytes, i) {
  var text = '';
  for (var k = 0; k < 8; k++) text += ('0' + bytes[i + k].toString(16)).slice(-2);
  return text;
}

function decode(bytes, port) {
  var decoded = {};
  for (var i = 0; i < bytes.length;) {
    var channel_id = bytes[i++];
    var channel_type = bytes[i++];
    if (channel_id === 0xff && channel_type === 0x16) {
      // serial
      decoded.serial = serial(bytes, i);
      i += 8;
    } else if (channel_id === 0xff && channel_type === 0x01) {
      // version
      decoded.version = version(bytes, i);
      i += 1;
    } else if (channel_id === 0x01 && channel_type === 0x75) {
      // battery
      decoded.battery = u8(bytes, i);
      i += 1;
    } else if (channel_id === 0x03 && channel_type === 0x67) {
      // temperature
      decoded.temperature = i16(bytes, i) / 10;
      i += 2;
    } else if (channel_id === 0x04 && channel_type === 0x68) {
      // humidity
      decoded.humidity = u8(bytes, i) / 2;
      i += 1;
    } else if (channel_id === 0x05 && channel_type === 0x6a) {
      // activity
      decoded.activity = u16(bytes, i);
      i += 2;
    } else if (channel_id === 0x06 && channel_type === 0x65) {
      // light
      decoded.light = u16(bytes, i);
      i += 2;
    } else if (channel_id === 0x07 && channel_type === 0x7d) {
      // co2
      decoded.co2 = u16(bytes, i);
      i += 2;
    } else if (channel_id === 0x08 && channel_type === 0x7d) {
      // tvoc
      decoded.tvoc = u16(bytes, i);
      i += 2;
    } else if (channel_id === 0x09 && channel_type === 0x73) {
      // pressure
      decoded.pressure = u16(bytes, i) / 10;
      i += 2;
    } else if (channel_id === 0x0b && channel_type === 0x7d) {
      // pm2 5
      decoded.pm2_5 = u16(bytes, i);
      i += 2;
    } else if (channel_id === 0x0c && channel_type === 0x7d) {
      // pm10
      decoded.pm10 = u16(bytes, i);
      i += 2;
    } else if (channel_id === 0x0a && channel_type === 0x7d) {
      // hcho
      decoded.hcho = u16(bytes, i) / 100;
      i += 2;
    } else if (channel_id === 0x0d && channel_type === 0x7d) {
      // o3
      decoded.o3 = u16(bytes, i) / 100;
      i += 2;
    } else if (channel_id === 0x0e && channel_type === 0x82) {
      // distance
      decoded.distance = u16(bytes, i);
      i += 2;
    } else if (channel_id === 0x0f && channel_type === 0x00) {
      // water leak
      decoded.water_leak = bytes[i] === 0 ? 'no' : 'yes';
      i += 1;
    } else if (channel_id === 0x10 && channel_type === 0x00) {
      // door
      decoded.door = bytes[i] === 0 ? 'no' : 'yes';
      i += 1;
    } else if (channel_id === 0x11 && channel_type === 0x00) {
      // tamper
      decoded.tamper = bytes[i] === 0 ? 'no' : 'yes';
      i += 1;
    } else if (channel_id === 0x12 && channel_type === 0x66) {
      // occupied
      decoded.occupied = bytes[i] === 0 ? 'no' : 'yes';
      i += 1;
    } else if (channel_id === 0x13 && channel_type === 0x80) {
      // power
      decoded.power = u32(bytes, i);
      i += 4;
    } else if (channel_id === 0x14 && channel_type === 0x7c) {
      // current
      decoded.current = u16(bytes, i) / 1000;
      i += 2;
    } else if (channel_id === 0x15 && channel_type === 0x74) {
      // voltage
      decoded.voltage = u16(bytes, i) / 10;
      i += 2;
    } else if (channel_id === 0x16 && channel_type === 0x83) {
      // energy
      decoded.energy = u32(bytes, i) / 1000;
      i += 4;
    } else if (channel_id === 0x17 && channel_type === 0x81) {
      // power factor
      decoded.power_factor = u8(bytes, i) / 100;
      i += 1;
    } else if (channel_id === 0x18 && channel_type === 0xc8) {
      // pulse
      decoded.pulse = u32(bytes, i);
      i += 4;
    } else if (channel_id === 0x19 && channel_type === 0x84) {
      // wind speed
      decoded.wind_speed = u16(bytes, i) / 10;
      i += 2;
    } else if (channel_id === 0x1a && channel_type === 0x84) {
      // wind direction
      decoded.wind_direction = u16(bytes, i) / 10;
      i += 2;
    } else if (channel_id === 0x1b && channel_type === 0x77) {
      // rain
      decoded.rain = u16(bytes, i) / 100;
      i += 2;
    } else if (channel_id === 0x1c && channel_type === 0x68) {
      // soil moisture
      decoded.soil_moisture = u8(bytes, i) / 2;
      i += 1;
    } else if (channel_id === 0x1d && channel_type === 0x67) {
      // soil temperature
      decoded.soil_temperature = i16(bytes, i) / 10;
      i += 2;
    } else if (channel_id === 0x1e && channel_type === 0x7f) {
      // conductivity
      decoded.conductivity = u16(bytes, i);
      i += 2;
    } else if (channel_id === 0x1f && channel_type === 0x97) {
      // flow
      decoded.flow = u32(bytes, i) / 100;
      i += 4;
    } else if (channel_id === 0x20 && channel_type === 0xcc) {
      // angle x
      decoded.angle_x = i16(bytes, i) / 100;
      i += 2;
    } else if (channel_id === 0x21 && channel_type === 0xcc) {
      // angle y
      decoded.angle_y = i16(bytes, i) / 100;
      i += 2;
    } else if (channel_id === 0x20 && channel_type === 0xce) {
      // history
      var point = {};
      point.timestamp = u32(bytes, i);
      point.temperature = i16(bytes, i + 4) / 10;
      point.humidity = bytes[i + 6] / 2;
      decoded.history = decoded.history || [];
      decoded.history.push(point);
      i += 7;
    } else {
      break;
    }
  }
  return decoded;
}
