// Lotse gate: uint16 cars in, uint16 cars out since it was switched on; both begin anew after 65535.

function decodeUplink(input) {
  var bytes = input.bytes;
  if (bytes.length !== 4) {
    return { errors: ["a count has 4 bytes, this one has " + bytes.length] };
  }
  return { data: { entered: (bytes[0] << 8) | bytes[1], departed: (bytes[2] << 8) | bytes[3] } };
}
