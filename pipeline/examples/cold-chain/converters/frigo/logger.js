// Frigo logger, in lorries, on Sigfox (12 bytes up, 8 bytes down; numbers are big endian).
// Up:   int16 temperature in 0.1 °C, uint8 door (1 is open), uint8 battery in %,
//       int32 latitude and int32 longitude in 0.00001 degrees; both 0: no fix
// Down: uint16 minutes between reports, 6 zero bytes

function decodeUplink(input) {
  var bytes = input.bytes;
  if (bytes.length !== 12) {
    return { errors: ["a report has 12 bytes, this one has " + bytes.length] };
  }
  var data = {
    temperature: (((bytes[0] << 8) | bytes[1]) << 16 >> 16) / 10,
    door: bytes[2] === 1 ? "open" : "closed",
    battery: bytes[3],
  };
  var latitude = int32(bytes, 4);
  var longitude = int32(bytes, 8);
  if (latitude !== 0 || longitude !== 0) {
    data.latitude = latitude / 100000;
    data.longitude = longitude / 100000;
  }
  return { data: data };
}

function encodeDownlink(input) {
  var interval = input.data.interval;
  if (!(interval >= 10 && interval <= 1440)) {
    return { errors: ["interval must be from 10 to 1440 minutes"] };
  }
  return { bytes: [interval >> 8, interval & 0xff, 0, 0, 0, 0, 0, 0] };
}

function int32(bytes, at) {
  return (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3];
}
