"""What the stage keeps of a device: who it is, its attributes, its last values, repeat keys."""

from __future__ import annotations

import msgspec
import orjson
import pytest

from pipeline.errors import MessageError
from pipeline.ports import DeviceState
from pipeline.route import attributes
from pipeline.route.attributes import same
from pipeline.route.limits import Limits
from pipeline.route.repeats import ENTRY, find, is_repeat
from tests.unit.route.bench import KEY, START_MS, Bench, record, rulebook, uplink

LISTENS = """
chain: main
on: {messages: attributes_updated, device_type: thermostat}
nodes:
  - {name: warm, filter: telemetry.temperature > 20}
"""
QUIET = """
chain: main
on: {messages: uplink}
nodes:
  - {name: archive, send: {to: archive}}
"""
CLIENT = """
chain: main
on: {messages: [uplink, attributes_updated]}
nodes:
  - {name: archive, send: {to: archive, body: "${attributes.client}"}}
"""


def fresh() -> DeviceState:
    return DeviceState(lambda _key: {})


def change(
    state: DeviceState, time_ms: int, delete: tuple[str, ...] = (), **values: object
) -> object:
    return attributes.change(
        state, KEY, "client", values, delete=delete, time_ms=time_ms, bytes_max=1_000
    )


def test_device_part_is_written_once() -> None:
    """The part `device` is written when something in it changes, and not otherwise."""
    bench = Bench(rulebook(QUIET))
    bench.take(record(uplink(1)))
    known = bench.parts[KEY]["device"]

    bench.take(record(uplink(2)))

    assert bench.writes == []
    assert known["integration"] == "lora"
    assert known["type"] == "thermostat"
    assert known["first_seen_ms"] == START_MS + 1_000
    assert known["link"]["application_id"] == "app"


def test_what_a_message_does_not_say_stays() -> None:
    """A message without type, link or customer leaves them as they were."""
    bench = Bench(rulebook(QUIET))
    bench.take(record(uplink(1, customer="c", group="g", dev_eui="AA")))

    bench.take(record(uplink(2, device_type="", link=None, integration="sigfox")))

    known = bench.parts[KEY]["device"]
    assert known["integration"] == "sigfox"
    assert (known["type"], known["customer"], known["group"]) == ("thermostat", "c", "g")
    assert known["link"]["device_id"] == "dev"


def test_client_attributes_are_seen_at_once() -> None:
    """Attributes that a message brings are visible to its chains, and cause no further message."""
    bench = Bench(rulebook(CLIENT))

    made = bench.take(record(uplink(attributes={"version": "1.2"})))

    assert made.bodies == [{"version": "1.2"}]


def test_older_message_overwrites_nothing() -> None:
    """A value stays when a message of an older time says otherwise."""
    bench = Bench(rulebook(CLIENT))
    bench.take(record(uplink(5, attributes={"version": "2"})))

    bench.take(record(uplink(3, attributes={"version": "1", "new": True})))

    assert bench.values("client") == {"version": "2", "new": True}


@pytest.mark.parametrize(("told", "kept"), [("", 2), (", overwrite_newer: true", 1)])
def test_older_message_overwrites_where_told_so(told: str, kept: int) -> None:
    """A rule's value stays when an older message sets another, unless the rule says otherwise."""
    chain = f"""
chain: latest
on: {{messages: uplink}}
nodes:
  - name: keep
    set_attributes: {{scope: server, values: {{n: "${{telemetry.n}}"}}{told}}}
"""
    bench = Bench(rulebook(chain))
    bench.take(record(uplink(5, telemetry={"n": 2})))

    bench.take(record(uplink(3, telemetry={"n": 1})))

    assert bench.values("server") == {"n": kept}


def test_device_clock_ahead_locks_nothing() -> None:
    """A message from the future counts as of when it was received."""
    bench = Bench(rulebook(CLIENT))
    ahead = START_MS + 10**12
    bench.take(record(uplink(1, time_ms=ahead, attributes={"version": "1"})))

    bench.take(record(uplink(2, attributes={"version": "2"})))

    assert bench.values("client") == {"version": "2"}


def test_attributes_have_a_limit() -> None:
    """A message that would make a scope too large is a dead letter and changes nothing."""
    bench = Bench(rulebook(CLIENT), limits=Limits(attributes_bytes_max=100))

    made = bench.take(record(uplink(attributes={"text": "x" * 200})))

    assert [letter.reason for letter in made.letters] == ["attributes_limit"]
    assert made.deliveries == []
    assert bench.values("client") == {}


def test_unchanged_values_write_nothing() -> None:
    """Setting a value to what it is, or deleting what is not there, is no change."""
    state = fresh()
    change(state, 1, a=1, b=[1, {"x": 2}])

    again = change(state, 2, ("gone",), a=1.0, b=[1, {"x": 2}])

    assert again is None


def test_change_says_what_was_before() -> None:
    """A change has the keys, their new and their old values; deleted keys have no new one."""
    state = fresh()
    change(state, 1, a=1, b=2)

    result = change(state, 2, ("b",), a=5, c=3)

    assert isinstance(result, attributes.Change)
    assert result.changed == ("a", "c", "b")
    assert result.values == {"a": 5, "c": 3}
    assert result.previous == {"a": 1, "b": 2}


def test_last_attribute_takes_its_part_along() -> None:
    """A scope without values has no part in the state."""
    state = fresh()
    change(state, 1, a=1)

    change(state, 2, ("a",))

    assert state.get(KEY, "attributes/client") is None


@pytest.mark.parametrize(
    ("one", "other", "equal"),
    [
        (1, 1.0, True),
        (1, True, False),
        (0, False, False),
        ("a", "a", True),
        (None, None, True),
        (None, 0, False),
        ([1, True], [1, 1], False),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, True),
        ([], {}, False),
    ],
)
def test_same(one: object, other: object, equal: bool) -> None:
    """Values are compared as JSON: numbers by value, booleans are no numbers."""
    assert same(one, other) is equal
    assert same(other, one) is equal


def test_attributes_limit_is_the_message_s_fault() -> None:
    """Over the limit `change` raises and leaves the state as it was."""
    state = fresh()

    with pytest.raises(MessageError) as caught:
        change(state, 1, text="x" * 2_000)

    assert caught.value.code == "attributes_limit"
    assert state.changes == {}


@pytest.mark.parametrize("text", [CLIENT, LISTENS], ids=["attribute", "last value"])
def test_value_that_no_state_can_keep(text: str) -> None:
    """A number past 64 bits, or a value too deep, is the message's fault, not the engine's."""
    bench = Bench(rulebook(text))
    deep: object = 1
    for _ in range(300):
        deep = [deep]

    for number, value in enumerate((2**70, deep), 1):
        made = bench.take(record(uplink(number, attributes={"x": value}, telemetry={"y": value})))

        assert [letter.reason for letter in made.letters] == ["state"]
    orjson.dumps(bench.parts[KEY])


def test_last_values_are_kept_where_a_chain_asks() -> None:
    """The last telemetry is kept for devices whose changes of attributes meet a chain with
    telemetry in its expressions, and for no others.
    """
    asking, quiet = Bench(rulebook(LISTENS)), Bench(rulebook(QUIET))

    for bench in (asking, quiet):
        bench.take(record(uplink(1)))
    asking.take(record(uplink(3, telemetry={"temperature": 30})))
    asking.take(record(uplink(2, telemetry={"temperature": 1, "humidity": 5})))

    assert asking.parts[KEY]["telemetry"]["values"] == {
        "temperature": 30,
        "battery": 90,
        "humidity": 5,
    }
    assert "telemetry" not in quiet.parts[KEY]


def test_last_values_have_a_limit() -> None:
    """With more keys than the limit only the newest message's values are kept."""
    bench = Bench(rulebook(LISTENS), limits=Limits(telemetry_keys_max=2))
    bench.take(record(uplink(1)))

    bench.take(record(uplink(2, telemetry={"x": 1})))

    assert bench.parts[KEY]["telemetry"]["values"] == {"x": 1}


# The hashes of these two keys, `k573` and `k6065`, begin with the same 5 characters.
ALIKE = (573, 6065)


def seen(state: DeviceState, number: int, key: str = "", *, limits: Limits | None = None) -> bool:
    return is_repeat(
        state,
        KEY,
        key or f"k{number}",
        trace=f"t{number}",
        time_ms=START_MS + number * 1_000,
        window_ms=900_000,
        limits=limits or Limits(),
    )


def test_repeat_keys_stand_in_small_chunks() -> None:
    """Keys are known while the window lasts; chunks are small, and old ones are removed."""
    state = fresh()
    for number in range(2_000):
        assert not seen(state, number)

    chunks = dict(state.scan(KEY, "!seen/"))

    assert seen(state, 2_000, "k1999")
    assert seen(state, 2_000, "k1150")
    assert not seen(state, 2_000, "k1050")
    assert max(len(chunk) for chunk in chunks.values()) <= Limits().seen_keys_max * ENTRY
    assert len(chunks) <= 1 + 900 / Limits().seen_keys_max + 1


def test_repeat_chunks_are_capped() -> None:
    """A device with more messages than the limits keeps the newest keys."""
    state, limits = fresh(), Limits(seen_keys_max=4, seen_chunks_max=3)
    for number in range(100):
        seen(state, number, limits=limits)

    assert len(list(state.scan(KEY, "!seen/"))) == 3
    assert len(state.get(KEY, "seen/chunks")) == 3
    assert seen(state, 101, "k99", limits=limits)


def test_clock_that_goes_back_finds_repeats() -> None:
    """Records whose time goes back are still compared with those before them."""
    state = fresh()
    seen(state, 100)
    seen(state, 50)

    assert seen(state, 101, "k50")
    assert seen(state, 40, "k100")


def test_repeat_of_one_request_is_none() -> None:
    """Events of the request that brought a key share it, also once it stands in a chunk."""
    state, limits = fresh(), Limits(seen_keys_max=4)
    for number in range(10):
        seen(state, number, limits=limits)

    assert not seen(state, 2, "k2", limits=limits)
    assert not seen(state, 9, "k9", limits=limits)
    assert seen(state, 10, "k2", limits=limits)


def test_key_whose_window_is_over_counts_anew() -> None:
    """A key that comes again after its window is new, and from then on known again."""
    state, limits = fresh(), Limits(seen_keys_max=4)
    for number in range(6):
        seen(state, number, limits=limits)

    assert not seen(state, 902, "k1", limits=limits)
    assert seen(state, 903, "k1", limits=limits)


@pytest.mark.parametrize("number", [-(1 << 62), (1 << 62)])
def test_any_time_of_a_record_is_taken(number: int) -> None:
    """A foreign producer may give a record any time; the key is remembered all the same."""
    state = fresh()

    assert not seen(state, number)
    assert seen(state, number + 1, f"k{number}")


def test_chunks_are_loaded_for_what_may_be_in_them() -> None:
    """A new key loads no chunk; a repeat loads its own; one that begins alike is none."""
    stored: dict[str, object] = {}
    asked: list[str] = []

    def load_aside(_key: str, part: str) -> dict[str, object]:
        asked.append(part)
        return {part: stored[part]}

    def restarted() -> DeviceState:
        near = {part: value for part, value in stored.items() if part[0] != "!"}
        return DeviceState(lambda _key: dict(near), load_aside)

    state = fresh()
    for number in range(ALIKE[0], ALIKE[0] + 200):
        assert not seen(state, number)
    stored.update(state.scan(KEY))

    assert not seen(restarted(), ALIKE[0] + 201)
    assert asked == []
    assert seen(restarted(), ALIKE[0] + 201, f"k{ALIKE[0]}")
    assert len(asked) == 1
    assert not seen(restarted(), ALIKE[0] + 201, f"k{ALIKE[1]}")
    assert len(asked) == 2
    assert asked[0] == asked[1]


def test_keys_are_not_found_across_entries() -> None:
    """A key counts where an entry begins, not wherever its characters stand."""
    first, second = "A" * 16 + "B" * 16, "C" * 16 + "A" * 16

    assert find(second + first, first) == first
    assert find(first + second, first) == first
    assert find(second, first) == ""


def test_long_repeat_key_is_kept_short() -> None:
    """A key of any length takes a bounded part of the state."""
    state = fresh()
    seen(state, 1, "x" * 10_000)

    assert seen(state, 2, "x" * 10_000)
    assert not seen(state, 3, "x" * 9_999)
    assert len(msgspec.json.encode(list(state.scan(KEY)))) < 500


def test_keys_of_an_earlier_form_are_forgotten() -> None:
    """A log that an earlier program wrote has the keys in another form; the stage goes on."""
    stored = {"seen": {"keys": {"k1": [START_MS, "t"]}, "chunks": [7]}, "seen/7": {}, "other": 1}
    state = DeviceState(lambda _key: dict(stored))

    assert not seen(state, 1)
    assert seen(state, 2, "k1")
    assert [part for part, _ in state.scan(KEY)] == ["other", "seen"]


def test_chunks_go_when_all_their_windows_are_over() -> None:
    """A device that was heard often and is heard seldom now keeps one key."""
    state = fresh()
    for number in range(200):
        seen(state, number)
    assert len(list(state.scan(KEY, "!seen/"))) > 3

    assert not seen(state, 2_000)
    assert [part for part, _ in state.scan(KEY)] == ["seen"]
    assert len(state.get(KEY, "seen")) == ENTRY
