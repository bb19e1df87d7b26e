function decode_uplink(input)
  local t, h, b, c = string.unpack('>i2BI2I3', input.bytes)
  return {data = {temperature = t / 10, humidity = h / 2, battery = b / 1000, counter = c}}
end
