function Decoder(payload, metadata) {
  var data = decodeToJson(payload);
  var ids = data.end_device_ids;
  var text = atob(data.uplink_message.frm_payload);
  var values = {};
  var hex = '';
  var bytes = [];
  for (var k = 0; k < text.length; k++) {
    bytes.push(text.charCodeAt(k));
    hex += ('0' + text.charCodeAt(k).toString(16)).slice(-2);
  }
  for (var i = 0; i + 1 < bytes.length;) {
    var channel = bytes[i++];
    var type = bytes[i++];
    if (channel === 0x01 && type === 0x75) {
      values.battery = bytes[i++];
    } else if (channel === 0x03 && type === 0x67) {
      values.temperature = (bytes[i] | bytes[i + 1] << 8) / 10;
      i += 2;
    } else if (channel === 0x04 && type === 0x68) {
      values.humidity = bytes[i++] / 2;
    } else {
      break;
    }
  }
  data.uplink_message.rx_metadata.forEach(function (gateway) {
    if (values.rssi === undefined || gateway.rssi > values.rssi) {
      values.rssi = gateway.rssi;
      values.snr = gateway.snr;
    }
  });
  return {
    deviceName: ids.device_id + ' ' + ids.dev_eui,
    deviceType: 'AM100',
    attributes: {f_port: data.uplink_message.f_port, hex: hex},
    telemetry: [{ts: 1760000000000, values: values}]
  };
}
