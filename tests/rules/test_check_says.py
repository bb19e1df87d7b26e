"""What `funicular check` says: each kind of fault, with file, line, column and what was meant.

The folder is read as a user's is, with all that Funicular has (nodes, sinks, dialects).
"""

from __future__ import annotations

import inspect
from pathlib import Path

import orjson
import pytest
from click.testing import CliRunner

from pipeline.cli import main
from pipeline.errors import ConfigError
from pipeline.wiring import load_rules

SOUND = {
    "integrations/meters.yaml": "dialect: sigfox\nauthentication: open\nconverter: acme/meter\n",
    "converters/acme/meter.yaml": "codec: cayenne_lpp\n",
    "sinks/archive.yaml": "transport: file\npath: data/archive.jsonl\n",
    "chains/main.yaml": """
        chain: main
        on: {messages: uplink}
        nodes:
          - name: warm
            filter: telemetry.temperature > 30
          - name: archive
            send: {to: archive}
        """,
}
CHAIN = "chain: main\non: {messages: uplink}\nnodes:\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound folder, to be spoilt."""
    for file, text in SOUND.items():
        write(tmp_path, file, text)
    return tmp_path


def write(folder: Path, file: str, text: str) -> None:
    path = folder / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(inspect.cleandoc(text) + "\n")


def faults(folder: Path) -> list[str]:
    with pytest.raises(ConfigError) as raised:
        load_rules([folder], None, {})
    return [str(fault) for fault in raised.value.faults]


def warnings(folder: Path) -> list[str]:
    (book,) = load_rules([folder], None, {}).values()
    return [str(fault) for fault in book.warnings]


def test_sound(folder: Path) -> None:
    """The folder that the other tests spoil has nothing wrong."""
    assert warnings(folder) == []


@pytest.mark.parametrize(
    ("condition", "said"),
    [
        ("telemtry.x > 1", "13: unknown name `telemtry` (did you mean `telemetry`?)"),
        ("device.nam == 'x'", "20: `device` has no field `nam` (did you mean `name`?)"),
        ("has(message.fport)", "25: `message` has no field `fport` (did you mean `f_port`?)"),
        (
            'attributes["sharde"].x > 1',
            "23: `attributes` has no field `sharde` (did you mean `shared`?)",
        ),
        (
            "attributes.target > 1",
            "24: `attributes` has no field `target` (there are `client`, `server`, `shared`)",
        ),
        ("sise(telemetry.a) > 1", "13: there is no function sise() (did you mean `size`?)"),
        ("now", "13: gives a timestamp; it must be true or false (compare it with something)"),
        ("1 + 2", "13: gives an int; it must be true or false (compare it with something)"),
        ("device.name > 3", "25: string > int cannot work"),
        ("now - message.time > 60", "32: duration > int cannot work"),
        ("changed == 'target'", "21: list == string cannot work"),
        ("telemetry.a >", "26: the expression ends too early: expected a value"),
    ],
)
def test_expressions(folder: Path, condition: str, said: str) -> None:
    """An expression's fault stands at its column: names, fields, functions, types, syntax."""
    write(
        folder,
        "chains/main.yaml",
        CHAIN + f"  - name: a\n    filter: {condition}\n  - name: b\n    send: {{to: archive}}",
    )

    (found,) = faults(folder)
    assert found.startswith(f"chains/main.yaml:5:{said}"), found


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        (
            "  - {name: a, send: {to: archve}}",
            "4:22: there is no sink `archve` (did you mean `archive`?)",
        ),
        (
            "  - {name: a, chain: mian}",
            "4:15: there is no chain `mian` (did you mean `main`?)",
        ),
        (
            "  - {name: a, fitler: 'true'}",
            "4:15: unknown node `fitler` (did you mean `filter`?)",
        ),
        (
            "  - {name: a, send: {to: archive, boddy: 1}}",
            "4:35: unknown key `boddy` (did you mean `body`?)",
        ),
        (
            "  - {name: a, filter: 'true', otherwise: bb}\n  - {name: b, send: {to: archive}}",
            "4:31: there is no node `bb`",
        ),
        (
            "  - {name: a, send: {to: archive}}\n  - {name: a, send: {to: archive}}",
            "5:6: two nodes are called `a`: this and number 1",
        ),
        (
            "  - {name: a, send: {to: archive}, then: stop}\n  - {name: b, send: {to: archive}}",
            "5:6: no way leads to the node `b`",
        ),
        (
            "  - {name: a, send: {to: archive}}\n  - {name: b, delay: 1s, then: a}",
            "5:5: nodes go in a circle: `a` → `b` → `a`",
        ),
        ("  - {name: a, chain: main}", "4:15: chains run each other in a circle: `main` → `main`"),
        (
            "  - {name: a, raise_alarm: {type: hot, severity: '${now}'}}",
            "",
        ),
    ],
)
def test_nodes(folder: Path, nodes: str, said: str) -> None:
    """Names that are not there, nodes that nothing reaches, names that stand twice, circles."""
    write(folder, "chains/main.yaml", CHAIN + nodes)

    if said:
        assert any(each.startswith(f"chains/main.yaml:{said}") for each in faults(folder)), faults(
            folder
        )
    else:
        assert warnings(folder) == []


def test_integrations_and_converters(folder: Path) -> None:
    """A converter that is not there, and a dialect that is none."""
    write(
        folder, "integrations/a.yaml", "dialect: sgfox\nauthentication: open\nconverter: acme/met"
    )

    assert faults(folder) == [
        "integrations/a.yaml:1:10: there is no dialect `sgfox` (did you mean `sigfox`?)",
        "integrations/a.yaml:3:12: there is no converter `acme/met` (did you mean `acme/meter`?)",
    ]


def test_chain_tests(folder: Path) -> None:
    """What stands in a chain's tests is checked too, before anybody runs them."""
    write(
        folder,
        "chains/main_test.yaml",
        """
        given: {device: {name: a, integration: meter}}
        tests:
          - name: one
            when: [{uplnk: {}}]
            then: {deliveries: [{to: archve}]}
        """,
    )
    assert faults(folder) == [
        "chains/main_test.yaml:4:13: unknown key `uplnk` (did you mean `uplink`?)",
    ]

    text = (folder / "chains/main_test.yaml").read_text().replace("uplnk", "uplink")
    (folder / "chains/main_test.yaml").write_text(text)
    assert faults(folder) == [
        "chains/main_test.yaml:1:40: there is no integration `meter` (did you mean `meters`?)",
        "chains/main_test.yaml:5:30: there is no sink `archve` (did you mean `archive`?)",
    ]


def test_nodes_that_lead_nowhere(folder: Path) -> None:
    """A node that only sends messages on, and sends them nowhere, is warned of; it still runs."""
    write(folder, "chains/main.yaml", CHAIN + "  - {name: warm, filter: telemetry.t > 30}")

    (found,) = warnings(folder)
    assert found.startswith("chains/main.yaml:4:18: what leaves `warm` goes nowhere")


def test_outputs(folder: Path) -> None:
    """An output that a chain waits for in vain is warned of."""
    write(
        folder,
        "chains/main.yaml",
        """
        chain: main
        on: {messages: uplink}
        nodes:
          - name: judge
            chain: judge
            outputs: {hott: archive, cold: stop}
          - name: archive
            send: {to: archive}
        """,
    )
    judge = "nodes:\n  - {name: a, filter: telemetry.t > 30, otherwise: c}\n"
    judge += "  - {name: b, output: hot}\n  - {name: c, output: cold}\n"
    write(folder, "chains/judge.yaml", "chain: judge\n" + judge)

    assert warnings(folder) == [
        "chains/main.yaml:6:15: the chain `judge` never hands back `hott` (did you mean `hot`?)",
    ]


def run(*words: str) -> tuple[int, str]:
    ended = CliRunner().invoke(main, ["check", *words])
    return ended.exit_code, ended.output


def test_places_lead_to_the_file(folder: Path) -> None:
    """A fault's place begins with the folder, so that a terminal or an editor opens it."""
    write(folder, "sinks/archive.yaml", "transport: file\npaht: x")
    code, said = run(str(folder))

    assert code == 2
    assert f"{folder}/sinks/archive.yaml:2:1: unknown key `paht`" in said
    assert "2 faults" in said


def test_annotations_of_github(folder: Path) -> None:
    """`--github` says faults as a workflow's annotations."""
    write(folder, "sinks/archive.yaml", "transport: fiel")
    code, said = run("--github", str(folder))

    assert code == 2
    place = f"::error file={folder}/sinks/archive.yaml,line=1,col=12::"
    assert said == f"{place}there is no transport `fiel` (did you mean `file`?)\n"


def test_faults_of_several_folders(folder: Path, tmp_path: Path) -> None:
    """Of several folders each fault says which it is in; that two have one tenant is said too."""
    other = tmp_path / "other"
    write(other, "sinks/x.yaml", "transport: fiel")
    code, said = run("--json", str(folder), str(other))
    found = [orjson.loads(line) for line in said.splitlines()]

    assert code == 2
    assert (str(other), "sinks/x.yaml") in [(each["folder"], each["file"]) for each in found]


def test_strict(folder: Path) -> None:
    """Warnings are shown and pass; with `--strict` they fail."""
    write(folder, "chains/main.yaml", CHAIN + "  - {name: warm, filter: telemetry.t > 30}")

    code, said = run(str(folder))
    assert (code, "warning" in said, "1 warning;" in said) == (0, True, True)
    assert run("--strict", str(folder))[0] == 1
