package funicular.bench;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.annotation.JsonProperty;
import com.fasterxml.jackson.annotation.JsonPropertyOrder;

/** The codec and the chain by hand, over the JSON that goes in and out. */
final class Codec {

    private Codec() {
    }

    /** What of a TTN v2 uplink the job needs; Jackson makes bytes of the base64. */
    @JsonIgnoreProperties(ignoreUnknown = true)
    record Uplink(
            @JsonProperty("app_id") String application,
            @JsonProperty("dev_id") String device,
            @JsonProperty("payload_raw") byte[] payload) {
    }

    record Reading(double temperature, double humidity, double battery, int counter) {
    }

    /** A device's attributes: what the store keeps. */
    @JsonPropertyOrder({"temperature", "warmest"})
    record Attributes(double temperature, double warmest) {
    }

    record Delivery(
            String device, double temperature, double humidity, double battery, int counter,
            double warmest, boolean weak) {
    }

    /** A downlink as The Things Network v2 takes it, and the device that it is for. */
    record Downlink(
            @JsonProperty("dev_id") String id, int port, boolean confirmed, String schedule,
            @JsonProperty("payload_raw") byte[] payload, String device) {
    }

    static Reading decode(byte[] b) {
        int degrees = (short) ((b[0] & 0xff) << 8 | b[1] & 0xff);
        int millivolts = (b[3] & 0xff) << 8 | b[4] & 0xff;
        int counter = (b[5] & 0xff) << 16 | (b[6] & 0xff) << 8 | b[7] & 0xff;
        return new Reading(degrees / 10.0, (b[2] & 0xff) / 2.0, millivolts / 1000.0, counter);
    }

    static Attributes remember(Reading reading, Attributes before) {
        double warmest = before != null && before.warmest() > reading.temperature()
                ? before.warmest() : reading.temperature();
        return new Attributes(reading.temperature(), warmest);
    }

    static Delivery deliver(String device, Reading reading, Attributes attributes) {
        boolean weak = reading.battery() < 2.4 && attributes.warmest() > 20;
        return new Delivery(device, reading.temperature(), reading.humidity(), reading.battery(),
                reading.counter(), attributes.warmest(), weak);
    }

    static boolean tooWarm(Reading reading, Attributes attributes) {
        return reading.temperature() > 30 && attributes.warmest() >= reading.temperature();
    }

    static Downlink cool(String device, Uplink uplink, Reading reading) {
        long target = Math.round((reading.temperature() - 5) * 10);
        byte[] payload = {1, (byte) (target >> 8), (byte) target};
        return new Downlink(uplink.device(), 10, false, "replace", payload, device);
    }
}
