-- Klima radiator thermostat.
-- Up (port 1):   int16 temperature and int16 setpoint in 0.1 degrees, uint8 valve in %,
--                uint8 people (1: somebody is there), uint8 battery in %
-- Down (port 5): uint8 mode (0: shut, 1: heat), int16 setpoint in 0.1 degrees

function decode_uplink(input)
  if #input.bytes ~= 7 then
    return {errors = {"a report has 7 bytes, this one has " .. #input.bytes}}
  end
  local temperature, setpoint, valve, people, battery = string.unpack(">i2i2BBB", input.bytes)
  return {data = {
    temperature = temperature / 10,
    setpoint = setpoint / 10,
    valve = valve,
    people = people == 1,
    battery = battery,
  }}
end

function encode_downlink(input)
  local target = input.data.target
  if type(target) ~= "number" or target < 5 or target > 30 then
    return {errors = {"target must be from 5 to 30 degrees"}}
  end
  local mode = input.data.heat and 1 or 0
  return {bytes = string.pack(">Bi2", mode, math.floor(target * 10 + 0.5)), f_port = 5}
end
