function decodeUplink(input) {
  var b = input.bytes;
  var t = (b[0] << 8) | b[1];
  if (t > 0x7fff) t -= 0x10000;
  return {
    data: {
      temperature: t / 10,
      humidity: b[2] / 2,
      battery: ((b[3] << 8) | b[4]) / 1000,
      counter: (b[5] << 16) | (b[6] << 8) | b[7],
    },
  };
}

function encodeDownlink(input) {
  var target = Math.round(input.data.target * 10);
  return { bytes: [input.data.cooling ? 1 : 0, (target >> 8) & 0xff, target & 0xff], fPort: 10 };
}
