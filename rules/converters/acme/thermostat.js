// Acme thermostat.
// Up:   int16 temperature in 0.1 °C, uint8 battery in %, uint8 flags (bit 0: the fan is on)
// Down: uint8 cooling (1 or 0), int16 target in 0.1 °C, on port 10; numbers are big endian

function decodeUplink(input) {
  var bytes = input.bytes;
  if (bytes.length !== 4) {
    return { errors: ["a reading has 4 bytes, this one has " + bytes.length] };
  }
  return {
    data: {
      temperature: int16(bytes[0], bytes[1]) / 10,
      battery: bytes[2],
      fan: bytes[3] & 1 ? "on" : "off",
    },
  };
}

function encodeDownlink(input) {
  var target = Math.round(input.data.target * 10);
  if (!(target >= -400 && target <= 800)) {
    return { errors: ["target must be from -40 to 80 °C"] };
  }
  return { bytes: [input.data.cooling ? 1 : 0, (target >> 8) & 0xff, target & 0xff], fPort: 10 };
}

function int16(high, low) {
  return (((high << 8) | low) << 16) >> 16;
}
