"""What a script may use. Every limit is named here and can be set by the operator."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class ScriptLimits:
    """Limits of scripts and of the processes that run them.

    A call is stopped after `call_ms` of CPU time at the earliest and `call_ms + slice_ms` at the
    latest (in JavaScript, whose clock is read between calls). Code that the engine cannot stop
    (a Lua pattern, a native loop) is ended with its process after `call_ms * 3 + slice_ms`.
    """

    call_ms: int = 100  # what The Things Stack and ChirpStack allow
    memory_bytes: int = 64 << 20  # of one script's context
    stack_bytes: int = 512 << 10  # of JavaScript; far below the 8 MiB that a process has
    source_bytes_max: int = 512 << 10  # some codecs of the public corpora exceed 100 KiB
    result_bytes_max: int = 1 << 20  # of one call, as JSON; the door's limit for a body
    encoded_bytes_max: int = 255  # the longest LoRaWAN payload
    depth_max: int = 64  # levels of objects and arrays in a result
    message_max: int = 1_000  # characters of an error's message
    console_lines_max: int = 100  # that one call may say on its console, where somebody listens
    console_chars_max: int = 500  # of each
    string_rep_max: int = 1 << 20  # bytes that Lua's string.rep may make
    slice_ms: int = 25  # a child says how far it got at least this often
    slice_bytes_max: int = 1 << 20  # or when this much has come out
    request_bytes_max: int = 4 << 20  # arguments sent to a child at once; one call may exceed it
    # CPU time of one tenant's scripts in one batch; then `script_budget`. A batch's results leave
    # together: others wait for the batch before theirs and for their own.
    batch_ms_max: int = 2_000  # where no other tenant has calls in it
    batch_beside_ms_max: int = 500  # beside others
    batch_all_ms_max: int = 4_000  # of all tenants' in one batch, each with an equal share at least
    batch_wall_ms_max: int = 30_000  # likewise of one tenant, by the clock: the CPU may be others'
    # So many calls of one script in one batch may be stopped for time; then `script_budget`: a
    # script that loops holds the others up for a second, not for a call's time a message. Sigfox
    # waits ten seconds for an answer.
    overruns_max: int = 10
    # Results of one tenant's scripts in one batch, as JSON, several times that in memory; then
    # `script_budget`. The stages' batches have 4 MiB of input.
    batch_result_bytes_max: int = 32 << 20
    stall_ms: int = 10_000  # a child that says nothing for so long is ended
    start_ms: int = 30_000  # a child that is not ready by then is ended
    children_max: int = 32  # processes; the least recently used is ended
    contexts_max: int = 64  # scripts that a child keeps ready; the least recently used is dropped
    child_bytes_max: int = 512 << 20  # address space of a child, above what it starts with

    @property
    def hard_s(self) -> float:
        """After so much CPU time in one call the kernel ends the child."""
        return (self.call_ms * 3 + self.slice_ms) / 1000

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
