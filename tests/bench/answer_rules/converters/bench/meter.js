function decodeUplink(input) {
  return { data: { temperature: input.bytes[0] } };
}

function encodeDownlink(input) {
  return { bytes: [input.data.target, 0, 0, 0, 0, 0, 0, 0], fPort: 1 };
}
