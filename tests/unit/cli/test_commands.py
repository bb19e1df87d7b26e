"""The commands: what they print, for people and for machines, and their exit codes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner, Result

from pipeline import __version__
from pipeline.cli import main

ROOT = Path(__file__).parents[3]
RULES = str(ROOT / "rules")


def run(*words: str) -> Result:
    return CliRunner().invoke(main, list(words))


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    folder = tmp_path / "rules"
    shutil.copytree(RULES, folder)
    meter = folder / "converters/acme/meter.yaml"
    meter.write_text(meter.read_text().replace("volume: 123456", "volume: 1"))
    return folder


def test_version_imports_little() -> None:
    """`--version` answers without loading what commands need: it must feel instant."""
    code = (
        "import sys; from pipeline.cli import main\n"
        "try: main(['--version'])\n"
        "finally: print(*sorted(n for n in sys.modules if n.split('.')[0] in"
        " {'pydantic','aiohttp','httpx','msgspec','structlog','rich'}))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert ended.stdout.split("\n")[:2] == [f"funicular {__version__}", ""]


@pytest.mark.parametrize("command", sorted(main.commands))
def test_help_shows_how(command: str) -> None:
    """Every command's help says what it does; those with arguments show examples."""
    said = run(command, "--help")

    assert said.exit_code == 0
    assert main.commands[command].help
    if any(p.param_type_name == "argument" for p in main.commands[command].params):
        assert "Example" in said.output


def test_check() -> None:
    """A right folder is fine, in words and as JSON."""
    assert "fine" in run("check", RULES).output
    assert orjson.loads(run("check", RULES, "--json").output)["tenant"] == "demo"


def test_check_says_faults_as_json(tmp_path: Path) -> None:
    """Faults are JSON lines for machines, and the exit code says whose mistake it is."""
    (tmp_path / "funicular.yaml").write_text("tenannt: x\n")
    said = run("check", str(tmp_path), "--json")

    assert said.exit_code == 2
    fault = orjson.loads(said.output.splitlines()[0])
    assert (fault["file"], fault["line"]) == ("funicular.yaml", 1)
    assert "tenant" in fault["suggestion"]


def test_examples_that_fail(broken: Path, tmp_path: Path) -> None:
    """A wrong example fails the run, with its place and the difference, in JUnit too."""
    junit = tmp_path / "out.xml"
    said = run("test", str(broken), "--junit", str(junit))

    assert said.exit_code == 1
    assert "converters/acme/meter.yaml" in said.output
    assert "123456" in said.output
    assert "<failure" in junit.read_text()


def test_examples_that_pass() -> None:
    """The example rules pass their own tests."""
    said = run("test", RULES)

    assert said.exit_code == 0, said.output
    assert "all passed" in said.output


def test_library_of_codecs(tmp_path: Path) -> None:
    """A folder in the layout of lorawan-devices runs as it stands, with a line a vendor."""
    shutil.copytree(Path(RULES) / "converters", tmp_path / "vendor")
    said = run("test", str(tmp_path / "vendor" / "acme"))

    assert "acme: " in said.output
    assert "passed" in said.output


def test_decode_and_encode() -> None:
    """A converter can be tried on one payload, both ways."""
    decoded = run("decode", "acme/thermostat", "010e5a01", "-r", RULES, "--json")
    encoded = run("encode", "acme/thermostat", '{"cooling": true, "target": 21.5}', "-r", RULES)

    assert orjson.loads(decoded.output)["temperature"] == 27
    assert encoded.output == "01 00 d7  (port 10)\n"


@pytest.mark.parametrize(
    ("words", "said", "code"),
    [
        (["decode", "acme/none", "00"], "no converter", 2),
        (["decode", "acme/thermostat", "zz"], "hexadecimal", 2),
        (["decode", "acme/thermostat", "00"], "thermostat.js", 1),
        (["encode", "acme/thermostat", "{"], "not JSON", 2),
        (["encode", "acme/thermostat", "[]"], "object", 2),
        (["send", "none", "d", "00"], "no integration", 2),
        (["run", "--port", "99999"], "not in the range", 2),
        (["send", "ttn-thermostats", "d", "00", "--to", "http://127.0.0.1:9"], "127.0.0.1:9", 2),
    ],
)
def test_mistakes_are_told(words: list[str], said: str, code: int) -> None:
    """A mistake is told in a sentence, without a trace, with the right exit code."""
    ended = run(*words, "-r", RULES)

    assert (ended.exit_code, said in ended.output, "Traceback" in ended.output) == (
        code,
        True,
        False,
    )


def test_keys(tmp_path: Path) -> None:
    """A key is shown once; the list has no secret; a revoked key is gone."""
    data = str(tmp_path)
    created = run("keys", "create", "demo", "-R", "read", "--note", "board", "--data", data)
    secret = created.stdout.strip()
    listed = run("keys", "list", "--data", data, "--json")
    key = orjson.loads(listed.output)

    assert secret.startswith("fk_")
    assert secret not in listed.output
    assert secret.rsplit("_", 1)[1] not in (tmp_path / "keys.json").read_text()
    assert (key["tenant"], key["note"]) == ("demo", "board")
    assert run("keys", "revoke", key["id"], "--data", data).exit_code == 0
    assert "revoked" in run("keys", "list", "--data", data).output
    assert run("keys", "revoke", "none", "--data", data).exit_code == 2


def test_coverage(tmp_path: Path) -> None:
    """`test` says how much of the chains was reached, lists the rest, and can insist on more."""
    junit = tmp_path / "out.xml"
    said = run("test", RULES, "--coverage", "--junit", str(junit), "--fail-under", "100")

    assert said.exit_code == 1
    assert "chains/meters.yaml:34 matters to the device → otherwise" in said.output
    assert "less than 100 %" in said.output.splitlines()[-1]
    assert '<property name="coverage.percent" value="' in junit.read_text()
    assert run("test", RULES, "--fail-under", "90").exit_code == 0
    last = orjson.loads(run("test", RULES, "--json").output.splitlines()[-1])
    assert (last["kind"], last["percent"] > 90) == ("coverage", True)


def test_explain() -> None:
    """A sample goes through the rules step by step, for people and for machines."""
    said = run("explain", "ttn-thermostats", "hall", "00fa5700", "--rules", RULES)

    assert said.exit_code == 0
    assert "telemetry.temperature (25) > metadata.target (22) + 1 → true" in said.output
    as_json = orjson.loads(
        run("explain", "sigfox-meters", "1A", "0001e24000fa0294", "-r", RULES, "--json").output
    )
    assert as_json["effects"]["downlinks"][0]["shown"]["state"] == "sent"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name an integration and a device, or --messages FILE, or --event ID"),
        (("ttn-thermostats",), "name the device, too"),
        (("ttn-thermostat", "a"), "did you mean"),
        (("ttn-thermostats", "a", "--given", "{"), "--given is not JSON"),
        (("ttn-thermostats", "a", "--given", '{"tim": 1}'), "--given: tim"),
        (("--event", "x", "--log", "nonsense"), "is no log"),
        (("--event", "x", "--data", "/nowhere"), "There is no log at /nowhere"),
    ],
)
def test_explain_slips(words: tuple[str, ...], said: str) -> None:
    """What cannot be explained is the user's mistake, and says what to do."""
    ended = run("explain", "--rules", RULES, *words)

    assert ended.exit_code == 2
    assert said in ended.output


MESSAGES = (
    '{"uplink": {"integration": "sigfox-meters", "device_id": "1A2B3C",'
    ' "bytes": "00 01 e2 40 00 fa 02 94"}}'
)


def test_diff(tmp_path: Path) -> None:
    """Two folders on the same messages: exit 0 where they do the same, 1 and why where not."""
    new, messages = tmp_path / "new", tmp_path / "messages.json"
    shutil.copytree(RULES, new)
    messages.write_text(MESSAGES)
    same = run("diff", RULES, str(new), "--messages", str(messages))
    chain = new / "chains/meters.yaml"
    chain.write_text(chain.read_text().replace("target + 5", "target + 9"))
    other = run("diff", RULES, str(new), "--messages", str(messages))
    as_json = run("diff", RULES, str(new), "--messages", str(messages), "--json")

    assert (same.exit_code, other.exit_code, as_json.exit_code) == (0, 1, 1)
    assert same.output.endswith("no difference\n")
    assert "downlinks: 1 gone" in other.output
    assert "start of both: nothing is known of any device" in other.output
    assert orjson.loads(as_json.output)["differs"] is True


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--data", "/nowhere"), "There is no log at /nowhere"),
        (("--since", "soon"), "`soon` is no time"),
        (("--messages", "-", "--start", "log"), "--messages has none"),
        (("--messages", "-"), "holds no message"),
    ],
)
def test_diff_slips(words: tuple[str, ...], said: str) -> None:
    """What cannot be compared is the user's mistake, and says what to do."""
    ended = run("diff", RULES, RULES, *words)

    assert ended.exit_code == 2
    assert said in ended.output


def test_graph(tmp_path: Path) -> None:
    """The format is that of the file's name, else Mermaid; JSON is for machines."""
    picture = tmp_path / "rules.svg"

    assert run("graph", "-r", RULES, "-o", str(picture)).exit_code == 0
    assert picture.read_text().startswith("<svg")
    assert run("graph", "meters", "-r", RULES).output.startswith("flowchart TD\n  subgraph")
    names = [each["name"] for each in orjson.loads(run("graph", "-r", RULES, "-f", "json").output)]
    assert names == ["overview", "meters", "thermostats", "trackers"]
    assert run("graph", "-r", RULES, "-o", str(tmp_path / "no/where.svg")).exit_code == 2
