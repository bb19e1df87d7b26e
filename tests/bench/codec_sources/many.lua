-- Channel, type, value: the same codec as many.js.
local function version(bytes, at)
  local b = bytes:byte(at)
  return 'v' .. (b >> 4) .. '.' .. (b & 15)
end

function decode_uplink(input)
  local bytes, data, at = input.bytes, {}, 1
  while at + 1 <= #bytes do
    local channel, kind = bytes:byte(at, at + 1)
    at = at + 2
    local value
    if channel == 0xff and kind == 0x16 then
      data.serial = (bytes:sub(at, at + 7):gsub('.', function(b) return ('%02x'):format(b:byte()) end))
      at = at + 8
    elseif channel == 0xff and kind == 0x01 then
      data.version = version(bytes, at)
      at = at + 1
    elseif channel == 0x01 and kind == 0x75 then
      value, at = string.unpack('B', bytes, at)
      data.battery = value
    elseif channel == 0x03 and kind == 0x67 then
      value, at = string.unpack('<i2', bytes, at)
      data.temperature = value / 10
    elseif channel == 0x04 and kind == 0x68 then
      value, at = string.unpack('B', bytes, at)
      data.humidity = value / 2
    elseif channel == 0x05 and kind == 0x6a then
      value, at = string.unpack('<I2', bytes, at)
      data.activity = value
    elseif channel == 0x06 and kind == 0x65 then
      value, at = string.unpack('<I2', bytes, at)
      data.light = value
    elseif channel == 0x07 and kind == 0x7d then
      value, at = string.unpack('<I2', bytes, at)
      data.co2 = value
    elseif channel == 0x08 and kind == 0x7d then
      value, at = string.unpack('<I2', bytes, at)
      data.tvoc = value
    elseif channel == 0x09 and kind == 0x73 then
      value, at = string.unpack('<I2', bytes, at)
      data.pressure = value / 10
    elseif channel == 0x0b and kind == 0x7d then
      value, at = string.unpack('<I2', bytes, at)
      data.pm2_5 = value
    elseif channel == 0x0c and kind == 0x7d then
      value, at = string.unpack('<I2', bytes, at)
      data.pm10 = value
    elseif channel == 0x0a and kind == 0x7d then
      value, at = string.unpack('<I2', bytes, at)
      data.hcho = value / 100
    elseif channel == 0x0d and kind == 0x7d then
      value, at = string.unpack('<I2', bytes, at)
      data.o3 = value / 100
    elseif channel == 0x0e and kind == 0x82 then
      value, at = string.unpack('<I2', bytes, at)
      data.distance = value
    elseif channel == 0x0f and kind == 0x00 then
      data.water_leak = bytes:byte(at) == 0 and 'no' or 'yes'
      at = at + 1
    elseif channel == 0x10 and kind == 0x00 then
      data.door = bytes:byte(at) == 0 and 'no' or 'yes'
      at = at + 1
    elseif channel == 0x11 and kind == 0x00 then
      data.tamper = bytes:byte(at) == 0 and 'no' or 'yes'
      at = at + 1
    elseif channel == 0x12 and kind == 0x66 then
      data.occupied = bytes:byte(at) == 0 and 'no' or 'yes'
      at = at + 1
    elseif channel == 0x13 and kind == 0x80 then
      value, at = string.unpack('<I4', bytes, at)
      data.power = value
    elseif channel == 0x14 and kind == 0x7c then
      value, at = string.unpack('<I2', bytes, at)
      data.current = value / 1000
    elseif channel == 0x15 and kind == 0x74 then
      value, at = string.unpack('<I2', bytes, at)
      data.voltage = value / 10
    elseif channel == 0x16 and kind == 0x83 then
      value, at = string.unpack('<I4', bytes, at)
      data.energy = value / 1000
    elseif channel == 0x17 and kind == 0x81 then
      value, at = string.unpack('B', bytes, at)
      data.power_factor = value / 100
    elseif channel == 0x18 and kind == 0xc8 then
      value, at = string.unpack('<I4', bytes, at)
      data.pulse = value
    elseif channel == 0x19 and kind == 0x84 then
      value, at = string.unpack('<I2', bytes, at)
      data.wind_speed = value / 10
    elseif channel == 0x1a and kind == 0x84 then
      value, at = string.unpack('<I2', bytes, at)
      data.wind_direction = value / 10
    elseif channel == 0x1b and kind == 0x77 then
      value, at = string.unpack('<I2', bytes, at)
      data.rain = value / 100
    elseif channel == 0x1c and kind == 0x68 then
      value, at = string.unpack('B', bytes, at)
      data.soil_moisture = value / 2
    elseif channel == 0x1d and kind == 0x67 then
      value, at = string.unpack('<i2', bytes, at)
      data.soil_temperature = value / 10
    elseif channel == 0x1e and kind == 0x7f then
      value, at = string.unpack('<I2', bytes, at)
      data.conductivity = value
    elseif channel == 0x1f and kind == 0x97 then
      value, at = string.unpack('<I4', bytes, at)
      data.flow = value / 100
    elseif channel == 0x20 and kind == 0xcc then
      value, at = string.unpack('<i2', bytes, at)
      data.angle_x = value / 100
    elseif channel == 0x21 and kind == 0xcc then
      value, at = string.unpack('<i2', bytes, at)
      data.angle_y = value / 100
    elseif channel == 0x20 and kind == 0xce then
      local when, t, h
      when, t, h, at = string.unpack('<I4i2B', bytes, at)
      data.history = data.history or {}
      data.history[#data.history + 1] = {timestamp = when, temperature = t / 10, humidity = h / 2}
    else
      break
    end
  end
  return {data = data}
end
