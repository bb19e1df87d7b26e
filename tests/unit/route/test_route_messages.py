"""Messages of devices through the stage: chains, effects, failures, windows, repeats."""

from __future__ import annotations

import msgspec
import pytest

from pipeline import topics
from pipeline.model.event import Window
from pipeline.model.record import (
    CAUSE_ID,
    EVENT_ID,
    REPEAT_ALSO,
    REPEAT_KEY,
    REPLAY,
    REPLAY_CHAIN,
    REPLY_TO,
    RULES_VERSION,
    TENANT,
    TRACE_ID,
    Record,
)
from pipeline.route.limits import Limits
from tests.unit.route.bench import KEY, LINK, START_MS, Bench, record, rulebook, uplink

REPLY = '{"instance":"i1","request":"r1","deadline_ms":9,"partition":2}'
WINDOW = Window(key="u1")

THERMOSTAT = """
chain: main
on: {messages: [uplink, attributes_updated], device_type: thermostat}
nodes:
  - name: too warm
    filter: telemetry.temperature > attributes.shared.target + 1.0
    otherwise: archive
  - name: remember
    set_attributes: {scope: shared, values: {cooling: true}}
  - name: tell the device
    send_downlink: {f_port: 10, payload: {target: "${attributes.shared.target}"}, expires_in: 6h}
  - name: archive
    send: {to: archive}
"""
ARCHIVE = """
chain: {name}
on: {{messages: uplink}}
nodes:
  - name: archive
    send: {{to: archive, body: {body}}}
"""


def archive(name: str, body: str) -> str:
    return ARCHIVE.format(name=name, body=body)


def shared(bench: Bench, **values: object) -> None:
    times = dict.fromkeys(values, START_MS - 1)
    bench.parts.setdefault(KEY, {})["attributes/shared"] = {"values": values, "times": times}


def test_chain_closes_the_loop() -> None:
    """A message that is too warm sets an attribute, asks for a downlink, and is archived."""
    bench = Bench(rulebook(THERMOSTAT))
    shared(bench, target=20.0, cooling=True)

    made = bench.take(record(uplink(telemetry={"temperature": 25.0})))

    (downlink,) = made.downlinks
    assert downlink.request.fields == {"target": 20.0}
    assert downlink.request.f_port == 10
    assert downlink.request.expires_at_ms == bench.now_ms + 6 * 3_600_000
    assert downlink.request.source == "main/tell the device"
    assert downlink.integration == "lora"
    assert downlink.link == LINK
    assert [body["telemetry"] for body in made.bodies] == [{"temperature": 25.0}]
    assert made.letters == []


def test_filter_takes_the_other_way() -> None:
    """What a filter does not let on leaves by `otherwise`."""
    bench = Bench(rulebook(THERMOSTAT))
    shared(bench, target=20.0)

    made = bench.take(record(uplink(telemetry={"temperature": 20.5})))

    assert made.downlinks == []
    assert len(made.deliveries) == 1
    assert bench.values("shared") == {"target": 20.0}


def test_changed_attribute_enters_the_chains_afterwards() -> None:
    """A chain's own change comes back as a message, with the device's last telemetry."""
    bench = Bench(rulebook(THERMOSTAT))
    shared(bench, target=20.0)

    made = bench.take(record(uplink(telemetry={"temperature": 25.0})))

    assert [body["type"] for body in made.bodies] == ["uplink", "attributes_updated"]
    told = made.bodies[1]
    assert told["changed"] == ["cooling"]
    assert told["attributes"] == {"cooling": True}
    assert told["metadata"] == {"scope": "shared", "by": "main/remember"}
    assert told["telemetry"] == {}
    assert len(made.downlinks) == 2
    assert len({delivery.id for delivery in made.deliveries}) == 2


def test_headers_say_where_a_record_came_from() -> None:
    """Outputs carry id, trace, cause, tenant and rules version, and keep the input's partition."""
    bench = Bench(rulebook(THERMOSTAT))
    shared(bench, target=20.0, cooling=True)

    made = bench.take(record(uplink(telemetry={"temperature": 25.0})))

    (downlink,) = made.of(topics.DOWNLINK_REQUESTED)
    assert downlink.partition == 3
    assert downlink.key == KEY
    assert downlink.headers[EVENT_ID] == made.downlinks[0].id
    assert downlink.headers[TRACE_ID] == "u1"
    assert downlink.headers[CAUSE_ID] == "u1.0"
    assert downlink.headers[TENANT] == "t"
    assert downlink.headers[RULES_VERSION] == "v1"
    (delivery,) = made.of(topics.delivery_topic("t", "archive"))
    assert delivery.partition is None


def test_same_record_gives_same_outputs() -> None:
    """Ids derive from their causes: the same record on the same state gives the same bytes."""
    first, second = Bench(rulebook(THERMOSTAT)), Bench(rulebook(THERMOSTAT))
    shared(first, target=20.0)
    shared(second, target=20.0)
    message = record(uplink(telemetry={"temperature": 25.0}))

    assert list(first.take(message)) == list(second.take(message))


def test_ids_of_chains_differ() -> None:
    """Two chains that do the same have outputs of different ids."""
    bench = Bench(rulebook(archive("main", "1"), archive("other", "2")))

    made = bench.take(record(uplink()))

    assert made.bodies == [1, 2]
    assert len({delivery.id for delivery in made.deliveries}) == 2


def test_on_matches_type_integration_and_device_type() -> None:
    """Only chains whose `on` names the message's type, integration and device type run."""
    on = "{messages: [uplink], integration: [lora, sigfox], device_type: thermostat}"
    bench = Bench(rulebook(archive("main", "1").replace("{messages: uplink}", on)))

    assert len(bench.take(record(uplink(1))).deliveries) == 1
    assert bench.take(record(uplink(2, type="join"))).deliveries == []
    assert bench.take(record(uplink(3, integration="http"))).deliveries == []
    assert bench.take(record(uplink(4, device_type="meter"))).deliveries == []


def test_failing_chain_leaves_others_alone() -> None:
    """A chain that fails leaves one dead letter and no effect; the next chain runs."""
    bench = Bench(
        rulebook(
            """
            chain: main
            on: {messages: uplink}
            nodes:
              - name: first
                send: {to: archive}
              - name: second
                set_attributes: {scope: server, values: {seen: true}}
              - name: third
                filter: telemetry.humidity > 3
            """,
            archive("other", "fine"),
        )
    )

    made = bench.take(record(uplink()))

    assert made.bodies == ["fine"]
    (letter,) = made.letters
    assert letter.stage == "route"
    assert letter.reason == "expression"
    assert letter.detail["chain"] == "main"
    assert letter.detail["node"] == "third"
    assert letter.detail["expression"] == "telemetry.humidity > 3"
    assert letter.value == msgspec.json.encode(uplink())
    assert bench.values("server") == {}
    reasons = bench.metrics.values("funicular_dead_letters_total")
    assert reasons == {(("reason", "expression"), ("stage", "route")): 1}


def test_failure_outlet_takes_the_message() -> None:
    """With `on_failure` the message goes on there, and says what failed."""
    bench = Bench(
        rulebook(
            """
            chain: main
            on: {messages: uplink}
            nodes:
              - name: shape
                filter: telemetry.humidity > 3
                then: stop
                on_failure: note
              - name: note
                log: {level: warning, message: "${device.name}: ${metadata.failure.reason}"}
            """
        )
    )

    made = bench.take(record(uplink()))

    assert list(made) == []
    (line,) = bench.lines
    assert (line.level, line.message, line.chain, line.node) == (
        "warning",
        "dev: expression",
        "main",
        "note",
    )


def test_failed_sub_chain_is_undone_in_its_caller() -> None:
    """What a sub-chain did before it failed is undone, and the caller's `on_failure` is taken."""
    bench = Bench(
        rulebook(
            """
            chain: main
            on: {messages: uplink}
            nodes:
              - name: sub
                chain: other
                on_failure: note
              - name: note
                send: {to: application, body: "${metadata.failure}"}
            """,
            """
            chain: other
            nodes:
              - name: keep
                set_attributes: {scope: server, values: {kept: true}}
              - name: archive
                send: {to: archive}
              - name: broken
                filter: telemetry.humidity > 3
            """,
        )
    )

    made = bench.take(record(uplink()))

    (body,) = made.bodies
    assert (body["node"], body["reason"]) == ("broken", "expression")
    assert bench.values("server") == {}


def test_dead_letter_of_a_sub_chain_names_both() -> None:
    """A replay needs the chain that ran; who mends it needs the one that failed."""
    bench = Bench(
        rulebook(
            """
            chain: main
            on: {messages: uplink}
            nodes:
              - {name: sub, chain: other}
            """,
            """
            chain: other
            nodes:
              - {name: broken, filter: telemetry.humidity > 3}
            """,
        )
    )

    (letter,) = bench.take(record(uplink())).letters

    assert letter.detail["chain"] == "main"
    assert letter.detail["sub_chain"] == "other"
    assert letter.detail["node"] == "broken"


def test_sub_chain_keeps_its_message_to_itself() -> None:
    """The caller goes on with its own message, and sees the attributes that were set."""
    bench = Bench(
        rulebook(
            """
            chain: main
            on: {messages: uplink}
            nodes:
              - {name: sub, chain: other}
              - name: archive
                send: {to: archive, body: ["${telemetry}", "${attributes.server.kept}"]}
            """,
            """
            chain: other
            nodes:
              - name: shape
                set: {fields: {telemetry.temperature: 0}}
              - name: keep
                set_attributes: {scope: server, values: {kept: "${telemetry.temperature}"}}
            """,
        )
    )

    made = bench.take(record(uplink()))

    assert made.bodies == [[{"temperature": 20.5, "battery": 90}, 0]]


@pytest.mark.parametrize("telemetry", [{}, {"temperature": 30.0}])
def test_window_is_last_and_once(telemetry: dict[str, float]) -> None:
    """A window follows all requests of its message, also where the chain failed."""
    bench = Bench(rulebook(THERMOSTAT))
    shared(bench, target=20.0, cooling=True)

    made = bench.take(record(uplink(telemetry=telemetry, window=WINDOW), **{REPLY_TO: REPLY}))

    assert [type(work).__name__ for work in made.work] == (
        ["RequestedDownlink", "ReplyWindow"] if telemetry else ["ReplyWindow"]
    )
    assert len(made.letters) == (0 if telemetry else 1)
    (window,) = made.windows
    assert window.window == WINDOW
    assert not window.repeated
    out = made.of(topics.DOWNLINK_REQUESTED)[-1]
    assert out.headers[REPLY_TO] == REPLY


def test_no_window_where_nobody_waits() -> None:
    """Without `reply_to` no window is opened."""
    bench = Bench(rulebook(archive("main", "1")))

    assert bench.take(record(uplink(window=WINDOW))).windows == []


def test_repeat_has_no_effect_but_its_window() -> None:
    """A request that the network server sends again does nothing, and opens its window."""
    bench = Bench(rulebook(archive("main", "1")))
    headers = {REPEAT_KEY: "k1", REPLY_TO: REPLY}
    bench.take(record(uplink(1, window=WINDOW), **headers))

    made = bench.take(record(uplink(2, window=WINDOW), **headers))

    assert made.deliveries == []
    (window,) = made.windows
    assert window.repeated
    assert window.window.key == "u1"


def test_repeat_after_the_window_is_a_new_message() -> None:
    """Past the dialect's window an equal key is another message."""
    bench = Bench(rulebook(archive("main", "1")))
    bench.take(record(uplink(1), **{REPEAT_KEY: "k1"}))

    again = bench.take(record(uplink(900), **{REPEAT_KEY: "k1"}))
    later = bench.take(record(uplink(902), **{REPEAT_KEY: "k1"}))

    assert (len(again.deliveries), len(later.deliveries)) == (0, 1)


def test_either_of_two_keys_makes_a_repeat() -> None:
    """What came live by its counter, and again by it, is known by the time of each when a storage
    tells it, and the other way round.
    """
    bench = Bench(rulebook(archive("main", "1")))

    def deliveries(number: int, **keys: str) -> int:
        return len(bench.take(record(uplink(number), **keys)).deliveries)

    assert deliveries(1, **{REPEAT_KEY: "counter 1", REPEAT_ALSO: "time 1"}) == 1
    assert deliveries(2, **{REPEAT_KEY: "counter 1", REPEAT_ALSO: "time 2"}) == 0
    assert deliveries(3, **{REPEAT_KEY: "time 1"}) == 0
    assert deliveries(4, **{REPEAT_KEY: "time 2"}) == 0

    assert deliveries(5, **{REPEAT_KEY: "time 3"}) == 1
    assert deliveries(6, **{REPEAT_KEY: "counter 2", REPEAT_ALSO: "time 3"}) == 0
    assert deliveries(7, **{REPEAT_KEY: "counter 2", REPEAT_ALSO: "time 4"}) == 0


def test_events_of_one_request_are_no_repeats() -> None:
    """Several events of one request share its key and trace, and all have their effects."""
    bench = Bench(rulebook(archive("main", "1")))
    first, second = uplink(1), uplink(1, id="u1.1")

    made = bench.take(record(first, **{REPEAT_KEY: "k1"}), record(second, **{REPEAT_KEY: "k1"}))

    assert len(made.deliveries) == 2


def test_no_rules_for_the_tenant() -> None:
    """Without rules a message is a dead letter, and its window is still opened."""
    bench = Bench(rulebook(archive("main", "1")))
    bench.books.clear()

    made = bench.take(record(uplink(window=WINDOW), **{REPLY_TO: REPLY}))

    assert [letter.reason for letter in made.letters] == ["no_rules"]
    assert len(made.windows) == 1
    assert bench.writes == []


@pytest.mark.parametrize(
    ("value", "reason"),
    [(b"{", "undecodable"), (None, "undecodable"), (b"[" * 100_000, "undecodable")],
)
def test_undecodable_record(value: bytes | None, reason: str) -> None:
    """What is no event is buried whole, and whoever waits for it is told."""
    bench = Bench(rulebook(archive("main", "1")))
    bad = Record(topics.DEVICE_EVENTS, 3, 9, START_MS, KEY, value, {REPLY_TO: REPLY})

    made = bench.take(bad, record(uplink()))

    (letter,) = made.letters
    assert (letter.reason, letter.value, letter.offset) == (reason, value, 9)
    (reply,) = made.replies
    assert (reply.request, reply.status) == ("r1", 400)
    assert len(made.deliveries) == 1


def test_event_under_a_foreign_key() -> None:
    """An event whose key is not its device would touch another's state: it is buried."""
    bench = Bench(rulebook(archive("main", "1")))
    stray = msgspec.structs.replace(record(uplink()), key="t/another")

    made = bench.take(stray)

    assert [letter.reason for letter in made.letters] == ["key"]
    assert bench.writes == []


def test_replay_runs_only_its_chain() -> None:
    """A replayed dead letter passes the repeat check, runs its chain alone, opens no window."""
    bench = Bench(rulebook(archive("main", "1"), archive("other", "2")))
    headers = {REPEAT_KEY: "k1", REPLY_TO: REPLY}
    bench.take(record(uplink(1, window=WINDOW), **headers))

    made = bench.take(
        record(uplink(1, window=WINDOW), **headers, **{REPLAY: "l1", REPLAY_CHAIN: "other"})
    )

    assert made.bodies == [2]
    assert made.windows == []


def test_replay_of_a_chain_that_is_gone() -> None:
    """A replay for a chain that is no longer there becomes a dead letter again."""
    bench = Bench(rulebook(archive("main", "1")))

    made = bench.take(record(uplink(), **{REPLAY: "l1", REPLAY_CHAIN: "other"}))

    assert [letter.reason for letter in made.letters] == ["chain_gone"]
    assert made.deliveries == []


def test_failed_message_about_a_change_can_be_replayed() -> None:
    """The dead letter of an `attributes_updated` message holds that message itself."""
    text = """
    chain: main
    on: {{messages: [uplink, attributes_updated]}}
    nodes:
      - name: which
        switch:
          - {{when: message.type == "uplink", to: keep}}
        otherwise: use
      - name: keep
        set_attributes: {{scope: server, values: {{kept: 1}}}}
        then: stop
      - name: use
        send: {{to: archive, body: "${{{expression}}}"}}
    """
    bench = Bench(rulebook(text.format(expression="attributes.server.missing")))
    (letter,) = bench.take(record(uplink())).letters
    bench.books["t"] = rulebook(text.format(expression="changed"), version="v2")

    replay = Record(
        letter.topic,
        3,
        10,
        START_MS,
        letter.key,
        letter.value,
        {**letter.headers, REPLAY: letter.id, REPLAY_CHAIN: letter.detail["chain"]},
    )
    made = bench.take(replay)

    assert made.bodies == [["kept"]]


def test_steps_are_capped() -> None:
    """A message that passes more nodes than the limit is a dead letter of code `steps`."""
    nodes = "\n".join(f"  - {{name: n{n}, log: {{message: x}}}}" for n in range(6))
    bench = Bench(
        rulebook(f"chain: main\non: {{messages: uplink}}\nnodes:\n{nodes}"),
        limits=Limits(steps_max=5),
    )

    (letter,) = bench.take(record(uplink())).letters

    assert (letter.reason, letter.detail["limit"], letter.detail["node"]) == ("steps", 5, "n4")
    assert bench.lines == []


def test_cascades_end() -> None:
    """A chain that changes an attribute whenever one changes is stopped at the named depth."""
    bench = Bench(
        rulebook(
            """
            chain: main
            on: {messages: [uplink, attributes_updated]}
            nodes:
              - name: count
                set_attributes:
                  scope: server
                  values: {n: "${has(attributes.server.n) ? attributes.server.n + 1 : 1}"}
            """
        )
    )

    made = bench.take(record(uplink()))

    (letter,) = made.letters
    assert letter.reason == "cascade"
    assert letter.detail["by"] == "main/count"
    assert bench.values("server") == {"n": 9}


def test_many_changes_of_one_record_end() -> None:
    """The number of messages that one record causes is capped, whatever their depth."""
    change = "set_attributes: {scope: server, values: {KEY: '${message.id}'}}"
    sets = "\n".join(f"  - {{name: s{n}, {change.replace('KEY', f'k{n}')}}}" for n in range(3))
    bench = Bench(
        rulebook(f"chain: main\non: {{messages: [uplink, attributes_updated]}}\nnodes:\n{sets}"),
        limits=Limits(cascade_messages_max=10),
    )

    made = bench.take(record(uplink()))

    (letter,) = made.letters
    assert letter.reason == "cascade"
    assert letter.detail["untold"] > 0


def test_node_counts() -> None:
    """Each outlet that was taken is counted by tenant, chain and node."""
    bench = Bench(rulebook(THERMOSTAT))
    shared(bench, target=20.0)

    bench.take(record(uplink(1)), record(uplink(2)))

    counts = bench.metrics.values("funicular_rule_nodes_total")
    labels = (("chain", "main"), ("node", "too warm"), ("outlet", "otherwise"), ("tenant", "t"))
    assert counts[labels] == 2


def test_log_lines_are_capped() -> None:
    """Lines over the limit are counted in one last line, and a long line is cut."""
    bench = Bench(
        rulebook(
            """
            chain: main
            on: {messages: uplink}
            nodes:
              - {name: note, log: {message: "${metadata.text}"}}
            """
        ),
        limits=Limits(log_lines_max=2, log_characters_max=3),
    )

    bench.take(*(record(uplink(n, metadata={"text": "abcdef"})) for n in range(1, 5)))

    assert [line.message for line in bench.lines] == [
        "abc…",
        "abc…",
        "2 more lines of `log` nodes were left out",
    ]


def test_rules_are_compiled_once_a_version() -> None:
    """A new rulebook takes effect with the next batch."""
    bench = Bench(rulebook(archive("main", "1")))
    bench.take(record(uplink(1)))
    bench.books["t"] = rulebook(archive("main", "2"), version="v2")

    made = bench.take(record(uplink(2)))

    assert made.bodies == [2]
    assert made[0].headers[RULES_VERSION] == "v2"


def test_output_too_large() -> None:
    """A body over the limit is the message's fault, not the log's."""
    bench = Bench(
        rulebook(archive("main", '"${metadata.text}"')), limits=Limits(output_bytes_max=500)
    )

    made = bench.take(record(uplink(metadata={"text": "x" * 600})))

    assert [letter.reason for letter in made.letters] == ["output_size"]
    assert made.deliveries == []
