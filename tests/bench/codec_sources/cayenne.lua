local plain = {
  [0] = {'digital_in', 'B', 1}, [1] = {'digital_out', 'B', 1}, [2] = {'analog_in', '>i2', 100},
  [3] = {'analog_out', '>i2', 100}, [101] = {'luminosity', '>I2', 1}, [102] = {'presence', 'B', 1},
  [103] = {'temperature', '>i2', 10}, [104] = {'relative_humidity', 'B', 2},
  [115] = {'barometric_pressure', '>I2', 10},
}
local axes = {[113] = {'accelerometer', 1000}, [134] = {'gyrometer', 100}}

function decode_uplink(input)
  local bytes, data, at = input.bytes, {}, 1
  while at <= #bytes do
    local channel, kind = bytes:byte(at, at + 1)
    at = at + 2
    local known = plain[kind]
    if known then
      local value
      value, at = string.unpack(known[2], bytes, at)
      data[known[1] .. '_' .. channel] = value / known[3]
    elseif axes[kind] then
      local x, y, z
      x, y, z, at = string.unpack('>i2i2i2', bytes, at)
      local by = axes[kind][2]
      data[axes[kind][1] .. '_' .. channel] = {x = x / by, y = y / by, z = z / by}
    elseif kind == 136 then
      local x, y, z
      x, y, z, at = string.unpack('>i3i3i3', bytes, at)
      data['gps_' .. channel] = {latitude = x / 10000, longitude = y / 10000, altitude = z / 100}
    else
      return {errors = {'no such type: ' .. kind}}
    end
  end
  return {data = data}
end
