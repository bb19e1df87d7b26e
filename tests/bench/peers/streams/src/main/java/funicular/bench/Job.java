package funicular.bench;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import funicular.bench.Codec.Attributes;
import funicular.bench.Codec.Reading;
import funicular.bench.Codec.Uplink;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.Stores;

/**
 * The job by hand on Kafka Streams' Processor API.
 *
 * <p>In: a file of properties: those of Kafka Streams, and the names of the topics as
 * {@code bench.uplinks}, {@code bench.deliveries}, {@code bench.downlinks}.
 */
public final class Job {

    private static final ObjectMapper JSON = new ObjectMapper();
    private static final String STORE = "attributes";

    private Job() {
    }

    public static void main(String[] arguments) throws Exception {
        Properties settings = new Properties();
        try (var file = Files.newBufferedReader(Path.of(arguments[0]))) {
            settings.load(file);
        }
        KafkaStreams streams = new KafkaStreams(topology(settings), settings);
        CountDownLatch ended = new CountDownLatch(1);
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.ERROR) {
                ended.countDown();
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        ended.await();
        System.exit(1);
    }

    private static Topology topology(Properties settings) {
        var store = Stores.persistentKeyValueStore(STORE);
        return new Topology()
                .addSource("uplinks", new StringDeserializer(), json(Uplink.class).deserializer(),
                        settings.getProperty("bench.uplinks"))
                .addProcessor("job", Route::new, "uplinks")
                .addStateStore(
                        Stores.keyValueStoreBuilder(store, Serdes.String(), json(Attributes.class))
                                .withCachingEnabled(),
                        "job")
                .addSink("deliveries", settings.getProperty("bench.deliveries"),
                        new StringSerializer(), new ByteArraySerializer(), "job")
                .addSink("downlinks", settings.getProperty("bench.downlinks"),
                        new StringSerializer(), new ByteArraySerializer(), "job");
    }

    /** One uplink in; the attributes, the delivery and sometimes the downlink out. */
    private static final class Route implements Processor<String, Uplink, String, byte[]> {

        private final ObjectWriter writer = JSON.writer();
        private ProcessorContext<String, byte[]> context;
        private KeyValueStore<String, Attributes> store;

        @Override
        public void init(ProcessorContext<String, byte[]> given) {
            context = given;
            store = given.getStateStore(STORE);
        }

        @Override
        public void process(Record<String, Uplink> record) {
            Uplink uplink = record.value();
            String device = uplink.application() + ":" + uplink.device();
            Reading reading = Codec.decode(uplink.payload());
            Attributes attributes = Codec.remember(reading, store.get(device));
            store.put(device, attributes);
            forward(record, Codec.deliver(device, reading, attributes), "deliveries");
            if (Codec.tooWarm(reading, attributes)) {
                forward(record, Codec.cool(device, uplink, reading), "downlinks");
            }
        }

        private void forward(Record<String, Uplink> record, Object value, String sink) {
            try {
                byte[] written = writer.writeValueAsBytes(value);
                context.forward(new Record<>(record.key(), written, record.timestamp()), sink);
            } catch (JsonProcessingException error) {
                throw new UncheckedIOException(error);
            }
        }
    }

    private static <T> Serde<T> json(Class<T> type) {
        ObjectReader reader = JSON.readerFor(type);
        ObjectWriter writer = JSON.writerFor(type);
        Deserializer<T> read = (topic, bytes) -> {
            try {
                return bytes == null ? null : reader.readValue(bytes);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        };
        Serializer<T> write = (topic, value) -> {
            try {
                return value == null ? null : writer.writeValueAsBytes(value);
            } catch (JsonProcessingException error) {
                throw new UncheckedIOException(error);
            }
        };
        return Serdes.serdeFrom(write, read);
    }
}
