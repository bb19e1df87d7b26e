"""How much one message, one device and one batch may ask of the rules; every limit has a name."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Over a limit a message becomes a dead letter, unless the limit's comment says otherwise."""

    steps_max: int = 1_000  # nodes that one message may pass in one chain, its sub-chains included
    chain_depth_max: int = 16  # chains within chains
    # Scripts that one message may wait for together with those of others; for the further ones of
    # its way each is run at once, since a turn that waits is taken again from its beginning.
    scripts_batched_max: int = 3
    hops_max: int = 4  # a device tells another, which tells another, which …
    told_max: int = 100  # devices that one record may tell
    relations_max: int = 1_000  # of one device, both ways together
    calls_max: int = 64  # of one device, by chains and applications, that wait for a reply
    call_open_ms: int = 7 * 86_400_000  # an application's persistent call without `expires_in`
    call_waiters_max: int = 16  # requests that wait for one call; of more, the oldest are let go
    calls_kept_max: int = 64  # an application's calls that have ended, of one device; …
    calls_kept_ms: int = 24 * 3_600_000  # … and how long they are kept
    call_answer_bytes_max: int = 16_384  # a longer reply goes to who waits, and is not kept
    cascade_depth_max: int = 8  # a change causes a message, which causes a change, which …
    cascade_messages_max: int = 64  # messages that one record may cause that way
    attributes_bytes_max: int = 262_144  # one scope of one device, as JSON
    node_state_bytes_max: int = 65_536  # what one node keeps of one device, as JSON
    timers_max: int = 1_000  # timers of one device's nodes
    alarms_max: int = 64  # types of one device's alarms; over it those cleared make room
    alarm_bytes_max: int = 16_384  # one alarm of one device, as JSON
    telemetry_keys_max: int = 256  # last values kept a device; over it only the newest message's
    # Repeat keys are kept in small parts of the state, since a part is written whole. Over
    # `seen_chunks_max` parts the oldest keys of a device are forgotten before their time.
    seen_keys_max: int = 32
    seen_chunks_max: int = 32
    output_bytes_max: int = 900_000  # one record; Kafka takes 1 MiB with its headers by default
    log_lines_max: int = 1_000  # of one batch; the rest are counted in one last line
    log_characters_max: int = 4_096  # of one line; the rest is cut off
