-- Acme tracker.
-- Up:   int32 latitude and int32 longitude in 0.00001 degrees, uint8 battery in %, uint8 moving
-- Down: uint16 minutes between reports, on port 5; numbers are big endian

function decode_uplink(input)
  if #input.bytes ~= 10 then
    return {errors = {"a position has 10 bytes, this one has " .. #input.bytes}}
  end
  local latitude, longitude, battery, moving = string.unpack(">i4i4BB", input.bytes)
  return {data = {
    latitude = latitude / 100000,
    longitude = longitude / 100000,
    battery = battery,
    moving = moving ~= 0,
  }}
end

function encode_downlink(input)
  local interval = math.tointeger(input.data.interval)
  if not interval or interval < 1 or interval > 10080 then
    return {errors = {"interval must be whole minutes, from 1 to 10080 (a week)"}}
  end
  return {bytes = string.pack(">I2", interval), f_port = 5}
end
