// Acme heat meter.
// Up:   uint32 volume in litres, uint16 flow in litres an hour, int16 temperature in 0.1 °C
// Down: uint8 valve (1 is open), uint16 minutes between reports, 5 zero bytes: Sigfox takes 8
// Numbers are big endian.

function decodeUplink(input) {
  var bytes = input.bytes;
  if (bytes.length !== 8) {
    return { errors: ["a reading has 8 bytes, this one has " + bytes.length] };
  }
  return {
    data: {
      volume: ((bytes[0] << 24) | (bytes[1] << 16) | (bytes[2] << 8) | bytes[3]) >>> 0,
      flow: (bytes[4] << 8) | bytes[5],
      temperature: (((bytes[6] << 8) | bytes[7]) << 16 >> 16) / 10,
    },
  };
}

function encodeDownlink(input) {
  var valve = input.data.valve;
  var interval = input.data.interval;
  if (valve !== "open" && valve !== "closed") {
    return { errors: ["valve must be open or closed"] };
  }
  if (!(interval >= 1 && interval <= 1440)) {
    return { errors: ["interval must be from 1 to 1440 minutes"] };
  }
  return { bytes: [valve === "open" ? 1 : 0, interval >> 8, interval & 0xff, 0, 0, 0, 0, 0] };
}
