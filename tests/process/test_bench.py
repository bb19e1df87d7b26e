"""`funicular bench` as a process, on the rules of the demo."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def bench(folder: Path, *options: str, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    ended = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", "bench", "--rules", str(ROOT / "rules"), *options],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **(env or {})},
        check=False,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.process
@pytest.mark.timeout(150)
def test_a_bench_handles_all_that_it_sends_and_calls_nobody(tmp_path: Path) -> None:
    """Every uplink of a rate is taken and handled, each to its sinks, its times stand in the
    result, and neither the network server nor the application of the rules is connected to.
    """
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        nobody.settimeout(0)
        address = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        env = {"FUNICULAR_DEMO_TTS": address, "FUNICULAR_DEMO_APPLICATION": address}

        code, out, errors = bench(tmp_path, "--rate", "100", "--seconds", "2", "--json", env=env)

        with pytest.raises(BlockingIOError):
            nobody.accept()

    assert code == 0, out + errors
    found = json.loads(out)
    assert found["uplinks"] == 200
    assert found["refused"] == found["dead_letters"] == {}
    assert found["drained"]
    assert found["deliveries"]["archive"] >= 100  # each uplink of thermostats and trackers
    assert found["downlinks"] > 0
    assert 0 <= found["door_to_sink_ms"]["p50"] <= found["door_to_sink_ms"]["max"]
    assert found["door_ms"]["p99"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.process
@pytest.mark.timeout(150)
def test_a_file_of_uplinks_takes_the_place_of_examples(tmp_path: Path) -> None:
    """Bytes that the converter refuses become dead letters, which the bench shows and fails by."""
    messages = tmp_path / "uplinks.json"
    messages.write_text('[{"uplink": {"integration": "ttn-thermostats", "bytes": "00"}}]')

    code, out, _ = bench(
        tmp_path, "--messages", str(messages), "--rate", "50", "--seconds", "1", "--plain"
    )

    assert code == 1
    assert "DEAD LETTERS" in out
    assert "convert: script_errors" in out
