function decode_uplink(input)
  local t, h, b, c = string.unpack('>i2BI2I3', input.bytes)
  return {data = {temperature = t / 10, humidity = h / 2, battery = b / 1000, counter = c}}
end

function encode_downlink(input)
  local target = math.floor(input.data.target * 10 + 0.5)
  return {bytes = {input.data.cooling and 1 or 0, (target >> 8) & 0xff, target & 0xff}, f_port = 10}
end
