// Lotse display, three digits.
// Up (port 1):   uint8 brightness in %
// Down (port 3): uint8 colour (0: red, 1: green), then the three digits as text

function decodeUplink(input) {
  return { data: { brightness: input.bytes[0] } };
}

function encodeDownlink(input) {
  var free = input.data.free;
  if (!(free >= 0 && free <= 999)) {
    return { errors: ["free must be from 0 to 999"] };
  }
  var digits = ("00" + free).slice(-3);
  var bytes = [free > 0 ? 1 : 0];
  for (var at = 0; at < 3; at++) {
    bytes.push(digits.charCodeAt(at));
  }
  return { bytes: bytes, fPort: 3 };
}
