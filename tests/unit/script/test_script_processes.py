"""The parent's side: children that die, stall, talk nonsense or are too many."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from pipeline.errors import ClosedError, RetryableError, ScriptError
from pipeline.metrics import Registry
from pipeline.ports import Script, ScriptCall
from pipeline.script import ScriptLimits, ScriptProcesses, process
from pipeline.script.process import ChildLostError, Loss, ScriptProcess
from pipeline.script.tables import Part, part_of

ECHO = Script("echo.js", "javascript", "function decodeUplink(i) { return {data: {n: i.fPort}} }")
# A loop of the engine's own, which its clock does not reach: only the kernel's does.
STUCK = Script(
    "stuck.js",
    "javascript",
    "function decodeUplink(i) { if (i.fPort === 13) "
    "'a'.repeat(4e6).indexOf('a'.repeat(2e6) + 'b'); return {data: {n: i.fPort}} }",
)


def call(number: int = 1, script: Script = ECHO, tenant: str = "t") -> ScriptCall:
    return ScriptCall(tenant, script, "decode_uplink", {"bytes": "", "fPort": number})


def expected(number: int) -> dict[str, object]:
    return {"data": {"n": number}, "warnings": []}


@pytest.fixture
def metrics() -> Registry:
    return Registry()


@pytest.fixture
def scripts(metrics: Registry) -> Iterator[ScriptProcesses]:
    scripts = ScriptProcesses(ScriptLimits(call_ms=20, children_max=2), metrics)
    yield scripts
    scripts.close()


def children(scripts: ScriptProcesses) -> dict[str, int]:
    seats = scripts._seats._seats.items()
    return {key[0]: seat._process.pid for key, seat in seats if seat._process is not None}


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_child_that_is_expected_is_there_when_it_is_needed(scripts: ScriptProcesses) -> None:
    """It starts before the first call, which takes it; where checks had one before none starts. One
    that nobody took ends with the rest.
    """
    scripts.expect(["javascript", "lua"])
    first = scripts._seats._expected["javascript"].result(10)
    other = scripts._seats._expected["lua"].result(10)
    assert scripts.call([call()]) == [expected(1)]
    assert children(scripts) == {"t": first.pid}

    scripts.check(Script("some.lua", "lua", "x = 1"))
    scripts.expect(["lua"])
    assert children(scripts) == {"t": first.pid, "": other.pid}
    assert not scripts._seats._expected

    scripts.expect(["javascript"])
    unused = scripts._seats._expected["javascript"].result(10)
    assert is_running(unused.pid)
    scripts.close()
    assert not is_running(unused.pid)
    assert not is_running(first.pid)
    assert not is_running(other.pid)


def test_what_scripts_were_checked_in_ends_when_it_is_not_needed(scripts: ScriptProcesses) -> None:
    """Those that run converters stay; the next check starts another one."""
    lua = Script("some.lua", "lua", "x = 1")
    scripts.call([call()])
    scripts.check(lua)
    first = children(scripts)
    scripts.rest()
    assert children(scripts) == {"t": first["t"]}
    assert not is_running(first[""])
    assert scripts.check(lua) == (frozenset(), None)
    assert children(scripts)[""] != first[""]


def test_an_uninterruptible_call_is_lost_alone(scripts: ScriptProcesses, metrics: Registry) -> None:
    """Of 300 calls, two that only the end of their process stops are lost, and the rest run."""
    numbers = [13 if n in {50, 200} else n % 250 + 14 for n in range(300)]
    results = scripts.call([call(number, STUCK) for number in numbers])
    for number, result in zip(numbers, results, strict=True):
        if number == 13:
            assert isinstance(result, ScriptError)
            assert result.code == "script_time"
        else:
            assert result == expected(number)
    restarts = metrics.values("funicular_script_restarts_total")
    assert restarts == {(("reason", "time"),): 3}


class FakeSeat:
    """A seat and its child in one: `behave` yields lists of outcomes or raises ChildLostError."""

    def __init__(self, behave: Callable[[bool, list[int]], Iterator[list[Any]]]) -> None:
        self.behave = behave
        self.lost: list[str] = []
        self.frame_bytes = 0
        self.frame_cpu_s = 0.0
        self.requests: list[tuple[bool, list[int]]] = []

    @contextmanager
    def take(self, key: tuple[str, str]) -> Iterator[FakeSeat]:
        yield self

    def process(self) -> FakeSeat:
        return self

    def run(self, header: dict[str, Any], source: bytes, text: bytes) -> Iterator[Part]:
        numbers = [argument["fPort"] for argument in json.loads(text)]
        assert header["count"] == len(numbers)
        self.requests.append((header["careful"], numbers))
        for outcomes in self.behave(header["careful"], numbers):
            yield part_of(outcomes, len(numbers))

    def lose(self, lost: ChildLostError) -> None:
        self.lost.append(lost.reason)


def dying(
    number: int, reason: Loss, times: int
) -> Callable[[bool, list[int]], Iterator[list[Any]]]:
    """A child that dies at a call, so many times; when careful, it has answered those before."""
    left = times

    def behave(careful: bool, numbers: list[int]) -> Iterator[list[Any]]:
        nonlocal left
        at = numbers.index(number) if number in numbers and left else len(numbers)
        for answered in numbers[:at] if careful or at == len(numbers) else []:
            yield [{"value": answered}]
        if at < len(numbers):
            left -= 1
            raise ChildLostError(reason)

    return behave


def run_fake(seat: FakeSeat, *numbers: int, **limits: int) -> list[Any]:
    scripts = ScriptProcesses(ScriptLimits(**limits), Registry())
    scripts._seats = seat
    return scripts.call([call(number) for number in numbers])


@pytest.mark.parametrize(
    ("reason", "code", "requests"),
    [("time", "script_time", 3), ("crashed", "script_crashed", 3), ("killed", "script_crashed", 5)],
)
def test_only_the_call_that_kills_is_lost(reason: Loss, code: str, requests: int) -> None:
    """Where a call ends its process each time, it is found and lost alone; a kill, which may
    come from outside, is believed only when it comes again and again.
    """
    seat = FakeSeat(dying(7, reason, 99))
    results = run_fake(seat, 5, 6, 7, 8, 9)
    assert [results[n] for n in (0, 1, 3, 4)] == [5, 6, 8, 9]
    assert results[2].code == code
    assert seat.requests[0] == (False, [5, 6, 7, 8, 9])
    assert seat.requests[-1] == (True, [8, 9])
    assert len(seat.requests) == requests


def test_a_call_that_stands_alone_is_not_run_again() -> None:
    """A request of one call that ends its process needs no second proof."""
    seat = FakeSeat(dying(7, "time", 99))
    assert run_fake(seat, 7)[0].code == "script_time"
    assert len(seat.requests) == 1


@pytest.mark.parametrize("reason", ["killed", "stalled"])
def test_kills_from_outside_lose_nothing(reason: Loss) -> None:
    """A process that was killed or stopped twice costs no call."""
    seat = FakeSeat(dying(7, reason, 2))
    assert run_fake(seat, 6, 7, 8) == [6, 7, 8]
    assert seat.lost == [reason, reason]


@pytest.mark.parametrize(
    "outcome", [{"error": 1}, {"error": {}}, {"error": {"code": "made_up"}}, {"error": []}]
)
def test_outcomes_that_make_no_sense(outcome: dict[str, Any]) -> None:
    """An outcome that a sound child would not send is an error of its own call."""
    seat = FakeSeat(lambda careful, numbers: iter([[outcome], [{"value": 2}]]))
    first, second = run_fake(seat, 1, 2)
    assert first.code == "script_crashed"
    assert second == 2


def test_requests_have_a_size() -> None:
    """Arguments go in requests of a limited size, at least one call in each."""
    seat = FakeSeat(dying(0, "time", 0))
    assert run_fake(seat, *range(1, 8), request_bytes_max=50) == list(range(1, 8))
    sizes = [len(numbers) for _, numbers in seat.requests]
    assert sum(sizes) == 7
    assert set(sizes) <= {1, 2}
    seat = FakeSeat(dying(0, "time", 0))
    assert run_fake(seat, 1, 2, request_bytes_max=1) == [1, 2]
    assert len(seat.requests) == 2


@pytest.mark.parametrize("nonsense", [b"{}", b"[]", b"[1]", b'[{"value":1},{"value":2}]', b"\xff"])
def test_a_child_that_talks_nonsense_is_ended(
    scripts: ScriptProcesses, monkeypatch: pytest.MonkeyPatch, nonsense: bytes
) -> None:
    """What is no list of as many outcomes as were asked for ends the child, and the call."""
    read = ScriptProcess._read_frame

    def read_nonsense(self: ScriptProcess, until: float) -> bytes:
        frame = read(self, until)
        return frame if b'"ready"' in frame else nonsense

    monkeypatch.setattr(ScriptProcess, "_read_frame", read_nonsense)
    (result,) = scripts.call([call()])
    assert result.code == "script_crashed"
    monkeypatch.undo()
    assert scripts.call([call(5)]) == [expected(5)]


def test_a_frame_that_is_too_long(scripts: ScriptProcesses) -> None:
    """A child that announces more than it may send is ended before it is read."""
    scripts.call([call()])
    (seat,) = scripts._seats._seats.values()
    seat._process._frame_bytes_max = 5
    (result,) = scripts.call([call()])
    assert result.code == "script_crashed"


def test_a_child_that_says_nothing_is_ended(metrics: Registry) -> None:
    """A stopped child is ended and replaced, and no call is lost."""
    scripts = ScriptProcesses(ScriptLimits(stall_ms=150), metrics)
    scripts.call([call()])
    stopped = children(scripts)["t"]
    os.kill(stopped, signal.SIGSTOP)
    assert scripts.call([call(4)] * 3) == [expected(4)] * 3
    assert metrics.values("funicular_script_restarts_total") == {(("reason", "stalled"),): 1}
    assert not is_running(stopped)
    scripts.close()


def test_a_process_of_its_own_for_each_tenant(scripts: ScriptProcesses) -> None:
    """Tenants share no process; the least recently used one goes when there are too many."""
    scripts.call([call(tenant="a"), call(tenant="b")])
    first = children(scripts)
    assert len(set(first.values())) == 2
    scripts.call([call(tenant="a"), call(tenant="c")])
    second = children(scripts)
    assert second.keys() == {"a", "c"}
    assert second["a"] == first["a"]
    assert not is_running(first["b"])


def test_threads_get_their_own_results(scripts: ScriptProcesses) -> None:
    """Three threads may call at once, for more tenants than there may be processes."""
    results: dict[int, list[Any]] = {}

    def work(thread: int) -> None:
        calls = [call(thread * 60 + n, tenant=f"t{n % 3}") for n in range(60)]
        results[thread] = scripts.call(calls)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for n in range(3):
        assert results[n] == [expected(n * 60 + k) for k in range(60)]


def test_after_close(scripts: ScriptProcesses) -> None:
    """Closing ends all children; a later call is refused, and so is nothing lost."""
    scripts.call([call(tenant="a"), call(tenant="b")])
    pids = children(scripts).values()
    scripts.close()
    assert not any(map(is_running, pids))
    with pytest.raises(ClosedError):
        scripts.call([call()])
    scripts.close()


def test_close_during_a_call(scripts: ScriptProcesses) -> None:
    """A call that is at work when all is closed is given back as not done, soon."""
    scripts.call([call()])
    slow = Script("slow.js", "javascript", "function decodeUplink(i) { while (true) {} }")
    raised: list[type] = []

    def work() -> None:
        try:
            scripts.call([call(script=slow)] * 1000)
        except ClosedError as error:
            raised.append(type(error))

    thread = threading.Thread(target=work)
    thread.start()
    (seat,) = scripts._seats._seats.values()
    while not seat.is_taken:
        thread.join(0.001)
    scripts.close()
    thread.join(10)
    assert raised == [ClosedError]
    assert not seat.is_taken


def test_an_engine_that_does_not_start(
    scripts: ScriptProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that does not start is the machine's fault, to be tried again, with its words."""
    monkeypatch.setattr(process, "_MODULE", "pipeline.script.nowhere")
    with pytest.raises(RetryableError, match="No module named"):
        scripts.call([call()])
    monkeypatch.undo()
    assert scripts.call([call(3)]) == [expected(3)]


def test_nothing_of_ours_is_handed_to_a_child(
    scripts: ScriptProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child gets no variable of our environment and no open file, and runs in the root."""
    started: list[dict[str, Any]] = []
    popen = subprocess.Popen

    def record(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        started.append({"command": command, **options})
        return popen(command, **options)

    monkeypatch.setenv("SECRET", "s3cret")
    monkeypatch.setattr(subprocess, "Popen", record)
    scripts.call([call()])
    (options,) = started
    assert options["env"].keys() == {"PYTHONPATH", "TZ", "LC_ALL"}
    assert "s3cret" not in repr(options)
    assert options["cwd"] == "/"
    assert options["start_new_session"]
    assert "pass_fds" not in options
    assert options.get("close_fds", True)


PARENT = """
import os, signal, sys
from pipeline.metrics import Registry
from pipeline.ports import Script, ScriptCall
from pipeline.script import ScriptLimits, ScriptProcesses
scripts = ScriptProcesses(ScriptLimits(call_ms=60000), Registry())
script = Script("x", "javascript", "function decodeUplink(i) { while (i.fPort) {} return {} }")
scripts.call([ScriptCall("t", script, "decode_uplink", {"bytes": "", "fPort": 0})])
(seat,) = scripts._seats._seats.values()
os.write(1, str(seat._process.pid).encode())
if sys.argv[1] == "busy":
    signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    scripts.call([ScriptCall("t", script, "decode_uplink", {"bytes": "", "fPort": 1})])
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize("state", ["idle", "busy"])
def test_a_child_dies_with_its_parent(state: str) -> None:
    """When the parent is killed, its child ends too, also in the middle of a long call."""
    done = subprocess.run(
        [sys.executable, "-c", PARENT, state],
        check=False,
        capture_output=True,
        timeout=60,
        env={"PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    assert done.returncode == -signal.SIGKILL
    # The kernel has sent the child its end by now; it may still be on its way out.
    descriptor = os.pidfd_open(int(done.stdout)) if is_running(int(done.stdout)) else None
    if descriptor is not None:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        assert poll.poll(5000)
        os.close(descriptor)


def test_the_console_goes_to_its_listener() -> None:
    """What scripts say reaches who listens, with the script that said it, call by call."""
    heard: list[tuple[str, list[str]]] = []
    engines = ScriptProcesses(
        ScriptLimits(), Registry(), lambda script, lines: heard.append((script.path, list(lines)))
    )
    source = "function decodeUplink(i) { if (i.fPort) console.log(i.fPort); return {data: {}} }"
    script = Script("acme/x.js", "javascript", source)
    calls = [
        ScriptCall("t", script, "decode_uplink", {"bytes": "", "fPort": port}) for port in (1, 0, 2)
    ]
    assert engines.call(calls) == [{"data": {}, "warnings": []}] * 3
    assert heard == [("acme/x.js", ["1"]), ("acme/x.js", ["2"])]
    engines.close()


def test_buffer_within_the_walls() -> None:
    """A script that names Buffer gets it in a confined process too, which can open no file."""
    engines = ScriptProcesses(ScriptLimits(), Registry())
    source = "function decodeUplink(i) { return {data: {n: Buffer.from(i.bytes).readInt16BE()}} }"
    script = Script("acme/x.js", "javascript", source)
    call = ScriptCall("t", script, "decode_uplink", {"bytes": "//4=", "fPort": 1})
    assert engines.call([call]) == [{"data": {"n": -2}, "warnings": []}]
    engines.close()
