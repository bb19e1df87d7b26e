"""The simulated servers as a process."""

from __future__ import annotations

import socket
import subprocess
import sys
from urllib.request import urlopen

import pytest

from pipeline.demo.process import Demo
from pipeline.errors import RetryableError, UsageError


def test_process_starts_and_ends() -> None:
    """It says where it listens, gives `rules/` its environment, and is gone after the `with`."""
    with Demo(devices=3) as demo:
        process = demo._process
        assert process is not None
        with urlopen(demo.addresses.state) as answer:
            assert answer.status == 200
        assert demo.env == {
            "FUNICULAR_DEMO_TTS": f"{demo.addresses.url}/tts",
            "FUNICULAR_DEMO_APPLICATION": f"{demo.addresses.url}/messages",
        }
        demo.check()

    assert process.returncode is not None


def test_servers_end_when_nobody_holds_their_stdin() -> None:
    """When the process that started them dies, the servers end by themselves."""
    demo = Demo(devices=3)
    demo.start()
    process = demo._process
    assert process is not None
    assert process.stdin is not None
    demo.begin("http://127.0.0.1:9")

    process.stdin.close()

    assert process.wait(10) == 0
    with pytest.raises(RetryableError, match="exit code 0"):
        demo.check()
    demo.stop()


def test_start_says_why_it_failed() -> None:
    """Servers that cannot listen are an error with their own last words, not a wait."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(RetryableError, match=f"cannot listen on 127.0.0.1:{port}"):
            Demo(devices=3, port=port).start()


def test_fleets_that_cannot_be_are_refused() -> None:
    """Too few devices, or a rate of nothing, is the user's mistake, told before anything starts."""
    with pytest.raises(UsageError, match="from 3 to"):
        Demo(devices=2)
    with pytest.raises(UsageError, match="uplinks a second"):
        Demo(rate=0)
    with pytest.raises(UsageError, match="not started"):
        _ = Demo().addresses


def test_module_says_its_options() -> None:
    """The servers can be started by hand."""
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.demo.servers", "--help"],
        capture_output=True,
        text=True,
        check=True,
    )

    assert "--funicular" in ended.stdout
