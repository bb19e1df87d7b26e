// A device that posts JSON: {"device": …, "type": …, "firmware": …, and any readings}, or a list
// of those. In the contract of ThingsBoard's converters.

function Decoder(payload, metadata) {
  var message = decodeToJson(payload);
  return Array.isArray(message) ? message.map(reading) : reading(message);
}

function reading(message) {
  var made = { deviceName: message.device, deviceType: message.type || "generic", telemetry: {} };
  for (var key in message) {
    if (key === "firmware") {
      made.attributes = { firmware: message.firmware };
    } else if (key !== "device" && key !== "type") {
      made.telemetry[key] = message[key];
    }
  }
  return made;
}

function Encoder(msg, metadata, msgType, integrationMetadata) {
  return { contentType: "JSON", data: JSON.stringify(msg), metadata: {} };
}
